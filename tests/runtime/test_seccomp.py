"""The filter's answers, by running its program in a small interpreter of classic BPF."""

from __future__ import annotations

import errno
import platform
import struct
from collections.abc import Mapping

import pytest

from squall.runtime.seccomp import (
    ALLOW,
    AUDIT_ARCHITECTURE,
    KILL_PROCESS,
    X32_BIT,
    build_filter,
    build_template_filter,
    by_arguments,
    refuse,
    resolve,
)
from squall.runtime.seccomp_calls import ALLOWED, REFUSED
from squall.runtime.syscalls import CLONE_NEWNET, CLONE_NEWUSER

# By name, and not taken from the list that is under test.
ESCAPES = (
    *("mount", "umount2", "pivot_root", "open_tree", "move_mount", "fsopen", "fsmount", "mount_setattr", "setns"),
    *("init_module", "finit_module", "delete_module", "kexec_load", "kexec_file_load", "reboot", "swapon", "syslog"),
    *("ptrace", "process_vm_readv", "process_vm_writev", "pidfd_getfd", "kcmp", "open_by_handle_at", "bpf"),
    *("perf_event_open", "userfaultfd", "io_uring_setup", "keyctl", "add_key", "request_key", "sethostname"),
    *("clock_settime", "settimeofday", "acct", "quotactl", "vhangup", "move_pages", "fanotify_init"),
)
UNKNOWN = 5_000
ARCHITECTURE = AUDIT_ARCHITECTURE.get(platform.machine(), 0)
NUMBERS: Mapping[str, int] = resolve(sorted({*ALLOWED, *REFUSED, *by_arguments()}))

pytestmark = pytest.mark.skipif(not ARCHITECTURE, reason=f"no filter for {platform.machine()}")


@pytest.fixture(scope="module")
def program() -> bytes:
    return build_filter()


def answer(program: bytes, number: int, *arguments: int, architecture: int = ARCHITECTURE) -> int:
    """What the kernel would do with this call."""
    padded = [*arguments, *[0] * (6 - len(arguments))]
    data = struct.pack("<IIQ6Q", number, architecture, 0, *padded)
    instructions = list(struct.iter_unpack("<HBBI", program))
    accumulator = position = 0
    while True:
        code, if_true, if_false, value = instructions[position]
        position += 1
        if code == 0x06:
            return int(value)
        if code == 0x20:
            (accumulator,) = struct.unpack_from("<I", data, value)
        elif code == 0x54:
            accumulator &= value
        elif code == 0x05:
            position += value
        else:
            is_true = {
                0x15: accumulator == value,
                0x35: accumulator >= value,
                0x45: bool(accumulator & value),
            }[code]
            position += if_true if is_true else if_false


@pytest.mark.parametrize("name", sorted(set(NUMBERS) & ALLOWED - set(by_arguments())))
def test_listed_call_is_allowed(program: bytes, name: str) -> None:
    assert answer(program, NUMBERS[name]) == ALLOW


@pytest.mark.parametrize("name", sorted(set(NUMBERS) & REFUSED))
def test_dangerous_call_is_refused(program: bytes, name: str) -> None:
    assert answer(program, NUMBERS[name]) == refuse(errno.EPERM)


@pytest.mark.parametrize("name", ESCAPES)
def test_call_that_reaches_out_of_a_container_is_refused(program: bytes, name: str) -> None:
    assert answer(program, NUMBERS.get(name, UNKNOWN)) in (refuse(errno.EPERM), refuse(errno.ENOSYS))


def test_clone3_and_unknown_calls_look_like_an_older_kernel(program: bytes) -> None:
    for number in (435, 600, 5_000):
        assert answer(program, number) == refuse(errno.ENOSYS)


def test_clone_makes_processes_and_threads_but_no_namespaces(program: bytes) -> None:
    assert answer(program, NUMBERS["clone"], 0x003D0F00) == ALLOW
    assert answer(program, NUMBERS["clone"], 17) == ALLOW
    assert answer(program, NUMBERS["clone"], CLONE_NEWUSER | 17) == refuse(errno.EPERM)
    assert answer(program, NUMBERS["unshare"], 0x400) == ALLOW
    assert answer(program, NUMBERS["unshare"], CLONE_NEWNET) == refuse(errno.EPERM)


