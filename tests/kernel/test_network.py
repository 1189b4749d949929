"""Network slots for real: what a container can reach, and what it cannot.

Most tests run on a machine of their own: a network namespace with an uplink to an "outside" namespace. Its firewall,
its resolver and its addresses are the tests' to change; the real machine's are not.
"""

from __future__ import annotations

import asyncio
import json
import shutil
import signal
import socket
import struct
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from squall.runtime.errors import RuntimeFailure
from squall.runtime.network import pool as pool_module
from squall.runtime.network.names import Names
from squall.runtime.network.namespaces import is_mount_point
from squall.runtime.network.node_network import sweep_network
from squall.runtime.network.peak import HALF_LIFE_S
from squall.runtime.network.pool import NetworkPool
from squall.runtime.spec import NetworkSlot
from tests.kernel.machine import (
    INSTANCE,
    LISTENER,
    MACHINE_ADDRESS,
    METADATA_ADDRESS,
    OUTSIDE_ADDRESS,
    TOOL_PATH,
    UPLINK_MTU,
    Machine,
    MakePool,
    inside_namespace,
    missing,
    nft,
    probe,
    remains,
    run,
    run_inside,
    settle,
)

MIRROR_FILES = ("/etc/apt/sources.list", "/etc/apt/sources.list.d")

pytestmark = [pytest.mark.kernel, pytest.mark.skipif(bool(missing()), reason=missing() or "-")]


async def test_container_reaches_the_outside_under_the_machines_address(machine: Machine, make_pool: MakePool) -> None:
    tcp = machine.serve("outside", "203.0.113.5", outside=True)
    udp = machine.serve("outside", "203.0.113.5", kind="udp", outside=True)

    async with make_pool() as pool:
        slot = await pool.acquire("ct-1")

        assert await probe(slot, "203.0.113.5", tcp.port) == f"outside {MACHINE_ADDRESS}"
        assert await probe(slot, "203.0.113.5", udp.port, kind="udp") == f"outside {MACHINE_ADDRESS}"
        await pool.release(slot)


async def test_container_does_not_reach_the_machine(machine: Machine, make_pool: MakePool) -> None:
    loopback = machine.serve("loopback", "127.0.0.1")
    everywhere = machine.serve("everywhere", "0.0.0.0")
    uplink = machine.serve("uplink", MACHINE_ADDRESS)
    datagrams = machine.serve("datagrams", "0.0.0.0", kind="udp")

    async with make_pool() as pool:
        slot = await pool.acquire("ct-1")
        answers = [
            await probe(slot, slot.gateway, everywhere.port),
            await probe(slot, slot.gateway, loopback.port),
            await probe(slot, MACHINE_ADDRESS, everywhere.port),
            await probe(slot, MACHINE_ADDRESS, uplink.port),
            await probe(slot, MACHINE_ADDRESS, datagrams.port, kind="udp"),
            await probe(slot, "127.0.0.1", loopback.port),
        ]
        await pool.release(slot)

    assert set(answers) <= {"EHOSTUNREACH", "ECONNREFUSED", "EACCES"}
    assert [server.seen for server in (loopback, everywhere, uplink, datagrams)] == [[], [], [], []]


async def test_crafted_packets_to_loopback_stop_at_the_machine(machine: Machine, make_pool: MakePool) -> None:
    datagrams = machine.serve("loopback", "127.0.0.1", kind="udp")

    async with make_pool(resolvers="127.0.0.1") as pool:
        slot = await pool.acquire("ct-1")
        # What a container with full powers over its namespace would do; ours have none.
        for command in (
            "ip addr del 127.0.0.1/8 dev lo",
            "sysctl -qw net.ipv4.conf.all.route_localnet=1",
            f"ip route add 127.0.0.0/8 via {slot.gateway} dev eth0",
        ):
            run_inside(slot, *command.split())
        await probe(slot, "127.0.0.1", datagrams.port, kind="udp", source=slot.address, timeout_s=0.5)
        await pool.release(slot)

    assert datagrams.seen == []


async def test_containers_do_not_reach_each_other(make_pool: MakePool) -> None:
    async with make_pool(size=2) as pool:
        first, second = await pool.acquire("ct-1"), await pool.acquire("ct-2")
        listener = await asyncio.create_subprocess_exec(
            *("nsenter", f"--net={second.netns_path}", sys.executable, "-S", "-c", LISTENER), stdout=subprocess.PIPE
        )
        assert listener.stdout is not None
        await listener.stdout.readline()

        assert await probe(first, second.address, 8080) == "EHOSTUNREACH"
        # There is something to reach.
        from_machine = await asyncio.to_thread(socket.create_connection, (second.address, 8080), 3)

        from_machine.close()
        await listener.wait()
        await pool.release(first)
        await pool.release(second)


