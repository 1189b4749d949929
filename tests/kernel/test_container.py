"""What a program in a container can do and where its limits are."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import sys
import time
from pathlib import Path

import pytest

from squall.runtime.client import SpawnerRuntime
from squall.runtime.errors import RuntimeFailure
from squall.runtime.spec import NAMESPACES, Bind, ExecSpec, ExitStatus, IdRange, Limits
from tests.kernel.containers import ENV, Containers, Output, shell, until

UNDER_GVISOR = {
    "test_ordinary_life_goes_on_inside",
    "test_package_tools_work_as_root",
    "test_binds_show_files_as_asked",
    "test_ordinary_user_has_no_capabilities",
    "test_memory_limit_ends_the_program_and_says_so",
    "test_signal_reaches_the_whole_process_group",
    "test_exec_with_a_terminal_has_its_size_and_ends_with_it",
    "test_bad_spec_is_refused_by_name",
}
NOT_UNDER_GVISOR = {
    "test_programs_begin_with_no_signal_ignored_or_blocked": "its /proc does not say which signals are blocked",
    "test_what_the_spawners_parents_ignore_or_block_ends_there": "its /proc does not say which signals are blocked",
    "test_exec_shares_namespaces_and_files": "its /proc shows each program another user namespace; see "
    "test_exec_under_gvisor_is_in_the_container",
    "test_bounded_fork_bomb_is_stopped_and_can_be_killed": "processes over the limit end its sandbox; see "
    "test_processes_over_the_limit_end_a_sandbox",
}
BOMB_SIZE = 200
PIDS_MAX = 40

NO_SIGNALS = ["SigBlk:\t0000000000000000\nSigIgn:\t0000000000000000\n"] * 2
# Executes a program with every signal blocked and ignored, by system calls: a C library keeps 32 and 33 out of it.
DEAF = """
import ctypes, os, platform, struct, sys
action, mask = {"x86_64": (13, 14), "aarch64": (134, 135)}[platform.machine()]
libc = ctypes.CDLL(None, use_errno=True)
for number in range(1, 65):
    if number not in (9, 19):
        assert libc.syscall(action, number, struct.pack("QQQQ", 1, 0, 0, 0), None, 8) == 0
assert libc.syscall(mask, 2, struct.pack("Q", 2**64 - 1), None, 8) == 0
os.execv(sys.argv[1], sys.argv[1:])
"""

ORDINARY_LIFE = """
import multiprocessing.shared_memory, os, socket, subprocess, tempfile, threading
said = []
threads = [threading.Thread(target=said.append, args=(i,)) for i in range(20)]
[thread.start() for thread in threads]; [thread.join() for thread in threads]
assert len(said) == 20
assert subprocess.run(["echo", "hi"], capture_output=True, text=True, check=True).stdout == "hi\\n"
memory = multiprocessing.shared_memory.SharedMemory(create=True, size=1_000_000)
memory.buf[:1_000_000] = b"x" * 1_000_000; memory.close(); memory.unlink()
with tempfile.NamedTemporaryFile() as file: file.write(b"x")
for family, host in ((socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "::1")):
    server = socket.create_server((host, 80), family=family)
    client = socket.create_connection((host, 80)); accepted, _ = server.accept()
    client.sendall(b"x"); assert accepted.recv(1) == b"x"
