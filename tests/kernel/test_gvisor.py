"""What is different under gVisor: who answers system calls, what is in reach behind it, the slot it takes over."""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
import socket
from pathlib import Path

import pytest

from squall.runtime.client import SpawnerRuntime
from squall.runtime.gvisor.plan import RUNSC_CAPABILITIES
from squall.runtime.plan import KEPT_CAPABILITIES
from squall.runtime.spec import GVISOR, NAMESPACES, ExitStatus, Limits, NetworkSlot
from squall.runtime.sweep import sweep
from tests.kernel.attacks import ATTACKS
from tests.kernel.containers import ENV, FIRST_ID, RANGE_SIZE, Containers, processes_of, shell, until
from tests.kernel.executors import NEEDS_RUNSC
from tests.kernel.machine import MACHINE_ADDRESS, OUTSIDE_ADDRESS, PROBE, Machine, MakePool, missing, probe
from tests.kernel.test_isolation import BIND

pytestmark = [NEEDS_RUNSC, pytest.mark.skipif(bool(missing()), reason=missing() or "-")]

# What a program may do to the kernel that is its own alone. The rest must be refused there as anywhere.
IN_ITS_OWN_KERNEL = {
    "become_unmapped_user",
    "clone_into_user_namespace",
    "clone3_into_user_namespace",
    "gain_capability",
    "gain_privileges_by_exec",
    "keyctl",
    "lower_oom_score",
    "make_mount_namespace",
    "make_user_namespace",
    "packet_socket",
    "raise_priority",
    "raw_socket",
    "read_kernel_log",
    "replace_tables_of_older_netfilter",
    "write_network_sysctl",
}
FORGED_PACKETS = """
import socket, struct, sys
source, target, port = sys.argv[1], sys.argv[2], int(sys.argv[3])
data = b"forged"
udp = struct.pack(">HHHH", 4_242, port, 8 + len(data), 0) + data
for claimed in (source, sys.argv[4]):
    header = struct.pack(">BBHHHBBH4s4s", 0x45, 0, 20 + len(udp), 7, 0, 64, 17, 0, socket.inet_aton(claimed),
                         socket.inet_aton(target))
    raw = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW)
    raw.sendto(header + udp, (target, 0))
print("sent")
"""
FORK_BOMB = """
import os, time
for _ in range(1_000):
    if os.fork() == 0:
        time.sleep(10); os._exit(0)
print("all made", flush=True)
"""


@pytest.fixture
def isolation() -> str:
    """All containers of these tests."""
    return GVISOR


async def test_program_sees_a_kernel_of_its_own(containers: Containers) -> None:
    ended = await containers.run(*shell("cat /proc/version; dmesg; grep -c . /proc/cpuinfo; ls /sys/fs/cgroup"))

    assert os.uname().release not in ended.stdout
    assert "gVisor" in ended.stdout


def ids_of(pid: int) -> set[int]:
    status = Path(f"/proc/{pid}/status").read_text()
    return {int(word) for kind in ("Uid", "Gid") for word in re.findall(rf"{kind}:(.*)", status)[0].split()}


async def test_sandbox_and_gofer_run_on_the_containers_ids_and_see_no_file_of_the_machine(
    containers: Containers,
) -> None:
    running = await containers.start("sleep", "60")

    first, *helpers = processes_of(running.pid)

    assert len(helpers) >= 2
    for pid in helpers:
        assert all(FIRST_ID < number < FIRST_ID + 100 * RANGE_SIZE for number in ids_of(pid)), pid
        assert "NoNewPrivs:\t1" in Path(f"/proc/{pid}/status").read_text()
    roots = {pid: set(os.listdir(f"/proc/{pid}/root")) for pid in (first, *helpers)}
    assert roots.pop(first) == {
        *("bin", "dev", "etc", "files", "proc", "proc-whole", "root", "run", "tmp"),
        *("0", "hostname", "hosts", "resolv.conf"),
    }
    for pid, names in roots.items():
        # The gofer's root directory is the container's.
        assert not os.path.exists(f"/proc/{pid}/root{__file__}")
        assert names <= {"proc", "etc", "dev", "tmp", *os.listdir(containers.rootfs), "runsc"}, (pid, names)


async def test_runsc_itself_has_the_capabilities_it_needs_and_no_others(containers: Containers) -> None:
    running = await containers.start("sleep", "60")

    status = Path(f"/proc/{running.pid}/status").read_text()

    mask = sum(1 << number for number in RUNSC_CAPABILITIES.values())
    assert [int(word, 16) for word in re.findall(r"Cap(?:Eff|Prm|Bnd):\t(\w+)", status)] == [mask] * 3
    assert "NoNewPrivs:\t1" in status


