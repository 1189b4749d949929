"""What a server refuses, told to people who know none of its methods."""

from __future__ import annotations

import pytest

from squall.exception import ConflictError
from squall.protocol.errors import CONFLICT, PlatformError
from squall.sdk._refusals import translate


@pytest.mark.parametrize(
    ("message", "said"),
    [
        ("LogRead: app 'x' has no function 'f'", "cannot read the logs: app 'x' has no function 'f'"),
        ("app x: is stopped", "app x: is stopped"),
        ("no colon at all", "no colon at all"),
    ],
)
def test_method_is_told_in_words(message: str, said: str) -> None:
    error = translate(PlatformError(CONFLICT, message))

    assert isinstance(error, ConflictError)
    assert str(error) == said
