"""What not even a hostile fork of a template can do: whatever it skips, adds or keeps is found before it is told who it
is, and with every power that it ever has it gets nowhere."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from squall.agent.template.cells import FORK_S
from squall.runtime.cgroup import detect_cgroups
from squall.runtime.clones import JOIN_TIMEOUT_S
from squall.runtime.errors import JoinFailure, TemplateUnfit
from squall.runtime.spec import Bind, Limits
from squall.runtime.strays import PAUSE_S
from tests.kernel.attacks import ATTACKS
from tests.kernel.containers import ENV, TIMEOUT_S, Running, until
from tests.kernel.forge import BINDS, HERE, Forge, exists, runs
from tests.kernel.sibling import LIVING, ON_A_SIBLING, SECRET

FEW = Limits(pids_max=200)
PAUSE = "import signal; signal.pause()"
ALL_NAMESPACES = ("user", "mnt", "net", "ipc", "uts", "cgroup", "pid")
# In the moment in which user code has every capability over its own namespaces, it may do this with its own network
# namespace. What its end of the wire lets through is for the machine's end to say.
ITS_OWN_NETWORK = {"configure_interface"}
# And this is that moment itself: what it has then, `verification` looks for afterwards.
HELD = "hold_descriptor_beyond_standard_ones"
OF_THE_MOMENT = {"gain_capability", "join_namespace_of_pid_1", HELD}


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


async def test_clone_with_more_descriptors_than_are_looked_at_is_refused(forge: Forge) -> None:
    await refused(forge, "more than 1024 descriptors", "--before", "[os.dup(0) for _ in range(5_000)]")


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
        "    else:\n        print('changed', flush=True)\n"
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


SHARERS = """
import re, subprocess
FLAGS = {"files": 0x411, "fs": 0x211, "memory": 0x111, "parent": 0x8011, "all": 0x711}
def hook():
    # Before it has given up anything, and while the template's filter is the only one.
    outcomes = []
    for name, flags in FLAGS.items():
        child = libc.syscall(SYS_CLONE, flags, 0, 0, 0, 0)
        if child == 0:
            os._exit(0)
        if child > 0:
            outcomes.append(name)
            os.waitpid(child, 0)
    open("/tmp/shared", "w").write(" ".join(outcomes))
