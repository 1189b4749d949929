"""Patterns of files to leave out."""

from __future__ import annotations

from pathlib import Path

import pytest

from squall.exception import InvalidError
from squall.sdk._ignore import as_predicate


@pytest.mark.parametrize(
    ("patterns", "ignored", "kept"),
    [
        (["*.log"], ["a.log"], ["a/b.log", "a.logs", "log"]),
        (["**/*.log"], ["a.log", "a/b.log", "a/b/c.log"], ["a.txt"]),
        (["build"], ["build", "build/x", "build/x/y"], ["src/build", "builds"]),
        (["/build/"], ["build/x"], ["src/build"]),
        (["a/**"], ["a/b", "a/b/c"], ["b/a"]),
        (["a/**/z"], ["a/z", "a/b/z", "a/b/c/z/x"], ["a/zz"]),
        (["?at"], ["cat", "bat/x"], ["at", "chat"]),
        (["[a-c].py"], ["a.py"], ["d.py"]),
        (["[!a-c].py"], ["d.py"], ["a.py"]),
        (["*", "!keep.py"], ["a", "b/c"], ["keep.py"]),
        (["*", "!keep"], ["a"], ["keep/x/y"]),
        (["data", "!data/small", "data/small/not"], ["data/x", "data/small/not"], ["data/small/yes"]),
        (["# comment", "", "a"], ["a"], ["# comment"]),
        ([r"\*"], ["*"], ["a"]),
        ([], [], ["anything"]),
    ],
)
def test_patterns_decide_as_dockerignore_does(patterns: list[str], ignored: list[str], kept: list[str]) -> None:
    is_ignored = as_predicate(patterns)

    assert [path for path in ignored if not is_ignored(Path(path))] == []
    assert [path for path in kept if is_ignored(Path(path))] == []


def test_a_predicate_stays_itself() -> None:
    def is_large(path: Path) -> bool:
        return path.suffix == ".bin"

    assert as_predicate(is_large) is is_large


def test_a_single_string_is_refused() -> None:
    with pytest.raises(InvalidError, match="list of patterns"):
        as_predicate("*.log")
