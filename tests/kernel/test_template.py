"""Templates and the clones forked from them: what they can do, and what not even a hostile one can."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
from collections.abc import Mapping
from pathlib import Path

import pytest

from squall.runtime.client import SpawnerRuntime
from squall.runtime.errors import ContainerMissing, RuntimeFailure, TemplateUnfit
from squall.runtime.spec import Bind, IdRange, Limits, NetworkSlot
from tests.kernel.attacks import ATTACKS
from tests.kernel.containers import ENV, FIRST_ID, TIMEOUT_S, Containers, Running, until
from tests.kernel.forge import BINDS, HERE, RANGE, Forge

ALL_NAMESPACES = ("user", "mnt", "net", "ipc", "uts", "cgroup", "pid")
# In the moment in which user code has every capability over its own namespaces, it may do this with its own network
# namespace. What its end of the wire lets through is for the machine's end to say.
ITS_OWN_NETWORK = {"configure_interface"}
# And this is that moment itself: what it has then, `verification` looks for afterwards.
OF_THE_MOMENT = {"gain_capability", "join_namespace_of_pid_1", "hold_descriptor_beyond_standard_ones"}


async def exists(containers: Containers, container_id: str) -> bool:
    return container_id in {status.container_id for status in await containers.runtime.list()}


async def runs(containers: Containers, running: Running) -> bool:
    statuses = {status.container_id: status for status in await containers.runtime.list()}
    return statuses[running.container_id].exit_status is None


# ---- what a clone is


async def test_clone_begins_where_its_template_stopped(forge: Forge) -> None:
    template = await forge.ready("--before", "import decimal; decimal.loaded = 41")

    ended = await forge.run(template, "import decimal; print(decimal.loaded + 1)")

    assert (ended.status.code, ended.stdout) == (0, "42\n")


async def test_environment_is_what_it_was_given_and_nothing_of_the_template(forge: Forge) -> None:
    template = await forge.ready(env={**ENV, "OF_TEMPLATE": "1"})

    ended = await forge.run(template, "import os; print(sorted(os.environ))", env={"MINE": "2"})

    assert ended.stdout == f"{sorted([*ENV, 'ACTION', 'MINE'])}\n"


async def test_every_namespace_is_its_own(forge: Forge) -> None:
    template = await forge.ready()
    one, other = [await forge.clone(template, "import time; time.sleep(60)") for _ in range(2)]

    def inodes(pid: int | str) -> dict[str, str]:
        return {name: os.readlink(f"/proc/{pid}/ns/{name}") for name in ALL_NAMESPACES}

    sets = [inodes(one.pid), inodes(other.pid), inodes(template.pid), inodes("self")]
    for name in ALL_NAMESPACES:
        found = {namespaces[name] for namespaces in sets}
        # The user namespace is shared by all clones of one function and user, as it is by its containers.
        assert len(found) == (3 if name == "user" else 4), name


async def test_only_its_own_processes_are_there_to_see(forge: Forge) -> None:
    template = await forge.ready()
    await forge.clone(template, "import time; time.sleep(60)")

    ended = await forge.run(template, "import os; print(sorted(int(x) for x in os.listdir('/proc') if x.isdigit()))")

    assert len(json.loads(ended.stdout)) == 2, "its cell's first process and itself"


async def test_its_first_process_holds_nothing_of_the_machine(forge: Forge) -> None:
    template = await forge.ready()
    look = (
        "import os\n"
        "held = [os.readlink(f'/proc/1/fd/{name}') for name in os.listdir('/proc/1/fd')]\n"
        "print(sorted({one for one in held if one != 'anon_inode:[signalfd]'}))"
    )

    ended = await forge.run(template, look)

    assert (ended.status.code, ended.stdout) == (0, "['/dev/null']\n"), "and not the log of the spawner, to write to"


async def test_it_finds_the_files_that_its_template_has_written(forge: Forge) -> None:
    script = (
        "os.makedirs('/root/cache/deep'); open('/root/cache/deep/file', 'w').write('kept'); "
        "os.unlink('/etc/os-release'); os.symlink('/etc/shadow', '/root/link')"
    )
    template = await forge.ready("--before", script)
    look = (
        "import os\n"
        "path = '/root/cache/deep/file'\n"
        "print(open(path).read(), os.path.exists('/etc/os-release'), os.readlink('/root/link'), os.stat(path).st_uid)\n"
        "open(path, 'a').write(' and changed')\n"
    )

    first, second = [await forge.run(template, look) for _ in range(2)]

    assert (first.stdout, first.status.code) == ("kept False /etc/shadow 0\n", 0)
    assert second.stdout == first.stdout, "what a clone changes is its own"


async def test_files_it_writes_are_its_own(forge: Forge) -> None:
    template = await forge.ready()
    limits = Limits(tmp_bytes=2**20)
    write = "open('/root/mine', 'w').close(); open('/tmp/mine', 'w').close(); open('/dev/shm/mine', 'w').close()"
    await forge.run(template, write, limits=limits)

    look = "import os; print(os.listdir('/root') + os.listdir('/tmp') + os.listdir('/dev/shm'))"
    ended = await forge.run(template, look, limits=limits)

    assert "mine" not in ended.stdout
    assert not list(Path(forge.containers.base, template.container_id).rglob("mine"))


@pytest.mark.parametrize(("action", "code", "number"), [
    ("", 0, None), ("raise SystemExit(7)", 7, None), ("import os; os._exit(9)", 9, None),
    ("import os; os.kill(os.getpid(), 9)", None, 9), ("import os; os.abort()", None, 6),
])  # fmt: skip
async def test_its_exit_is_told(forge: Forge, action: str, code: int | None, number: int | None) -> None:
    template = await forge.ready()

    ended = await forge.run(template, action)

    assert (ended.status.code, ended.status.signal) == (code, number)


async def test_what_it_leaves_behind_ends_with_it(forge: Forge) -> None:
    template = await forge.ready()
    script = "import subprocess; print(subprocess.Popen(['setsid', 'sleep', '1000']).pid, flush=True)"

    clone = await forge.clone(template, script)
    await forge.containers.exit(clone)

    assert await forge.containers.exec(await forge.clone(template, "import time; time.sleep(60)"), "true")
    assert not [pid for pid in os.listdir("/proc") if pid.isdigit() and _argv(pid) == ["sleep", "1000"]]


def _argv(pid: str) -> list[str]:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().decode().split("\0")[:-1]
    except OSError:
        return []


async def test_signals_reach_it_with_its_children(forge: Forge) -> None:
    template = await forge.ready()
    action = (
        "import signal, subprocess, sys\n"
        "child = subprocess.Popen(['sleep', '1000'])\n"
        "signal.signal(signal.SIGTERM, lambda *_: sys.exit(child.wait() and 5))\n"
        "print('up', flush=True)\n"
        "signal.pause()\n"
    )
    clone = await forge.clone(template, action)
    await clone.stdout.read_until("up")

    await forge.runtime.kill(clone.container_id, signal.SIGTERM)

    assert (await forge.containers.exit(clone)).code == 5


async def test_sigkill_ends_all_of_it(forge: Forge) -> None:
    template = await forge.ready()
    clone = await forge.clone(template, "import time; time.sleep(1000)")

    await forge.runtime.kill(clone.container_id, signal.SIGKILL)

    assert (await forge.containers.exit(clone)).signal == signal.SIGKILL
    assert (await forge.run(template, "print(1)")).stdout == "1\n"


async def test_limits_are_its_own(forge: Forge) -> None:
    template = await forge.ready()

    ended = await forge.run(template, "x = bytearray(2**28); raise SystemExit(3)", limits=Limits(memory_bytes=2**26))

    assert (ended.status.signal, ended.status.is_oom) == (signal.SIGKILL, True)
    assert (await forge.run(template, "print(1)")).stdout == "1\n"


async def test_clone_of_a_user_who_is_not_root(forge: Forge) -> None:
    template = await forge.ready(user=(1000, 1000))

    script = "import os; print(os.getresuid(), os.getgroups()); open('/etc/new', 'w')"
    ended = await forge.run(template, f"try:\n  {script}\nexcept PermissionError: print('refused')", user=(1000, 1000))

    assert ended.stdout == "(1000, 1000, 1000) []\nrefused\n"


async def test_freeze_usage_and_exec_of_a_clone(forge: Forge) -> None:
    template = await forge.ready()
    clone = await forge.clone(template, "import time\nwhile True: print('.', flush=True); time.sleep(0.01)")
    await clone.stdout.read_until(".")

    assert (await forge.containers.exec(clone, "cat", "/proc/self/cgroup")).stdout.count(":/\n") > 0
    usage = await forge.runtime.usage(clone.container_id)
    assert usage.pids == 2
    assert usage.cpu_ns > 0
    await forge.runtime.freeze(clone.container_id)
    state = Path(f"/proc/{clone.pid}/stat").read_text().split()[13]
    await asyncio.sleep(0.1)
    assert Path(f"/proc/{clone.pid}/stat").read_text().split()[13] == state
    await forge.runtime.thaw(clone.container_id)


async def test_clone_in_a_network_namespace_made_for_it(forge: Forge, data_dir: Path) -> None:
    template = await forge.ready()
    pin = data_dir / "pin"
    pin.touch()
    (descriptor,) = await forge.runtime.make_network_namespaces(RANGE, 0, 1)
    try:
        _mount(f"/proc/self/fd/{descriptor}", str(pin))
        slot = NetworkSlot("1", str(pin), "10.1.2.3/32", "10.1.2.1", "nameserver 10.1.2.1\n", {"PROXY": "x"})
        inode = os.stat(pin).st_ino

        script = "import os; print(os.stat('/proc/self/ns/net').st_ino, os.environ['PROXY'], open('/etc/hosts').read())"
        ended = await forge.run(template, script, network=slot)

        assert ended.stdout.startswith(f"{inode} x 127.0.0.1")
        assert "10.1.2.3" in ended.stdout
    finally:
        os.close(descriptor)
        _unmount(str(pin))


def _mount(source: str, target: str) -> None:
    from squall.runtime import syscalls as sc

    sc.mount(source, target, None, sc.MS_BIND)


def _unmount(target: str) -> None:
    from squall.runtime import syscalls as sc

    sc.unmount(target)


# ---- made ahead


async def test_cell_then_fork_then_begin(forge: Forge) -> None:
    template = await forge.ready()
    spec = forge.spec(template)
    await forge.runtime.prepare(spec, is_parked=False)
    await forge.runtime.prepare(spec, is_parked=True)
    (status,) = [one for one in await forge.runtime.list() if one.container_id == spec.container_id]
    assert status.is_prepared
    assert status.pid > 0

    started = await forge.runtime.begin(
        spec.container_id, {**ENV, "ACTION": "import os; print(os.environ['A'], was_told_to_wait)", "A": "1"}
    )

    ended = await forge.containers.finish(Running(spec.container_id, started))
    assert (ended.status.code, ended.stdout) == (0, "1 True\n")


async def test_begin_of_a_cell_forks_first(forge: Forge) -> None:
    template = await forge.ready()
    spec = forge.spec(template)
    await forge.runtime.prepare(spec, is_parked=False)

    started = await forge.runtime.begin(spec.container_id, {**ENV, "ACTION": "print(was_told_to_wait)"})

    assert (await forge.containers.finish(Running(spec.container_id, started))).stdout == "False\n"


async def test_parked_clone_that_ends_is_gone(forge: Forge) -> None:
    template = await forge.ready()
    spec = forge.spec(template)
    await forge.runtime.prepare(spec, is_parked=True)
    (status,) = [one for one in await forge.runtime.list() if one.container_id == spec.container_id]

    os.kill(status.pid, signal.SIGKILL)
    for _ in range(100):
        if not await exists(forge.containers, spec.container_id):
            break
        await asyncio.sleep(0.02)

    with pytest.raises(ContainerMissing):
        await forge.runtime.begin(spec.container_id, ENV)


async def test_removed_while_it_ends_by_itself(forge: Forge) -> None:
    template = await forge.ready()

    for _ in range(20):
        clone = await forge.clone(template, "pass")
        await forge.runtime.remove(clone.container_id)
        assert not await exists(forge.containers, clone.container_id)


async def test_removed_while_it_is_made(forge: Forge) -> None:
    template = await forge.ready()
    spec = forge.spec(template)

    making = asyncio.ensure_future(forge.runtime.prepare(spec, is_parked=True))
    await asyncio.sleep(0)
    await forge.runtime.remove(spec.container_id)

    await asyncio.wait([making])
    await forge.runtime.remove(spec.container_id)
    assert not await exists(forge.containers, spec.container_id)


# ---- what a template is


async def test_template_has_no_capability_and_wears_its_filter(forge: Forge) -> None:
    template = await forge.ready()

    status = dict(line.split(":\t", 1) for line in Path(f"/proc/{template.pid}/status").read_text().splitlines())

    assert {int(status[name], 16) for name in ("CapPrm", "CapEff", "CapInh", "CapBnd", "CapAmb")} == {0}
    assert (status["NoNewPrivs"], status["Seccomp"]) == ("1", "2")
    assert int(status["Uid"].split()[0]) == RANGE.start


async def test_reason_of_one_that_is_unfit_is_told(forge: Forge) -> None:
    template = await forge.template("--unfit", "a thread was started by module x")

    report = await forge.runtime.template_report(template.container_id)

    assert (report.is_ready, report.cause) == (False, "a thread was started by module x")
    with pytest.raises(TemplateUnfit):
        await forge.clone(template)
    await forge.containers.exit(template)


async def test_template_that_ends_without_a_word(forge: Forge) -> None:
    template = await forge.template("--before", "raise SystemExit(3)")

    with pytest.raises(ContainerMissing):
        await forge.runtime.template_report(template.container_id)
    await forge.containers.exit(template)


async def test_template_that_says_nonsense_is_unfit(forge: Forge) -> None:
    template = await forge.template("--before", "control.send(b'[')")

    assert not (await forge.runtime.template_report(template.container_id)).is_ready


async def test_template_that_cannot_be_executed(forge: Forge) -> None:
    with pytest.raises(RuntimeFailure, match="no such program"):
        await forge.containers.start("nothing", is_template=True, container_id="tp-none", id_range=RANGE)

    assert not await exists(forge.containers, "tp-none")


async def test_clone_of_another_range_is_refused(forge: Forge) -> None:
    template = await forge.ready()

    with pytest.raises(TemplateUnfit, match="somebody else's"):
        await forge.clone(template, id_range=IdRange(FIRST_ID + 65_536 * 9))


async def test_clones_outlive_their_template(forge: Forge) -> None:
    template = await forge.ready()
    clone = await forge.clone(template, "import signal; signal.pause()")

    await forge.runtime.kill(template.container_id, signal.SIGTERM)
    await until(lambda: not Path(f"/proc/{template.pid}").exists())

    with pytest.raises(TemplateUnfit):
        await forge.clone(template)
    await asyncio.sleep(0.2)
    assert await runs(forge.containers, clone)
    assert (await forge.containers.exec(clone, "echo", "here")).stdout == "here\n"
    assert template.container_id not in forge.containers.exit_of
    await forge.runtime.kill(clone.container_id, signal.SIGKILL)
    await forge.runtime.remove(clone.container_id)
    await forge.containers.exit(template)


async def test_removing_a_template_takes_its_clones_along(forge: Forge) -> None:
    template = await forge.ready()
    clone = await forge.clone(template, "import signal; signal.pause()")

    await forge.runtime.remove(template.container_id)

    assert (await forge.containers.exit(clone)).signal == signal.SIGKILL
    await forge.runtime.remove(clone.container_id)


async def test_another_agent_finds_template_and_clones(forge: Forge, data_dir: Path) -> None:
    template = await forge.ready()
    clone = await forge.clone(template, "import signal; signal.pause()")

    async with await SpawnerRuntime.open(str(data_dir / "spawner"), data_dir.name, idle_s=5) as successor:
        found = {status.container_id for status in await successor.list()}
        assert found == {template.container_id, clone.container_id}
        assert (await successor.template_report(template.container_id)).is_ready
        started = await successor.adopt(clone.container_id)
        assert started.pid == clone.pid
        os.close(started.stdout_fd)
        os.close(started.stderr_fd)
        made = forge.spec(template, "print(3)")
        again = Running(made.container_id, await successor.start(made))
        assert await again.stdout.read_all() == "3\n"
        again.close()


# ---- what not even a hostile one can do


@pytest.mark.parametrize(("step", "why"), [
    *((name, f"not in the {name} namespace") for name in ALL_NAMESPACES),
    ("drop", "kept capabilities"), ("bound", r"kept capabilities \(CapBnd"),
    ("filter", "does not wear the container's filter"), ("close", "holds"), ("cgroup files", "not in the cgroups"),
    ("tasks", "holds .*tasks"),
])  # fmt: skip
async def test_clone_that_skips_a_step_is_never_told_who_it_is(forge: Forge, step: str, why: str) -> None:
    await refused(forge, why, "--skip", step)


@pytest.mark.parametrize(("thing", "why"), [
    ("alone", "processes that are not its own"), ("second", "processes that are not its own"),
    ("child", "child processes"), ("thread", "several threads"), ("chroot", "root directory"),
    ("inherit", r"kept capabilities \(CapInh"), ("memory", "memory is that of another process"),
])  # fmt: skip
async def test_clone_with_more_than_it_should_have_is_never_told_who_it_is(forge: Forge, thing: str, why: str) -> None:
    await refused(forge, why, "--add", thing)


async def refused(forge: Forge, why: str, *options: str, **fields: Any) -> None:
    """Clones of such a template are found out, and nothing is left of them."""
    template = await forge.ready(*options, **fields)
    spec = forge.spec(template, "print('told')", **fields)

    with pytest.raises(TemplateUnfit, match=why):
        await forge.runtime.start(spec)

    assert not await exists(forge.containers, spec.container_id)


@pytest.mark.parametrize(("kept", "why"), [
    ("os.open('/', os.O_RDONLY)", "holds / of its template"),
    ("os.open('/etc/os-release', os.O_RDONLY)", "holds /.*os-release of its template"),
    ("os.open('/opt/suite/attacks.py', os.O_RDONLY)", "holds /.*attacks.py of its template"),
    ("os.open('/proc/self/status', os.O_RDONLY)", "holds /proc/"),
    ("os.memfd_create('x')", "holds /memfd:x"),
    ("os.open('/dev/ptmx', os.O_RDWR)", "holds /.*ptmx"),
    ("os.pipe()[0]", "holds pipe:"),
    ("socket.socketpair()[0].detach()", "holds a socket|holds socket:"),
    ("os.pidfd_open(os.getpid())", "holds anon_inode"),
    ("os.eventfd(0)", "holds anon_inode"),
    ("os.open('/proc/self/ns/mnt', os.O_RDONLY)", "holds mnt:"),
])  # fmt: skip
async def test_descriptors_that_lead_back_are_found(forge: Forge, kept: str, why: str) -> None:
    await refused(forge, why, "--skip", "again", "--before", f"KEPT.add({kept})")


async def test_harmless_descriptors_are_kept(forge: Forge) -> None:
    kept = "KEPT.update({os.open('/dev/null', os.O_WRONLY), os.open('/dev/urandom', os.O_RDONLY), os.dup(1)})"
    template = await forge.ready("--before", kept)

    assert (await forge.run(template, "print(1)")).stdout == "1\n"


async def test_file_that_was_open_stays_open_where_it_was(forge: Forge) -> None:
    script = "KEPT.add(os.open('/etc/os-release', os.O_RDONLY)); os.lseek(min(KEPT), 7, 0)"
    template = await forge.ready("--before", script)
    look = "import sys, os; print(os.read(*sys.modules['__main__'].KEPT, 4))"

    first, second = [await forge.run(template, look) for _ in range(2)]

    assert (first.stdout, second.stdout) == ("b'NAME'\n", "b'NAME'\n")


async def test_file_that_was_open_is_the_containers_own(forge: Forge) -> None:
    script = "open('/root/model', 'w').write('weights'); KEPT.add(os.open('/root/model', os.O_RDONLY))"
    template = await forge.ready("--before", script)
    change = (
        "import os, sys\n"
        "number = min(sys.modules['__main__'].KEPT)\n"
        "changed = os.open(f'/proc/self/fd/{number}', os.O_RDWR)\n"
        "print(os.write(changed, b'poison!'), open('/root/model').read())\n"
    )
    read = "import os, sys; print(os.read(*sys.modules['__main__'].KEPT, 9), open('/root/model').read())"

    sibling = await forge.clone(template, f"import signal; signal.signal(15, lambda *_: None); signal.pause(); {read}")
    changed = await forge.run(template, change)
    later = await forge.run(template, read)
    await forge.runtime.kill(sibling.container_id, signal.SIGTERM)

    assert changed.stdout == "7 poison!\n", "its own file is its to change"
    assert later.stdout == "b'weights' weights\n"
    assert (await forge.containers.finish(sibling)).stdout == "b'weights' weights\n"


async def test_nobody_changes_the_files_of_a_template_that_is_ready(forge: Forge) -> None:
    script = (
        "open('/root/model', 'w').write('weights')\n"
        "def change(*_):\n"
        "    try:\n        open('/root/model', 'w').write('poison!')\n"
        "    except OSError as error:\n        print(error.strerror, flush=True)\n"
        "signal.signal(signal.SIGUSR1, change)\n"
    )
    template = await forge.ready("--before", script)

    os.kill(template.pid, signal.SIGUSR1)

    assert "Read-only file system" in await template.stdout.read_until("\n")
    assert (await forge.run(template, "print(open('/root/model').read())")).stdout == "weights\n"


async def test_template_that_has_a_file_open_for_writing_is_unfit(forge: Forge) -> None:
    template = await forge.template("--before", "KEPT.add(os.open('/root/log', os.O_WRONLY | os.O_CREAT))")

    report = await forge.runtime.template_report(template.container_id)

    assert not report.is_ready
    assert "open for writing" in report.cause


async def test_clone_that_ends_when_it_is_told_who_it_is(forge: Forge) -> None:
    template = await forge.ready("--skip", "begin")
    spec = forge.spec(template)

    with pytest.raises(TemplateUnfit, match="ended on its way"):
        async with asyncio.timeout(5):
            await forge.runtime.start(spec)

    assert not await exists(forge.containers, spec.container_id)


async def test_clone_that_sends_nonsense_is_ended_and_removed(forge: Forge) -> None:
    template = await forge.ready("--skip", "sense")
    spec = forge.spec(template)

    with contextlib.suppress(TemplateUnfit):
        async with asyncio.timeout(15):
            started = await forge.runtime.start(spec)
            Running(spec.container_id, started).close()
    async with asyncio.timeout(5):
        await forge.runtime.remove(spec.container_id)

    assert not await exists(forge.containers, spec.container_id)


@pytest.mark.parametrize("place", ["/tmp", "/proc", "/opt/suite"])
async def test_working_directory_of_its_template_is_found(forge: Forge, place: str) -> None:
    # The last is a directory of the machine's that is bound into both: above it is the template's root directory.
    before = f"KEPT.add(os.open('{place}', os.O_RDONLY))"
    await refused(forge, "working directory", "--before", before, "--skip", "chdir")


async def test_template_that_has_ended_is_not_ready(forge: Forge) -> None:
    template = await forge.ready()
    clone = await forge.clone(template, "import signal; signal.pause()")
    await forge.runtime.kill(template.container_id, signal.SIGTERM)
    await until(lambda: not Path(f"/proc/{template.pid}").exists())

    with pytest.raises(ContainerMissing):
        await forge.runtime.template_report(template.container_id)
    assert await runs(forge.containers, clone)


async def test_stray_of_a_fork_is_ended(forge: Forge) -> None:
    template = await forge.ready("--skip", "leave")
    spec = forge.spec(template)
    # The template waits for its child, which stays, and the next fork is not made before the stray is ended.
    first = await forge.runtime.start(spec)
    os.close(first.stdout_fd)
    os.close(first.stderr_fd)

    made = asyncio.ensure_future(forge.runtime.prepare(forge.spec(template), is_parked=True))
    await asyncio.wait([made], timeout=TIMEOUT_S)

    assert made.exception() is None
    await until(lambda: len(_children(template.pid)) <= 1)


def _children(pid: int) -> list[str]:
    return Path(f"/proc/{pid}/task/{pid}/children").read_text().split()


@pytest.fixture
async def hook_outcomes(forge: Forge) -> Mapping[str, str]:
    """Every attack, by user code that runs in the clone before it has given up anything."""
    marker = forge.containers.base / "marker"
    marker.write_text("of the machine")
    binds = (*BINDS, Bind(str(HERE / "attacks.py"), "/attacks.py"))
    env = {**ENV, "MARKER": str(marker), "HOST_PID": str(os.getpid())}
    template = await forge.ready("--hook", "/opt/suite/fork_hook.py", binds=binds, env=env)
    ended = await forge.run(template, "print(open('/tmp/outcomes').read())", binds=binds)
    assert ended.status.code == 0, ended.stderr
    return dict(json.loads(ended.stdout))


async def test_attacks_by_a_fork_hook_with_every_capability_are_refused(hook_outcomes: Mapping[str, str]) -> None:
    assert set(hook_outcomes) == set(ATTACKS)
    assert {name for name, outcome in hook_outcomes.items() if outcome == "worked"} <= ITS_OWN_NETWORK | OF_THE_MOMENT