os.register_at_fork(after_in_child=hook)
# What a template does all the time.
thread = threading.Thread(target=lambda: subprocess.run(["true"], check=True))
thread.start()
thread.join()
assert os.system("true") == 0
assert os.waitpid(os.posix_spawnp("true", ["true"], {}), 0)[1] == 0
assert subprocess.run(["true"], close_fds=False).returncode == 0
"""


async def test_no_process_of_a_template_shares_what_a_clone_holds(forge: Forge) -> None:
    template = await forge.ready("--before", SHARERS)

    ended = await forge.run(template, "print(open('/tmp/shared').read())")

    assert ended.status.code == 0, ended.stderr
    assert set(ended.stdout.split()) == set()


async def test_clone_that_ends_when_it_is_told_who_it_is(forge: Forge) -> None:
    template = await forge.ready("--skip", "begin")
    spec = forge.spec(template)

    with pytest.raises(TemplateUnfit, match="ended on its way"):
        async with asyncio.timeout(5):
            await forge.runtime.start(spec)

    assert not await exists(forge.containers, spec.container_id)


HANGS = "os.register_at_fork(after_in_child=lambda: time.sleep(1_000))"


@pytest.mark.parametrize("option", [("--before", HANGS), ("--add", "mute")], ids=["joins", "begins"])
async def test_fork_that_hangs_is_its_templates_fault_before_an_agent_gives_it_up(
    forge: Forge, option: tuple[str, str]
) -> None:
    template = await forge.ready(*option)
    spec = forge.spec(template)

    started = asyncio.ensure_future(forge.runtime.start(spec))
    told, _ = await asyncio.wait([started], timeout=FORK_S)

    assert told == {started}
    with pytest.raises(TemplateUnfit, match="did nothing within"):
        await started
    assert not await exists(forge.containers, spec.container_id)


async def test_forks_that_wait_for_those_before_them_do_not_hang(forge: Forge) -> None:
    # The template makes them one after the other, with two forks each; the second has joined later than one that hangs
    # is given up.
    template = await forge.ready("--before", f"os.register_at_fork(before=lambda: time.sleep({JOIN_TIMEOUT_S * 0.3}))")
    specs = [forge.spec(template) for _ in range(2)]

    async with asyncio.timeout(10 * JOIN_TIMEOUT_S):
        await asyncio.gather(*map(forge.runtime.start, specs))


async def test_clone_that_does_not_get_into_its_cell_says_so(forge: Forge) -> None:
    template = await forge.ready("--before", "KEPT.add(4_000)")
    spec = forge.spec(template)

    with pytest.raises(JoinFailure, match="could not join"):
        async with asyncio.timeout(5):
            await forge.runtime.start(spec)

    assert not await exists(forge.containers, spec.container_id)


async def test_clone_that_vanishes_in_its_network_says_that_it_may_be_there(forge: Forge) -> None:
    template = await forge.ready("--add", "vanish")

    with pytest.raises(TemplateUnfit, match="ended on its way") as failed:
        async with asyncio.timeout(5):
            await forge.runtime.start(forge.spec(template))

    assert type(failed.value) is JoinFailure
    assert beside(template.pid), "nobody can be in it but this one, which its cell does not end"


async def test_who_is_found_somewhere_else_is_ended_at_once(forge: Forge) -> None:
    template = await forge.ready("--skip", "pid,cgroup files", "--add", "stay")

    with pytest.raises(JoinFailure, match="not in the pid namespace"):
        await forge.runtime.start(forge.spec(template))

    # And not when somebody looks after strays.
    await asyncio.sleep(PAUSE_S / 2)
    assert not beside(template.pid)


async def test_forks_that_a_template_has_not_begun_when_it_ends_are_not_said_to_be_there(forge: Forge) -> None:
    # It answers nobody, and has all of them before it when it ends.
    template = await forge.ready("--before", "signal.signal(signal.SIGUSR1, lambda *_: time.sleep(1_000))")
    prepared = [forge.spec(template) for _ in range(20)]
    for spec in prepared:
        await forge.runtime.prepare(spec, is_parked=False)
    os.kill(template.pid, signal.SIGUSR1)
    asked = [asyncio.ensure_future(forge.runtime.prepare(spec, is_parked=True)) for spec in prepared]
    await asyncio.sleep(0.5)

    os.kill(template.pid, signal.SIGKILL)

    failures = await asyncio.gather(*asked, return_exceptions=True)
    assert {type(failure) for failure in failures} == {TemplateUnfit}


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


async def test_stray_of_a_fork_is_ended(forge: Forge) -> None:
    template = await forge.ready("--skip", "leave")
    # The template waits for its child, which stays, and the next fork is not made before the stray is ended.
    await forge.clone(template, PAUSE)

    made = asyncio.ensure_future(forge.runtime.prepare(forge.spec(template), is_parked=True))
    await asyncio.wait([made], timeout=TIMEOUT_S)

    assert made.exception() is None
    await until(lambda: len(beside(template.pid)) == 0)


@pytest.mark.parametrize("way", ["twice", "twice inside"])
async def test_stray_that_is_nobodys_child_is_ended(forge: Forge, way: str) -> None:
    template = await forge.ready("--add", way)
    clone = await forge.clone(template, PAUSE)
    assert len(beside(template.pid)) == 1

    await until(lambda: not beside(template.pid))

    assert beside(clone.pid) == set(), "and it has its cell for itself"
    assert await runs(forge.containers, clone)


async def test_process_that_comes_into_a_cell_later_is_ended(forge: Forge) -> None:
    template = await forge.ready("--add", "later")
    clone = await forge.clone(template, PAUSE)
    await until(lambda: len(beside(clone.pid)) == 1)

    await until(lambda: not beside(clone.pid))

    assert await runs(forge.containers, clone)


async def test_what_a_clone_starts_is_its_own(forge: Forge) -> None:
    template = await forge.ready()
    script = "import subprocess; subprocess.run(['sh', '-c', 'sleep 1000 & sleep 1000 &']); signal.pause()"
    clone = await forge.clone(template, f"import signal; {script}")
    await until(lambda: len(beside(clone.pid)) == 2)
    await forge.clone(template, "pass")

    await asyncio.sleep(2 * PAUSE_S + 1)

    assert len(beside(clone.pid)) == 2


async def test_no_process_of_a_template_outlives_its_program(forge: Forge) -> None:
    template = await forge.ready("--add", "twice")
    clone = await forge.clone(template, PAUSE)
    (stray,) = beside(template.pid)

    await forge.runtime.kill(template.container_id, signal.SIGTERM)

    # At once, and not when somebody looks after strays.
    await asyncio.sleep(PAUSE_S / 2)
    assert not Path(f"/proc/{stray}").exists()
    assert await runs(forge.containers, clone)


async def test_processes_that_a_fork_hides_in_its_cgroup_and_that_go_on_forking_are_ended(
    forge: Forge, data_dir: Path
) -> None:
    template = await forge.ready("--add", "bomb", limits=FEW)
    clone = await forge.clone(template, PAUSE, limits=FEW)
    name = f"squall/{data_dir.name}/{clone.container_id}"
    assert len(pids_of(name)) > 1

    async with asyncio.timeout(TIMEOUT_S):
        await forge.runtime.remove(clone.container_id)

    assert detect_cgroups().open(name) is None
    assert (await forge.runtime.template_report(template.container_id)).is_ready


async def test_processes_of_a_template_that_go_on_forking_end_with_its_program(forge: Forge, data_dir: Path) -> None:
    template = await forge.ready("--before", "signal.signal(signal.SIGUSR1, lambda *_: bomb())", limits=FEW)
    name = f"squall/{data_dir.name}/{template.container_id}"
    clone = await forge.clone(template, PAUSE)
    os.kill(template.pid, signal.SIGUSR1)
    await until(lambda: len(pids_of(name)) > 4)

    await forge.runtime.kill(template.container_id, signal.SIGTERM)

    await until(lambda: len(pids_of(name)) == 1)
    assert await runs(forge.containers, clone)


def pids_of(name: str) -> list[int]:
    group = detect_cgroups().open(name)
    return group.pids() if group else []


async def test_template_with_a_program_in_the_background_is_unfit(forge: Forge) -> None:
    template = await forge.template("--before", "import subprocess; subprocess.run(['sh', '-c', 'sleep 1000 &'])")

    report = await forge.runtime.template_report(template.container_id)

    assert (report.is_ready, "is running beside it" in report.cause) == (False, True)


def beside(pid: int) -> set[int]:
    """Processes in the namespace of processes of this one, but for that and its first one."""
    found = set()
    for name in filter(str.isdigit, os.listdir("/proc")):
        with contextlib.suppress(OSError):
            is_there = os.stat(f"/proc/{name}/ns/pid").st_ino == os.stat(f"/proc/{pid}/ns/pid").st_ino
            status = dict(line.split(":\t", 1) for line in Path(f"/proc/{name}/status").read_text().splitlines())
            if is_there and not status["NSpid"].endswith("\t1") and status["State"][0] not in "ZX":
                found.add(int(name))
    return found - {pid}


async def test_clone_that_says_again_and_again_that_it_has_joined_costs_nothing(forge: Forge) -> None:
    template = await forge.ready("--add", "repeat,thread")
    spawner = spawner_pid(template)
    before = len(os.listdir(f"/proc/{spawner}/fd"))

    for _ in range(3):
        with pytest.raises(TemplateUnfit, match="several threads"):
            await forge.runtime.start(forge.spec(template))

    assert len(os.listdir(f"/proc/{spawner}/fd")) <= before + 5


TALK = """
def talk(channel):
    channel.setblocking(False)
    while True:
        try:
            channel.send(b'{"said": "' + b"x" * 30_000 + b'"}')
        except BlockingIOError:
            time.sleep(0.001)
