"""Containers under gVisor that begin from a snapshot of another one, by a program that speaks as the guest does."""

from __future__ import annotations

import asyncio
import fcntl
import json
import os
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from squall.runtime.client import SpawnerRuntime
from squall.runtime.contract import TemplateReport
from squall.runtime.errors import ContainerExists, ContainerMissing, RuntimeFailure, TemplateUnfit
from squall.runtime.spec import GVISOR, Bind, ContainerSpec, ExitStatus, IdRange, Limits
from tests.kernel.attacks import ATTACKS
from tests.kernel.containers import ENV, TIMEOUT_S, Containers, Running, processes_of, until
from tests.kernel.executors import NEEDS_RUNSC
from tests.kernel.forge import runs
from tests.kernel.machine import MACHINE_ADDRESS, Machine, MakePool, missing
from tests.kernel.sibling import LIVING, ON_A_SIBLING, SECRET
from tests.kernel.test_gvisor import IN_ITS_OWN_KERNEL
from tests.kernel.test_isolation import BIND

pytestmark = [NEEDS_RUNSC, pytest.mark.skipif(bool(missing()), reason=missing() or "-")]

RANGE = IdRange(0x7100_0000)
PROGRAM = """
import json, os, socket, sys, threading, time
folder = os.environ["SQUALL_TEMPLATE_DIR"]
kept = bytearray(b"x" * 10_000_000)
open("/root/made", "w").write("by the template")
threading.Thread(target=time.sleep, args=(10_000,), daemon=True).start()
def tell(said):
    open(folder + "/new", "w").write(json.dumps(said)); os.rename(folder + "/new", folder + "/report.json")
def made():
    try:
        return open("/root/made").read()
    except OSError as error:
        return str(error)
exec(os.environ.get("BEFORE", ""))
tell({"ready": {"memory_bytes": 5, "import_ms": 1.5, "enter_ms": 2.5}})
path = folder + "/identity.json"
while not os.path.exists(path): time.sleep(0.005)
exec(os.environ.get("AFTER", ""))
who = json.load(open(path)); os.unlink(path)
if who["is_check"]: os._exit(0)
print(json.dumps({"name": who["env"]["NAME"], "made": made(), "kept": len(kept),
                  "threads": threading.active_count(), "host": socket.gethostname(),
                  "address": socket.gethostbyname(socket.gethostname())}), flush=True)
exec(who["env"].get("THEN", ""))
"""


@pytest.fixture
def isolation() -> str:
    """All containers of these tests."""
    return GVISOR


async def start_template(containers: Containers, binds: Sequence[Bind] = (), **env: str) -> Running:
    values = {**ENV, "NAME": "template", **env}
    spec = containers.spec("python3", "-c", PROGRAM, env=values, id_range=RANGE, isolation=GVISOR, binds=binds)
    return await containers.start_spec(replace(spec, is_template=True))


async def ready_template(containers: Containers, binds: Sequence[Bind] = (), **env: str) -> Running:
    running = await start_template(containers, binds, **env)
    report = await containers.runtime.template_report(running.container_id)
    assert report.is_ready, report.cause
    return running


def images_of(containers: Containers) -> list[Path]:
    """The snapshots that the spawner has, each in a place in memory that only it can reach."""
    assert isinstance(containers.runtime, SpawnerRuntime)
    held = Path(f"/proc/{containers.runtime.spawner_pid}/fd").iterdir()
    return [one for one in held if (one / "pages.img").exists()]


def restored(containers: Containers, template: Running, name: str, **fields: object) -> ContainerSpec:
    env = {**ENV, "NAME": name, "THEN": "time.sleep(60)"}
    spec = containers.spec("python3", **{"env": env, "id_range": RANGE, **fields})
    return replace(spec, template_id=template.container_id)


