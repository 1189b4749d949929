"""Slots whose namespace belongs to clones: they reach what others do, and no more with all power over it."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from squall.runtime.errors import RuntimeFailure
from squall.runtime.network import pool as pool_module
from squall.runtime.network.names import Names
from squall.runtime.network.namespaces import is_mount_point
from squall.runtime.network.node_network import sweep_network
from squall.runtime.network.owner import SlotOwner
from squall.runtime.network.peak import HALF_LIFE_S
from squall.runtime.spec import IdRange, NetworkSlot
from tests.kernel.clones import CloneNamespaces
from tests.kernel.machine import (
    INSTANCE,
    LISTENER,
    MACHINE_ADDRESS,
    OUTSIDE_ADDRESS,
    Machine,
    MakePool,
    missing,
    nft,
    probe,
    remains,
    run,
    settle,
)

pytestmark = [pytest.mark.kernel, pytest.mark.skipif(bool(missing()), reason=missing() or "-")]

OWNER = SlotOwner(IdRange(0x7A00_0000), 0)
OTHER = SlotOwner(IdRange(0x7A01_0000), 0)
USER = SlotOwner(IdRange(0x7A00_0000), 1000)
# Prints whose a network namespace is: NS_GET_USERNS.
OF_WHOM = "import fcntl, os, sys; print(os.fstat(fcntl.ioctl(os.open(sys.argv[1], 0), 0xb701)).st_ino)"
# Becomes root of a user namespace, and enters a network namespace as that.
ENTER = """
import errno, os, sys
from squall.runtime import syscalls as sc
user, network = (os.open(path, os.O_RDONLY) for path in sys.argv[1:])
sc.setns(user, sc.CLONE_NEWUSER, "user namespace")
try:
    sc.setns(network, sc.CLONE_NEWNET, "network namespace")
    print("entered", end="")
except Exception as failure:
    print(errno.errorcode[failure.__cause__.errno], end="")