async def test_exec_under_gvisor_is_in_the_container(containers: Containers) -> None:
    running = await containers.start(*shell("echo hello > /tmp/file; echo up; exec sleep 60"), hostname="inner")
    await running.stdout.read_until("up")

    ended = await containers.exec(
        running, *shell("cat /tmp/file; hostname; grep CapEff /proc/self/status; cat /proc/version; exit 3")
    )

    mask = sum(1 << number for number in KEPT_CAPABILITIES.values())
    assert ended.stdout.split()[:4] == ["hello", "inner", "CapEff:", f"{mask:016x}"]
    assert os.uname().release not in ended.stdout
    assert ended.status == ExitStatus(code=3, signal=None)


async def test_attacks_reach_no_further_than_its_own_kernel(containers: Containers, tmp_path: Path) -> None:
    marker = containers.base / "marker"
    marker.write_text("of the machine")
    forwarding, score = Path("/proc/sys/net/ipv4/ip_forward"), Path("/proc/self/oom_score_adj")
    before = forwarding.read_text(), score.read_text()
    env = {**ENV, "MARKER": str(marker), "HOST_PID": str(os.getpid())}

    ended = await containers.run("python3", "/attacks.py", binds=[BIND], env=env)

    outcomes = json.loads(ended.stdout)
    assert set(outcomes) == set(ATTACKS)
    assert {name for name, outcome in outcomes.items() if outcome == "worked"} <= IN_ITS_OWN_KERNEL
    assert (forwarding.read_text(), score.read_text()) == before


async def test_processes_over_the_limit_end_a_sandbox(containers: Containers) -> None:
    ended = await containers.run("python3", "-c", FORK_BOMB, limits=Limits(pids_max=100))

    assert ended.status == ExitStatus(code=None, signal=signal.SIGKILL)
    assert "all made" not in ended.stdout


async def test_sandbox_that_dies_ends_its_container(containers: Containers) -> None:
    running = await containers.start("sleep", "60")
    sandbox = next(pid for pid in processes_of(running.pid) if "runsc-sandbox" in name_of(pid))

    os.kill(sandbox, signal.SIGKILL)

    assert (await containers.finish(running)).status == ExitStatus(code=None, signal=signal.SIGKILL)


def name_of(pid: int) -> str:
    return Path(f"/proc/{pid}/cmdline").read_text().partition("\0")[0]


async def test_programs_that_end_as_runsc_does_when_it_fails_are_believed(containers: Containers) -> None:
    codes = [(await containers.run(*shell(f"exit {code}"))).status.code for code in (2, 128)]

    assert codes == [2, 128]


# ---- the network


async def probe_inside(
    containers: Containers, slot: NetworkSlot, host: str, port: int, *, kind: str = "tcp", isolation: str = GVISOR
) -> str:
    """What a program of a container in the slot gets from `host:port`."""
    argv = ["python3", "-c", PROBE, kind, host, str(port), "hello", "", "3"]
    ended = await containers.run(*argv, network=slot, isolation=isolation)
    await containers.runtime.remove(f"ct-{len(containers.exit_of)}")
    return ended.stdout


async def test_slot_is_what_it_was_when_a_sandbox_has_gone(
    machine: Machine, make_pool: MakePool, containers: Containers
) -> None:
    tcp = machine.serve("outside", "203.0.113.5", outside=True)
    udp = machine.serve("resolver", "127.0.0.1", 53, kind="udp")
    machine.serve("resolver", "127.0.0.1", 53)
    proxy, other = machine.serve("proxy", "127.0.0.1"), machine.serve("other", "127.0.0.1")

    async with make_pool(resolvers="127.0.0.1", proxy_env={"HTTP_PROXY": f"http://127.0.0.1:{proxy.port}"}) as pool:
        slot = await pool.acquire("ct-1")
        outside = f"outside {MACHINE_ADDRESS}"

        for isolation in (GVISOR, GVISOR, NAMESPACES, GVISOR):
            assert await probe_inside(containers, slot, "203.0.113.5", tcp.port, isolation=isolation) == outside
        assert await probe_inside(containers, slot, slot.gateway, 53, kind="udp") == "resolver 127.0.0.1"
        assert await probe_inside(containers, slot, slot.gateway, 53) == "resolver 127.0.0.1"
        assert await probe_inside(containers, slot, slot.gateway, proxy.port) == "proxy 127.0.0.1"
        assert await probe_inside(containers, slot, slot.gateway, other.port) == "EHOSTUNREACH"
        said = await containers.run(*shell("cat /etc/resolv.conf; echo $HTTP_PROXY"), network=slot)
        await containers.runtime.remove(f"ct-{len(containers.exit_of)}")
        assert await probe(slot, "203.0.113.5", tcp.port) == outside
        await pool.release(slot)

    assert said.stdout.split() == ["nameserver", slot.gateway, f"http://{slot.gateway}:{proxy.port}"]
    assert udp.seen
    assert not other.seen