async def test_containers_begin_where_the_template_has_come_to(containers: Containers) -> None:
    template = await start_template(containers)

    report = await containers.runtime.template_report(template.container_id)
    running = [await containers.start_spec(restored(containers, template, name)) for name in ("first", "second")]
    said = [json.loads(await one.stdout.read_until("\n")) for one in running]

    assert report.is_ready, report.cause
    assert report.memory_bytes > 10_000_000
    assert (report.import_ms, report.enter_ms) == (1.5, 2.5)
    assert [one["name"] for one in said] == ["first", "second"]
    assert {(one["made"], one["kept"], one["threads"]) for one in said} == {("by the template", 10_000_000, 2)}
    assert said[0]["host"] == "squall"
    assert said[0]["address"]
    for one in running:
        assert not os.listdir(f"/proc/{one.pid}/root/saved/shared")
    assert [status.container_id for status in await containers.runtime.list()] == [
        template.container_id,
        *(one.container_id for one in running),
    ]


async def test_restored_container_is_as_any_other(containers: Containers) -> None:
    template = await ready_template(containers)
    running = await containers.start_spec(restored(containers, template, "one"))
    await running.stdout.read_until("\n")

    inside = await containers.exec(running, "cat", "/root/made")
    await containers.runtime.kill(running.container_id, signal.SIGTERM)

    assert inside.stdout == "by the template"
    assert (await containers.finish(running)).status == ExitStatus(code=None, signal=signal.SIGTERM)


async def test_template_has_no_process_and_ends_when_it_is_told_to(containers: Containers) -> None:
    template = await ready_template(containers)
    with pytest.raises(ContainerMissing):
        await containers.exec(template, "true")
    assert not processes_of(template.pid)
    running = await containers.start_spec(restored(containers, template, "one"))
    await running.stdout.read_until("\n")

    await containers.runtime.kill(template.container_id, signal.SIGTERM)
    status = await containers.exit(template)
    with pytest.raises(TemplateUnfit, match="it has ended"):
        await containers.start_spec(restored(containers, template, "late"))

    assert status == ExitStatus(code=None, signal=signal.SIGKILL)
    assert running.container_id not in containers.exit_of
    await containers.runtime.remove(template.container_id)


async def test_one_that_does_not_come_to_itself_is_unfit(containers: Containers) -> None:
    template = await start_template(containers, AFTER="os._exit(3)")

    report = await containers.runtime.template_report(template.container_id)
    cause = "restored, it ended before it had taken its identity (exit code 3)"
    assert report == TemplateReport(is_ready=False, cause=cause, has_failed=True)
    await containers.exit(template)

    assert not images_of(containers)
    assert not (containers.base / template.container_id / "check").exists()


async def test_one_whose_check_ends_with_a_failure_is_unfit(containers: Containers) -> None:
    template = await start_template(containers, AFTER="os.unlink(path); os._exit(3)")

    report = await containers.runtime.template_report(template.container_id)

    assert report == TemplateReport(False, "restored, it ended at once (exit code 3)", has_failed=True)


async def test_start_of_one_that_ends_before_it_is_somebody_fails(containers: Containers) -> None:
    # The check comes to itself: it is what containers are told that ends them.
    template = await ready_template(containers, AFTER="json.load(open(path))['is_check'] or os._exit(0)")

    with pytest.raises(TemplateUnfit, match=r"ended before it had taken its identity \(exit code 0\)"):
        await containers.start_spec(restored(containers, template, "one"))

    assert [status.container_id for status in await containers.runtime.list()] == [template.container_id]
    assert not containers.exit_of, "nobody hears of the end of a container that never was"


async def test_one_that_says_it_is_unfit_is(containers: Containers) -> None:
    template = await start_template(containers, BEFORE="tell({'unfit': 'for a reason'}); sys.exit()")

    assert await containers.runtime.template_report(template.container_id) == TemplateReport(False, "for a reason")


