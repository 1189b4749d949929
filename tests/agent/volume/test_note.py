"""What has been in commits, as it is written down: line by line, and what of it is told after a crash."""

from __future__ import annotations

from pathlib import Path

import pytest

from squall.agent.volume import note as note_module
from squall.agent.volume.note import Note
from squall.agent.volume.upper import Fingerprint

ONE: Fingerprint = (1, 0o100644, 0, 0, 3, 7, 7)
TWO: Fingerprint = (2, 0o100644, 0, 0, 3, 7, 7)
DIRECTORY: Fingerprint = (3, 0o40755, 0, 0, 3, 7, 0, "from elsewhere")


def told(path: Path) -> tuple[dict[str, Fingerprint], int]:
    note = Note(path)
    return note.read(), note.count


def test_each_commit_is_a_line_with_what_it_changed(tmp_path: Path) -> None:
    path = tmp_path / "note.json"
    states: list[dict[str, Fingerprint]]
    note, states = Note(path), [{}, {"a": ONE, "b": ONE}, {"a": ONE, "d": DIRECTORY}, {"a": TWO, "\udcff": ONE}]
    assert told(path) == ({}, 0)
    for number in range(1, len(states)):
        note.keep(states[number - 1], states[number])
        assert told(path) == (states[number], number)
    assert [line.count("0") > 0 for line in path.read_text().splitlines()] == [True] * 3


def test_a_line_that_was_broken_off_is_as_if_it_was_not_there(tmp_path: Path) -> None:
    path = tmp_path / "note.json"
    note = Note(path)
    note.keep({}, {"a": ONE})
    note.keep({"a": ONE}, {"a": TWO})
    path.write_bytes(path.read_bytes()[:-5])
    after = Note(path)
    assert (after.read(), after.count) == ({"a": ONE}, 1)
    after.keep({"a": ONE}, {"a": TWO, "b": ONE})
    assert told(path) == ({"a": TWO, "b": ONE}, 2)


def test_it_does_not_grow_for_ever(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(note_module, "LINES_MAX", 3)
    path = tmp_path / "note.json"
    note, before = Note(path), dict[str, Fingerprint]()
    for number in range(10):
        after: dict[str, Fingerprint] = {"a": (number, *ONE[1:])}
        note.keep(before, after)
        before = after
        assert len(path.read_text().splitlines()) <= 3
    assert told(path) == (before, 10)


@pytest.mark.parametrize("text", ["", "{", "[]", '{"a": [1, 2]}', "null\n"])
def test_what_makes_no_sense_is_nothing(tmp_path: Path, text: str) -> None:
    path = tmp_path / "note.json"
    path.write_text(text)
    assert told(path) == ({}, 0)
