"""What a container must not be able to do: run inside one, by name. Standard library only.

Each attack returns when it worked, and raises OSError or Refused when it did not. Prints a JSON object of outcomes.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import json
import os
import resource
import signal
import socket
import stat
import struct
import sys
from collections.abc import Callable

ATTACKS: dict[str, Callable[[], object]] = {}
PROCESSES_MAX = 3
PID_MAX = 200
MARKER = os.environ.get("MARKER", "")
"""A file of the machine that everyone there may read."""
SIBLING = os.environ.get("SIBLING", "")[::-1]
"""What a container beside this one keeps to itself; told backwards, so that nobody finds it with the attacker."""
SIBLING_PORT, SIBLING_NAME, SIBLING_KEY = 7117, "\0sibling", 0x51
SEARCHED_BYTES_MAX = 2**26
libc = ctypes.CDLL(None, use_errno=True)
X86 = os.uname().machine == "x86_64"
SYS_CLONE, SYS_PTRACE, SYS_KEYCTL, SYS_ADD_KEY = (56, 101, 250, 248) if X86 else (220, 117, 219, 217)
SYS_MOUNT, SYS_UMOUNT2, SYS_PIVOT_ROOT, SYS_UNSHARE, SYS_SETNS = (
    (165, 166, 155, 272, 308) if X86 else (40, 39, 41, 97, 268)
)
SYS_INIT_MODULE, SYS_FINIT_MODULE, SYS_DELETE_MODULE = (175, 313, 176) if X86 else (105, 273, 106)
SYS_BPF, SYS_PERF, SYS_USERFAULTFD, SYS_KEXEC = (321, 298, 323, 246) if X86 else (280, 241, 282, 104)
SYS_OPEN_HANDLE, SYS_VM_READV, SYS_REBOOT, SYS_SYSLOG = (304, 310, 169, 103) if X86 else (265, 270, 142, 116)
SYS_SETHOSTNAME, SYS_SWAPON, SYS_SETTIME = (170, 167, 227) if X86 else (161, 224, 112)
SYS_IO_URING, SYS_OPEN_TREE, SYS_FSOPEN, SYS_CLONE3, SYS_MOVE_MOUNT, SYS_SETATTR = 425, 428, 430, 435, 429, 442
NEWUSER, NEWNS, NEWNET, NEWPID = 0x10000000, 0x20000, 0x40000000, 0x20000000
PTRACE_SEIZE = 0x4206
MS_RDONLY, MS_REMOUNT, MS_BIND, MS_MOVE, MS_REC = 1, 32, 4096, 8192, 16384


class Refused(Exception):
    """It could be done and led nowhere."""


def attack(function: Callable[[], object]) -> Callable[[], object]:
    ATTACKS[function.__name__] = function
    return function


def syscall(number: int, *arguments: object) -> int:
    result = libc.syscall(ctypes.c_long(number), *arguments)
    if result < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return int(result)


def mount(source: str, target: str, kind: str | None, flags: int = 0, data: str = "") -> None:
    names = (source.encode(), target.encode(), kind.encode() if kind else None)
    syscall(SYS_MOUNT, *names, ctypes.c_ulong(flags), data.encode())


def write(path: str, text: str) -> None:
    with open(path, "r+") as file:
        if stat.S_ISCHR(os.fstat(file.fileno()).st_mode):
            raise Refused("a device that swallows it")
        file.write(text)


def need_marker(path: str) -> None:
    if not MARKER:
        raise Refused("no marker")
    open(path + MARKER).close()


# ---- the machine's files


@attack
def read_host_file_by_root_of_pid_1() -> None:
    need_marker("/proc/1/root")


@attack
def read_host_file_by_cwd_of_pid_1() -> None:
    need_marker("/proc/1/cwd/" + "../" * 30)


@attack
def read_host_file_by_any_descriptor() -> None:
    for pid in [name for name in os.listdir("/proc") if name.isdigit()]:
        for number in os.listdir(f"/proc/{pid}/fd"):
            try:
                return need_marker(f"/proc/{pid}/fd/{number}" + "/.." * 30)
            except OSError:
                continue
    raise Refused("none leads there")


@attack
def hold_descriptor_beyond_standard_ones() -> None:
    mine = sorted(int(name) for name in os.listdir("/proc/self/fd"))
    # How the first process of a fork's container takes its signals; nobody else can open that.
    init = [name for name in os.listdir("/proc/1/fd") if os.readlink(f"/proc/1/fd/{name}") != "anon_inode:[signalfd]"]
    # One is the directory being listed.
    if mine[:3] == [0, 1, 2] and len(mine) == 4 and len(init) == 3:
        raise Refused("only standard ones")


@attack
def read_host_file_after_escape_from_chroot() -> None:
    child = os.fork()
    if child == 0:
        try:
            os.makedirs("/tmp/jail", exist_ok=True)
            top = os.open("/", os.O_RDONLY)
            os.chroot("/tmp/jail")
            os.fchdir(top)
            for _ in range(30):
                os.chdir("..")
            os.chroot(".")
            need_marker("")
        except (OSError, Refused):
            os._exit(1)
        os._exit(0)
    if os.waitpid(child, 0)[1]:
        raise Refused("led to its own root")


@attack
def write_program_of_pid_1() -> None:
    os.close(os.open("/proc/1/exe", os.O_WRONLY))


@attack
def open_file_by_handle() -> None:
    syscall(SYS_OPEN_HANDLE, -100, struct.pack("IiQ", 8, 1, 2), os.O_RDONLY)


@attack
def make_block_device() -> None:
    os.mknod("/tmp/sda", stat.S_IFBLK | 0o666, os.makedev(8, 0))


@attack
def make_memory_device() -> None:
    os.mknod("/tmp/mem", stat.S_IFCHR | 0o666, os.makedev(1, 1))


@attack
def write_read_only_bind() -> None:
    write("/attacks.py", "x")


# ---- containers beside this one


def others() -> list[str]:
    return [name for name in os.listdir("/proc") if name.isdigit() and int(name) != os.getpid()]


def need_secret(data: bytes) -> None:
    if not SIBLING or SIBLING.encode() not in data:
        raise Refused("not what a sibling keeps")


def try_each(paths: list[str], attempt: Callable[[str], None]) -> None:
    """Done if one of them leads there."""
    for path in paths:
        try:
            return attempt(path)
        except (OSError, Refused):
            continue
    raise Refused(f"none of {len(paths)} leads there")


def read_secret(path: str) -> None:
    # What may be a pipe of somebody's is not to be waited for.
    with open(os.open(path, os.O_RDONLY | os.O_NONBLOCK), "rb", buffering=0) as file:
        need_secret(file.read(2**20) or b"")


@attack
def read_variables_of_sibling() -> None:
    try_each([f"/proc/{pid}/environ" for pid in others()], read_secret)


@attack
def read_files_of_sibling() -> None:
    places = ["", *(f"/proc/{pid}/{link}" for pid in ["self", *others()] for link in ("root", "cwd"))]
    held = [f"/proc/{pid}/fd/{number}" for pid in ["self", *others()] for number in range(3, 40)]
    up = "/.." * 30
    paths = [f"{place}{way}/{folder}/secret" for place in [*places, *held] for way in ("", up) for folder in FOLDERS]
    try_each([*paths, *held], read_secret)


FOLDERS = ("tmp", "dev/shm", "root")


@attack
def read_memory_of_sibling() -> None:
    try_each(others(), search_memory)


def search_memory(pid: str) -> None:
    left = SEARCHED_BYTES_MAX
    with open(f"/proc/{pid}/maps") as maps, open(f"/proc/{pid}/mem", "rb", buffering=0) as memory:
        for line in maps:
            first, last = (int(word, 16) for word in line.split()[0].split("-"))
            if line.split()[1].startswith("rw") and last - first <= left:
                left -= last - first
                memory.seek(first)
                if SIBLING.encode() in (memory.read(last - first) or b"") and SIBLING:
                    return
    raise Refused("not in there")


@attack
def trace_others() -> None:
    try_each([pid for pid in others() if pid != "1"], trace)


def trace(pid: str) -> None:
    syscall(SYS_PTRACE, PTRACE_SEIZE, int(pid), 0, 0)


@attack
def signal_sibling() -> None:
    if not SIBLING:
        raise Refused("there is none")
    os.kill(-1, 0)


@attack
def connect_to_port_of_sibling() -> None:
    with socket.create_connection(("127.0.0.1", SIBLING_PORT), timeout=2) as connection:
        need_secret(connection.recv(100))


@attack
def connect_to_abstract_socket_of_sibling() -> None:
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(2)
        connection.connect(SIBLING_NAME)
        need_secret(connection.recv(100))


@attack
def attach_shared_memory_of_sibling() -> None:
    number = int(libc.shmget(SIBLING_KEY, 0, 0))
    if number < 0:
        raise OSError(ctypes.get_errno(), "shmget")
    libc.shmat.restype = ctypes.c_void_p
    need_secret(ctypes.string_at(libc.shmat(number, None, 0o10000), 100))


@attack
def raise_own_limits() -> None:
    """By the files it may have been given to enter its cgroups, and by those it may find."""
    held = [f"/proc/self/fd/{number}" for number in range(3, 40)]
    found = [f"{root}/sys/fs/cgroup" for root in ("", "/proc/1/root", "/proc/self/root")]
    found += [f"{top}/{kind}" for top in found for kind in ("memory", "pids", "cpu", "devices", "unified")]
    paths = [f"{place}{way}/{name}" for place in [*held, *found] for way in ("", "/..") for name in LIMITS]
    try_each(paths, open_for_writing)


LIMITS = (
    *("memory.limit_in_bytes", "pids.max", "cpu.cfs_quota_us", "memory.max", "cpu.max", "devices.allow"),
    "release_agent",
)


def open_for_writing(path: str) -> None:
    os.close(os.open(path, os.O_WRONLY))


@attack
def move_others_into_own_cgroup() -> None:
    descriptors = [number for number in range(3, 40) if "tasks" in link_of(number) or "cgroup.procs" in link_of(number)]
    own = {os.getpid(), *(int(pid) for pid in others())}
    for pid in range(1, 1_000):
        for descriptor in descriptors if pid not in own else ():
            try:
                os.write(descriptor, str(pid).encode())
            except OSError:
                continue
            return
    raise Refused(f"nobody by {len(descriptors)} files")


def link_of(descriptor: int) -> str:
    try:
        return os.readlink(f"/proc/self/fd/{descriptor}")
    except OSError:
        return ""


# ---- mounts


@attack
def unmount_proc_sys() -> None:
    syscall(SYS_UMOUNT2, b"/proc/sys", 2)


@attack
def unmount_mask_of_directory() -> None:
    syscall(SYS_UMOUNT2, b"/sys/firmware", 2)


@attack
def unmount_mask_of_file() -> None:
    syscall(SYS_UMOUNT2, b"/proc/timer_list", 2)


@attack
def unmount_proc() -> None:
    syscall(SYS_UMOUNT2, b"/proc", 2)


@attack
def remount_proc_sys_writable() -> None:
    mount("none", "/proc/sys", None, MS_BIND | MS_REMOUNT)


@attack
def remount_sys_writable() -> None:
    mount("none", "/sys", None, MS_BIND | MS_REMOUNT)


@attack
def mount_fresh_proc() -> None:
    mount("proc", "/mnt", "proc")


@attack
def mount_fresh_sysfs() -> None:
    mount("sysfs", "/mnt", "sysfs")


@attack
def mount_memory() -> None:
    mount("none", "/mnt", "tmpfs")


@attack
def mount_cgroup_v1() -> None:
    mount("none", "/mnt", "cgroup")


@attack
def mount_cgroup_v2() -> None:
    mount("none", "/mnt", "cgroup2")


@attack
def mount_hierarchy_of_own_cgroup() -> None:
    try_each(hierarchies(), lambda options: mount("none", "/mnt", "cgroup", 0, options))


def hierarchies() -> list[str]:
    """Those of v1 it is in, each as options of a mount."""
    with open("/proc/self/cgroup") as file:
        found = [line.split(":")[1] for line in file]
    return [f"none,{options}" if "=" in options else options for options in found if options]


@attack
def raise_own_limits_by_own_mount_of_cgroups() -> None:
    ways = [("cgroup2", ""), *(("cgroup", options) for options in hierarchies())]
    try_each([json.dumps(way) for way in ways], raise_limits_by_mount)


def raise_limits_by_mount(way: str) -> None:
    kind, options = json.loads(way)
    mount("none", "/mnt", kind, 0, options)
    try_each([f"/mnt{up}/{name}" for up in ("", "/..") for name in (*LIMITS, "cgroup.procs")], open_for_writing)


@attack
def move_mask_away() -> None:
    mount("/proc/sys", "/mnt", None, MS_MOVE)


@attack
def unmount_mask_of_copy() -> None:
    mount("/proc", "/mnt", None, MS_BIND | MS_REC)
    syscall(SYS_UMOUNT2, b"/mnt/sys", 2)


@attack
def bind_mount() -> None:
    mount("/etc", "/mnt", None, MS_BIND)


@attack
def open_tree_copy() -> None:
    os.close(syscall(SYS_OPEN_TREE, -100, b"/proc", 1))


@attack
def open_file_system() -> None:
    os.close(syscall(SYS_FSOPEN, b"tmpfs", 0))


@attack
def change_mount_attributes() -> None:
    syscall(SYS_SETATTR, -100, b"/proc/sys", 0, struct.pack("QQQQ", 0, 1, 0, 0), 32)


@attack
def pivot_root() -> None:
    syscall(SYS_PIVOT_ROOT, b"/", b"/mnt")


# ---- the kernel's settings


@attack
def write_core_pattern() -> None:
    write("/proc/sys/kernel/core_pattern", "|/tmp/x")


@attack
def write_host_sysctl() -> None:
    write("/proc/sys/kernel/panic", "1")


@attack
def write_network_sysctl() -> None:
    write("/proc/sys/net/ipv4/ip_forward", "1")


@attack
def trigger_sysrq() -> None:
    # An empty write: were it not covered, the machine would survive the test.
    write("/proc/sysrq-trigger", "")
    raise Refused("opened, but wrote nothing") if os.path.ismount("/proc/sysrq-trigger") else OSError(errno.EIO, "open")


@attack
def write_sys() -> None:
    write("/sys/kernel/mm/transparent_hugepage/enabled", "never")


@attack
def write_uevent() -> None:
    write("/sys/devices/virtual/mem/null/uevent", "change")


@attack
def write_bus() -> None:
    write("/proc/irq/default_smp_affinity", "1")


@attack
def see_cgroup_files() -> None:
    if not os.listdir("/sys/fs/cgroup"):
        raise Refused("empty")


@attack
def read_kernel_memory() -> None:
    with open("/proc/kcore", "rb") as file:
        if not file.read(1):
            raise Refused("empty")


@attack
def read_kernel_keys() -> None:
    with open("/proc/keys") as file:
        if not file.read(1):
            raise Refused("empty")


@attack
def read_kernel_log() -> None:
    syscall(SYS_SYSLOG, 3, ctypes.create_string_buffer(64), 64)


@attack
def change_hostname() -> None:
    syscall(SYS_SETHOSTNAME, b"x", 1)


@attack
def set_clock() -> None:
    syscall(SYS_SETTIME, 0, struct.pack("QQ", 0, 0))


@attack
def reboot() -> None:
    # Harmless where it is allowed: switches Ctrl-Alt-Del off.
    syscall(SYS_REBOOT, ctypes.c_uint(0xFEE1DEAD), 672274793, 0, None)


@attack
def load_module() -> None:
    syscall(SYS_INIT_MODULE, b"\x7fELF", 4, b"")


@attack
def load_module_file() -> None:
    syscall(SYS_FINIT_MODULE, 0, b"", 0)


@attack
def delete_module() -> None:
    syscall(SYS_DELETE_MODULE, b"no_such_module", 0)


@attack
def kexec() -> None:
    syscall(SYS_KEXEC, 0, 0, None, 0)


@attack
def swapon() -> None:
    syscall(SYS_SWAPON, b"/tmp", 0)


# ---- risky doors of the kernel


@attack
def bpf() -> None:
    syscall(SYS_BPF, 0, struct.pack("IIIIQQ", 1, 4, 4, 1, 0, 0), 32)


@attack
def perf_event() -> None:
    syscall(SYS_PERF, ctypes.create_string_buffer(struct.pack("II", 1, 112).ljust(112, b"\0"), 112), 0, -1, -1, 0)


@attack
def userfaultfd() -> None:
    os.close(syscall(SYS_USERFAULTFD, 1))


@attack
def io_uring() -> None:
    os.close(syscall(SYS_IO_URING, 1, ctypes.create_string_buffer(120)))


@attack
def keyctl() -> None:
    syscall(SYS_KEYCTL, 0, -3, 1)


@attack
def add_key() -> None:
    syscall(SYS_ADD_KEY, b"user", b"x", b"x", 1, -3)


# ---- processes and namespaces


@attack
def ptrace_pid_1() -> None:
    syscall(SYS_PTRACE, 16, 1, None, None)


@attack
def read_memory_of_pid_1() -> None:
    buffer = ctypes.create_string_buffer(8)
    local = struct.pack("QQ", ctypes.addressof(buffer), 8)
    syscall(SYS_VM_READV, 1, local, ctypes.c_ulong(1), struct.pack("QQ", 0x400000, 8), ctypes.c_ulong(1), 0)


@attack
def see_processes_outside() -> None:
    pids = [int(name) for name in os.listdir("/proc") if name.isdigit()]
    if len(pids) <= PROCESSES_MAX and max(pids) < PID_MAX:
        raise Refused(f"only its own: {pids}")


@attack
def signal_process_outside() -> None:
    for pid in (2, 4194303, int(os.environ.get("HOST_PID", "4194302"))):
        if pid != os.getpid() and not os.path.exists(f"/proc/{pid}"):
            os.kill(pid, 0)


@attack
def make_user_namespace() -> None:
    syscall(SYS_UNSHARE, NEWUSER)


@attack
def make_mount_namespace() -> None:
    syscall(SYS_UNSHARE, NEWNS)


def _clone(number: int, *arguments: object) -> None:
    child = syscall(number, *arguments)
    if child == 0:
        os._exit(0)
    os.waitpid(child, 0)


@attack
def clone_into_user_namespace() -> None:
    _clone(SYS_CLONE, ctypes.c_ulong(NEWUSER | signal.SIGCHLD), None, None, None, None)


@attack
def clone3_into_user_namespace() -> None:
    _clone(SYS_CLONE3, struct.pack("8Q", NEWUSER, 0, 0, 0, signal.SIGCHLD, 0, 0, 0), ctypes.c_ulong(64))


@attack
def join_namespace_of_pid_1() -> None:
    descriptor = os.open("/proc/1/ns/net", os.O_RDONLY)
    syscall(SYS_SETNS, descriptor, 0)


@attack
def become_unmapped_user() -> None:
    os.setuid(70_000)


@attack
def gain_capability() -> None:
    with open("/proc/self/status") as file:
        bound = next(int(line.split()[1], 16) for line in file if line.startswith("CapBnd"))
    # SYS_ADMIN, SYS_PTRACE, SYS_MODULE, NET_ADMIN, NET_RAW, MKNOD, SYS_RAWIO, DAC_READ_SEARCH, BPF
    if not any(bound >> number & 1 for number in (21, 19, 16, 12, 13, 27, 17, 2, 39)):
        raise Refused("none left to gain")


@attack
def gain_privileges_by_exec() -> None:
    with open("/proc/self/status") as file:
        if "NoNewPrivs:\t1" in file.read():
            raise Refused("no_new_privs")


@attack
def lower_oom_score() -> None:
    write("/proc/self/oom_score_adj", "-1000")


@attack
def raise_priority() -> None:
    os.setpriority(os.PRIO_PROCESS, 0, -10)


@attack
def become_real_time() -> None:
    os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(1))


@attack
def raise_hard_limit() -> None:
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard + 1))
    except ValueError as error:
        raise Refused(str(error)) from error


@attack
def leave_core_files() -> None:
    if resource.getrlimit(resource.RLIMIT_CORE) == (0, 0):
        raise Refused("limit is 0")


# ---- network


@attack
def raw_socket() -> None:
    socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP).close()


@attack
def packet_socket() -> None:
    socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0).close()


@attack
def netfilter_socket() -> None:
    socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 12).close()


@attack
def crypto_socket() -> None:
    socket.socket(socket.AF_ALG, socket.SOCK_SEQPACKET, 0).close()


@attack
def vm_socket() -> None:
    socket.socket(socket.AF_VSOCK, socket.SOCK_STREAM, 0).close()


@attack
def configure_interface() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as control:
        fcntl.ioctl(control, 0x8914, struct.pack("16sH22x", b"lo", 0))


@attack
def replace_tables_of_older_netfilter() -> None:
    for family, level in ((socket.AF_INET, 0), (socket.AF_INET6, 41)):
        with socket.socket(family, socket.SOCK_DGRAM) as control:
            try:
                control.setsockopt(level, 64, b"x")
            except OSError as error:
                # Whatever else it says, the door was open.
                if error.errno == errno.EPERM:
                    raise


@attack
def type_into_terminal() -> None:
    fcntl.ioctl(os.openpty()[1], 0x5412, b"x")


def main() -> None:
    names = sys.argv[1:] or list(ATTACKS)
    outcomes = {}
    for name in names:
        try:
            ATTACKS[name]()
        except OSError as error:
            outcomes[name] = errno.errorcode.get(error.errno or 0, str(error))
        except Refused as error:
            outcomes[name] = f"refused: {error}"
        else:
            outcomes[name] = "worked"
    print(json.dumps(outcomes))


if __name__ == "__main__":
    main()