async def test_instances_are_apart_and_leave_each_other_alone(
    machine: Machine, make_pool: MakePool, tmp_path: Path
) -> None:
    outside = machine.serve("outside", "203.0.113.5", outside=True)

    async with make_pool() as pool:
        slot = await pool.acquire("ct-1")
        async with NetworkPool.open(str(tmp_path / "other"), f"{INSTANCE}-other", 1) as other:
            neighbour = await other.acquire("ct-1")
            refused = await probe(slot, neighbour.address, 9)
            reached = await probe(neighbour, "203.0.113.5", outside.port)
            await other.release(neighbour)

        assert refused == "EHOSTUNREACH"
        assert reached == f"outside {MACHINE_ADDRESS}"
        assert await probe(slot, "203.0.113.5", outside.port) == f"outside {MACHINE_ADDRESS}"
        await pool.release(slot)


async def test_state_directory_may_be_a_symbolic_link(machine: Machine, make_pool: MakePool, tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "state").symlink_to(tmp_path / "real")

    async with make_pool() as pool:
        await pool.acquire("ct-1")
    async with make_pool(living=["ct-1"]) as pool:
        assert pool.slot_of("ct-1") is not None
        await pool.sweep([])


async def test_container_cannot_speak_from_another_address(machine: Machine, make_pool: MakePool) -> None:
    outside = machine.serve("outside", OUTSIDE_ADDRESS, kind="udp", outside=True)
    resolver = machine.serve("resolver", "127.0.0.1", 53, kind="udp")

    async with make_pool(size=2, resolvers="127.0.0.1") as pool:
        first, second = await pool.acquire("ct-1"), await pool.acquire("ct-2")
        # The kernel's own check, which would drop these as well, is other people's to switch off.
        own = Names(INSTANCE).veth(int(first.name))
        await asyncio.to_thread(run, "sysctl", "-qw", f"net.ipv4.conf.{own}.rp_filter=0")
        for address in (second.address, "198.51.100.7", MACHINE_ADDRESS):
            run_inside(first, "ip", "addr", "add", f"{address}/32", "dev", "eth0")
            for host, port in ((OUTSIDE_ADDRESS, outside.port), (first.gateway, 53)):
                answer = await probe(first, host, port, kind="udp", source=address, timeout_s=0.3)
                assert answer == "timeout"
        assert outside.seen == resolver.seen == []

        assert await probe(first, OUTSIDE_ADDRESS, outside.port, kind="udp") == f"outside {MACHINE_ADDRESS}"
        await pool.release(first)
        await pool.release(second)


async def test_metadata_address_is_blocked_but_a_resolver_there_answers(machine: Machine, make_pool: MakePool) -> None:
    machine.serve("metadata", METADATA_ADDRESS, 80, outside=True)
    machine.serve("resolver", METADATA_ADDRESS, 53, kind="udp", outside=True)

    async with make_pool(resolvers=METADATA_ADDRESS) as pool:
        slot = await pool.acquire("ct-1")

        assert await probe(slot, METADATA_ADDRESS, 80) == "EHOSTUNREACH"
        assert (await probe(slot, METADATA_ADDRESS, 53, kind="udp")).startswith("resolver")
        await pool.release(slot)


async def test_resolver_on_loopback_answers_at_the_gateway(machine: Machine, make_pool: MakePool) -> None:
    udp = machine.serve("resolver", "127.0.0.1", 53, kind="udp")
    machine.serve("resolver", "127.0.0.1", 53)
    machine.serve("second", MACHINE_ADDRESS, 53, kind="udp")

    async with make_pool(resolvers=f"127.0.0.1 {MACHINE_ADDRESS}") as pool:
        slot = await pool.acquire("ct-1")
        first, second = (line.split()[1] for line in slot.resolv_conf.splitlines())

        assert first == slot.gateway
        assert await probe(slot, first, 53, kind="udp") == "resolver 127.0.0.1"
        assert await probe(slot, first, 53) == "resolver 127.0.0.1"
        assert (await probe(slot, second, 53, kind="udp")).startswith("second")
        await pool.release(slot)
    assert udp.seen == ["127.0.0.1"]