@pytest.mark.parametrize(("flags", "expected"), [
    (0x3D0F00, ALLOW),  # a thread
    (0x01200011, ALLOW),  # fork, as the C library does it
    (0x4111, ALLOW),  # posix_spawn, and vfork
    (0x111, refuse(errno.EPERM)), (0x211, refuse(errno.EPERM)), (0x411, refuse(errno.EPERM)),
    (0x4511, refuse(errno.EPERM)), (0x8011, refuse(errno.EPERM)), (0x3D8F00, refuse(errno.EPERM)),
])  # fmt: skip
def test_processes_that_are_not_one_share_neither_descriptors_nor_memory(
    program: bytes, flags: int, expected: int
) -> None:
    assert answer(program, NUMBERS["clone"], flags) == expected


@pytest.mark.parametrize(
    ("family", "protocol", "expected"),
    [
        (1, 0, ALLOW),
        (2, 6, ALLOW),
        (10, 17, ALLOW),
        (16, 0, ALLOW),
        (16, 12, refuse(errno.EPROTONOSUPPORT)),
        (16, 9, refuse(errno.EPROTONOSUPPORT)),
        (17, 0, refuse(errno.EAFNOSUPPORT)),
        (38, 0, refuse(errno.EAFNOSUPPORT)),
        (40, 0, refuse(errno.EAFNOSUPPORT)),
    ],
)
def test_socket_is_answered_by_family_and_protocol(program: bytes, family: int, protocol: int, expected: int) -> None:
    assert answer(program, NUMBERS["socket"], family, 1, protocol) == expected


@pytest.mark.parametrize("family", [2, 10])
def test_nobody_gets_a_raw_socket(program: bytes, family: int) -> None:
    for flags in (0, 0o2000000, 0o4000):  # close-on-exec, non-blocking
        for kind in (3, 4, 10):
            assert answer(program, NUMBERS["socket"], family, kind | flags, 255) == refuse(errno.EPERM)
        assert answer(program, NUMBERS["socket"], family, 1 | flags, 6) == ALLOW
        assert answer(program, NUMBERS["socket"], family, 2 | flags, 17) == ALLOW


@pytest.mark.parametrize(("level", "option", "expected"), [
    (0, 64, refuse(errno.EPERM)), (0, 96, refuse(errno.EPERM)), (0, 1152, refuse(errno.EPERM)),
    (41, 64, refuse(errno.EPERM)), (41, 65, refuse(errno.EPERM)), (41, 128, refuse(errno.EPERM)),
    (0, 52, ALLOW), (41, 63, ALLOW), (41, 66, ALLOW), (41, 80, ALLOW), (1, 64, ALLOW), (6, 96, ALLOW),
])  # fmt: skip
def test_no_option_of_a_socket_changes_netfilter(program: bytes, level: int, option: int, expected: int) -> None:
    assert answer(program, NUMBERS["setsockopt"], 5, level, option) == expected


def test_templates_may_enter_namespaces_and_nothing_else_that_containers_may_not() -> None:
    template, container = build_template_filter(), build_filter()
    for number in range(500):
        expected = ALLOW if number == NUMBERS["setns"] else answer(container, number)
        assert answer(template, number) == expected, number


def test_nobody_types_into_terminals(program: bytes) -> None:
    assert answer(program, NUMBERS["ioctl"], 0, 0x5412) == refuse(errno.EPERM)
    assert answer(program, NUMBERS["ioctl"], 0, 0x5413) == ALLOW


def test_other_architectures_are_killed_and_x32_is_unknown(program: bytes) -> None:
    assert answer(program, NUMBERS["read"], architecture=0x40000003) == KILL_PROCESS
    assert answer(program, NUMBERS["read"] | X32_BIT) == refuse(errno.ENOSYS)


def test_no_call_is_on_both_lists() -> None:
    assert not ALLOWED & REFUSED
    assert not REFUSED & set(by_arguments())


def test_program_fits_into_the_kernels_limit(program: bytes) -> None:
    assert len(program) // 8 <= 4096