@pytest.mark.parametrize(
    "report", ["open(folder + '/report.json', 'wb').write(b'{')", "os.symlink('/etc/passwd', folder + '/report.json')",
               "os.mkdir(folder + '/report.json')"]
)  # fmt: skip
async def test_nonsense_in_its_directory_is_no_report(containers: Containers, report: str) -> None:
    template = await start_template(containers, BEFORE=f"{report}; time.sleep(60)")

    found = await containers.runtime.template_report(template.container_id)

    assert not found.is_ready
    assert "does not speak as a template does" in found.cause


async def test_template_that_ends_before_it_is_ready_is_missing(containers: Containers) -> None:
    template = await start_template(containers, BEFORE="time.sleep(0.5); sys.exit(4)")

    with pytest.raises(ContainerMissing):
        await containers.runtime.template_report(template.container_id)
    assert (await containers.exit(template)).code == 4


async def test_image_that_was_cut_short_is_noticed(containers: Containers) -> None:
    template = await ready_template(containers)
    (image,) = images_of(containers)
    (image / "pages.img").write_bytes(b"")

    with pytest.raises(Exception, match="under gVisor"):
        await containers.start_spec(restored(containers, template, "one"))

    assert [status.container_id for status in await containers.runtime.list()] == [template.container_id]


def files_with(top: Path, *values: str) -> list[Path]:
    """Files below a directory in which one of these is."""
    found = []
    for place, _, names in os.walk(top):
        for path in (Path(place) / name for name in names):
            if path.is_file() and not path.is_symlink():
                content = path.read_bytes()
                found += [path for value in values if value.encode() in content]
    return found


async def test_what_is_in_its_memory_and_who_containers_are_is_on_no_disk(
    containers: Containers, data_dir: Path
) -> None:
    secret, token = f"secret-{os.urandom(8).hex()}", f"token-{os.urandom(8).hex()}"
    template = await ready_template(containers, PASSWORD=secret)
    assert len(images_of(containers)) == 1
    # It is there: a test that looks for nothing finds nothing.
    (image,) = images_of(containers)
    assert any(secret.encode() in one.read_bytes() for one in image.iterdir())
    spec = restored(containers, template, "one")
    running = await containers.start_spec(replace(spec, env={**spec.env, "TOKEN": token, "PASSWORD": secret}))
    await running.stdout.read_until("\n")

    for top in (data_dir, containers.base):
        assert not files_with(top, secret, token)

    # And gone with the template, though a container that has begun from it lives.
    await containers.runtime.remove(template.container_id)
    assert not images_of(containers)


async def test_snapshot_counts_as_memory_beside_that_of_a_template_with_a_limit(containers: Containers) -> None:
    limits = Limits(memory_bytes=128 * 2**20)
    code = "more = [os.urandom(1 << 20) for _ in range(90)]"
    spec = containers.spec("python3", "-c", PROGRAM, env={**ENV, "NAME": "template", "BEFORE": code}, id_range=RANGE)
    template = await containers.start_spec(replace(spec, is_template=True, limits=limits))

    report = await containers.runtime.template_report(template.container_id)

    assert report.is_ready, report.cause
    assert report.memory_bytes > 90 * 2**20


async def test_pages_of_zeros_take_no_room_in_a_snapshot(containers: Containers) -> None:
    # Written to, and counted: what nobody has asked for is left out in any case.
    make = "zeros = bytearray(1) * 200_000_000; zeros[100_000_000] = 7; open('/proc/meminfo').read()"
    template = await start_template(containers, BEFORE=make)

    report = await containers.runtime.template_report(template.container_id)
    spec = restored(containers, template, "one")
    count = "print(len(zeros), zeros[100_000_000], zeros.count(0))"
    ended = await containers.finish(await containers.start_spec(replace(spec, env={**spec.env, "THEN": count})))

    assert report.is_ready, report.cause
    assert report.memory_bytes < 100_000_000
    assert ended.stdout.splitlines()[1] == "200000000 7 199999999"


