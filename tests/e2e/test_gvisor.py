"""Functions with `isolation="gvisor"`, from the client to their own kernel and back."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlsplit

import pytest

from squall import exception
from squall.runtime.checks.mirrors import find_debian_mirrors
from tests.e2e import flows
from tests.e2e.installation import Installation
from tests.e2e.paths import OF_TEMPLATES, OF_THE_MACHINES_KERNEL
from tests.kernel.executors import NEEDS_RUNSC

pytestmark = NEEDS_RUNSC

PRINTS = """
import squall

app = squall.App("prints")


@app.function(isolation="gvisor")
def f():
    print("out of a sandbox")


@app.local_entrypoint()
def main():
    f.remote()
"""


@pytest.fixture(scope="module")
def apart(session_installation: Installation) -> Iterator[Any]:
    """The module `programs/flows/apart.py`, its app running."""
    with flows.running(session_installation, "apart") as module:
        yield module


@OF_THE_MACHINES_KERNEL
def test_only_functions_that_ask_for_it_have_a_kernel_of_their_own(apart: Any) -> None:
    assert os.uname().release not in apart.kernel.remote()
    assert os.uname().release in apart.kernel_of_others.remote()


def test_generators_errors_and_maps_are_those_of_any_function(apart: Any) -> None:
    assert list(apart.count.remote_gen(5)) == [0, 1, 2, 3, 4]
    with pytest.raises(LookupError, match="not there"):
        apart.fail.remote()
    assert list(apart.square.map(range(50))) == [number * number for number in range(50)]
    assert apart.children.remote() == "0\n"


def test_what_it_prints_is_shown(session_installation: Installation, tmp_path: Any) -> None:
    (tmp_path / "prints.py").write_text(PRINTS)

    ended = flows.command_ok(session_installation, "run", "prints.py", cwd=tmp_path)

    assert "out of a sandbox\n" in ended.out


def test_time_and_memory_have_limits(apart: Any) -> None:
    with pytest.raises(exception.FunctionTimeoutError):
        apart.sleep.remote()
    assert apart.take_memory.remote(32) == 32 * 2**20
    with pytest.raises(exception.RemoteError, match="memory"):
        apart.take_memory.remote(300)


def test_files_are_written_to_the_containers_disk(apart: Any) -> None:
    assert apart.disk.remote(8) == 8 * 2**20


def test_network_is_that_of_any_container(apart: Any) -> None:
    assert apart.cut_off.remote() == ["lo"]
    mirror = urlsplit(next(iter(find_debian_mirrors()), ""))
    if mirror.scheme != "http" or not mirror.hostname:
        pytest.skip("needs a Debian mirror by http")
    assert apart.resolve.remote(mirror.hostname, mirror.port or 80)


def test_class_keeps_its_state_and_ends_in_order(apart: Any) -> None:
    counter = apart.Counter()

    assert [counter.add.remote(number) for number in (1, 2)] == [11, 13]


@OF_TEMPLATES
def test_containers_begin_from_what_was_saved_of_the_function(apart: Any) -> None:
    begun = [apart.restored.remote() for _ in range(3)]

    assert len({one["container"] for one in begun}) == 3
    assert len({one["pid"] for one in begun}) == 1, "so OpenSSL and others do not notice by it"
    for name in begun[0]["drawn"]:
        assert len({one["drawn"][name] for one in begun}) == 3, f"{name} draws the same numbers in two containers"
    assert len({one["loaded"] for one in begun}) == 1, "its module was loaded once"
    assert all(os.uname().release not in one["kernel"] for one in begun)


@OF_TEMPLATES
def test_hooks_before_the_snapshot_run_once_and_others_in_each_container(apart: Any) -> None:
    told = [apart.Loaded().told.remote() for _ in range(3)]

    assert [steps for steps, _ in told] == [["load", "begin"]] * 3
    assert len({loaded for _, loaded in told}) == 1
