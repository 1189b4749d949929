"""The contract of the runtime, for the one in memory and the real one."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from squall.runtime.client import SpawnerRuntime
from squall.runtime.contract import Runtime
from squall.runtime.errors import ContainerExists, ContainerMissing, ProgramMissing, TemplateUnfit
from squall.runtime.fake import FakeMachine, FakeProcess, FakeRuntime
from squall.runtime.spec import GVISOR, NAMESPACES, ExecSpec, ExitStatus
from tests.kernel.containers import TIMEOUT_S, Containers, Output
from tests.kernel.executors import NEEDS_RUNSC
from tests.kernel.rootfs import ensure_rootfs, missing

pytestmark = pytest.mark.long

SPEAK = ("sh", "-c", "echo out; echo err >&2; exit 3")
TRAP = ("sh", "-c", "trap 'echo term; exit 7' TERM; echo ready; while :; do sleep 0.02; done")

Connect = Callable[[], Awaitable[Runtime]]


async def fake_shell(process: FakeProcess) -> int:
    """The two scripts above, as a fake program."""
    if tuple(process.argv) == SPEAK:
        await process.write(b"out\n")
        await process.write(b"err\n", is_stderr=True)
        return 3
    process.handled.add(signal.SIGTERM)
    await process.write(b"ready\n")
    await process.signals.get()
    await process.write(b"term\n")
    return 7


@pytest.fixture(
    params=[
        "memory",
        pytest.param(NAMESPACES, marks=pytest.mark.kernel),
        pytest.param(GVISOR, marks=[pytest.mark.kernel, pytest.mark.slow, NEEDS_RUNSC]),
    ]
)
async def connect(request: pytest.FixtureRequest, data_dir: Path) -> AsyncIterator[Connect]:
    """Connects one more agent to the same machine."""
    async with AsyncExitStack() as stack:
        if request.param == "memory":
            machine = FakeMachine({"sh": fake_shell})
            stack.push_async_callback(machine.close)

            async def to_memory() -> Runtime:
                return await stack.enter_async_context(FakeRuntime(machine))

            yield to_memory
            return
        if missing():
            pytest.skip(missing())

        async def to_spawner() -> SpawnerRuntime:
            state_dir = str(data_dir / "spawner")
            return await stack.enter_async_context(await SpawnerRuntime.open(state_dir, data_dir.name, idle_s=5))

        first = await to_spawner()
        stack.push_async_callback(first.shutdown)
        yield to_spawner


@pytest.fixture
async def containers(connect: Connect, data_dir: Path, request: pytest.FixtureRequest) -> AsyncIterator[Containers]:
    """Containers of a first agent."""
    runtime = await connect()
    if isinstance(runtime, SpawnerRuntime):
        made = Containers(runtime, data_dir, ensure_rootfs(), request.node.callspec.params["connect"])
    else:
        made = Containers(runtime, data_dir, "/")
    yield made
    await made.close()


async def test_output_and_exit_code_arrive(containers: Containers) -> None:
    ended = await containers.run(*SPEAK)

    assert (ended.stdout, ended.stderr) == ("out\n", "err\n")
    assert ended.status == ExitStatus(code=3, signal=None)


async def test_unknown_template_cannot_be_saved(containers: Containers, tmp_path: Path) -> None:
    with pytest.raises(TemplateUnfit, match="cannot save template tp-none: it is not ready, or has ended"):
        await containers.runtime.save("tp-none", str(tmp_path))


async def test_started_names_process_and_phases(containers: Containers) -> None:
    running = await containers.start("sleep", "30")

    assert running.pid > 1
    assert running.phase_ms


async def test_second_start_of_an_id_is_refused(containers: Containers) -> None:
    spec = containers.spec("sleep", "30")
    await containers.start_spec(spec)

    with pytest.raises(ContainerExists, match=spec.container_id):
        await containers.runtime.start(spec)

    assert [status.exit_status for status in await containers.runtime.list()] == [None]


async def test_failed_start_leaves_nothing_and_names_the_cause(containers: Containers) -> None:
    spec = containers.spec("/bin/no-such-program")

    with pytest.raises(ProgramMissing, match="no-such-program"):
        await containers.runtime.start(spec)

    assert list(await containers.runtime.list()) == []


async def test_handled_signal_reaches_the_program(containers: Containers) -> None:
    running = await containers.start(*TRAP)
    await running.stdout.read_until("ready")

    await containers.runtime.kill(running.container_id, signal.SIGTERM)

    ended = await containers.finish(running)
    assert ended.stdout.endswith("term\n")
    assert ended.status == ExitStatus(code=7, signal=None)


async def test_unhandled_signal_ends_the_program_right_after_its_start(containers: Containers) -> None:
    running = await containers.start("sleep", "30")

    await containers.runtime.kill(running.container_id, signal.SIGTERM)

    assert (await containers.exit(running)).signal == signal.SIGTERM


async def test_sigkill_ends_programs_added_by_exec_too(containers: Containers) -> None:
    running = await containers.start("sleep", "30")
    added = await containers.runtime.exec(running.container_id, ExecSpec(["sleep", "30"], {}))
    outputs = [Output(fd) for fd in (added.stdout_fd, added.stderr_fd)]

    await containers.runtime.kill(running.container_id, signal.SIGKILL)

    assert (await containers.exit(running)).signal == signal.SIGKILL
    async with asyncio.timeout(TIMEOUT_S):
        assert (await containers.runtime.wait_exec(added.exec_id)).signal == signal.SIGKILL
    assert [await output.read_all() for output in outputs] == ["", ""]
    close(added.stdin_fd, added.stdout_fd, added.stderr_fd)


async def test_killing_an_ended_container_is_no_error(containers: Containers) -> None:
    running = await containers.start("true")
    await containers.exit(running)

    await containers.runtime.kill(running.container_id, signal.SIGTERM)
    await containers.runtime.kill(running.container_id, signal.SIGKILL)


async def test_exec_has_its_own_input_output_and_status(containers: Containers) -> None:
    running = await containers.start("sleep", "30")

    echoed = await containers.exec(running, "cat", stdin=b"hello")
    failed = await containers.exec(running, "false")

    assert (echoed.stdout, echoed.status.code) == ("hello", 0)
    assert failed.status.code == 1


async def test_exec_of_a_missing_program_is_refused(containers: Containers) -> None:
    running = await containers.start("sleep", "30")

    with pytest.raises(ProgramMissing, match="no-such-program"):
        await containers.runtime.exec(running.container_id, ExecSpec(["no-such-program"], {}))


async def test_unknown_and_ended_containers_are_missing(containers: Containers) -> None:
    running = await containers.start("true")
    await containers.exit(running)

    with pytest.raises(ContainerMissing):
        await containers.runtime.kill("ct-unknown", signal.SIGTERM)
    with pytest.raises(ContainerMissing):
        await containers.runtime.adopt("ct-unknown")
    for container_id in ("ct-unknown", running.container_id):
        with pytest.raises(ContainerMissing):
            await containers.runtime.usage(container_id)
        with pytest.raises(ContainerMissing):
            await containers.runtime.exec(container_id, ExecSpec(["true"], {}))
    with pytest.raises(ContainerMissing):
        await containers.runtime.wait_exec("ct-unknown/1")


async def test_list_has_labels_and_ended_containers_until_removed(containers: Containers) -> None:
    running = await containers.start(*SPEAK, labels={"function": "fu-1"})
    await containers.exit(running)

    (status,) = await containers.runtime.list()
    await containers.runtime.remove(running.container_id)
    await containers.runtime.remove(running.container_id)

    assert (status.container_id, status.labels) == (running.container_id, {"function": "fu-1"})
    assert status.exit_status == ExitStatus(code=3, signal=None)
    assert list(await containers.runtime.list()) == []


async def test_remove_ends_what_runs(containers: Containers) -> None:
    running = await containers.start("sleep", "30")

    async with asyncio.timeout(TIMEOUT_S):
        await containers.runtime.remove(running.container_id)

    assert (await containers.exit(running)).signal == signal.SIGKILL
    assert await running.stdout.read_all() == ""


async def test_id_can_be_used_again_after_removal(containers: Containers) -> None:
    spec = containers.spec("true")
    first = await containers.start_spec(spec)
    await containers.exit(first)
    await containers.runtime.remove(spec.container_id)

    await containers.start_spec(spec)

    assert len(await containers.runtime.list()) == 1


async def test_usage_counts_processes(containers: Containers) -> None:
    running = await containers.start("sleep", "30")

    usage = await containers.runtime.usage(running.container_id)

    assert usage.pids >= 1


async def test_next_agent_adopts_output_and_hears_of_exits(containers: Containers, connect: Connect) -> None:
    ended = await containers.start(*SPEAK)
    await containers.exit(ended)
    running = await containers.start(*TRAP)

    second = await connect()
    exits = second.exits()
    async with asyncio.timeout(TIMEOUT_S):
        told = await anext(exits)
        adopted = await second.adopt(running.container_id)
        ready = await Output(adopted.stdout_fd).read_until("ready")
        await second.kill(running.container_id, signal.SIGTERM)
        told_later = await anext(exits)

    assert told == (ended.container_id, ExitStatus(code=3, signal=None))
    assert told_later == (running.container_id, ExitStatus(code=7, signal=None))
    assert "ready" in ready
    close(adopted.stdout_fd, adopted.stderr_fd)


async def test_output_of_an_ended_container_can_still_be_adopted(containers: Containers, connect: Connect) -> None:
    running = await containers.start(*SPEAK)
    await containers.exit(running)

    adopted = await (await connect()).adopt(running.container_id)

    assert await Output(adopted.stdout_fd).read_all() == "out\n"
    close(adopted.stdout_fd, adopted.stderr_fd)


async def test_frozen_container_goes_on_when_thawed(containers: Containers) -> None:
    running = await containers.start("sleep", "30")

    await containers.runtime.freeze(running.container_id)
    await containers.runtime.thaw(running.container_id)

    assert (await containers.exec(running, "true")).status.code == 0


async def test_removed_layers_are_let_go_beside_containers_that_run(containers: Containers) -> None:
    running = await containers.start("sleep", "30")

    await containers.runtime.drop_removed_layers()

    assert (await containers.exec(running, "true")).status.code == 0


async def test_many_starts_at_once(containers: Containers) -> None:
    started = await asyncio.gather(*(containers.start("true") for _ in range(20)))

    statuses = await asyncio.gather(*(containers.exit(running) for running in started))

    assert statuses == [ExitStatus(code=0, signal=None)] * 20


def close(*descriptors: int) -> None:
    for descriptor in descriptors:
        os.close(descriptor)
