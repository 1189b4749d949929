"""Fixtures of every suite: short data directories that are removed safely, and marks by folder."""

from __future__ import annotations

import gc
import os
import signal
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from squall.runtime.removal import mounts_below, remove_tree
from tests.leaks import RUN_MARK

# A busy machine is no fault of what is tested: speed is for `make bench`.
settings.register_profile("squall", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("squall")

MARK_OF_FOLDER = {"kernel": pytest.mark.kernel, "e2e": pytest.mark.e2e}


def pytest_configure() -> None:
    """Mark every process this run starts; parallel runs of one session share the mark."""
    os.environ.setdefault(RUN_MARK, os.urandom(6).hex())
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        # Begun in the background of a script: Ctrl-C would be ignored by all that is tested, too.
        signal.signal(signal.SIGINT, signal.default_int_handler)
    # The same of what was begun by `nohup`.
    signal.signal(signal.SIGHUP, signal.SIG_DFL)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """A test is `kernel` or `e2e` by the folder it is in."""
    here = Path(__file__).parent
    for item in items:
        folder = item.path.relative_to(here).parts[0] if item.path.is_relative_to(here) else ""
        if folder in MARK_OF_FOLDER:
            item.add_marker(MARK_OF_FOLDER[folder])


def pytest_collection_finish() -> None:
    """What the collection made stays to the end: the garbage collector need not look at it again for every test."""
    gc.collect()
    gc.freeze()


def remove_data_dir(path: Path) -> list[str]:
    """Remove a test's directory and return what was still mounted in it, unmounted now: a leak, if not empty."""
    mounted = mounts_below(str(path))
    for point in mounted:
        subprocess.run(["umount", "--lazy", point], check=False, capture_output=True, timeout=30)
    remove_tree(str(path))
    return mounted


@pytest.fixture
def make_data_dir() -> Iterator[Callable[[], Path]]:
    """Makes empty directories, each with a path of 16 characters: the sockets in it must stay below 108 bytes."""
    made: list[Path] = []

    def make() -> Path:
        made.append(Path(tempfile.mkdtemp(prefix="sq-", dir="/tmp")))
        return made[-1]

    yield make
    mounted = [point for path in made for point in remove_data_dir(path)]
    assert not mounted, f"still mounted at the end of the test: {mounted}"


@pytest.fixture
def data_dir(make_data_dir: Callable[[], Path]) -> Path:
    """One empty directory with a short path, removed at the end; the test fails if something is still mounted in it."""
    return make_data_dir()
