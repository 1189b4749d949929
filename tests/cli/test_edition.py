"""What `squall serve` and its editions say to each other."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator

import pytest
from click.testing import CliRunner

from squall.cli import main
from squall.cli.edition import Line


@pytest.fixture
def lines() -> Iterator[tuple[Line, Line]]:
    here, there = socket.socketpair()
    with here, there:
        yield Line(here), Line(there)


def test_messages_come_in_order_and_whole(lines: tuple[Line, Line]) -> None:
    parent, child = lines
    # More than a socket takes at once.
    teller = threading.Thread(target=lambda: child.tell(changed=["x" * 500_000]))
    teller.start()

    assert parent.hear(5.0) == {"changed": ["x" * 500_000]}
    teller.join()
    child.tell(loaded={"name": "a"})
    child.tell(served={})
    assert [parent.hear(1.0), parent.hear(1.0)] == [{"loaded": {"name": "a"}}, {"served": {}}]


def test_silence_is_no_message(lines: tuple[Line, Line]) -> None:
    parent, _child = lines

    assert parent.hear(0.01) is None


def test_end_of_the_other_is_told(lines: tuple[Line, Line]) -> None:
    parent, child = lines
    child.tell(changed=["a"])
    child.end.close()

    assert parent.hear(1.0) == {"changed": ["a"]}
    with pytest.raises(EOFError):
        parent.hear(1.0)
    parent.tell(app_id="ap-1")


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["-"], "standard input cannot be served"),
        (["pkg/mod"], "write: squall serve -m pkg.mod"),
        (["pkg.mod"], "write: squall serve -m pkg.mod"),
        (["x.py", "--name", "a b"], "--name 'a b'"),
        (["x.py", "--timeout", "0"], "--timeout"),
    ],
)
def test_what_cannot_be_served_is_refused(
    arguments: list[str], text: str, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path_factory.mktemp("empty"))
    ended = CliRunner().invoke(main.squall, ["serve", *arguments])

    assert ended.exit_code == 2, ended.output
    assert text in ended.output
