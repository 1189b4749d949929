"""The spawner outlives agents, is alone, leaves when it should, and leaves nothing when it is killed."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest

from squall.agent import lasting_runtime
from squall.agent.lasting_runtime import LastingRuntime
from squall.runtime import client
from squall.runtime.cgroup import detect_cgroups
from squall.runtime.client import SpawnerRuntime
from squall.runtime.errors import ContainerMissing, RuntimeFailure
from squall.runtime.removal import mounts_below
from squall.runtime.spec import NAMESPACES, Limits
from squall.runtime.sweep import lock, remove_parents, sweep
from squall.runtime.wire import PROTOCOL_VERSION
from tests.kernel.containers import Containers, Output, processes_of, shell, until
from tests.kernel.rootfs import ensure_rootfs

UNDER_GVISOR = {"test_killed_spawner_and_a_sweep_leave_nothing"}
RSS_MAX_KIB = 30_000

OpenRuntime = Callable[..., Awaitable[SpawnerRuntime]]

AGENT = """
import asyncio, sys
from pathlib import Path
from squall.runtime.client import SpawnerRuntime
from tests.kernel.containers import Containers, shell

async def main(base, rootfs, isolation):
    runtime = await SpawnerRuntime.open(str(base / "spawner"), base.name, idle_s=5)
    containers = Containers(runtime, base, rootfs, isolation)
    await containers.start(*shell("i=0; while [ $i -lt 100 ]; do echo line $i; i=$((i+1)); sleep 0.01; done; exit 5"))
    print("started", flush=True)
    await asyncio.sleep(60)

asyncio.run(main(Path(sys.argv[1]), *sys.argv[2:]))
"""


@pytest.fixture
async def open_runtime(data_dir: Path, rootfs: str) -> AsyncIterator[OpenRuntime]:
    """Opens the runtime of the test's directory; whatever is there at the end is removed."""
    opened: list[SpawnerRuntime] = []

    async def open_one(idle_s: float = 5.0) -> SpawnerRuntime:
        opened.append(await SpawnerRuntime.open(str(data_dir / "spawner"), data_dir.name, idle_s=idle_s))
        return opened[-1]

    yield open_one
    for runtime in opened:
        try:
            await runtime.shutdown()
        except RuntimeFailure:
            pass  # gone already, as some tests want it
        await runtime.close()
    await until(lambda: not opened or not is_alive(opened[-1].spawner_pid))
    sweep(str(data_dir / "spawner"), data_dir.name)


def is_alive(pid: int) -> bool:
    try:
        return "\nState:\tZ" not in Path(f"/proc/{pid}/status").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return False


async def test_output_written_after_the_agents_death_is_read_by_the_next(
    data_dir: Path, open_runtime: OpenRuntime, isolation: str
) -> None:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(["src", "."])}
    command = [sys.executable, "-c", AGENT, str(data_dir), ensure_rootfs(), isolation]
    agent = await asyncio.create_subprocess_exec(*command, stdout=subprocess.PIPE, env=environment)
    assert agent.stdout is not None
    assert await agent.stdout.readline() == b"started\n"
    agent.kill()
    await agent.wait()

    runtime = await open_runtime()
    adopted = await runtime.adopt("ct-1")
    text = await Output(adopted.stdout_fd).read_all()
    told = await anext(runtime.exits())

    assert text.splitlines() == [f"line {number}" for number in range(100)]
    assert (told[0], told[1].code) == ("ct-1", 5)
    os.close(adopted.stdout_fd)
    os.close(adopted.stderr_fd)