async def test_proxy_on_loopback_is_reached_by_the_rewritten_variable(machine: Machine, make_pool: MakePool) -> None:
    proxy = machine.serve("proxy", "127.0.0.1")
    other = machine.serve("other", "127.0.0.1")
    env = {"HTTPS_PROXY": f"http://127.0.0.1:{proxy.port}/", "PATH": "/bin"}

    async with make_pool(proxy_env=env) as pool:
        slot = await pool.acquire("ct-1")

        assert slot.env == {"HTTPS_PROXY": f"http://{slot.gateway}:{proxy.port}/"}
        assert await probe(slot, slot.gateway, proxy.port) == "proxy 127.0.0.1"
        assert await probe(slot, slot.gateway, other.port) != "other 127.0.0.1"
        await pool.release(slot)


async def test_outside_does_not_reach_containers(machine: Machine, make_pool: MakePool) -> None:
    async with make_pool() as pool:
        slot = await pool.acquire("ct-1")
        with inside_namespace(machine.outside_fd):
            run("ip", "route", "add", f"{slot.address}/32", "via", MACHINE_ADDRESS)
            caller = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        caller.settimeout(0.5)

        with pytest.raises(TimeoutError):
            await asyncio.to_thread(caller.connect, (slot.address, 9))

        caller.close()
        await pool.release(slot)


@pytest.mark.parametrize("tool", ["iptables-nft", "iptables-legacy"])
@pytest.mark.parametrize("has_docker", [False, True])
async def test_dropping_firewall_is_opened_and_closed_again(
    machine: Machine, make_pool: MakePool, tool: str, has_docker: bool
) -> None:
    if shutil.which(tool, path=TOOL_PATH) is None:
        pytest.skip(f"{tool} is not installed")
    docker = ["-N DOCKER-USER", "-A FORWARD -j DOCKER-USER"] if has_docker else []
    for line in ["-P FORWARD DROP", "-P INPUT DROP", *docker]:
        try:
            run(tool, "-w", "5", *line.split())
        except AssertionError as error:
            pytest.skip(f"{tool} does not work on this kernel: {error}")
    before = run(tool, "-S")
    outside = machine.serve("outside", "203.0.113.5", outside=True)
    machine.serve("resolver", "127.0.0.1", 53, kind="udp")

    async with make_pool(resolvers="127.0.0.1") as pool:
        slot = await pool.acquire("ct-1")

        assert await probe(slot, "203.0.113.5", outside.port) == f"outside {MACHINE_ADDRESS}"
        assert await probe(slot, slot.gateway, 53, kind="udp") == "resolver 127.0.0.1"
        await pool.release(slot)
    assert run(tool, "-S") == before


async def test_other_tables_that_drop_are_named_with_a_fix_that_works(machine: Machine, make_pool: MakePool) -> None:
    nft("add", "table", "inet", "custom")
    nft("add chain inet custom passing { type filter hook forward priority 0; policy drop; }")
    outside = machine.serve("outside", "203.0.113.5", outside=True)

    async with make_pool() as pool:
        slot = await pool.acquire("ct-1")
        assert await probe(slot, "203.0.113.5", outside.port, timeout_s=0.5) == "timeout"
        (finding,) = pool.findings

        for command in finding.split(": ", 1)[1].split("; "):
            run("sh", "-c", command)

        assert (await probe(slot, "203.0.113.5", outside.port)).startswith("outside")
        await pool.release(slot)


async def test_flushed_rules_come_back(make_pool: MakePool) -> None:
    async with make_pool() as pool:
        assert not await pool.ensure_rules()
        nft("flush", "ruleset")

        assert await pool.ensure_rules()

        assert Names(INSTANCE).table in nft("list", "tables")


async def test_blocked_slot_has_only_a_loopback(machine: Machine, make_pool: MakePool) -> None:
    outside = machine.serve("outside", "203.0.113.5", outside=True)

    async with make_pool() as pool:
        slot = await pool.acquire("ct-1", blocked=True)

        assert [link["ifname"] for link in json.loads(run_inside(slot, "ip", "-j", "link"))] == ["lo"]
        assert await probe(slot, "203.0.113.5", outside.port) == "ENETUNREACH"
        assert slot.resolv_conf == slot.address == ""
        await pool.release(slot)


async def test_slot_suits_ordinary_programs(make_pool: MakePool) -> None:
    async with make_pool() as pool:
        slot = await pool.acquire("ct-1")
        addresses = json.loads(run_inside(slot, "ip", "-j", "addr", "show", "dev", "eth0"))[0]
        sysctl = run_inside(
            slot, "cat", "/proc/sys/net/ipv4/ip_unprivileged_port_start", "/proc/sys/net/ipv4/ping_group_range"
        )

        assert addresses["mtu"] == UPLINK_MTU
        assert [entry["local"] for entry in addresses["addr_info"]] == [slot.address]
        assert sysctl.split() == ["0", "0", "2147483647"]
        await pool.release(slot)