assert socket.gethostbyname("localhost") == "127.0.0.1"
assert socket.gethostbyname(socket.gethostname())
assert os.read(0, 1) == b""
os.getrandom(8); open("/dev/urandom", "rb").read(8)
open("/dev/null", "w").write("x"); open("/dev/stdout", "w").write("")
os.chroot("/"); os.mkfifo("/fifo")
print(os.getpid() < 100, os.getuid(), socket.gethostname(), oct(os.umask(0)))
"""

PACKAGE = """
set -e
mkdir -p /p/DEBIAN /p/usr/share/demo && echo demo > /p/usr/share/demo/file
printf 'Package: demo\\nVersion: 1\\nArchitecture: all\\nMaintainer: nobody\\nDescription: demo\\n' > /p/DEBIAN/control
printf '#!/bin/sh\\nset -e\\nchown nobody:nogroup /usr/share/demo/file\\n' > /p/DEBIAN/postinst
chmod 755 /p/DEBIAN/postinst
dpkg-deb --build /p /p.deb && dpkg -i /p.deb
stat -c %U:%G /usr/share/demo/file
useradd --create-home someone
su someone -s /bin/sh -c 'id -un; touch ~/own && stat -c %U ~/own'
tar -C / -cf - usr/share/demo | tar -C /tmp --same-owner -xf - && stat -c %U /tmp/usr/share/demo/file
dpkg -r demo && test ! -e /usr/share/demo/file
"""


async def test_ordinary_life_goes_on_inside(containers: Containers) -> None:
    ended = await containers.run("python3", "-c", ORDINARY_LIFE, hostname="inner")

    assert ended.stderr == ""
    assert ended.stdout == "True 0 inner 0o22\n"


async def test_package_tools_work_as_root(containers: Containers) -> None:
    ended = await containers.run("sh", "-c", PACKAGE)

    assert ended.status.code == 0, ended.stderr
    owners = [line for line in ended.stdout.splitlines() if line in ("nobody:nogroup", "someone", "nobody")]
    assert owners == ["nobody:nogroup", "someone", "someone", "nobody"]


async def test_layers_are_not_changed(containers: Containers) -> None:
    ended = await containers.run(*shell("echo changed > /etc/debian_version; rm /etc/issue; cat /etc/debian_version"))

    assert ended.stdout == "changed\n"
    assert "changed" not in Path(containers.rootfs, "etc/debian_version").read_text()
    assert Path(containers.rootfs, "etc/issue").exists()


async def test_sixty_layers_stack_with_the_last_on_top(containers: Containers) -> None:
    layers = [containers.rootfs]
    for number in range(60):
        layer = containers.base / f"layer-with-a-name-of-ordinary-length-{number:050d}"
        (layer / "stack").mkdir(parents=True)
        (layer / "stack" / str(number)).write_text("x")
        (layer / "stack" / "top").write_text(str(number))
        layers.append(str(layer))

    ended = await containers.run(*shell("ls /stack | wc -l; cat /stack/top"), layers=layers)

    assert ended.stdout.split() == ["61", "59"]


async def test_upper_of_a_build_has_ids_as_seen_inside(containers: Containers) -> None:
    running = await containers.start(
        *shell("touch /r /u; chown 1000:1000 /u; echo x >> /etc/passwd; exec sleep 60"), is_upper_idmapped=True
    )
    upper = containers.base / running.container_id / "rw/upper"
    await until((upper / "etc/passwd").exists)

    assert [(upper / name).stat().st_uid for name in ("r", "u", "etc/passwd")] == [0, 1000, 0]


async def test_binds_show_files_as_asked(containers: Containers) -> None:
    source = containers.base / "source"
    source.mkdir(mode=0o755)
    (source / "file").write_text("bound")
    binds = [
        Bind(str(source), "/deep/new/plain"),
        Bind(str(source), "/mapped", is_idmapped=True, is_read_only=False),
        Bind(str(source / "file"), "/one-file"),
    ]
    script = shell(
        "cat /deep/new/plain/file /one-file; stat -c ' %u' /deep/new/plain/file /mapped/file",
        "touch /deep/new/plain/x 2>&1 | grep -o Read-only; echo w > /mapped/written; stat -c %u /mapped/written",
    )

    ended = await containers.run(*script, binds=binds)

    assert ended.stdout.split() == ["boundbound", "65534", "0", "Read-only", "0"]
    assert (source / "written").stat().st_uid == 0


async def test_ordinary_user_has_no_capabilities(containers: Containers) -> None:
    script = shell("id -u; id -g; grep CapEff /proc/self/status; echo out > /dev/stdout; touch /root/x || echo refused")

    ended = await containers.run(*script, user=(1000, 1001))

    assert ended.stdout.split() == ["1000", "1001", "CapEff:", "0" * 16, "out", "refused"]


async def test_memory_limit_ends_the_program_and_says_so(containers: Containers) -> None:
    limits = Limits(memory_bytes=64 * 2**20)

    ended = await containers.run("python3", "-c", "b = bytearray(200 * 2**20); print(len(b))", limits=limits)

    assert ended.status == ExitStatus(code=None, signal=signal.SIGKILL, is_oom=True)
    assert ended.stdout == ""


async def test_exit_by_sigkill_of_its_own_is_no_oom(containers: Containers) -> None:
    ended = await containers.run(*shell("kill -KILL $$"))

    assert ended.status == ExitStatus(code=None, signal=signal.SIGKILL, is_oom=False)


async def test_segfault_is_told_as_a_signal(containers: Containers) -> None:
    ended = await containers.run(*shell("kill -SEGV $$"))

    assert ended.status.signal == signal.SIGSEGV


async def test_bounded_fork_bomb_is_stopped_and_can_be_killed(containers: Containers) -> None:
    # Each child ends by itself; the limit is read back before anything is forked.
    bomb = (
        "import os, time\n"
        "made = 0\n"
        f"for _ in range({BOMB_SIZE}):\n"
        "    try:\n"
        "        pid = os.fork()\n"
        "    except BlockingIOError:\n"
        "        continue\n"
        "    if pid == 0:\n"
        "        time.sleep(5); os._exit(0)\n"
        "    made += 1\n"
        "print(made, flush=True)\n"
        "time.sleep(5)\n"
    )
    waiting = f"import sys; sys.stdin = open('/go'); sys.stdin.read()\n{bomb}"
    running = await containers.start(
        *shell('mkfifo /go; exec python3 -c "$BOMB"'), env={**ENV, "BOMB": waiting}, limits=Limits(pids_max=PIDS_MAX)
    )
    assert _pids_limit(running.pid) == PIDS_MAX
    await until((containers.base / running.container_id / "rw/upper/go").exists)
    await containers.exec(running, *shell("echo > /go"))

    made = int((await running.stdout.read_until("\n")).strip())
    begin = time.monotonic()
    await containers.runtime.kill(running.container_id, signal.SIGKILL)
    status = await containers.exit(running)

    assert 10 < made < PIDS_MAX
    assert status.signal == signal.SIGKILL
    assert time.monotonic() - begin < 3


def _pids_limit(pid: int) -> int:
    lines = Path(f"/proc/{pid}/cgroup").read_text().splitlines()
    path = next((line.split(":")[2] for line in lines if ":pids:" in line), None)
    top = Path("/sys/fs/cgroup/pids") if path else Path("/sys/fs/cgroup")
    path = path or lines[-1].split(":")[2]
    return int((top / path.lstrip("/") / "pids.max").read_text())


async def test_temporary_files_have_a_size_limit(containers: Containers) -> None:
    script = shell("dd if=/dev/zero of=/tmp/x bs=1M count=8 2>&1 | grep -o 'No space'", "stat -c %a /tmp")

    ended = await containers.run(*script, limits=Limits(tmp_bytes=4 * 2**20))

    assert ended.stdout.split("\n")[:2] == ["No space", "1777"]


async def test_signal_reaches_the_whole_process_group(containers: Containers) -> None:
    child = 'trap "echo child; exit" TERM; echo up; while :; do sleep 0.02; done'
    # The trap first: the child may be up before its parent comes to the next line.
    running = await containers.start(
        *shell("trap 'wait; echo parent; exit 0' TERM", f"sh -c '{child}' &", "wait; wait")
    )
    await running.stdout.read_until("up")

    await containers.runtime.kill(running.container_id, signal.SIGTERM)

    assert set((await containers.finish(running)).stdout.split()) == {"up", "child", "parent"}


async def test_orphans_are_reaped(containers: Containers) -> None:
    script = shell(
        "for i in 1 2 3 4 5; do sh -c 'sleep 0.05 & exit 0'; done; sleep 0.5",
        "grep -l '^State:.Z' /proc/[0-9]*/status | wc -l",
    )

    ended = await containers.run(*script)

    assert ended.stdout.strip() == "0"


async def test_background_processes_end_with_the_first(containers: Containers) -> None:
    running = await containers.start(*shell("sleep 1000 & echo started"))

    ended = await containers.finish(running)

    # The pipe's end came although the background process had it open.
    assert ended == ended.__class__(ExitStatus(code=0, signal=None), "started\n", "")


async def test_frozen_container_says_nothing(containers: Containers) -> None:
    running = await containers.start(*shell("while :; do echo tick; sleep 0.01; done"))
    await running.stdout.read_until("tick")

    await containers.runtime.freeze(running.container_id)
    while await _has_more(running.stdout):
        pass
    await asyncio.sleep(0.2)
    is_silent = not await _has_more(running.stdout)
    await containers.runtime.thaw(running.container_id)

    assert is_silent
    before = len(running.stdout.text)
    await asyncio.sleep(0.1)
    await _has_more(running.stdout)
    assert len(running.stdout.text) > before


async def _has_more(output: Output) -> bool:
    try:
        data = os.read(output.descriptor, 65_536)
    except BlockingIOError:
        return False
    output.text += data.decode()
    return True


async def test_frozen_container_can_be_removed(containers: Containers) -> None:
    running = await containers.start("sleep", "60")
    await containers.runtime.freeze(running.container_id)

    async with asyncio.timeout(10):
        await containers.runtime.remove(running.container_id)

    assert list(await containers.runtime.list()) == []


async def test_exec_with_a_terminal_has_its_size_and_ends_with_it(containers: Containers) -> None:
    running = await containers.start("sleep", "60")
    script = shell("tty; stty size; test -t 0 -a -t 1 -a -t 2 && echo is-tty; read line; echo got $line")
    started = await containers.runtime.exec(
        running.container_id, ExecSpec(script, ENV, has_pty=True, rows=33, columns=77)
    )
    terminal = Output(started.stdout_fd)
    await terminal.read_until("is-tty")

    os.write(started.stdin_fd, b"hello\n")
    said = await terminal.read_all()

    assert started.stdin_fd == started.stdout_fd == started.stderr_fd
    # Under gVisor the terminal is one of the machine's, and has no name inside.
    assert ("/dev/pts/0" if containers.isolation == NAMESPACES else "not a tty") in said
    assert "33 77" in said
    assert "got hello" in said
    assert (await containers.runtime.wait_exec(started.exec_id)).code == 0
    os.close(started.stdin_fd)


async def test_ctrl_c_at_an_execs_terminal_ends_its_program(containers: Containers) -> None:
    running = await containers.start("sleep", "60")
    started = await containers.runtime.exec(
        running.container_id, ExecSpec(shell("echo up; exec sleep 60"), ENV, has_pty=True)
    )
    terminal = Output(started.stdout_fd)
    await terminal.read_until("up")

    os.write(started.stdin_fd, b"\x03")
    await terminal.read_all()

    assert await containers.runtime.wait_exec(started.exec_id) == ExitStatus(code=None, signal=signal.SIGINT)
    os.close(started.stdin_fd)


async def test_programs_begin_with_no_signal_ignored_or_blocked(containers: Containers) -> None:
    assert await signals_at_the_beginning(containers) == NO_SIGNALS


async def test_what_the_spawners_parents_ignore_or_block_ends_there(data_dir: Path, rootfs: str) -> None:
    state_dir = data_dir / "spawner"
    spawner = ("-S", "-m", "squall.runtime.spawner", "--state", state_dir, "--instance", data_dir.name, "--idle-s", "5")
    command = [sys.executable, "-c", DEAF, sys.executable, *map(str, spawner)]
    launching = await asyncio.create_subprocess_exec(*command, env={"PATH": os.defpath, "PYTHONPATH": "src"})
    assert await asyncio.wait_for(launching.wait(), 30) == 0
    async with await SpawnerRuntime.open(str(state_dir), data_dir.name) as runtime:
        spawner_status = Path(f"/proc/{runtime.spawner_pid}/status").read_text()
        containers = Containers(runtime, data_dir, rootfs)

        seen = await signals_at_the_beginning(containers)

        await containers.close()
        await runtime.shutdown()
    assert re.search(r"SigBlk:\s[f]{8}[0-9a-f]{8}\nSigIgn:\s[f]{8}[0-9a-f]{8}", spawner_status), spawner_status
    assert seen == NO_SIGNALS


async def signals_at_the_beginning(containers: Containers) -> list[str]:
    """What the first program of a container, and one beside it, have blocked and ignored."""
    show = ("grep", "-E", "^Sig(Ign|Blk)", "/proc/self/status")
    running = await containers.start("sleep", "60")
    return [(await containers.run(*show)).stdout, (await containers.exec(running, *show)).stdout]


async def test_exec_shares_namespaces_and_files(containers: Containers) -> None:
    running = await containers.start(*shell("echo hello > /tmp/file; exec sleep 60"), hostname="inner")
    namespaces = "for n in mnt pid net ipc uts user; do readlink /proc/self/ns/$n /proc/1/ns/$n | uniq | wc -l; done"

    ended = await containers.exec(running, *shell("until grep hello /tmp/file; do :; done 2>&-; hostname", namespaces))

    assert ended.stdout.split() == ["hello", "inner", *["1"] * 6]


@pytest.mark.parametrize(
    ("fields", "named"),
    [
        ({"layers": ["/no/such/layer"]}, "/no/such/layer"),
        ({"binds": [Bind("/no/such/source", "/x")]}, "/no/such/source"),
        ({"cwd": "/no/such/place"}, "/no/such/place"),
        ({"state_dir": "/no/such/state"}, "/no/such/state"),
        ({"id_range": IdRange(0)}, "machine's own ids"),
        ({"container_id": "../x"}, "'../x'"),
        ({"layers": ["relative"]}, "'relative' is not an absolute path"),
        ({"layers": []}, "no layers"),
    ],
)
async def test_bad_spec_is_refused_by_name(containers: Containers, fields: dict[str, object], named: str) -> None:
    spec = containers.spec("true")

    with pytest.raises(RuntimeFailure) as refused:
        await containers.runtime.start(type(spec)(**{**{n: getattr(spec, n) for n in spec.__slots__}, **fields}))

    assert named in refused.value.message
    assert list(await containers.runtime.list()) == []


async def test_hundred_containers_start_at_once(containers: Containers) -> None:
    begin = time.monotonic()

    started = await asyncio.gather(*(containers.start("true") for _ in range(100)))
    statuses = await asyncio.gather(*(containers.exit(running) for running in started))

    assert {status.code for status in statuses} == {0}
    # 0.8 s on two idle cores; a shared machine is forgiven much.
    assert time.monotonic() - begin < 15


@pytest.mark.parametrize("delay_s", [0.0, 0.005, 0.01, 0.02])
async def test_kill_amid_many_execs_ends_them_all(containers: Containers, delay_s: float) -> None:
    running = await containers.start("sleep", "60")
    requests = [
        asyncio.ensure_future(containers.runtime.exec(running.container_id, ExecSpec(["sleep", "60"], ENV)))
        for _ in range(20)
    ]
    await asyncio.sleep(delay_s)

    await containers.runtime.kill(running.container_id, signal.SIGKILL)
    answers = await asyncio.wait_for(asyncio.gather(*requests, return_exceptions=True), 10)
    status = await containers.exit(running)

    assert status.signal == signal.SIGKILL
    for answer in answers:
        if isinstance(answer, BaseException):
            assert isinstance(answer, RuntimeFailure)
            continue
        assert (await containers.runtime.wait_exec(answer.exec_id)).signal == signal.SIGKILL
        for descriptor in (answer.stdin_fd, answer.stdout_fd, answer.stderr_fd):
            os.close(descriptor)
