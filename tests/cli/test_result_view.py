"""What of a result a person is shown."""

from __future__ import annotations

from typing import Any

import pytest

from squall.cli.result_view import CHARS_MAX, cut, show


@pytest.mark.parametrize("value", [49, "text", b"bytes", [1, 2], {"a": 1}, "x" * CHARS_MAX])
def test_small_values_are_whole(value: Any) -> None:
    assert cut(value) == (str(value), False)


@pytest.mark.parametrize(
    "value",
    ["x" * 1_000_000, b"x" * 1_000_000, list(range(1_000_000)), ("x",) * 1_000_000, {"a": "x" * 20_000}],
)
def test_large_values_are_cut(value: Any) -> None:
    text, is_cut = cut(value)

    assert is_cut
    assert len(text) == CHARS_MAX
    assert str(value).startswith(text)


def test_what_reads_a_pipe_gets_all(capsys: pytest.CaptureFixture[str]) -> None:
    show("x" * 1_000_000 + "\x1b]0;title\x07")

    shown = capsys.readouterr()
    assert shown.out == "x" * 1_000_000 + "\x1b]0;title\x07\n"
    assert shown.err == ""
