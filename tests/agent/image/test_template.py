"""Variables of the image in texts of steps."""

from __future__ import annotations

import pytest

from squall.agent.image.template import expand

ENV = {"HOME": "/root", "EMPTY": "", "PATH": "/bin"}


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("plain", "plain"),
        ("${HOME}/x", "/root/x"),
        ("${NONE}", ""),
        ("$$HOME ${HOME}$$", "$HOME /root$"),
        ("${NONE:-/opt}/x", "/opt/x"),
        ("${EMPTY:-/opt} ${EMPTY-/opt}", "/opt "),
        ("${NONE-/opt}", "/opt"),
        ("${HOME:+set} ${EMPTY:+set} ${EMPTY+set} ${NONE+set}", "set  set "),
        ("/cuda${PATH:+:${PATH}}", "/cuda:/bin"),
        ("/cuda${NONE:+:${NONE}}", "/cuda"),
        ("${NONE:-${EMPTY:-a${HOME}b}}c", "a/rootbc"),
        ("${NONE:-$$}}", "$}"),
        ("a}b", "a}b"),
        ("${HOME:-x", "${HOME:-x"),
        ("$HOME ${HOME#x}", "$HOME ${HOME#x}"),
        ("${1}", "${1}"),
    ],
)
def test_variables_are_filled_in_as_a_shell_does(text: str, value: str) -> None:
    assert expand(text, ENV) == value


def test_no_text_takes_long() -> None:
    text = "${A:-" * 100_000

    assert expand(text, {}) == text