async def test_killed_spawner_and_a_sweep_leave_nothing(
    data_dir: Path, rootfs: str, open_runtime: OpenRuntime, isolation: str
) -> None:
    runtime = await open_runtime()
    containers = Containers(runtime, data_dir, rootfs, isolation)
    running = [await containers.start(*shell("sleep 1000 & echo ready; exec sleep 1000")) for _ in range(3)]
    for one in running:
        await one.stdout.read_until("ready")
    pids = [pid for one in running for pid in processes_of(one.pid)]
    # Under gVisor the program and its child are one process of the machine, the sandbox, with helpers of its own.
    assert len(pids) == 9 if isolation == NAMESPACES else len(pids) > 9

    os.kill(runtime.spawner_pid, signal.SIGKILL)
    with pytest.raises(RuntimeFailure, match="is gone"):
        await runtime.list()
    with pytest.raises(RuntimeFailure, match="is gone"):
        await anext(runtime.exits())
    await until(lambda: not is_alive(runtime.spawner_pid))
    found = sweep(str(data_dir / "spawner"), data_dir.name)

    assert found == ["ct-1", "ct-2", "ct-3"]
    await until(lambda: not any(is_alive(pid) for pid in pids))
    assert detect_cgroups().names(f"squall/{data_dir.name}") == []
    assert mounts_below(str(data_dir)) == []
    assert os.listdir(data_dir / "spawner/records") == []
    assert not (data_dir / "spawner/spawner.sock").exists()
    assert not (data_dir / "ct-1/mnt").exists()
    assert sweep(str(data_dir / "spawner"), data_dir.name) == []
    for one in running:
        one.close()


async def test_next_spawner_sweeps_what_a_killed_one_left(
    data_dir: Path, rootfs: str, open_runtime: OpenRuntime, isolation: str
) -> None:
    first = await open_runtime()
    containers = Containers(first, data_dir, rootfs, isolation)
    running = await containers.start("sleep", "1000")
    os.kill(first.spawner_pid, signal.SIGKILL)
    await until(lambda: not is_alive(first.spawner_pid))

    second = await open_runtime()

    assert list(await second.list()) == []
    assert not is_alive(running.pid)
    assert detect_cgroups().names(f"squall/{data_dir.name}") == []
    running.close()


async def test_next_spawner_starts_after_a_crash_that_has_emptied_records(
    data_dir: Path, rootfs: str, open_runtime: OpenRuntime, isolation: str
) -> None:
    first = await open_runtime()
    running = await Containers(first, data_dir, rootfs, isolation).start("sleep", "1000")
    os.kill(first.spawner_pid, signal.SIGKILL)
    await until(lambda: not is_alive(first.spawner_pid))
    record = data_dir / f"spawner/records/{running.container_id}.json"
    record.write_bytes(record.read_bytes()[:20])
    (data_dir / "spawner/records/ct-0.json").touch()

    second = await open_runtime()

    assert list(await second.list()) == []
    assert detect_cgroups().names(f"squall/{data_dir.name}") == []
    assert list((data_dir / "spawner/records").iterdir()) == []
    log = (data_dir / "spawner/spawner.log").read_text()
    assert f"{record} said is lost" in log
    assert "ct-0.json said is lost" in log
    running.close()


async def test_sweep_refuses_a_living_spawner(data_dir: Path, open_runtime: OpenRuntime) -> None:
    await open_runtime()

    with pytest.raises(RuntimeFailure, match="is alive"):
        sweep(str(data_dir / "spawner"), data_dir.name)


async def test_agents_that_open_at_once_share_one_spawner(open_runtime: OpenRuntime) -> None:
    opened = await asyncio.gather(*(open_runtime() for _ in range(4)))

    assert len({runtime.spawner_pid for runtime in opened}) == 1


async def test_idle_spawner_ends_by_itself(data_dir: Path, open_runtime: OpenRuntime) -> None:
    runtime = await open_runtime(idle_s=1.0)

    await asyncio.sleep(2.5)
    assert is_alive(runtime.spawner_pid), "an agent is connected"
    await runtime.close()
    await until(lambda: not is_alive(runtime.spawner_pid))

    assert not (data_dir / "spawner/spawner.sock").exists()


