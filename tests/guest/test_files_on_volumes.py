"""What a template has open on volumes, in forks whose volumes come later than they do."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from squall.protocol.guest import ENV_CONTAINER_ID, ENV_TOKEN, GuestHello, GuestWaiting
from tests.guest.started_template import Start

pytestmark = pytest.mark.long

ON_A_VOLUME = """
import os
os.chdir({top!r} + "/in")
words = open("words", "rb", buffering=0)
words.read(2)
def seen():
    return words.read(), os.getcwd(), os.listdir(".")
"""


@pytest.mark.parametrize("is_parked", [False, True])
def test_files_and_directories_on_volumes_are_there_when_a_fork_begins(
    start: Start, tmp_path: Path, is_parked: bool
) -> None:
    top, hidden = tmp_path / "volume", tmp_path / "hidden"
    (top / "in").mkdir(parents=True)
    (top / "in" / "words").write_text("one two")
    one = start(ON_A_VOLUME.format(top=str(top)))
    one.ready("seen")
    # It knows by then where it is.
    one.template.fork().joined().close()
    top.rename(hidden)
    refused = one.template.fork()
    assert "No such file or directory" in refused.said()["error"]
    refused.close()

    fork = one.template.fork({"has_volumes": True}).joined()
    links = {os.readlink(f"/proc/{fork.pid}/fd/{name}") for name in os.listdir(f"/proc/{fork.pid}/fd")}
    assert not [link for link in links if "words" in link], "nothing leads to the template"
    if is_parked:
        fork.let_wait()
        one.agent.expect("GuestWaiting", GuestWaiting)
    hidden.rename(top)
    one.forks.append(fork)
    fork.begin("ct-1")
    one.agent.expect("GuestHello", GuestHello)
    one.say_boot("ct-1")

    assert one.call() == (b"e two", str(top / "in"), ["words"])


@pytest.mark.parametrize("becomes", ["another", "nothing"])
def test_a_fork_does_not_begin_with_another_file_on_a_volume_than_its_template_has_open(
    start: Start, tmp_path: Path, becomes: str
) -> None:
    top = tmp_path / "volume"
    (top / "in").mkdir(parents=True)
    (top / "in" / "words").write_text("one two")
    one = start(ON_A_VOLUME.format(top=str(top)))
    one.ready("seen")
    (top / "in" / "words").unlink()
    fork = one.template.fork({"has_volumes": True}).joined()

    if becomes == "another":
        (top / "in" / "words").write_text("one two three")
    fork.tell({ENV_CONTAINER_ID: "ct-1", ENV_TOKEN: "secret"})

    why = {"another": "it is another one here", "nothing": "No such file or directory"}[becomes]
    assert why in fork.said().get("error", "it has begun")
    fork.close()
