"""What a server that was killed left of a data directory on this machine: found, and taken away without a new server.

The next server does the same on its way up; this is for whoever wants none.
"""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import struct
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import astuple, dataclass
from pathlib import Path

from squall.agent.image.block.control import ask
from squall.agent.image.layer.store import LayerError, LayerStore
from squall.agent.record import read_record
from squall.main.data_dir import answers, remove_server_file
from squall.main.spawner import instance_name
from squall.protocol.ids import is_id
from squall.runtime.cgroup import detect_cgroups
from squall.runtime.client import SpawnerRuntime
from squall.runtime.errors import FeatureMissing, RuntimeFailure
from squall.runtime.mounts import ensure_no_mounts
from squall.runtime.network.names import Names
from squall.runtime.network.node_network import sweep_network
from squall.runtime.removal import remove_tree
from squall.runtime.sweep import records_path, socket_path, sweep

SHUTDOWN_S = 30.0
GONE_S = 10.0
LOOK_PERIOD_S = 0.05
PEER_CREDENTIALS = struct.Struct("3i")


@dataclass(frozen=True, slots=True)
class Leftovers:
    """How many there are of each kind."""

    containers: int
    """With processes."""
    templates: int
    """And clones and cells that wait: with processes, and of no use without a server."""
    spawners: int
    """One or none."""
    slots: int
    networks: int
    """What slots stand on: one or none."""
    layers: int
    """In the making."""
    records: int
    """Control groups and notes of containers that have ended."""
    directories: int
    """Of containers."""

    def __bool__(self) -> bool:
        return any(astuple(self))

    def __str__(self) -> str:
        names = (
            ("running container", "running containers"),
            ("template or clone that waits", "templates and clones that wait"),
            ("process that makes containers", ""),
            ("network slot", "network slots"),
            ("bridge with rules", ""),
            ("unfinished image layer", "unfinished image layers"),
            ("record of a container", "records of containers"),
            ("directory of a container", "directories of containers"),
        )
        counted = zip(astuple(self), names, strict=True)
        return ", ".join(f"{count} {one if count == 1 else many}" for count, (one, many) in counted if count)


def running_containers(data_dir: Path) -> int:
    """Containers with processes; anybody may ask."""
    return _count(data_dir, _groups(data_dir))[0]


def find(data_dir: Path) -> Leftovers:
    """Look for what there is, as root. True while no server runs."""
    groups = _groups(data_dir)
    containers, templates = _count(data_dir, groups)
    network, spawner = data_dir / "network", data_dir / "spawner"
    names = Names(instance_name(data_dir))
    links = os.listdir("/sys/class/net")
    recorded = {path.stem for path in Path(records_path(str(spawner))).glob("*.json")}
    return Leftovers(
        containers=containers,
        templates=templates,
        spawners=int(answers(Path(socket_path(str(spawner))))),
        slots=len({*_names_in(network / "netns"), *_names_in(network / "slots")}),
        networks=int(names.bridge in links or (network / "netns").exists() or (network / "slots").exists()),
        layers=len(_names_in(data_dir / "layers" / ".scratch")),
        records=len(recorded | {name for name, is_running in groups.items() if not is_running})
        - len(recorded & {name for name, is_running in groups.items() if is_running}),
        directories=len(_directories(data_dir)),
    )


def take_away(data_dir: Path) -> list[str]:
    """End and remove all of it; for root, who holds the server's lock. Returns why what did not go is still there."""
    steps: tuple[Callable[[Path], None], ...] = (
        _end_spawner,
        _end_layers_daemon,
        _sweep_containers,
        _sweep_network,
        _sweep_layers,
        _remove_directories,
    )
    failures = []
    for step in steps:
        try:
            step(data_dir)
        except (RuntimeFailure, LayerError, OSError) as error:
            failures.append(str(error))
    (data_dir / "server.sock").unlink(missing_ok=True)
    remove_server_file(data_dir)
    return failures


def _groups(data_dir: Path) -> dict[str, bool]:
    """Control groups of this directory's containers, and whether a process is in them."""
    try:
        tree = detect_cgroups()
    except FeatureMissing:
        return {}
    groups = ((name, tree.open(name)) for name in tree.names(f"squall/{instance_name(data_dir)}"))
    return {name.rpartition("/")[2]: bool(group.pids()) for name, group in groups if group is not None}