async def test_spawner_that_is_told_to_end_takes_its_containers_along(
    data_dir: Path, rootfs: str, open_runtime: OpenRuntime, isolation: str
) -> None:
    runtime = await open_runtime()
    running = await Containers(runtime, data_dir, rootfs, isolation).start("sleep", "1000")

    os.kill(runtime.spawner_pid, signal.SIGTERM)
    await until(lambda: not is_alive(runtime.spawner_pid))

    assert not is_alive(running.pid)
    assert detect_cgroups().open(f"squall/{data_dir.name}") is None
    assert os.listdir(data_dir / "spawner/records") == []
    assert not (data_dir / "spawner/spawner.sock").exists()
    running.close()


async def test_spawner_that_nobody_uses_keeps_no_cgroup(data_dir: Path, rootfs: str, open_runtime: OpenRuntime) -> None:
    runtime = await open_runtime(idle_s=30.0)
    running = await Containers(runtime, data_dir, rootfs).start("true")
    await runtime.remove(running.container_id)
    running.close()
    tree = detect_cgroups()

    await runtime.close()
    await until(lambda: tree.open(f"squall/{data_dir.name}") is None)

    assert is_alive(runtime.spawner_pid)
    again = await open_runtime()
    (data_dir / "again").mkdir()
    started = await Containers(again, data_dir / "again", rootfs).start("sleep", "1000")
    assert is_alive(started.pid)
    started.close()


async def test_spawner_that_was_shut_down_has_ended(open_runtime: OpenRuntime) -> None:
    runtime = await open_runtime()

    await runtime.shutdown()

    assert not is_alive(runtime.spawner_pid)