async def test_slot_of_a_container_is_stable_and_recycled(make_pool: MakePool) -> None:
    async with make_pool(size=2) as pool:
        slot = await pool.acquire("ct-1")
        assert await pool.acquire("ct-1") == slot

        await pool.release(slot)
        await pool.release(slot)
        await settle(lambda: pool.free_count == 2)

        assert {(await pool.acquire(f"ct-{i}")).name for i in range(2, 6)} >= {slot.name}
        assert await pool.sweep([]) == ["ct-2", "ct-3", "ct-4", "ct-5"]
        await settle(lambda: pool.free_count >= 4)


async def test_slots_of_a_burst_stay_for_the_next_one_and_go_with_time(
    make_pool: MakePool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pool_module, "TRIM_PERIOD_S", 0.02)
    now_s = 0.0
    async with make_pool(size=2, monotonic_s=lambda: now_s) as pool:
        await asyncio.gather(*(pool.acquire(f"ct-{number}") for number in range(12)))
        await settle(lambda: pool.free_count == 2)
        await pool.sweep([])

        await asyncio.sleep(0.2)
        kept_count = pool.free_count
        now_s = HALF_LIFE_S
        await settle(lambda: pool.free_count == 6)
        now_s = 10 * HALF_LIFE_S
        await settle(lambda: pool.free_count == 2)

    # Those made ahead before it are not among them.
    assert kept_count == 12


async def test_failed_slot_is_reported_and_leaves_nothing(make_pool: MakePool, tmp_path: Path) -> None:
    async with make_pool(size=0) as pool:
        await asyncio.to_thread(run, "ip", "link", "add", Names(INSTANCE).veth(16), "type", "bridge")

        with pytest.raises(RuntimeFailure, match=r"cannot set up network slot .*EEXIST"):
            await pool.acquire("ct-1")

        assert list((tmp_path / "state" / "netns").iterdir()) == []
        assert (await pool.acquire("ct-1")).name == "17"
        await pool.sweep([])


async def test_cancelled_acquire_loses_no_slot(make_pool: MakePool) -> None:
    async with make_pool(size=1) as pool:
        await settle(lambda: pool.free_count == 1)
        await pool.acquire("ct-1")
        waiting = [asyncio.ensure_future(pool.acquire(f"ct-{number}")) for number in range(2, 6)]
        await asyncio.sleep(0.003)

        for waiter in waiting:
            waiter.cancel()
        await asyncio.gather(*waiting, return_exceptions=True)

        assert (await pool.acquire("ct-9")).address
        await pool.sweep([])


async def test_acquire_from_the_pool_is_immediate(make_pool: MakePool) -> None:
    async with make_pool(size=5) as pool:
        await settle(lambda: pool.free_count == 5)
        for number in range(5):
            with pytest.raises(StopIteration):
                # Over before it has waited for anything.
                pool.acquire(f"ct-{number}").send(None)
        await pool.sweep([])


async def test_hundred_slots_at_once(machine: Machine, make_pool: MakePool) -> None:
    outside = machine.serve("outside", "203.0.113.5", outside=True)

    async with make_pool(size=4) as pool:
        start = time.monotonic()
        slots = await asyncio.gather(*(pool.acquire(f"ct-{number}") for number in range(100)))
        duration_s = time.monotonic() - start

        assert len({slot.address for slot in slots}) == 100
        assert (await probe(slots[99], "203.0.113.5", outside.port)).startswith("outside")
        await pool.sweep([])
    assert duration_s < 20


CRASHING = """
import asyncio, os, signal, sys
from squall.runtime.network.pool import NetworkPool

async def main():
    async with NetworkPool.open(sys.argv[1], sys.argv[2], 3) as pool:
        await pool.acquire("ct-alive")
        await pool.acquire("ct-dead")
        await pool.acquire("ct-blocked", blocked=True)
        await asyncio.sleep(0.2)
        os.kill(os.getpid(), signal.SIGKILL)

asyncio.run(main())
"""


async def crash(state_dir: str) -> None:
    process = await asyncio.create_subprocess_exec(sys.executable, "-c", CRASHING, state_dir, INSTANCE)
    assert await asyncio.wait_for(process.wait(), 30) == -signal.SIGKILL


async def test_killed_pool_leaves_nothing_after_a_sweep(make_pool: MakePool, tmp_path: Path) -> None:
    await crash(str(tmp_path / "state"))
    assert await asyncio.to_thread(remains, tmp_path / "state") != []

    await asyncio.to_thread(sweep_network, str(tmp_path / "state"), INSTANCE)

    assert await asyncio.to_thread(remains, tmp_path / "state") == []