async def test_sandbox_reaches_neither_the_machine_nor_other_containers(
    machine: Machine, make_pool: MakePool, containers: Containers
) -> None:
    loopback, own = machine.serve("loopback", "127.0.0.1"), machine.serve("own", MACHINE_ADDRESS)

    async with make_pool(size=2) as pool:
        slot, other = await pool.acquire("ct-1"), await pool.acquire("ct-2")
        listening = await containers.start(
            "python3", "-c", "import socket; s = socket.create_server(('', 8080)); print('up', flush=True); s.accept()",
            network=other,
        )  # fmt: skip
        await listening.stdout.read_until("up")
        ports = [("127.0.0.1", loopback.port), (MACHINE_ADDRESS, own.port), (other.address, 8080)]

        answers = [await probe_of(containers, slot, host, port) for host, port in ports]

        assert answers == ["ECONNREFUSED", "EHOSTUNREACH", "EHOSTUNREACH"]
        # There is something to reach.
        (await asyncio.to_thread(socket.create_connection, (other.address, 8080), 3)).close()
        for status in await containers.runtime.list():
            await containers.runtime.remove(status.container_id)
        await pool.release(slot)
        await pool.release(other)


async def probe_of(containers: Containers, slot: NetworkSlot, host: str, port: int) -> str:
    ended = await containers.run("python3", "-c", PROBE, "tcp", host, str(port), "hello", "", "3", network=slot)
    for status in await containers.runtime.list():
        if status.exit_status is not None:
            await containers.runtime.remove(status.container_id)
    return ended.stdout


async def test_forged_packets_stop_at_the_machine(
    machine: Machine, make_pool: MakePool, containers: Containers
) -> None:
    outside = machine.serve("outside", OUTSIDE_ADDRESS, kind="udp", outside=True)

    async with make_pool() as pool:
        slot = await pool.acquire("ct-1")
        # All that its kernel lets it do, it may: a namespace of its own gives it raw sockets.
        script = shell('exec unshare --user --map-root-user python3 -c "$FORGE" "$@"')
        ended = await containers.run(
            *script, "sh", "198.51.100.7", OUTSIDE_ADDRESS, str(outside.port), slot.address,
            network=slot, env={**ENV, "FORGE": FORGED_PACKETS},
        )  # fmt: skip
        await until(lambda: bool(outside.seen))
        await containers.runtime.remove("ct-1")
        await pool.release(slot)

    assert ended.stdout == "sent\n", ended.stderr
    # The second one, which says the truth.
    assert outside.seen == [MACHINE_ADDRESS]


async def test_blocked_sandbox_has_only_a_loopback(
    machine: Machine, make_pool: MakePool, containers: Containers
) -> None:
    outside = machine.serve("outside", "203.0.113.5", outside=True)

    async with make_pool() as pool:
        slot = await pool.acquire("ct-1", blocked=True)
        answer = await probe_of(containers, slot, "203.0.113.5", outside.port)
        inside = await containers.run(*shell("cat /proc/net/dev"), network=slot)
        for status in await containers.runtime.list():
            await containers.runtime.remove(status.container_id)
        await pool.release(slot)

    assert answer == "EHOSTUNREACH"
    assert [line.split(":")[0].strip() for line in inside.stdout.splitlines() if ":" in line] == ["lo"]


async def test_a_signal_to_one_that_is_just_ending_is_no_failure(containers: Containers) -> None:
    for _ in range(8):
        running = await containers.start("sleep", "600")

        os.kill(running.pid, signal.SIGKILL)
        await containers.runtime.kill(running.container_id, signal.SIGTERM)

        assert (await containers.exit(running)).signal == signal.SIGKILL


async def test_sweep_after_a_killed_spawner_gives_the_slot_its_address_back(
    machine: Machine, make_pool: MakePool, data_dir: Path, rootfs: str
) -> None:
    tcp = machine.serve("outside", "203.0.113.5", outside=True)
    async with make_pool() as pool, await SpawnerRuntime.open(str(data_dir / "spawner"), data_dir.name) as runtime:
        slot = await pool.acquire("ct-1")
        containers = Containers(runtime, data_dir, rootfs, GVISOR)
        running = await containers.start("sleep", "60", network=slot)
        while_it_runs = await probe(slot, "203.0.113.5", tcp.port)
        os.kill(runtime.spawner_pid, signal.SIGKILL)
        await until(lambda: not Path(f"/proc/{running.pid}").exists() and not _lives(runtime.spawner_pid))

        sweep(str(data_dir / "spawner"), data_dir.name)

        assert while_it_runs == "ENETUNREACH"
        assert await probe(slot, "203.0.113.5", tcp.port) == f"outside {MACHINE_ADDRESS}"
        assert sorted(os.listdir(data_dir / running.container_id)) == ["rw"]
        running.close()
        await pool.release(slot)


def _lives(pid: int) -> bool:
    try:
        return "\nState:\tZ" not in Path(f"/proc/{pid}/status").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return False
