"""What all slots of an instance stand on: directories, subnet, bridge, rules; and each slot's life.

Blocking; the pool calls it on its one thread.
"""

from __future__ import annotations

import contextlib
import logging
import os
import socket
import time
from collections.abc import Collection, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from ipaddress import IPv4Network

from squall.runtime.errors import RuntimeFailure, describe_errno
from squall.runtime.network import firewall, links, rules
from squall.runtime.network.names import Names, parse_slot_name
from squall.runtime.network.namespaces import (
    current_namespace,
    given_namespace,
    is_mount_point,
    make_pin_directory,
    new_namespace,
    remove_pin_directory,
    unpin,
    visited_namespace,
)
from squall.runtime.network.services import Services, find_resolvers, plan_services
from squall.runtime.network.subnet import PREFIX_LENGTH, Subnet, choose_subnet
from squall.runtime.network.watch import ChangeWatch
from squall.runtime.spec import NetworkSlot

log = logging.getLogger(__name__)

RESOLV_CONF = "/etc/resolv.conf"
# systemd's stub answers on lo only (it binds to the device), so no redirect reaches it; this file has the resolvers
# behind it.
STUB_RESOLVER = "127.0.0.53"
RESOLV_CONF_BEHIND_STUB = "/run/systemd/resolve/resolv.conf"
BATCH_TIMEOUT_S = 1.0
BATCH_PERIOD_S = 0.02


@dataclass(frozen=True, slots=True)
class NetworkConfig:
    """What a pool is made from."""

    state_dir: str
    instance: str
    size: int
    """Slots kept free."""
    living: frozenset[str] = frozenset()
    """Containers that survived the last run; their slots are adopted, all others are removed."""
    proxy_env: Mapping[str, str] = field(default_factory=dict)
    resolv_conf: str = RESOLV_CONF
    """Path of the machine's resolver configuration."""


def _index_of(name: str) -> int | None:
    """The place in the subnet of the slot called so, if it has one."""
    try:
        parsed = parse_slot_name(name)
    except ValueError:
        # Not ours, or of another version's: swept like a slot without address.
        return None
    return None if parsed.is_blocked else parsed.number


def read_resolv_conf(path: str) -> str:
    """The machine's resolver configuration, systemd's stub replaced by what is behind it; empty where there is none."""
    texts = []
    for candidate in (path, RESOLV_CONF_BEHIND_STUB):
        try:
            with open(candidate, encoding="utf-8", errors="replace") as file:
                texts.append(file.read())
        except OSError:
            texts.append("")
    is_stub = any(
        line.split()[1:] == [STUB_RESOLVER] for line in texts[0].splitlines() if line.startswith("nameserver")
    )
    return texts[1] if is_stub and texts[1] else texts[0]


