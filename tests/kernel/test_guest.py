"""The guest in containers, by the Pythons of Debian: every test of the guest as a process, once more.

tests/guest runs them by the Pythons of this machine. A container differs from these by its Python's build, by the
library with its bytecode, and by what may be done in it.
"""

from __future__ import annotations

import inspect
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from squall.protocol.guest import TEMPLATE_FUNCTION
from squall.runtime.criu.tool import find_tool
from squall.runtime.spec import GVISOR, NAMESPACES
from tests.conftest import remove_data_dir
from tests.guest import test_async_runner, test_batch, test_children, test_process, test_thread_runner
from tests.guest.started_guest import Process
from tests.kernel.debian import debian_with
from tests.kernel.executors import NEEDS_RUNSC
from tests.kernel.guests import GuestStarter
from tests.kernel.rootfs import missing

# Making a base that no session has kept takes its time.
pytestmark = pytest.mark.timeout(300)


@pytest.fixture(
    scope="module",
    params=[
        pytest.param(("3.11", "", NAMESPACES, False), id="3.11"),
        pytest.param(("3.13", "", NAMESPACES, False), id="3.13"),
        pytest.param(("3.13", TEMPLATE_FUNCTION, NAMESPACES, False), id="3.13-fork"),
        pytest.param(("3.13", TEMPLATE_FUNCTION, NAMESPACES, True), id="3.13-saved", marks=pytest.mark.slow),
        pytest.param(("3.13", "", GVISOR, False), id="3.13-gvisor", marks=[NEEDS_RUNSC, pytest.mark.slow]),
        pytest.param(
            ("3.13", TEMPLATE_FUNCTION, GVISOR, False), id="3.13-restore", marks=[NEEDS_RUNSC, pytest.mark.slow]
        ),
    ],
)
def starter(request: pytest.FixtureRequest) -> Iterator[GuestStarter]:
    """Starts guests by this Python of Debian's; some by forks or snapshots of templates of the function."""
    if missing():
        pytest.skip(missing())
    directory = Path(tempfile.mkdtemp(prefix="sq-", dir="/tmp"))
    try:
        python, stage, isolation, is_saved = request.param
        if is_saved and find_tool() is None:
            pytest.skip("missing: CRIU (make criu)")
        started = GuestStarter(directory, debian_with(python, directory), stage, isolation, is_saved=is_saved)
        yield started
        started.close()
    finally:
        mounted = remove_data_dir(directory)
    assert not mounted, f"still mounted at the end: {mounted}"


NOT_UNDER_GVISOR = {
    "test_forked_children_take_signals_as_anywhere": "a sleep goes on after a signal whose handler restarts calls; see "
    "signal(7), where none does",
}


@pytest.fixture
def guest(starter: GuestStarter, data_dir: Path, request: pytest.FixtureRequest) -> Iterator[Process]:
    """Takes the place of the fixture that starts a process."""
    reason = NOT_UNDER_GVISOR.get(request.function.__name__)
    if starter.isolation == GVISOR and reason:
        pytest.skip(f"not under gVisor: {reason}")
    modules = {
        **test_process.MODULES,
        "async_code.py": test_async_runner.CODE,
        "batch_code.py": test_batch.CODE,
        "forking_code.py": test_children.CODE,
        "thread_code.py": test_thread_runner.CODE,
    }
    process = Process(data_dir, starter, modules)
    yield process
    process.close()


# Every test there that asks for `guest`; the others do not start one.
globals().update(
    {
        name: test
        for module in (test_process, test_children, test_async_runner, test_batch, test_thread_runner)
        for name, test in vars(module).items()
        if name.startswith("test_") and "guest" in inspect.signature(test).parameters
    }
)
