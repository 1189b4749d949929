"""Checks of the machine around the kernel: tools, ports, disk, firewall."""

from __future__ import annotations

import os
import shutil
import socket
from collections.abc import Iterable

from squall.runtime.checks.check import Check
from squall.runtime.errors import RuntimeFailure
from squall.runtime.network.firewall import TOOLS, accept_rules, firewall_findings, listing_of
from squall.runtime.network.names import Names
from squall.runtime.network.rules import run_tool

PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
DISK_NEEDED_BYTES = 2 * 2**30
DISK_WANTED_BYTES = 10 * 2**30

# Program, Debian package, whether nothing works without it, what it is for.
PROGRAMS = (
    ("nft", "nftables", True, "container networks"),
    ("tini-static", "tini", True, "the first process of each container"),
    ("catatonit", "catatonit", False, "containers that are forks of templates; without it all start plainly"),
    ("mmdebstrap", "mmdebstrap", True, "Debian images"),
    ("skopeo", "skopeo", False, "images from a registry"),
    ("fusermount3", "fuse3", False, "containers that start before their image is here, and buckets"),
    ("s3fs", "s3fs", False, "buckets that are mounted in containers"),
)


def check_program(program: str, package: str, is_needed: bool, purpose: str, path: str = PATH) -> Check:
    """Whether a program is installed."""
    found = shutil.which(program, path=path)
    if found:
        return Check(program, "ok", found)
    return Check(
        program, "fail" if is_needed else "warn", f"missing: needed for {purpose}", f"apt-get install {package}"
    )


def check_nftables() -> Check:
    """Whether the kernel takes rules, not only whether the tool is there."""
    try:
        run_tool(["nft", "list", "tables"])
    except RuntimeFailure as failure:
        return Check("nftables", "fail", failure.message, "apt-get install nftables; modprobe nf_tables; run as root")
    return Check("nftables", "ok", "the kernel answers")


def check_port(port: int, host: str = "127.0.0.1") -> Check:
    """Whether the server could listen there."""
    name = f"port {port}"
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_STREAM) as listener:
        # As servers do: connections of an earlier run that linger are no obstacle.
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind((host, port))
        except OSError as error:
            fix = f"stop what listens there (ss -ltnp 'sport = :{port}' names it) or configure another port"
            return Check(name, "fail", f"cannot listen on {host}:{port}: {error.strerror}", fix)
    return Check(name, "ok", f"{host}:{port} is free")


def check_disk(data_dir: str, free_bytes: int) -> Check:
    """Images and layers need room."""
    free = f"{free_bytes / 2**30:.1f} GiB free for {data_dir}"
    fix = "free some space or move the data directory with SQUALL_DATA_DIR"
    if free_bytes < DISK_NEEDED_BYTES:
        return Check("disk", "fail", f"{free}; a first image needs {DISK_NEEDED_BYTES // 2**30} GiB", fix)
    if free_bytes < DISK_WANTED_BYTES:
        return Check("disk", "warn", f"{free}; a few images fill that", fix)
    return Check("disk", "ok", free)


def free_bytes_of(path: str) -> int:
    """Free bytes of the file system that holds `path`, or will once it is made."""
    while not os.path.exists(path):
        path = os.path.dirname(path) or "/"
    state = os.statvfs(path)
    return state.f_bavail * state.f_frsize


def check_firewall(listings: Iterable[list[str]], findings: list[str]) -> Check:
    """Whether something else on the machine drops what containers send; what we can open is opened by itself."""
    if findings:
        finding, _, fix = findings[0].partition(": ")
        return Check("firewall", "warn", finding, fix)
    if any(accept_rules(Names("doctor"), listing) for listing in listings):
        return Check(
            "firewall", "ok", "drops forwarded packets; an accept for containers is inserted while the server runs"
        )
    return Check("firewall", "ok", "nothing drops forwarded packets")


def inspect_firewall() -> Check:
    """The same, of this machine."""
    try:
        return check_firewall([listing_of(tool) for tool in TOOLS], firewall_findings(Names("doctor")))
    except RuntimeFailure as failure:
        return Check("firewall", "warn", failure.message, "apt-get install nftables; run as root")


def check_machine(data_dir: str, ports: Iterable[int], uid: int) -> list[Check]:
    """All checks of the machine; those that need root are left out without it."""
    found = [check_program(*program) for program in PROGRAMS]
    if uid == 0:
        found += [check_nftables(), inspect_firewall()]
    return [*found, *map(check_port, ports), check_disk(data_dir, free_bytes_of(data_dir))]
