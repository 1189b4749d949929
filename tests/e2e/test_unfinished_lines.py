"""Text that is flushed before its line ends is seen soon, and its line once."""

from __future__ import annotations

import re

from tests.e2e import flows
from tests.e2e.installation import PROGRAMS, Installation
from tests.e2e.terminal import Terminal


def test_flushed_text_and_progress_are_drawn_on_a_terminal(squall: Installation) -> None:
    with Terminal(squall, "run", str(PROGRAMS / "progressing.py") + "::steps") as terminal:
        terminal.wait_said("waiting")
        early = terminal.said
        code = terminal.wait()

    assert code == 0, terminal.said
    assert " and done" not in early
    assert "waiting\r\x1b[2K\rwaiting and done\r\n" in terminal.said, terminal.said
    lines = [line.rpartition("\r\x1b[2K\r")[2] for line in terminal.said.split("\r\n")]
    assert [line for line in lines if "%" in line] == ["100%", "child 2%"], terminal.said


def test_elsewhere_each_line_is_shown_when_it_is_whole(squall: Installation) -> None:
    ended = squall.run("progressing.py::steps")
    mixed = squall.run("progressing.py::mixed")
    app_id = re.search(r"\((ap-\w+)\)", ended.err)

    assert ended.out.splitlines() == ["waiting and done", "100%", "child 2%"], ended
    assert sorted(mixed.out.splitlines()) == ["0000", "1111", "2222", "3333"], mixed
    assert app_id
    kept = flows.command_ok(squall, "app", "logs", app_id[1])
    assert kept.out.splitlines() == ["waiting and done", "100%", "child 2%"], kept


def test_flushed_text_is_not_lost_with_its_container(squall: Installation) -> None:
    ended = squall.run("progressing.py::crash")

    assert ended.code == 1, ended
    assert ended.out.splitlines() == ["about to crash"] * 3, ended