async def test_spawner_that_says_it_ends_and_does_not_is_named(
    open_runtime: OpenRuntime, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(client, "END_TIMEOUT_S", 0.2)
    runtime = await open_runtime()
    pid, runtime.spawner_pid = runtime.spawner_pid, os.getpid()

    try:
        with pytest.raises(RuntimeFailure, match=f"process {os.getpid()} is still there after 0.2 s"):
            await runtime.shutdown()
    finally:
        runtime.spawner_pid = pid


async def test_empty_cgroups_of_an_installation_that_was_killed_go_with_any_other_spawner(
    data_dir: Path, open_runtime: OpenRuntime
) -> None:
    tree = detect_cgroups()
    tree.create(f"squall/{data_dir.name}-empty/ct-1", Limits()).remove()
    used = tree.create(f"squall/{data_dir.name}-used/ct-1", Limits())

    runtime = await open_runtime()
    await runtime.shutdown()
    is_empty_left, is_used_left = (tree.open(f"squall/{data_dir.name}-{one}") is not None for one in ("empty", "used"))
    used.remove()
    remove_parents(tree)

    assert not is_empty_left
    assert is_used_left


async def test_running_container_keeps_the_spawner(
    data_dir: Path, rootfs: str, open_runtime: OpenRuntime, isolation: str
) -> None:
    first = await open_runtime(idle_s=1.0)
    containers = Containers(first, data_dir, rootfs, isolation)
    running = await containers.start("sleep", "1000")
    await first.close()

    await asyncio.sleep(3)
    second = await open_runtime()

    assert [status.container_id for status in await second.list()] == [running.container_id]
    running.close()


async def test_spawner_of_another_version_is_named(monkeypatch: pytest.MonkeyPatch, open_runtime: OpenRuntime) -> None:
    await open_runtime()
    spoken = PROTOCOL_VERSION
    monkeypatch.setattr(client, "PROTOCOL_VERSION", spoken + 1)

    with pytest.raises(RuntimeFailure, match=rf"speaks version {spoken} .* wanted is {spoken + 1}"):
        await open_runtime()


async def test_spawner_that_cannot_start_says_why(tmp_path: Path) -> None:
    with pytest.raises(RuntimeFailure, match="'in/valid' as an instance"):
        await SpawnerRuntime.open(str(tmp_path / "s"), "in/valid")


async def test_spawner_is_small_has_one_thread_and_nothing_of_ours_open(
    open_runtime: OpenRuntime, tmp_path: Path
) -> None:
    mine = os.open(tmp_path / "file", os.O_WRONLY | os.O_CREAT)
    os.set_inheritable(mine, True)
    runtime = await open_runtime()
    os.close(mine)

    status = dict(line.split(":\t", 1) for line in Path(f"/proc/{runtime.spawner_pid}/status").read_text().splitlines())
    opened = [os.readlink(path) for path in Path(f"/proc/{runtime.spawner_pid}/fd").iterdir()]
    assert int(status["VmRSS"].split()[0]) < RSS_MAX_KIB
    assert status["Threads"].strip() == "1"
    assert str(tmp_path / "file") not in opened
    assert os.getsid(runtime.spawner_pid) != os.getsid(0)


async def test_socket_is_for_its_owner_only(data_dir: Path, open_runtime: OpenRuntime) -> None:
    await open_runtime()

    assert (data_dir / "spawner/spawner.sock").stat().st_mode & 0o777 == 0o600
    assert (data_dir / "spawner").stat().st_mode & 0o777 == 0o700


async def test_spawner_keeps_no_descriptor_of_what_was_removed(containers: Containers) -> None:
    runtime = containers.runtime
    assert isinstance(runtime, SpawnerRuntime)
    first = await containers.start("sleep", "1000")
    await containers.exec(first, "true")
    before = len(os.listdir(f"/proc/{runtime.spawner_pid}/fd"))

    for _ in range(10):
        running = await containers.start("true", id_range=containers.spec("true").id_range.__class__(0x7FFF_0000))
        await containers.exec(first, "true")
        await containers.exit(running)
        await runtime.remove(running.container_id)

    # One more: the user namespace of the range.
    assert len(os.listdir(f"/proc/{runtime.spawner_pid}/fd")) <= before + 1


async def test_agent_that_begins_asks_the_next_spawner_when_its_own_has_died(open_runtime: OpenRuntime) -> None:
    pids: list[int] = []

    async def open_one() -> SpawnerRuntime:
        opened = await open_runtime()
        pids.append(opened.spawner_pid)
        return opened

    async with LastingRuntime(open_one) as runtime:
        for ask in (runtime.list, lambda: runtime.remove("ct-none"), runtime.drop_removed_layers):
            os.kill(pids[-1], signal.SIGKILL)
            await ask()
        os.kill(pids[-1], signal.SIGKILL)
        with pytest.raises(ContainerMissing):
            await runtime.adopt("ct-none")

    assert len(pids) == len(set(pids)) == 5


async def test_agent_that_begins_asks_until_a_spawner_lives_to_answer(open_runtime: OpenRuntime) -> None:
    pids: list[int] = []

    async def open_one() -> SpawnerRuntime:
        opened = await open_runtime()
        pids.append(opened.spawner_pid)
        if len(pids) < 5:
            os.kill(opened.spawner_pid, signal.SIGKILL)
        return opened

    async with LastingRuntime(open_one) as runtime:
        (listed,) = await asyncio.gather(runtime.list(), return_exceptions=True)

    assert listed == []
    assert len(pids) == len(set(pids)) == 5


async def test_agent_that_begins_does_not_ask_for_ever(
    open_runtime: OpenRuntime, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lasting_runtime, "PATIENCE_S", 0.5)

    async def open_one() -> SpawnerRuntime:
        opened = await open_runtime()
        os.kill(opened.spawner_pid, signal.SIGKILL)
        return opened

    async with LastingRuntime(open_one) as runtime:
        with pytest.raises(RuntimeFailure, match=r"the spawner in .* is gone"):
            await runtime.list()


async def test_spawner_whose_start_is_killed_again_and_again_is_started_again(
    tmp_path: Path, open_runtime: OpenRuntime, monkeypatch: pytest.MonkeyPatch
) -> None:
    killed, python = tmp_path / "killed", tmp_path / "python"
    killed.touch()
    python.write_text(
        f'#!/bin/sh\n[ $(wc -l <{killed}) -ge 5 ] || {{ echo >>{killed}; kill -9 $$; }}\nexec {sys.executable} "$@"\n'
    )
    python.chmod(0o700)
    monkeypatch.setattr(sys, "executable", str(python))

    runtime = await open_runtime()

    assert killed.read_text().count("\n") == 5
    assert is_alive(runtime.spawner_pid)


async def test_spawner_that_is_killed_again_and_again_before_it_listens_is_started_again(
    data_dir: Path, open_runtime: OpenRuntime
) -> None:
    (data_dir / "spawner").mkdir(mode=0o700)
    # Nobody reads it: a spawner that opens it as its log stays there.
    log = data_dir / "spawner/spawner.log"
    os.mkfifo(log)
    opening = asyncio.ensure_future(open_runtime())
    killed = set[int]()

    while len(killed) < 5:
        await until(lambda: bool(daemons(data_dir) - killed) or opening.done())
        assert not opening.done(), opening
        for pid in daemons(data_dir) - killed:
            os.kill(pid, signal.SIGKILL)
            killed.add(pid)
    log.unlink()
    for pid in daemons(data_dir) - killed:
        os.kill(pid, signal.SIGKILL)
    runtime = await opening

    assert is_alive(runtime.spawner_pid)


async def test_spawner_that_another_agent_has_begun_to_start_is_waited_for(
    data_dir: Path, open_runtime: OpenRuntime
) -> None:
    (data_dir / "spawner").mkdir(mode=0o700)
    sweeping = lock(str(data_dir / "spawner"))
    assert sweeping is not None
    opening = asyncio.ensure_future(open_runtime())

    await asyncio.sleep(4)
    os.close(sweeping)
    runtime = await opening

    assert is_alive(runtime.spawner_pid)


async def test_spawner_that_does_not_come_is_not_waited_for_for_ever(
    data_dir: Path, open_runtime: OpenRuntime, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(client, "PATIENCE_S", 1.0)
    (data_dir / "spawner").mkdir(mode=0o700)
    sweeping = lock(str(data_dir / "spawner"))
    assert sweeping is not None

    try:
        with pytest.raises(RuntimeFailure, match=r"not within 1 s: .* holds .*/spawner\.lock and does not listen"):
            await open_runtime()
    finally:
        os.close(sweeping)


async def test_spawner_that_does_not_answer_is_named(
    open_runtime: OpenRuntime, monkeypatch: pytest.MonkeyPatch
) -> None:
    runtime = await open_runtime()
    monkeypatch.setattr(client, "HELLO_TIMEOUT_S", 0.5)
    os.kill(runtime.spawner_pid, signal.SIGSTOP)

    try:
        with pytest.raises(RuntimeFailure, match=r"it does not answer after 0\.5 s"):
            await open_runtime()
    finally:
        os.kill(runtime.spawner_pid, signal.SIGCONT)


async def test_spawner_that_fails_in_an_unexpected_way_says_so(data_dir: Path, open_runtime: OpenRuntime) -> None:
    (data_dir / "spawner").mkdir(mode=0o700)
    (data_dir / "spawner/spawner.log").mkdir()

    with pytest.raises(RuntimeFailure, match=r"unexpected IsADirectoryError: .*spawner\.log"):
        await open_runtime()


def daemons(data_dir: Path) -> set[int]:
    """Processes that are, or become, the spawner of that directory: not those that started one and wait."""
    found = set()
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            argv = path.read_bytes().split(b"\0")
            is_apart = os.getsid(int(path.parent.name)) != os.getsid(0)
        except OSError:
            continue
        if is_apart and b"squall.runtime.spawner" in argv and f"{data_dir}/spawner".encode() in argv:
            found.add(int(path.parent.name))
    return found