async def test_check_ends_with_its_template(containers: Containers) -> None:
    template = await start_template(containers, AFTER="time.sleep(60)")
    check = containers.base / template.container_id / "check"
    await until(check.exists)
    await asyncio.sleep(0.3)

    await asyncio.wait_for(containers.runtime.remove(template.container_id), 10)

    assert not check.exists(), "its directory and its ids are nobody's any more"
    assert not images_of(containers)
    assert await containers.runtime.list() == []


@contextmanager
def held(path: Path) -> Iterator[Callable[[], bool]]:
    """Whoever opens a file meanwhile waits; gives whether somebody does."""
    descriptor = os.open(path, os.O_RDWR)
    try:
        fcntl.fcntl(descriptor, fcntl.F_SETSIG, signal.SIGURG)  # which ends nobody
        fcntl.fcntl(descriptor, fcntl.F_SETLEASE, fcntl.F_WRLCK)
        yield lambda: fcntl.fcntl(descriptor, fcntl.F_GETLEASE) != fcntl.F_WRLCK
    finally:
        os.close(descriptor)


async def test_one_that_is_given_up_while_its_files_are_copied_does_not_begin(containers: Containers) -> None:
    runtime, template = containers.runtime, await ready_template(containers)
    spec = restored(containers, template, "one")

    with held(containers.base / template.container_id / "rw/upper/root/made") as is_wanted:
        start = asyncio.ensure_future(runtime.start(spec))
        await until(is_wanted)
        with pytest.raises(ContainerExists):
            await runtime.start(replace(spec, template_id=""))
        removal = asyncio.ensure_future(runtime.remove(spec.container_id))
        await runtime.list()
        assert not removal.done(), "its directory is in use"
    await asyncio.wait_for(removal, TIMEOUT_S)

    with pytest.raises(RuntimeFailure, match="it was removed before it began"):
        await start
    assert [status.container_id for status in await runtime.list()] == [template.container_id]


async def test_spawner_is_shut_down_when_nobody_is_about_to_begin(data_dir: Path, rootfs: str) -> None:
    async with await SpawnerRuntime.open(str(data_dir / "spawner"), data_dir.name) as runtime:
        containers = Containers(runtime, data_dir, rootfs, GVISOR)
        template = await ready_template(containers)

        with held(data_dir / template.container_id / "rw/upper/root/made") as is_wanted:
            start = asyncio.ensure_future(runtime.start(restored(containers, template, "one")))
            await until(is_wanted)
            shutdown = asyncio.ensure_future(runtime.shutdown())
            await until(lambda: template.container_id in containers.exit_of)
            await runtime.list()
            assert not shutdown.done()
        await asyncio.wait_for(shutdown, TIMEOUT_S)

        with pytest.raises(RuntimeFailure, match="it was removed before it began"):
            await start
        template.close()


async def acting(containers: Containers, template: Running, code: str, **env: str) -> Running:
    """One that does what a piece of Python says, with these variables."""
    then = 'os.environ.update(who["env"]); exec(os.environ["CODE"], {"__name__": "__main__"})'
    env = {**ENV, "NAME": "acting", "THEN": then, "CODE": code, **env}
    return await containers.start_spec(restored(containers, template, "acting", binds=[BIND], env=env))


async def living_sibling(containers: Containers, template: Running) -> Running:
    sibling = await acting(containers, template, LIVING, SECRET=SECRET)
    await sibling.stdout.read_until("up")
    return sibling


def attacking(*names: str) -> str:
    return f"import runpy, sys; sys.argv = {['/attacks.py', *names]}; runpy.run_path('/attacks.py', None, '__main__')"


def outcomes_of(said: str) -> dict[str, str]:
    outcomes: dict[str, str] = json.loads(said.splitlines()[-1])
    return outcomes


