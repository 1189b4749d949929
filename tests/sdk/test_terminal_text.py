"""What containers print does nothing to the terminal it is shown on."""

from __future__ import annotations

import io

import pytest

from squall.protocol.image import BuildEvent
from squall.protocol.log import LogEntry
from squall.sdk._output import PlainOutput
from squall.sdk._terminal_text import harmless


class Terminal(io.StringIO):
    """A terminal that remembers."""

    def isatty(self) -> bool:
        """Yes."""
        return True


@pytest.mark.parametrize(
    "text",
    ["plain", "", "tab\there", "a\rb", "grün ☃ 日本", "\x1b[31mred\x1b[0m", "\x1b[1;38;5;9mred\x1b[0m", "50%\x1b[K"],
)
def test_text_colours_and_erasing_stay(text: str) -> None:
    assert harmless(text).removesuffix("\x1b[0m") == text.removesuffix("\x1b[0m")


@pytest.mark.parametrize(
    "sequence",
    [
        "\x1b]0;a title\x07",
        "\x1b]52;c;aGVsbG8=\x1b\\",
        "\x1b]8;;http://example.com\x1b\\",
        "\x1b]52;c;unended",
        "\x1bP$q\x1b\\",
        "\x1b_anything\x1b\\",
        "\x1b[2J",
        "\x1b[5A",
        "\x1b[6n",
        "\x1b[?1049h",
        "\x1b[c",
        "\x1b[",
        "\x1bc",
        "\x1b(0",
        "\x1b",
        "\x9b2J",
        "\x9d0;a title\x9c",
        "\x07",
        "\x08",
        "\x0e",
        "\x7f",
        "\x00",
    ],
)
def test_what_a_terminal_would_obey_is_left_out(sequence: str) -> None:
    assert harmless(f"before{sequence}") == "before"


def test_two_that_make_one_when_something_is_left_out_are_left_out() -> None:
    assert "\x1b" not in harmless("\x1b\x00]0;title\x07").replace("\x1b[0m", "")


def test_a_colour_ends_with_its_line() -> None:
    assert harmless("\x1b[31mred") == "\x1b[31mred\x1b[0m"


def test_output_is_harmless_on_a_terminal_and_unchanged_in_a_pipe() -> None:
    terminal, pipe = Terminal(), io.StringIO()
    entry = LogEntry(0.0, "stdout", "\x1b]0;title\x07\x1b[32mgreen\x1b[0m")

    for stream in (terminal, pipe):
        PlainOutput(stream, stream).log(entry)
        PlainOutput(stream, stream).build_event("im-1", BuildEvent("line", 1, 1, "\x1b]0;title\x07built"))

    assert "title" not in terminal.getvalue()
    assert "\x1b[32mgreen\x1b[0m" in terminal.getvalue()
    assert "built" in terminal.getvalue()
    assert entry.text in pipe.getvalue()
