"""Templates and the clones forked from them: what they can do, and what not even a hostile one can."""

from __future__ import annotations

import asyncio
import json
import os
import signal
from pathlib import Path

import pytest

from squall.runtime.client import SpawnerRuntime
from squall.runtime.errors import ContainerMissing, RuntimeFailure, TemplateUnfit
from squall.runtime.spec import ExitStatus, IdRange, Limits, NetworkSlot
from tests.kernel.containers import ENV, FIRST_ID, Running, until
from tests.kernel.forge import RANGE, Forge, exists, runs

ALL_NAMESPACES = ("user", "mnt", "net", "ipc", "uts", "cgroup", "pid")


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
    sleep = ["sleep", f"1000.{os.getpid()}"]  # nobody else's, on all the machine
    script = f"import subprocess; print(subprocess.Popen(['setsid', *{sleep}]).pid, flush=True)"

    clone = await forge.clone(template, script)
    assert (await forge.containers.exit(clone)).code == 0

    assert await forge.containers.exec(await forge.clone(template, "import time; time.sleep(60)"), "true")
    assert not [pid for pid in os.listdir("/proc") if pid.isdigit() and _argv(pid) == sleep]


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


async def test_reason_of_one_that_has_ended_is_told_until_it_is_removed(forge: Forge) -> None:
    template = await forge.template("--unfit", "a thread was started by module x")
    await forge.containers.exit(template)

    report = await forge.runtime.template_report(template.container_id)
    await forge.runtime.remove(template.container_id)

    assert report.cause == "a thread was started by module x"
    with pytest.raises(ContainerMissing):
        await forge.runtime.template_report(template.container_id)


@pytest.mark.parametrize(
    ("before", "status"),
    [
        ("raise SystemExit(3)", ExitStatus(3, None)),
        ("os.kill(os.getpid(), signal.SIGSEGV)", ExitStatus(None, signal.SIGSEGV)),
        ("b'x' * 2**30", ExitStatus(None, signal.SIGKILL, is_oom=True)),
    ],
    ids=["by itself", "by a crash", "out of memory"],
)
async def test_template_that_ends_without_a_word(forge: Forge, before: str, status: ExitStatus) -> None:
    template = await forge.template("--before", before, limits=Limits(memory_bytes=64 * 2**20))

    with pytest.raises(ContainerMissing):
        await forge.runtime.template_report(template.container_id)
    assert await forge.containers.exit(template) == status, "its program's, and not its first process's"


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


async def test_what_clones_share_with_a_template_that_has_ended_is_counted_as_long_as_they_run(forge: Forge) -> None:
    """Whoever drops a template whose clones run has not freed what they share."""
    template = await forge.ready("--before", "os.loaded = os.urandom(2**20) * 100")
    clone = await forge.clone(template, "import signal; signal.pause()")

    await forge.runtime.kill(template.container_id, signal.SIGTERM)
    await until(lambda: not Path(f"/proc/{template.pid}").exists())

    assert (await forge.runtime.usage(template.container_id)).memory_bytes > 100 * 2**20
    assert (await forge.runtime.usage(clone.container_id)).memory_bytes < 50 * 2**20
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


async def test_template_that_has_ended_is_not_ready(forge: Forge) -> None:
    template = await forge.ready()
    clone = await forge.clone(template, "import signal; signal.pause()")
    await forge.runtime.kill(template.container_id, signal.SIGTERM)
    await until(lambda: not Path(f"/proc/{template.pid}").exists())

    with pytest.raises(ContainerMissing):
        await forge.runtime.template_report(template.container_id)
    assert await runs(forge.containers, clone)