async def test_next_pool_adopts_slots_of_living_containers(
    machine: Machine, make_pool: MakePool, tmp_path: Path
) -> None:
    outside = machine.serve("outside", "203.0.113.5", outside=True)
    await crash(str(tmp_path / "state"))

    async with make_pool(living=["ct-alive", "ct-blocked", "ct-unknown"]) as pool:
        alive, blocked = pool.slot_of("ct-alive"), pool.slot_of("ct-blocked")

        assert alive is not None
        assert blocked is not None
        assert pool.slot_of("ct-dead") is None
        assert (await probe(alive, "203.0.113.5", outside.port)).startswith("outside")
        fresh = await pool.acquire("ct-new")
        assert fresh.address != alive.address
        assert (await pool.acquire("ct-other", blocked=True)).name != blocked.name
        await pool.sweep([])


async def test_leaving_keeps_what_containers_still_use(machine: Machine, make_pool: MakePool) -> None:
    outside = machine.serve("outside", "203.0.113.5", outside=True)

    async with make_pool() as pool:
        slot = await pool.acquire("ct-1")

    assert is_mount_point(slot.netns_path)
    assert (await probe(slot, "203.0.113.5", outside.port)).startswith("outside")


@pytest.fixture
async def real_slot(tmp_path: Path) -> AsyncIterator[NetworkSlot]:
    """A slot on the real machine."""
    forward = Path("/proc/sys/net/ipv4/ip_forward")
    before = forward.read_text()
    state_dir = tmp_path / "real"
    try:
        async with NetworkPool.open(str(state_dir), INSTANCE, 1) as pool:
            slot = await pool.acquire("ct-1")
            yield slot
            await pool.release(slot)
        assert await asyncio.to_thread(remains, state_dir) == []
    finally:
        # Not while somebody else's containers on this machine need it.
        if not list(Path("/sys/class/net").glob("sq*")):
            forward.write_text(before)


def find_mirror() -> str:
    """The host of the machine's package mirror, or nothing."""
    paths = [Path(MIRROR_FILES[0]), *sorted(Path(MIRROR_FILES[1]).glob("*"))]
    lines = [line for path in paths if path.is_file() for line in path.read_text().splitlines()]
    words = [word for line in lines if line.startswith(("deb ", "URIs:")) for word in line.split()]
    hosts = [word.split("/")[2] for word in words if word.startswith(("http://", "https://"))]
    return hosts[0] if hosts else ""


def query_name(resolver: str, host: str) -> str:
    """A program that asks a resolver for an address and prints how many answers came."""
    name = b"".join(bytes([len(part)]) + part.encode() for part in host.split("."))
    packet = struct.pack(">HHHHHH", 7, 0x100, 1, 0, 0, 0) + name + b"\0" + struct.pack(">HH", 1, 1)
    ask = f"s.settimeout(5); s.sendto({packet!r}, ({resolver!r}, 53)); print(s.recv(999)[7])"
    return f"import socket; s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); {ask}"


async def test_names_resolve_through_the_machines_resolver(real_slot: NetworkSlot) -> None:
    mirror = find_mirror()
    resolvers = [line.split()[1] for line in real_slot.resolv_conf.splitlines() if line.startswith("nameserver")]
    if not mirror or not resolvers:
        pytest.skip("the machine has no package mirror, or no IPv4 resolver, configured")
    try:
        await asyncio.to_thread(socket.getaddrinfo, mirror, 80)
    except OSError as error:
        pytest.skip(f"the machine itself does not resolve {mirror}: {error}")

    code = query_name(resolvers[0], mirror)
    answers = await asyncio.to_thread(run_inside, real_slot, sys.executable, "-S", "-c", code)

    assert int(answers) >= 1


async def test_package_mirror_is_reached(real_slot: NetworkSlot) -> None:
    mirror = find_mirror()
    try:
        found = await asyncio.to_thread(socket.getaddrinfo, mirror, 80, socket.AF_INET, socket.SOCK_STREAM)
        address = str(found[0][4][0])
        (await asyncio.to_thread(socket.create_connection, (address, 80), 5)).close()
    except OSError as error:
        pytest.skip(f"the machine itself does not reach its package mirror {mirror or '(none configured)'}: {error}")
    code = f"import socket; socket.create_connection(({address!r}, 80), 5); print('connected')"

    assert await asyncio.to_thread(run_inside, real_slot, sys.executable, "-S", "-c", code) == "connected\n"