"""
# Sends a frame with addresses of the caller's choosing: a packet socket, which needs CAP_NET_RAW.
FORGE = """
import socket, struct, sys
source_mac, target_mac, source, target, port = sys.argv[1:6]
body = b"forged"
udp = struct.pack("!HHHH", 4000, int(port), 8 + len(body), 0) + body
head = struct.pack("!BBHHHBBH4s4s", 69, 0, 20 + len(udp), 1, 0, 64, 17, 0, *map(socket.inet_aton, (source, target)))
total = sum(struct.unpack("!10H", head))
total = (total & 65535) + (total >> 16)
head = head[:10] + struct.pack("!H", ~(total + (total >> 16)) & 65535) + head[12:]
mac = lambda text: bytes.fromhex(text.replace(":", ""))
packets = socket.socket(socket.AF_PACKET, socket.SOCK_RAW)
packets.bind(("eth0", 0))
packets.send(mac(target_mac) + mac(source_mac) + b"\\x08\\x00" + head + udp)
"""
# Writes net.ipv4.conf.eth0.rp_filter by netlink: IFLA_AF_SPEC > AF_INET > IFLA_INET_CONF > IPV4_DEVCONF_RP_FILTER.
SET_INET_SETTING = """
import socket, struct
from squall.runtime.network.rtnl import _attribute, _link
index = socket.if_nametoindex("eth0")
setting = _attribute(26, _attribute(2, _attribute(1, _attribute(8, struct.pack("=I", 2)))))
body = _link(index) + setting
route = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 0)
route.send(struct.pack("=IHHII", 16 + len(body), 16, 5, 1, 0) + body)
assert struct.unpack_from("=i", route.recv(4096), 16)[0] == 0
"""
GATEWAY_MAC = "02:73:71:00:00:01"


@pytest.fixture
def clones() -> Iterator[CloneNamespaces]:
    made = CloneNamespaces()
    yield made
    made.close()


async def as_clone(
    clones: CloneNamespaces, slot: NetworkSlot, *argv: str, owner: SlotOwner = OWNER
) -> subprocess.CompletedProcess[str]:
    return await asyncio.to_thread(clones.run, owner, slot, *argv)


async def change(clones: CloneNamespaces, slot: NetworkSlot, *commands: str) -> None:
    for command in commands:
        done = await as_clone(clones, slot, *command.split())
        assert done.returncode == 0, (command, done.stderr)


async def test_slot_of_an_owner_belongs_to_its_clones_and_reaches_the_outside(
    machine: Machine, make_pool: MakePool, clones: CloneNamespaces
) -> None:
    outside = machine.serve("outside", "203.0.113.5", outside=True)

    async with make_pool(make_namespaces=clones.make_namespaces) as pool:
        owned, ordinary = await pool.acquire("ce-1", owner=OWNER), await pool.acquire("ct-2")

        assert await probe(owned, "203.0.113.5", outside.port) == f"outside {MACHINE_ADDRESS}"
        owners = [run(sys.executable, "-c", OF_WHOM, slot.netns_path).strip() for slot in (owned, ordinary)]
        assert owners == [str(os.stat(clones.path_of(OWNER)).st_ino), str(os.stat("/proc/self/ns/user").st_ino)]
        entered = [
            run(sys.executable, "-c", ENTER, clones.path_of(OWNER), slot.netns_path) for slot in (owned, ordinary)
        ]
        assert entered == ["entered", "EPERM"]
        await pool.sweep([])


async def test_clone_with_all_power_speaks_from_no_address_but_its_own(
    machine: Machine, make_pool: MakePool, clones: CloneNamespaces
) -> None:
    outside = machine.serve("outside", OUTSIDE_ADDRESS, kind="udp", outside=True)
    resolver = machine.serve("resolver", "127.0.0.1", 53, kind="udp")

    async with make_pool(make_namespaces=clones.make_namespaces, resolvers="127.0.0.1") as pool:
        first, second = await pool.acquire("ce-1", owner=OWNER), await pool.acquire("ce-2", owner=OWNER)
        veth = Names(INSTANCE).veth(int(first.name[1:]))
        # The kernel's own check, which would drop these as well, is other people's to switch off.
        await asyncio.to_thread(run, "sysctl", "-qw", f"net.ipv4.conf.{veth}.rp_filter=0")
        for address in (second.address, "198.51.100.7", MACHINE_ADDRESS):
            await change(clones, first, f"ip addr add {address}/32 dev eth0")
            for host, port in ((OUTSIDE_ADDRESS, outside.port), (first.gateway, 53)):
                assert await probe(first, host, port, kind="udp", source=address, timeout_s=0.3) == "timeout"
            forged = ("02:73:71:01:00:99", GATEWAY_MAC, address, OUTSIDE_ADDRESS, str(outside.port))
            assert (await as_clone(clones, first, sys.executable, "-c", FORGE, *forged)).returncode == 0
        await asyncio.sleep(0.3)
        assert outside.seen == resolver.seen == []

        own = ("02:73:71:01:00:99", GATEWAY_MAC, first.address, OUTSIDE_ADDRESS, str(outside.port))
        await as_clone(clones, first, sys.executable, "-c", FORGE, *own)
        await settle(lambda: outside.seen == [MACHINE_ADDRESS])
        await pool.sweep([])


async def test_clone_with_another_hardware_address_hears_nothing_of_others(
    machine: Machine, make_pool: MakePool, clones: CloneNamespaces
) -> None:
    async with make_pool(make_namespaces=clones.make_namespaces) as pool:
        first, second = await pool.acquire("ce-1", owner=OWNER), await pool.acquire("ce-2", owner=OTHER)
        shown = await as_clone(clones, second, "cat", "/sys/class/net/eth0/address", owner=OTHER)
        mac = run("nsenter", f"--net={second.netns_path}", "ip", "-br", "link", "show", "eth0").split()[2]
        assert shown.returncode == 0

        # It takes the other's addresses, says so to everybody, and listens to all there is.
        await change(
            clones,
            first,
            "ip link set eth0 down",
            f"ip link set eth0 address {mac} promisc on up",
            f"ip addr add {second.address}/32 dev eth0",
            f"ip route add {first.gateway} dev eth0",
            f"ip neigh add {first.gateway} lladdr {GATEWAY_MAC} dev eth0",
        )
        listener = await asyncio.create_subprocess_exec(
            *("nsenter", f"--net={second.netns_path}", sys.executable, "-S", "-c", LISTENER), stdout=subprocess.PIPE
        )
        assert listener.stdout is not None
        await listener.stdout.readline()
        before = received_packets(first)
        reached = await asyncio.to_thread(socket.create_connection, (second.address, 8080), 3)

        reached.close()
        await listener.wait()
        assert received_packets(first) == before
        await pool.sweep([])


def received_packets(slot: NetworkSlot) -> int:
    return int(run("nsenter", f"--net={slot.netns_path}", "cat", "/sys/class/net/eth0/statistics/rx_packets"))


async def test_clone_with_all_power_reaches_no_other_container(make_pool: MakePool, clones: CloneNamespaces) -> None:
    async with make_pool(make_namespaces=clones.make_namespaces) as pool:
        first, second = await pool.acquire("ce-1", owner=OWNER), await pool.acquire("ct-2")
        listener = await asyncio.create_subprocess_exec(
            *("nsenter", f"--net={second.netns_path}", sys.executable, "-S", "-c", LISTENER), stdout=subprocess.PIPE
        )
        assert listener.stdout is not None
        await listener.stdout.readline()

        assert await probe(first, second.address, 8080) == "EHOSTUNREACH"
        await change(
            clones,
            first,
            f"ip route add {second.address}/32 dev eth0",
            f"ip neigh add {second.address} lladdr {GATEWAY_MAC} dev eth0",
        )
        assert await probe(first, second.address, 8080) == "EHOSTUNREACH"
        from_machine = await asyncio.to_thread(socket.create_connection, (second.address, 8080), 3)

        from_machine.close()
        await listener.wait()
        await pool.sweep([])


async def test_clone_with_all_power_touches_nothing_of_the_machines_network(
    make_pool: MakePool, clones: CloneNamespaces
) -> None:
    async with make_pool(make_namespaces=clones.make_namespaces) as pool:
        slot = await pool.acquire("ce-1", owner=OWNER)
        rules, links = nft("list", "ruleset"), run("ip", "-br", "link")
        forward = Path("/proc/sys/net/ipv4/ip_forward").read_text()

        inside = await as_clone(clones, slot, "nft", "list", "ruleset")
        await as_clone(clones, slot, "nft", "flush", "ruleset")
        await change(clones, slot, "sysctl -qw net.ipv4.ip_forward=0")
        # The test is a process of the machine.
        moved = await as_clone(clones, slot, "ip", "link", "set", "eth0", "netns", str(os.getpid()))
        peer = ("peer", "name", "sqevil", "netns", str(os.getpid()))
        joined = await as_clone(clones, slot, "ip", "link", "add", "type", "veth", *peer)

        assert Names(INSTANCE).table not in inside.stdout
        assert (moved.returncode, joined.returncode) == (2, 2)
        assert (nft("list", "ruleset"), run("ip", "-br", "link")) == (rules, links)
        assert Path("/proc/sys/net/ipv4/ip_forward").read_text() == forward
        await pool.sweep([])


async def test_slot_without_network_has_only_a_loopback_that_its_clones_own(
    make_pool: MakePool, clones: CloneNamespaces
) -> None:
    async with make_pool(make_namespaces=clones.make_namespaces) as pool:
        slot = await pool.acquire("ce-1", blocked=True, owner=OWNER)

        links = (await as_clone(clones, slot, "ip", "-br", "link")).stdout.splitlines()
        assert [line.split()[0] for line in links] == ["lo"]
        assert slot.address == slot.resolv_conf == ""
        await pool.release(slot)
        assert pool.free_of(OWNER, blocked=True) == 1
        assert (await pool.acquire("ce-2", blocked=True, owner=OWNER)).name == slot.name
        await pool.sweep([])


async def test_used_slot_goes_back_to_its_owner_alone(
    machine: Machine, make_pool: MakePool, clones: CloneNamespaces
) -> None:
    outside = machine.serve("outside", "203.0.113.5", outside=True)
    datagrams = machine.serve("outside", "203.0.113.5", kind="udp", outside=True)

    async with make_pool(make_namespaces=clones.make_namespaces) as pool:
        slot = await pool.acquire("ce-1", owner=OWNER)
        # What programs do with a network; and the time in which the kernel says that the link is there.
        await probe(slot, "203.0.113.5", outside.port)
        await probe(slot, "203.0.113.5", datagrams.port, kind="udp")
        await probe(slot, "203.0.113.99", 9, timeout_s=0.2)
        await probe(slot, slot.gateway, 9, timeout_s=0.2)
        await probe(slot, "239.1.2.3", 9, kind="udp", timeout_s=0.2)
        await probe(slot, "127.0.0.1", 9)
        await asyncio.sleep(1.2)
        await pool.release(slot)

        others = [await pool.acquire("ce-2", owner=OTHER), await pool.acquire("ce-3", owner=USER)]
        others.append(await pool.acquire("ct-4"))
        assert slot.name not in {other.name for other in others}
        assert (await pool.acquire("ce-5", owner=OWNER)) == slot
        assert (await probe(slot, "203.0.113.5", outside.port)) == f"outside {MACHINE_ADDRESS}"
        await pool.sweep([])


@pytest.mark.parametrize(
    "commands",
    [
        ["ip addr add 198.51.100.7/32 dev eth0"],
        ["ip addr add 198.51.100.7/32 dev eth0", "ip addr del 198.51.100.7/32 dev eth0"],
        ["ip route add 198.51.100.0/24 dev eth0"],
        ["ip route add local 0.0.0.0/0 dev lo table 7"],
        ["ip rule add from all lookup 7"],
        ["ip neigh replace {gateway} lladdr 02:00:00:00:00:09 dev eth0"],
        ["ip link set eth0 mtu 600"],
        ["ip link set eth0 address 02:00:00:00:00:09"],
        ["ip link set lo down"],
        ["ip link set eth0 promisc on"],
        ["ip link set eth0 arp off"],
        ["ip link set eth0 allmulticast on"],
        ["ip link set eth0 multicast off"],
        ["ip link set eth0 txqueuelen 7"],
        ["ip link set eth0 alias other"],
        ["ip link set eth0 group 7"],
        ["ip link set eth0 promisc on", "ip link set eth0 promisc off"],
        ["ip link set eth0 addrgenmode none"],
        ["ip link set lo txqueuelen 7"],
        ["set_inet_setting"],
        ["ip nexthop add id 1 blackhole"],
        ["ip link set eth0 name eth7"],
        ["ip link add other type veth"],
        ["ip link delete eth0"],
        ["unshare --net sh -c {take}"],
        ["tc qdisc replace dev eth0 root pfifo limit 1"],
        ["ip -6 addr add fd00::7/128 dev lo"],
    ],
)
async def test_slot_in_which_anything_was_changed_is_given_to_nobody(
    make_pool: MakePool, clones: CloneNamespaces, commands: list[str]
) -> None:
    async with make_pool(make_namespaces=clones.make_namespaces) as pool:
        slot = await pool.acquire("ce-1", owner=OWNER)
        for command in commands:
            argv = [word.format(gateway=slot.gateway, take="true") for word in command.split()]
            if argv[0] == "unshare":
                # The interface goes to a namespace that ends soon, and is there when it is named.
                argv = ["sh", "-c", "unshare --net sleep 2 & sleep 0.5; ip link set eth0 netns $!"]
            if argv[0] == "set_inet_setting":
                argv = [sys.executable, "-c", SET_INET_SETTING]
            done = await as_clone(clones, slot, *argv)
            assert done.returncode == 0, done.stderr
        await pool.release(slot)

        assert pool.free_of(OWNER) == 0
        fresh = await pool.acquire("ce-2", owner=OWNER)
        assert fresh.name != slot.name
        await settle(lambda: not is_mount_point(slot.netns_path))
        await pool.sweep([])


async def test_reserved_slots_are_made_ahead_and_replaced(make_pool: MakePool, clones: CloneNamespaces) -> None:
    async with make_pool(make_namespaces=clones.make_namespaces) as pool:
        pool.reserve(OWNER, 3)
        await settle(lambda: pool.free_of(OWNER) == 3)
        for number in range(2):
            with pytest.raises(StopIteration):
                # Over before it has waited for anything.
                pool.acquire(f"ce-{number}", owner=OWNER).send(None)

        await settle(lambda: pool.free_of(OWNER) == 3)

        pool.reserve(OWNER, 1)
        await settle(lambda: pool.free_of(OWNER) == 1)
        await pool.sweep([])


@pytest.mark.parametrize("id_range", [OWNER.id_range, None])
async def test_retired_slots_are_given_to_nobody(
    make_pool: MakePool, clones: CloneNamespaces, id_range: IdRange | None
) -> None:
    async with make_pool(make_namespaces=clones.make_namespaces) as pool:
        pool.reserve(OWNER, 2)
        used = await pool.acquire("ce-1", owner=OWNER)
        blocked = await pool.acquire("ce-2", owner=OWNER, blocked=True)
        others = await pool.acquire("ce-3", owner=OTHER)
        await pool.release(others)
        await settle(lambda: pool.free_of(OWNER) == 2)

        pool.retire(id_range)
        assert pool.free_of(OWNER) == 0
        # Taken at once, while what was retired is still on its way out, and kept afterwards.
        fresh = await pool.acquire("ce-4", owner=OWNER)
        for slot in (used, blocked, fresh):
            await pool.release(slot)

        assert fresh.name not in {used.name, blocked.name}
        assert (pool.free_of(OWNER), pool.free_of(OWNER, blocked=True)) == (1, 0)
        assert pool.free_of(OTHER) == (0 if id_range is None else 1)
        for slot in (used, blocked):
            await settle(lambda slot=slot: not is_mount_point(slot.netns_path))  # type: ignore[misc]
        assert (await pool.acquire("ce-5", owner=OWNER)).name == fresh.name
        await pool.sweep([])


async def test_slots_that_are_being_made_when_they_are_retired_are_given_to_nobody(
    make_pool: MakePool, clones: CloneNamespaces
) -> None:
    may_go_on = asyncio.Event()

    async def make_late(id_range: IdRange, uid: int, count: int) -> list[int]:
        made = await clones.make_namespaces(id_range, uid, count)
        await may_go_on.wait()
        return made

    async with make_pool(make_namespaces=make_late) as pool:
        waiting = asyncio.ensure_future(pool.acquire("ce-1", owner=OWNER))
        await settle(lambda: clones.asked == [1])

        pool.retire()
        with pytest.raises(RuntimeFailure, match="retired"):
            await waiting
        may_go_on.set()

        slot = await pool.acquire("ce-2", owner=OWNER)
        await settle(lambda: len(list(Path(slot.netns_path).parent.glob("c*"))) == 1)
        await pool.sweep([])


async def test_spoiled_slot_is_removed_though_nothing_was_changed_in_it(
    make_pool: MakePool, clones: CloneNamespaces
) -> None:
    async with make_pool(make_namespaces=clones.make_namespaces) as pool:
        slot = await pool.acquire("ce-1", owner=OWNER)

        await pool.release(slot, is_spoiled=True)

        assert pool.free_of(OWNER) == 0
        await settle(lambda: not is_mount_point(slot.netns_path))


async def test_slots_of_an_idle_owner_go_with_time(
    make_pool: MakePool, clones: CloneNamespaces, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pool_module, "TRIM_PERIOD_S", 0.02)
    now_s = 0.0
    async with make_pool(make_namespaces=clones.make_namespaces, monotonic_s=lambda: now_s) as pool:
        await asyncio.gather(*(pool.acquire(f"ce-{number}", owner=OWNER) for number in range(6)))
        await pool.sweep([])
        await asyncio.sleep(0.1)
        assert pool.free_of(OWNER) == 6

        now_s = HALF_LIFE_S
        await settle(lambda: pool.free_of(OWNER) == 3)
        now_s = 10 * HALF_LIFE_S
        await settle(lambda: pool.free_of(OWNER) == 0)


async def test_owner_that_waits_longest_loses_its_slots_when_all_have_too_many(
    make_pool: MakePool, clones: CloneNamespaces, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pool_module, "OWNED_FREE_MAX", 4)
    now_s = 0.0
    async with make_pool(make_namespaces=clones.make_namespaces, monotonic_s=lambda: now_s) as pool:
        for owner in (OWNER, OTHER):
            now_s += 1.0
            for number in range(3):
                await pool.acquire(f"ce-{owner.id_range.start}-{number}", owner=owner)
        await pool.sweep([])

        await settle(lambda: (pool.free_of(OWNER), pool.free_of(OTHER)) == (1, 3))
        # A reservation does not make what would be removed again.
        pool.reserve(OWNER, 3)
        await asyncio.sleep(0.3)
        assert (pool.free_of(OWNER), pool.free_of(OTHER)) == (1, 3)


async def test_owner_whose_namespace_cannot_be_made_is_told_and_nothing_is_left(
    make_pool: MakePool, tmp_path: Path
) -> None:
    async def refuse(id_range: IdRange, uid: int, count: int) -> list[int]:
        raise RuntimeFailure(f"no namespaces for {id_range.start} {uid}")

    async with make_pool(make_namespaces=refuse) as pool:
        with pytest.raises(RuntimeFailure, match=f"no namespaces for {OWNER.id_range.start} 0"):
            await pool.acquire("ce-1", owner=OWNER)
        assert pool.free_of(OWNER) == 0
    async with make_pool() as pool:
        with pytest.raises(RuntimeFailure, match="nothing here makes its namespace"):
            await pool.acquire("ce-1", owner=OWNER)


NO_DESCRIPTOR = 1_000_000


@pytest.mark.parametrize(
    ("spare", "cause"), [((), "fewer namespaces came than were asked for"), ((NO_DESCRIPTOR,), "Bad file descriptor")]
)
async def test_who_is_given_too_few_namespaces_tells_some_and_goes_on(
    make_pool: MakePool, clones: CloneNamespaces, spare: tuple[int, ...], cause: str
) -> None:
    async def make_fewer(id_range: IdRange, uid: int, count: int) -> list[int]:
        return [*await clones.make_namespaces(id_range, uid, 1), *spare, *spare][:count]

    async with make_pool(size=0, make_namespaces=make_fewer) as pool:
        asked = [asyncio.ensure_future(pool.acquire(f"ce-{number}", owner=OWNER)) for number in range(3)]
        _, unanswered = await asyncio.wait(asked, timeout=5)
        assert not unanswered

        slot, *failures = await asyncio.gather(*asked, return_exceptions=True)
        assert isinstance(slot, NetworkSlot)
        assert [cause in str(failure) for failure in failures] == [True, True]
        # Nothing counts as being made any more: what is left over is removed, and its names are given again.
        await pool.release(slot)
        pool.retire()
        await settle(lambda: not is_mount_point(slot.netns_path))
        again = [await pool.acquire(f"ce-{number}", owner=OTHER) for number in range(3)]
        assert len({slot.name for slot in again}) == 3
        await pool.sweep([])


async def test_namespaces_that_nobody_wants_are_closed(make_pool: MakePool, clones: CloneNamespaces) -> None:
    given: list[int] = []

    async def make_more(id_range: IdRange, uid: int, count: int) -> list[int]:
        given.extend(await clones.make_namespaces(id_range, uid, count + 1))
        return given

    async with make_pool(size=0, make_namespaces=make_more) as pool:
        await pool.acquire("ce-1", owner=OWNER)
        await pool.sweep([])

    assert not any(os.path.exists(f"/proc/self/fd/{descriptor}") for descriptor in given)


async def test_slot_that_cannot_be_furnished_is_told_and_nothing_is_left(
    make_pool: MakePool, clones: CloneNamespaces, tmp_path: Path
) -> None:
    before = len(os.listdir("/proc/self/fd"))
    async with make_pool(size=0, make_namespaces=clones.make_namespaces) as pool:
        await asyncio.to_thread(run, "ip", "link", "add", Names(INSTANCE).veth(16), "type", "bridge")

        with pytest.raises(RuntimeFailure, match=r"cannot set up network slot .*EEXIST"):
            await pool.acquire("ce-1", owner=OWNER)

        assert list((tmp_path / "state" / "netns").iterdir()) == []
        assert (await pool.acquire("ce-1", owner=OWNER)).name == "c17"
        await pool.sweep([])
    clones.close()
    assert len(os.listdir("/proc/self/fd")) <= before


CRASHING = """
import asyncio, os, signal, sys
from squall.runtime.network.owner import SlotOwner
from squall.runtime.network.pool import NetworkPool
from squall.runtime.spec import IdRange
from tests.kernel.clones import CloneNamespaces