def _count(data_dir: Path, groups: Mapping[str, bool]) -> tuple[int, int]:
    """How many containers run, and how much that waits to be one."""
    running = [name for name, is_running in groups.items() if is_running]
    containers = sum(_is_container(data_dir, name) for name in running)
    return containers, len(running) - containers


def _is_container(data_dir: Path, name: str) -> bool:
    """Whether what has this control group is a container, or waits to be one."""
    if not is_id(name, "ce"):
        return not is_id(name, "tp")
    try:
        record = read_record(data_dir / "containers" / name)
    except OSError:
        return True
    # Records are root's to read; whoever cannot does not end what may be a container.
    return os.geteuid() != 0 if record is None else bool(record.container_id)


def _names_in(path: Path) -> list[str]:
    try:
        return os.listdir(path)
    except FileNotFoundError:
        return []


def _directories(data_dir: Path) -> list[Path]:
    return [data_dir / place / name for place in ("containers", "removed") for name in _names_in(data_dir / place)]


def _end_spawner(data_dir: Path) -> None:
    """Ask it to end with its containers; kill it when it cannot be talked to."""
    state_dir = data_dir / "spawner"
    path = Path(socket_path(str(state_dir)))
    if not answers(path):
        return
    try:
        asyncio.run(_shut_down(str(state_dir), instance_name(data_dir)))
    except (RuntimeFailure, TimeoutError):
        # It hangs, or is one of another version. Its containers die with it.
        _kill_listener(path)
    deadline = time.monotonic() + GONE_S
    while answers(path):
        if time.monotonic() > deadline:
            raise RuntimeFailure(f"cannot end the process that listens at {path}: still there after {GONE_S:.0f} s")
        time.sleep(LOOK_PERIOD_S)


def _end_layers_daemon(data_dir: Path) -> None:
    """What serves layers ends with the containers that read them."""
    deadline = time.monotonic() + GONE_S
    while ask(data_dir, {"do": "end"}) is not None and time.monotonic() < deadline:
        time.sleep(LOOK_PERIOD_S)


async def _shut_down(state_dir: str, instance: str) -> None:
    async with await SpawnerRuntime.open(state_dir, instance) as runtime:
        await asyncio.wait_for(runtime.shutdown(), SHUTDOWN_S)


def _kill_listener(path: Path) -> None:
    """Kill the process that listens at the spawner's socket, if it is a spawner."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe, suppress(OSError):
        probe.connect(str(path))
        credentials = probe.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, PEER_CREDENTIALS.size)
        pid, _, _ = PEER_CREDENTIALS.unpack(credentials)
        if b"squall.runtime.spawner" in Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0"):
            os.kill(pid, signal.SIGKILL)


def _sweep_containers(data_dir: Path) -> None:
    """Remove control groups, records and mounts; waits for a spawner that is on its way out."""
    deadline = time.monotonic() + GONE_S
    while True:
        try:
            sweep(str(data_dir / "spawner"), instance_name(data_dir))
            return
        except RuntimeFailure:
            if time.monotonic() > deadline:
                raise
            time.sleep(LOOK_PERIOD_S)


def _sweep_network(data_dir: Path) -> None:
    if find(data_dir).networks:
        sweep_network(str(data_dir / "network"), instance_name(data_dir))


def _sweep_layers(data_dir: Path) -> None:
    """Remove what was in the making; waits for programs that still write there, which end with their server."""
    if not _names_in(data_dir / "layers" / ".scratch"):
        return
    store = LayerStore(data_dir)
    deadline = time.monotonic() + GONE_S
    for name in _names_in(data_dir / "layers" / ".scratch"):
        ensure_no_mounts(str(data_dir / "layers" / ".scratch" / name))
    while store.sweep() or _names_in(data_dir / "layers" / ".scratch"):
        if time.monotonic() > deadline:
            raise LayerError(f"cannot remove {data_dir}/layers/.scratch: a program still writes there; end it first")
        time.sleep(LOOK_PERIOD_S)


def _remove_directories(data_dir: Path) -> None:
    for path in _directories(data_dir):
        ensure_no_mounts(str(path))
        remove_tree(str(path))