async def test_attacks_of_a_restored_one_do_not_reach_its_sibling(containers: Containers) -> None:
    marker = containers.base / "marker"
    marker.write_text("of the machine")
    template = await ready_template(containers, binds=[BIND])
    sibling = await living_sibling(containers, template)
    env = {"MARKER": str(marker), "HOST_PID": str(os.getpid()), "SIBLING": SECRET[::-1]}

    ended = await containers.finish(await acting(containers, template, attacking(), **env))

    outcomes = outcomes_of(ended.stdout)
    assert set(outcomes) == set(ATTACKS)
    assert {name for name, outcome in outcomes.items() if outcome == "worked"} <= IN_ITS_OWN_KERNEL
    assert await runs(containers, sibling)


async def test_attacks_on_a_restored_sibling_find_what_they_look_for(containers: Containers) -> None:
    # From its own side: one that could not succeed would prove nothing. gVisor lets nobody read memory but a parent.
    template = await ready_template(containers, binds=[BIND])
    sibling = await living_sibling(containers, template)
    names, env = set(ON_A_SIBLING), {"SIBLING": SECRET[::-1]}
    of_memory = "read_memory_of_sibling"
    of_child = f"import os, signal; os.fork() or signal.pause()\n{attacking(of_memory)}"

    ended = await containers.exec(sibling, "python3", "/attacks.py", *(names - {of_memory}), env={**ENV, **env})
    parent = await containers.finish(await acting(containers, template, of_child, SECRET=SECRET, **env))

    outcomes = outcomes_of(ended.stdout) | outcomes_of(parent.stdout)
    assert {name for name, outcome in outcomes.items() if outcome == "worked"} == names


async def test_somebody_elses_template_is_not_restored(containers: Containers) -> None:
    template = await ready_template(containers)
    spec = replace(restored(containers, template, "one"), id_range=IdRange(0x7200_0000))

    with pytest.raises(TemplateUnfit, match="somebody else's"):
        await containers.start_spec(spec)


async def test_restored_container_has_the_network_of_its_own_slot(
    machine: Machine, make_pool: MakePool, containers: Containers
) -> None:
    tcp = machine.serve("outside", "203.0.113.5", outside=True)
    ask = f"s = socket.create_connection(('203.0.113.5', {tcp.port}), 3); s.sendall(b'x'); print(s.recv(99).decode())"
    async with make_pool(size=3) as pool:
        slots = [await pool.acquire(f"ct-{number}") for number in (1, 2, 3)]
        spec = containers.spec("python3", "-c", PROGRAM, env={**ENV, "NAME": "template"}, id_range=RANGE)
        template = await containers.start_spec(replace(spec, is_template=True, network=slots[0]))
        report = await containers.runtime.template_report(template.container_id)
        assert report.is_ready, report.cause
        said = []
        for slot in slots[1:]:
            begun = restored(containers, template, "one", network=slot)
            ended = await containers.finish(
                await containers.start_spec(replace(begun, env={**begun.env, "THEN": ask + "; time.sleep(0.1)"}))
            )
            said.append(ended.stdout.splitlines())
        for status in await containers.runtime.list():
            await containers.runtime.remove(status.container_id)
        for slot in slots:
            await pool.release(slot)

    assert [lines[1] for lines in said] == [f"outside {MACHINE_ADDRESS}"] * 2
    assert [json.loads(lines[0])["address"] for lines in said] == [slot.address for slot in slots[1:]]


async def test_next_agent_finds_the_template_ready(containers: Containers, data_dir: Path) -> None:
    template = await ready_template(containers)

    async with await SpawnerRuntime.open(str(data_dir / "spawner"), data_dir.name) as runtime:
        begin = time.monotonic()
        report = await asyncio.wait_for(runtime.template_report(template.container_id), 1)
        adopted = await runtime.adopt(template.container_id)

        assert report.is_ready
        assert time.monotonic() - begin < 1
        for descriptor in (adopted.stdout_fd, adopted.stderr_fd):
            os.close(descriptor)
