"""Which devices a container may open: one allow-list, told to cgroup v1 in text and to v2 as an eBPF program."""

from __future__ import annotations

import ctypes
import os
import platform
import struct
from collections.abc import Sequence
from dataclasses import dataclass

from squall.runtime.errors import FeatureMissing, RuntimeFailure, describe_errno

BPF_SYSCALL = {"x86_64": 321, "aarch64": 280, "riscv64": 280}
BPF_PROG_LOAD = 5
BPF_PROG_ATTACH = 8
PROGRAM_TYPE_CGROUP_DEVICE = 15
ATTACH_CGROUP_DEVICE = 6
# Lets the service manager's own program on a parent go on deciding too; every program must say yes.
ATTACH_ALLOW_MULTI = 2

KIND_BITS = {"b": 1, "c": 2}
ACCESS_BITS = {"m": 1, "r": 2, "w": 4}

LOG_BYTES = 16_384


@dataclass(frozen=True, slots=True)
class DeviceRule:
    """One line of the allow-list: `kind` is c or b, `minor` None means any, `access` is some of r, w, m."""

    kind: str
    major: int
    minor: int | None
    access: str = "rw"


DEFAULT_DEVICES: tuple[DeviceRule, ...] = (
    DeviceRule("c", 1, 3),  # null
    DeviceRule("c", 1, 5),  # zero
    DeviceRule("c", 1, 7),  # full
    DeviceRule("c", 1, 8),  # random
    DeviceRule("c", 1, 9),  # urandom
    DeviceRule("c", 5, 0),  # tty
    DeviceRule("c", 5, 2),  # ptmx
    DeviceRule("c", 136, None),  # pts/*
)


def v1_line(rule: DeviceRule) -> str:
    """The rule as `devices.allow` of cgroup v1 takes it."""
    minor = "*" if rule.minor is None else str(rule.minor)
    return f"{rule.kind} {rule.major}:{minor} {rule.access}"


def _instruction(code: int, destination: int = 0, source: int = 0, offset: int = 0, immediate: int = 0) -> bytes:
    return struct.pack("<BBhi", code, (source << 4) | destination, offset, immediate)


def _rule_instructions(rule: DeviceRule) -> bytes:
    """Return 1 from the program when the rule matches, else fall through.

    Registers: r2 kind, r3 access wanted, r4 major, r5 minor. Jumps go to the end of this rule.
    """
    refused_access = sum(bit for letter, bit in ACCESS_BITS.items() if letter not in rule.access)
    accept = [_instruction(0xB7, 0, immediate=1), _instruction(0x95)]  # r0 = 1; exit
    tests: list[tuple[int, int, int]] = [(0x55, 2, KIND_BITS[rule.kind]), (0x55, 4, rule.major)]  # jump if not equal
    if rule.minor is not None:
        tests.append((0x55, 5, rule.minor))
    if refused_access:
        tests.append((0x45, 3, refused_access))  # jump if any refused bit is wanted
    return b"".join(
        _instruction(code, register, offset=len(tests) - index - 1 + len(accept), immediate=value)
        for index, (code, register, value) in enumerate(tests)
    ) + b"".join(accept)


def device_program(rules: Sequence[DeviceRule]) -> bytes:
    """The allow-list as instructions of a BPF_PROG_TYPE_CGROUP_DEVICE program: 1 allows, 0 is EPERM."""
    head = (
        _instruction(0x61, 2, 1, 0)  # r2 = context.access_type
        + _instruction(0xBF, 3, 2)  # r3 = r2
        + _instruction(0x57, 2, immediate=0xFFFF)  # r2 &= 0xffff: kind
        + _instruction(0x77, 3, immediate=16)  # r3 >>= 16: access
        + _instruction(0x61, 4, 1, 4)  # r4 = context.major
        + _instruction(0x61, 5, 1, 8)  # r5 = context.minor
    )
    refuse = _instruction(0xB7, 0, immediate=0) + _instruction(0x95)
    return head + b"".join(_rule_instructions(rule) for rule in rules) + refuse


def _bpf(command: int, attributes: bytes) -> int:
    number = BPF_SYSCALL.get(platform.machine())
    if number is None:
        raise FeatureMissing(f"cannot restrict devices: bpf(2) is not known for {platform.machine()}")
    libc = ctypes.CDLL(None, use_errno=True)
    result = int(
        libc.syscall(number, command, ctypes.create_string_buffer(attributes, len(attributes)), len(attributes))
    )
    if result < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return result


def _load(program: bytes) -> int:
    instructions = ctypes.create_string_buffer(program, len(program))
    license_text = ctypes.create_string_buffer(b"Apache-2.0")
    log = ctypes.create_string_buffer(LOG_BYTES)
    attributes = struct.pack(
        "<IIQQIIQ",
        PROGRAM_TYPE_CGROUP_DEVICE,
        len(program) // 8,
        ctypes.addressof(instructions),
        ctypes.addressof(license_text),
        1,
        LOG_BYTES,
        ctypes.addressof(log),
    )
    try:
        return _bpf(BPF_PROG_LOAD, attributes.ljust(72, b"\0"))
    except OSError as error:
        reason = describe_errno("load", "the device program", error.errno or 0)
        detail = log.value.decode("ascii", "replace").strip()
        raise RuntimeFailure(f"{reason} {detail}".rstrip()) from error


def attach_device_program(cgroup_path: str, rules: Sequence[DeviceRule]) -> None:
    """Allow only these devices in a cgroup v2 and those below it. The program lives as long as the cgroup.

    Raises:
        RuntimeFailure: the kernel refused the program, or the cgroup.
    """
    program_fd = _load(device_program(rules))
    try:
        cgroup_fd = os.open(cgroup_path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            _bpf(
                BPF_PROG_ATTACH,
                struct.pack("<IIII", cgroup_fd, program_fd, ATTACH_CGROUP_DEVICE, ATTACH_ALLOW_MULTI).ljust(72, b"\0"),
            )
        finally:
            os.close(cgroup_fd)
    except OSError as error:
        raise RuntimeFailure(describe_errno("attach the device program to", cgroup_path, error.errno or 0)) from error
    finally:
        os.close(program_fd)