"""


async def test_nobody_listens_to_what_a_container_says_on_its_channel(forge: Forge) -> None:
    template = await forge.ready("--before", f"{TALK}\nsignal.signal(signal.SIGUSR1, lambda *_: talk(control))")
    find = (
        "import os, socket, time\n"
        "numbers = [int(name) for name in os.listdir('/proc/self/fd') if os.path.exists(f'/proc/self/fd/{name}')]\n"
        "(channel,) = [one for one in numbers if os.readlink(f'/proc/self/fd/{one}').startswith('socket:')]\n"
    )
    clone = await forge.clone(template, f"{find}{TALK}\ntalk(socket.socket(fileno=channel))")
    spawner = spawner_pid(template)
    os.kill(template.pid, signal.SIGUSR1)
    await asyncio.sleep(0.5)

    def used_ticks() -> int:
        return sum(map(int, Path(f"/proc/{spawner}/stat").read_text().rpartition(")")[2].split()[11:13]))

    before = used_ticks()
    await asyncio.sleep(2)

    assert used_ticks() - before <= 0.2 * os.sysconf("SC_CLK_TCK")
    assert await runs(forge.containers, clone)


def spawner_pid(running: Running) -> int:
    """Whose child the program of a template is."""
    return int(Path(f"/proc/{running.pid}/stat").read_text().rpartition(")")[2].split()[1])


@pytest.fixture(params=["hook", "late", "begun", "open"])
async def outcomes(request: pytest.FixtureRequest, forge: Forge) -> Mapping[str, str]:
    """Every attack, beside a living sibling: by user code that runs in the clone before it has given up anything; when
    it was to have done so, and has not; as its container's program; and as that, with a filter of system calls of its
    own in place of the container's."""
    marker = forge.containers.base / "marker"
    marker.write_text("of the machine")
    binds = (*BINDS, Bind(str(HERE / "attacks.py"), "/attacks.py"))
    env = {**ENV, "MARKER": str(marker), "HOST_PID": str(os.getpid()), "SIBLING": SECRET[::-1]}
    options = {
        "hook": ("--hook", "/opt/suite/fork_hook.py"),
        "late": ("--late", "/opt/suite/fork_hook.py", "--skip", "drop,filter,close"),
        "begun": (),
        "open": ("--add", "open"),
    }[request.param]
    template = await forge.ready(*options, binds=binds, env=env)
    beside = template if request.param != "late" else await forge.ready(binds=binds)
    sibling = await forge.clone(beside, LIVING, binds=binds, env={"SECRET": SECRET})
    await sibling.stdout.read_until("up")
    attack = "import runpy; runpy.run_path('/opt/suite/fork_hook.py')" if request.param in ("begun", "open") else ""
    spec = forge.spec(template, attack, binds=binds, env=env)
    with contextlib.suppress(TemplateUnfit):  # who has dropped nothing is found out, when it has tried everything
        await forge.containers.finish(await forge.containers.start_spec(spec))
    assert await runs(forge.containers, sibling)
    found: dict[str, str] = json.loads(Path(spec.state_dir, "rw/upper/tmp/outcomes").read_text())
    return {**found, "way": request.param}


