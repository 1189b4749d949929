"""`squall run -i`: the debugger of a container, and its questions, at the client's terminal."""

from __future__ import annotations

import time

import pytest

from tests.e2e import flows
from tests.e2e.installation import Installation
from tests.e2e.paths import OF_THE_MACHINES_KERNEL
from tests.e2e.terminal import Terminal


def test_breakpoint_in_a_container_is_debugged_here(squall: Installation) -> None:
    with Terminal(squall, "run", "-i", "stops.py::debug") as terminal:
        terminal.wait_said("(Pdb)")
        terminal.type("p x, y\r")
        terminal.wait_said("(41, 42)")
        terminal.type("where\r")
        terminal.wait_said("/root/stops.py")
        terminal.type("y = 100\r")
        terminal.type("c\r")

        assert terminal.wait() == 0
        assert "result 200" in terminal.said


@OF_THE_MACHINES_KERNEL
def test_ctrl_c_is_the_clients_again_after_the_debugger(squall: Installation) -> None:
    with Terminal(squall, "run", "-i", "stops.py::debug_and_wait") as terminal:
        terminal.wait_said("(Pdb)")
        terminal.type("\x03")  # raw: the debugger's, or nobody's
        terminal.type("p x\r")
        terminal.wait_said("41")
        terminal.type("c\r")
        terminal.wait_said("stops.py(23)")  # the second stop of the same input
        terminal.type("c\r")
        terminal.wait_said("waiting")
        time.sleep(0.3)  # the line comes by another way than the end of the debugger's session

        terminal.type("\x03")

        assert terminal.wait(15) == 130
        assert "App aborted." in terminal.said


@pytest.mark.parametrize(
    ("entrypoint", "question", "answer", "said"),
    [
        ("ask", "your name:", "Ada", "hello Ada"),
        # Last words are shown before the command ends,
        ("tell", "how many lines:", "20000", "line 19999 of 20000\r\nline 20000 of 20000\r\n"),
        # and before what they led to. Of more, the server holds a result back for a tenth of a second only.
        ("tell_and_say", "how many lines:", "200", "line 199 of 200\r\nline 200 of 200\r\nall told\r\n"),
    ],
)
def test_container_asks_at_the_terminal(
    squall: Installation, entrypoint: str, question: str, answer: str, said: str
) -> None:
    with Terminal(squall, "run", "-i", f"stops.py::{entrypoint}") as terminal:
        terminal.wait_said(question)
        terminal.type(f"{answer}\r")

        assert terminal.wait() == 0
        assert said in terminal.said


def test_entrypoint_keeps_the_terminal_until_a_container_asks(squall: Installation) -> None:
    with Terminal(squall, "run", "-i", "stops.py::local") as terminal:
        terminal.wait_said("here:")
        terminal.type("words\r")

        assert terminal.wait() == 0
        assert "typed words" in terminal.said


def test_breakpoint_without_a_terminal_says_how_to_get_one(session_installation: Installation) -> None:
    ended = flows.command(session_installation, "run", "stops.py::debug")

    assert ended.code == 1
    assert "squall run -i" in ended.err
