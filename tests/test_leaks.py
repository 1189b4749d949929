"""The check for leaks sees what it must, and forgives what is on its way out."""

from __future__ import annotations

import contextlib
import functools
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.leaks import WATCHED_MARK, is_ours, main, new_since, none_left, none_left_by_suite, snapshot

SLEEP = [sys.executable, "-c", "import time; time.sleep(60)"]


def test_what_was_there_before_is_not_new() -> None:
    process = subprocess.Popen(SLEEP)
    try:
        before = snapshot()
        left = new_since(before, settle_s=0)
    finally:
        process.kill()
        process.wait()

    # Others run beside this one: about their things nothing can be said.
    assert any(f"process {process.pid} " in line for line in before)
    assert not any(f"process {process.pid} " in line for line in left)


def test_process_of_this_run_is_seen_until_it_ends() -> None:
    before = snapshot()
    process = subprocess.Popen(SLEEP)
    try:
        left = new_since(before, settle_s=0)
    finally:
        process.kill()
        process.wait()

    assert any(f"process {process.pid} " in line for line in left)
    assert not any(f"process {process.pid} " in line for line in new_since(before, settle_s=0))


def test_directory_left_behind_fails_with_its_name(data_dir: Path) -> None:
    before = snapshot()

    assert f"file {data_dir}" in before
    assert f"file {data_dir}" in new_since(frozenset(), settle_s=0)


def test_leak_inside_fails_at_the_end() -> None:
    process = None
    with pytest.raises(AssertionError, match=r"left behind:\n(.*\n)*  process \d+"):
        with none_left(settle_s=0):
            process = subprocess.Popen(SLEEP)
    assert process is not None

    process.kill()
    process.wait()


def test_suite_within_a_suite_leaves_the_looking_to_the_outer_one(
    monkeypatch: pytest.MonkeyPatch, data_dir: Path
) -> None:
    for name in ("PYTEST_XDIST_WORKER", WATCHED_MARK):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr("tests.leaks.none_left", functools.partial(none_left, settle_s=0))
    left = data_dir.with_name(f"{data_dir.name}-left")

    outer, inner = contextlib.ExitStack(), contextlib.ExitStack()
    outer.enter_context(none_left_by_suite())
    inner.enter_context(none_left_by_suite())
    left.mkdir()

    inner.close()
    try:
        with pytest.raises(AssertionError, match=f"file {left}"):
            outer.close()
    finally:
        left.rmdir()

    assert WATCHED_MARK not in os.environ


def test_command_that_leaves_something_fails(data_dir: Path, capfd: pytest.CaptureFixture[str]) -> None:
    left = data_dir.with_name(f"{data_dir.name}-left")
    run = [sys.executable, "-c"]
    try:
        made = main([*run, f"import os; os.mkdir({str(left)!r})"], settle_s=0)
    finally:
        left.rmdir()

    assert made == 1
    assert f"file {left}" in capfd.readouterr().err
    assert main([*run, "raise SystemExit(3)"], settle_s=0) == 3


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("/sys/fs/cgroup/squall/ct-1", True),
        ("sq3a-host", True),
        ("/tmp/sq-abc/run", True),
        ("/run/netns/squall-4", True),
        ("/var/lib/docker", False),
        ("eth0", False),
        ("/usr/share/mysql", False),
    ],
)
def test_our_names_are_told_from_others(name: str, expected: bool) -> None:
    assert is_ours(name) is expected
