"""A mutation: one behaviour taken out of a copy of the program, and the tests that must notice."""

from __future__ import annotations

import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Change:
    """A piece of a file that is replaced."""

    file: str
    """Below the top of the checkout."""
    old: str
    """Found exactly once in the file."""
    new: str


@dataclass(frozen=True, slots=True)
class Mutation:
    """One behaviour removed."""

    name: str
    """For the command line."""
    fault: str
    """What it is about, as the list of faults says it."""
    removed: str
    """The behaviour that is gone."""
    changes: tuple[Change, ...]
    fails: Mapping[str, str]
    """Ids of tests that must fail, each with the piece of test code that must be what fails: an assertion about the
    behaviour and not just anything."""


def copy_tracked(source: Path, target: Path) -> None:
    """Copy what git tracks, as it is now, committed or not; without git all but hidden folders and bytecode."""
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=source, capture_output=True, timeout=30, check=True).stdout
    target.mkdir(parents=True)
    packed = subprocess.Popen(
        ["tar", "--null", "--ignore-failed-read", "--files-from=-", "-cf", "-"],
        cwd=source,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    )
    unpacked = subprocess.Popen(["tar", "-xf", "-"], cwd=target, stdin=packed.stdout)
    assert packed.stdin is not None
    packed.stdin.write(listed)
    packed.stdin.close()
    packed.wait(60)
    if unpacked.wait(60) != 0:
        raise RuntimeError(f"cannot copy {source} to {target}")


def check(mutation: Mutation, top: Path) -> None:
    """Raises ValueError unless each file has the old text exactly once."""
    for change in mutation.changes:
        count = (top / change.file).read_text(encoding="utf-8").count(change.old)
        if count != 1:
            raise ValueError(f"mutation {mutation.name}: {change.file} has the text to replace {count} times, not once")


def apply(mutation: Mutation, top: Path) -> None:
    """Change the files of a copy.

    Raises:
        ValueError: a file has not exactly one piece of the old text.
    """
    check(mutation, top)
    for change in mutation.changes:
        path = top / change.file
        path.write_text(path.read_text(encoding="utf-8").replace(change.old, change.new), encoding="utf-8")