async def main():
    clones, owner = CloneNamespaces(), SlotOwner(IdRange(0x7A00_0000), 0)
    async with NetworkPool.open(sys.argv[1], sys.argv[2], 1, make_namespaces=clones.make_namespaces) as pool:
        pool.reserve(owner, 2)
        await pool.acquire("ce-alive", owner=owner)
        await pool.acquire("ce-dead", owner=owner)
        await pool.acquire("ce-blocked", owner=owner, blocked=True)
        await asyncio.sleep(0.2)
        os.kill(os.getpid(), signal.SIGKILL)

asyncio.run(main())
"""


async def crash(state_dir: Path) -> None:
    argv = (sys.executable, "-c", CRASHING, str(state_dir), INSTANCE)
    process = await asyncio.create_subprocess_exec(*argv)
    assert await asyncio.wait_for(process.wait(), 30) == -signal.SIGKILL


async def test_killed_pool_leaves_nothing_of_clones_after_a_sweep(make_pool: MakePool, tmp_path: Path) -> None:
    await crash(tmp_path / "state")
    assert list((tmp_path / "state" / "netns").glob("c*")) != []

    await asyncio.to_thread(sweep_network, str(tmp_path / "state"), INSTANCE)

    assert await asyncio.to_thread(remains, tmp_path / "state") == []


async def test_slots_of_living_clones_are_adopted_and_then_kept_for_nobody(
    machine: Machine, make_pool: MakePool, clones: CloneNamespaces, tmp_path: Path
) -> None:
    outside = machine.serve("outside", "203.0.113.5", outside=True)
    await crash(tmp_path / "state")

    async with make_pool(living=["ce-alive", "ce-blocked"], make_namespaces=clones.make_namespaces) as pool:
        alive, blocked = pool.slot_of("ce-alive"), pool.slot_of("ce-blocked")
        assert alive is not None
        assert blocked is not None
        assert pool.slot_of("ce-dead") is None
        assert (await probe(alive, "203.0.113.5", outside.port)).startswith("outside")
        assert len(list((tmp_path / "state" / "netns").glob("c*"))) == 2
        assert (await pool.acquire("ce-new", owner=OWNER)).address != alive.address

        # Nobody has watched them while there was no agent, nor does anybody know whose they were.
        await pool.sweep([])
        await settle(lambda: not is_mount_point(alive.netns_path) and not is_mount_point(blocked.netns_path))
        for number in range(3):
            assert (await pool.acquire(f"ct-{number}")).name.isdigit()
        await pool.sweep([])


async def test_hundred_slots_of_one_owner_at_once(
    machine: Machine, make_pool: MakePool, clones: CloneNamespaces
) -> None:
    outside = machine.serve("outside", "203.0.113.5", outside=True)

    async with make_pool(make_namespaces=clones.make_namespaces) as pool:
        slots = await asyncio.gather(*(pool.acquire(f"ce-{number}", owner=OWNER) for number in range(100)))

        assert len({slot.address for slot in slots}) == 100
        assert len(clones.asked) <= 8
        assert (await probe(slots[99], "203.0.113.5", outside.port)).startswith("outside")
        await pool.sweep([])
        assert pool.free_of(OWNER) == 100
