"""What becomes of results."""

from __future__ import annotations

import pytest

from squall.exception import InvalidError
from squall.guest.values import Values
from squall.sdk import _pieces


def test_result_that_is_too_large_is_refused_before_anything_is_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_pieces, "VALUE_BYTES_MAX", 3 * 2**20)
    stored: list[int] = []

    def put(pieces: list[bytes]) -> str:
        stored.append(_pieces.size_of(pieces))
        return "ab" * 32

    values = Values(lambda sha256: [], put)

    kept = values.result(bytes(2 * 2**20))
    with pytest.raises(InvalidError, match=r"the function's result has 0\.0 GiB, and a value may have 0\.0"):
        values.result([bytes(2 * 2**20), bytes(2 * 2**20)])

    assert kept == (b"", "ab" * 32)
    assert len(stored) == 1
