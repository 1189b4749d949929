"""What the parameters of a function change in its containers."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from squall import exception
from tests.e2e import flows
from tests.e2e.installation import Installation, wait_until
from tests.e2e.paths import OF_THE_MACHINES_KERNEL


@pytest.fixture(scope="module")
def options(session_installation: Installation) -> Iterator[Any]:
    """The module `programs/flows/options.py`, its app running."""
    with flows.running(session_installation, "options") as module:
        yield module


def test_variables_of_function_win_over_those_of_image(options: Any) -> None:
    found = options.variables.remote()

    assert found.pop("SQUALL_CONTAINER_ID").startswith("ct-")
    assert found == {"FROM_IMAGE": "image", "FROM_FUNCTION": "function", "BOTH": "function", "SQUALL_IS_REMOTE": "1"}


def test_image_says_where_containers_start(options: Any) -> None:
    assert options.directory.remote() == "/srv/here"


def test_module_of_the_user_may_be_called_like_one_of_ours(session_installation: Installation, tmp_path: Path) -> None:
    for name in ("runner", "values", "link"):
        (tmp_path / f"{name}.py").write_text(
            f"import squall\napp = squall.App({name!r})\n@app.function()\ndef f():\n    print(__file__)\n"
        )

        ended = flows.command_ok(session_installation, "run", f"{name}.py", cwd=tmp_path)

        assert ended.out == f"/root/{name}.py\n"


@OF_THE_MACHINES_KERNEL
def test_limits_are_set_on_the_containers_group(session_installation: Installation, options: Any) -> None:
    threads, container_id = options.limits.remote()

    assert threads == "1"
    found = {}
    group = session_installation.group_of(container_id)
    for path in Path("/sys/fs/cgroup").rglob(f"*{group}*/*"):
        if re.fullmatch(r"memory\.max|memory\.limit_in_bytes|cpu\.max|cpu\.cfs_quota_us|pids\.max", path.name):
            found[path.name] = path.read_text().split()[0]
    assert found.get("memory.max", found.get("memory.limit_in_bytes")) == str(256 * 2**20)
    assert found.get("cpu.max", found.get("cpu.cfs_quota_us")) == "150000"
    assert 0 < int(found["pids.max"]) <= 10_000


def test_memory_up_to_the_limit_can_be_used_and_no_more(options: Any) -> None:
    assert options.take_memory.remote(64) == 64 * 2**20
    with pytest.raises(exception.RemoteError, match="memory"):
        options.take_memory.remote(300)


@OF_THE_MACHINES_KERNEL
def test_container_that_cannot_start_for_want_of_memory_says_which_option_gives_more(options: Any) -> None:
    with pytest.raises(exception.RemoteError, match=r"went over its memory limit.*memory="):
        options.far_too_little_memory.remote()


@OF_THE_MACHINES_KERNEL
def test_processor_time_is_limited_where_a_limit_was_asked_for_and_only_there(options: Any) -> None:
    # Not above it; how much of it there is depends on what else the machine does.
    assert options.throttled.remote(3.0) <= 1.0
    wait_until(lambda: options.free_running.remote(1.0) > 0.35, "a container without a limit gets more", 60)


def test_disk_up_to_the_limit_can_be_used_and_no_more(options: Any) -> None:
    assert options.write.remote(40) == 40 * 2**20
    with pytest.raises(exception.RemoteError, match="ephemeral_disk="):
        options.write.remote(160)
    assert options.write.remote(1) == 2**20


@OF_THE_MACHINES_KERNEL
def test_blocked_network_leaves_loopback_alone(options: Any) -> None:
    found = options.cut_off.remote()

    assert found["devices"] == ["lo"]
    assert found["error"]
    assert options.connected.remote()


def test_idle_containers_go_and_come_back(options: Any) -> None:
    first = options.short_lived.remote()
    assert options.short_lived.remote() == first

    waited_s = wait_until(
        lambda: options.short_lived.get_current_stats().num_total_runners == 0, "it is scaled to zero", 10
    )

    assert waited_s > 1.0
    assert options.short_lived.remote() != first


def test_single_use_container_serves_one_input(options: Any) -> None:
    used = list(options.single_use.map(range(3)))

    assert len(set(used)) == 3


@OF_THE_MACHINES_KERNEL  # which says how much of a processor it takes; gVisor counts what it waits for one, too
def test_sdk_is_imported_quickly_in_a_container(options: Any) -> None:
    # The least of several, and without what it waited: this machine may be doing other things.
    assert options.import_ms.remote("import squall") <= 25
    assert options.import_ms.remote("import squall; squall.App; squall.Image") <= 60