class NodeNetwork:
    """One instance's part of the kernel. Used on one thread only."""

    def __init__(self, config: NetworkConfig) -> None:
        self.config = config
        self.names = Names(config.instance)
        # The mount table, in which pins are looked up, knows no symbolic links.
        state_dir = os.path.realpath(config.state_dir)
        self.pins = f"{state_dir}/netns"
        self.records = f"{state_dir}/slots"
        self.home_fd = -1
        self.mtu = links.FALLBACK_MTU
        self.subnet: Subnet
        self.services: Services
        self.findings: list[str] = []

    def prepare(self) -> dict[str, str]:
        """Sweep, then set up everything but slots. Returns adopted slots, container id to slot name."""
        self.home_fd = current_namespace()
        make_pin_directory(self.pins)
        os.makedirs(self.records, mode=0o700, exist_ok=True)
        adopted = self.sweep(self.config.living)
        machine = links.inspect_machine(self.names)
        self.mtu = machine.mtu
        self.subnet = self._choose_subnet(machine, has_slots=bool(adopted))
        self.services = plan_services(
            self.subnet,
            resolv_conf=read_resolv_conf(self.config.resolv_conf),
            proxy_env=self.config.proxy_env,
            own_addresses=machine.addresses,
            hostname=socket.gethostname(),
        )
        try:
            links.make_bridge(self.names, self.subnet, self.mtu)
            # Rules before forwarding: between the two nothing may pass that the rules would refuse.
            self.load_rules()
        except BaseException:
            if not adopted:
                self._take_back()
            raise
        if links.enable_forwarding():
            # Left on at the end: others may rely on it by then, and nobody can tell.
            log.warning("net.ipv4.ip_forward was 0 and is now 1: containers reach the outside through this machine")
        return adopted

    def _take_back(self) -> None:
        """Undo a failed `prepare`, as far as that can be done: what made it fail may be what is needed to undo it."""
        with contextlib.suppress(RuntimeFailure, OSError):
            links.remove_link(self.names.bridge)
        with contextlib.suppress(RuntimeFailure, OSError):
            rules.remove_rules(self.names)
        with contextlib.suppress(RuntimeFailure, OSError):
            remove_pin_directory(self.pins)
            os.rmdir(self.records)

    def load_rules(self) -> None:
        """Put the instance's rules in force, and those in other people's firewalls."""
        rules.load_rules(rules.render_rules(self.names, self.subnet, self.services))
        for line in firewall.open_firewall(self.names):
            log.info("opened the firewall for containers: %s", line)
        self.findings = [*self.services.findings, *firewall.firewall_findings(self.names)]
        for finding in self.findings:
            log.warning("%s", finding)

    def repair(self) -> bool:
        """Load the rules again when somebody flushed them; True when they were gone."""
        if rules.has_rules(self.names):
            return False
        self.load_rules()
        return True

    def sweep(self, living: Collection[str]) -> dict[str, str]:
        """Remove every slot that belongs to no living container. Returns the others, container id to slot name."""
        owners = {name: container_id for name in os.listdir(self.records) if (container_id := self._owner(name))}
        pinned = set(os.listdir(self.pins))
        found = links.find_slots(self.names)
        adopted: dict[str, str] = {}
        named: set[int | None] = set()
        for name in sorted(pinned | owners.keys()):
            index = _index_of(name)
            named.add(index)
            is_whole = is_mount_point(f"{self.pins}/{name}") and (index is None or index in found)
            owner = owners.get(name, "")
            if owner in living and is_whole:
                adopted[owner] = name
        nameless = {str(index) for index in found - named}
        self.remove_all(sorted((pinned | nameless | owners.keys()) - set(adopted.values())))
        return adopted

    def make(self, name: str) -> NetworkSlot:
        """Make the slot of this name, the machine's own."""
        path = f"{self.pins}/{name}"
        self._furnish(name, new_namespace(path, self.home_fd))
        return self.describe(name)

    def make_owned(self, name: str, descriptor: int) -> tuple[NetworkSlot, ChangeWatch]:
        """Make a slot of a namespace that an owner has power over, and the watch in it. The descriptor is closed."""
        try:
            self._furnish(name, given_namespace(descriptor, f"{self.pins}/{name}", self.home_fd))
            try:
                with visited_namespace(descriptor, self.home_fd):
                    watch = ChangeWatch()
            except BaseException:
                self.remove(name)
                raise
        finally:
            os.close(descriptor)
        return self.describe(name), watch

    def _furnish(self, name: str, namespace: AbstractContextManager[None]) -> None:
        index = _index_of(name)
        try:
            if index is None:
                links.furnish_blocked(namespace)
            else:
                links.furnish(namespace, self.names, self.subnet, index, mtu=self.mtu, home_fd=self.home_fd)
        except BaseException:
            unpin(f"{self.pins}/{name}")
            raise

    def describe(self, name: str) -> NetworkSlot:
        """The record of a slot that exists."""
        path = f"{self.pins}/{name}"
        index = _index_of(name)
        if index is None:
            return NetworkSlot(name, path, address="", gateway="", resolv_conf="")
        services = self.services
        address = self.subnet.slot(index)
        return NetworkSlot(name, path, address, self.subnet.gateway, services.resolv_conf, dict(services.env))

    def remove(self, name: str) -> None:
        """Remove a slot with its record. Idempotent."""
        path = f"{self.pins}/{name}"
        index = _index_of(name)
        if index is not None:
            links.remove_slot(self.names, index, path)
        else:
            unpin(path)
        self.forget(name)

    def remove_all(self, names: Collection[str]) -> None:
        """Remove many slots. The kernel takes the interfaces of dead namespaces away together, which one by one costs
        20 ms each; what a namespace that is still held keeps alive goes one by one. Idempotent.
        """
        for name in names:
            unpin(f"{self.pins}/{name}")
        doomed = {_index_of(name) for name in names}
        deadline = time.monotonic() + BATCH_TIMEOUT_S
        while doomed & links.find_slots(self.names) and time.monotonic() < deadline:
            time.sleep(BATCH_PERIOD_S)
        for name in names:
            self.remove(name)

    def record(self, name: str, container_id: str) -> None:
        """Remember on disk whose slot this is: a rename, so that a crash leaves all of it or nothing."""
        path = f"{self.records}/{name}"
        try:
            # In the pins' file system no file outlives a restart of the machine, and here none needs to: no fsync.
            with open(f"{path}.new", "w", encoding="utf-8") as file:
                file.write(container_id)
            os.rename(f"{path}.new", path)
        except OSError as error:
            raise RuntimeFailure(describe_errno("record the owner of network slot", path, error.errno or 0)) from error

    def forget(self, name: str) -> None:
        """Drop the record of a slot. Idempotent."""
        for path in (f"{self.records}/{name}", f"{self.records}/{name}.new"):
            try:
                os.unlink(path)
            except FileNotFoundError:
                continue

    def tear_down(self) -> None:
        """Remove what the slots stood on; they must be gone. Idempotent."""
        firewall.close_firewall(self.names)
        links.remove_link(self.names.bridge)
        rules.remove_rules(self.names)
        remove_pin_directory(self.pins)
        os.rmdir(self.records)

    def close(self) -> None:
        if self.home_fd >= 0:
            os.close(self.home_fd)
            self.home_fd = -1

    def _choose_subnet(self, machine: links.Machine, *, has_slots: bool) -> Subnet:
        present = links.find_subnet(self.names)
        if present and has_slots and present.network.prefixlen == PREFIX_LENGTH:
            return present
        links.remove_link(self.names.bridge)
        # A resolver behind the default route is in no route of its own, and a subnet over it would hide it.
        resolvers = find_resolvers(read_resolv_conf(self.config.resolv_conf))
        return choose_subnet(
            self.config.instance, [*machine.routed, *map(IPv4Network, [*machine.addresses, *resolvers])]
        )

    def _owner(self, name: str) -> str:
        if name.endswith(".new"):
            return ""
        with open(f"{self.records}/{name}", encoding="utf-8") as file:
            return file.read()


def sweep_network(state_dir: str, instance: str) -> None:
    """Remove everything an instance left in the kernel, for when no pool of it will run again. Blocks; idempotent."""
    node = NodeNetwork(NetworkConfig(state_dir, instance, size=0))
    make_pin_directory(node.pins)
    os.makedirs(node.records, mode=0o700, exist_ok=True)
    node.sweep(())
    node.tear_down()