async def test_attacks_of_a_fork_are_refused_whatever_it_still_holds(outcomes: dict[str, str]) -> None:
    # A container's own channel to the spawner stays open in it.
    of_the_moment = {HELD} if outcomes.pop("way") in ("begun", "open") else ITS_OWN_NETWORK | OF_THE_MOMENT
    assert set(outcomes) == set(ATTACKS)
    assert {name for name, outcome in outcomes.items() if outcome == "worked"} <= of_the_moment


async def test_attacks_on_a_sibling_find_what_they_look_for(forge: Forge) -> None:
    # From its own side: one that could not succeed would prove nothing.
    binds = (*BINDS, Bind(str(HERE / "attacks.py"), "/attacks.py"))
    sibling = await forge.clone(await forge.ready(binds=binds), LIVING, binds=binds, env={"SECRET": SECRET})
    await sibling.stdout.read_until("up")

    ended = await forge.containers.exec(
        sibling, "python3", "/attacks.py", *ON_A_SIBLING, env={**ENV, "SIBLING": SECRET[::-1]}
    )

    assert {name for name, outcome in json.loads(ended.stdout).items() if outcome != "worked"} == set()


# What keeps whoever is in a cell with every capability over it from these is the filter alone.
RESTS_ON_THE_FILTER = (
    # Its namespaces are its own: mounts over its files, of what is its own; its name; its end of the network.
    "mount_memory",
    "mount_cgroup_v2",
    "mount_hierarchy_of_own_cgroup",
    "open_file_system",
    "change_hostname",
    "configure_interface",
    "raw_socket",
    "packet_socket",
    "netfilter_socket",
    "replace_tables_of_older_netfilter",
    # Its container's processes are its own, too.
    "trace_others",
    "ptrace_pid_1",
    "read_memory_of_pid_1",
    "join_namespace_of_pid_1",
    # Doors of the kernel that are there for everybody.
    "perf_event",
    "userfaultfd",
    "io_uring",
    "keyctl",
    "add_key",
    "vm_socket",
    "crypto_socket",
    # And so are namespaces; what comes after this one is tried in it.
    "make_mount_namespace",
    "clone_into_user_namespace",
    "clone3_into_user_namespace",
    "make_user_namespace",
)
# What the test gives on its way in, and no container has.
OF_THE_ENTRANCE = {"gain_capability", "gain_privileges_by_exec", "leave_core_files"}


async def test_mounts_of_a_cell_are_locked_for_whoever_has_every_power_over_it(forge: Forge) -> None:
    binds = (*BINDS, Bind(str(HERE / "attacks.py"), "/attacks.py"))
    clone = await forge.clone(await forge.ready(binds=binds), PAUSE, binds=binds)
    namespaces = ("--user", "--mount", "--pid", "--net", "--ipc", "--uts", "--cgroup")
    entered = ("nsenter", f"--target={clone.pid}", *namespaces, "--setuid=0", "--setgid=0")
    names = (*(name for name in ATTACKS if name not in RESTS_ON_THE_FILTER), *RESTS_ON_THE_FILTER)
    env = {**ENV, "MARKER": __file__, "HOST_PID": str(os.getpid())}

    done = await asyncio.to_thread(
        subprocess.run, (*entered, "python3", "/attacks.py", *names), env=env, capture_output=True, text=True,
        timeout=TIMEOUT_S, check=False,
    )  # fmt: skip

    assert done.returncode == 0, done.stderr
    worked = {name for name, outcome in json.loads(done.stdout).items() if outcome == "worked"}
    assert "mount_memory" in worked, "it may mount, or it would prove nothing"
    assert worked - OF_THE_ENTRANCE <= set(RESTS_ON_THE_FILTER)
