"""Mutations of what keeps containers from the machine, the server and each other, and of what they can do.

None gives a container more than one step: a descriptor, a system call, a port. Where one layer alone does not let
anything through (the kernel refuses as well), the test is the one that reads the plan or runs the filter.
"""

from __future__ import annotations

from tests.mutations.mutation import Change, Mutation

E2E = "tests/e2e/test_isolation.py::"
ATTACK = "tests/kernel/test_isolation.py::test_attack_is_refused"
PLAN = "tests/runtime/test_plan.py::"
FILTER = "tests/runtime/test_seccomp.py::"
RANGES = "tests/agent/test_ranges.py::"
NETWORK = "tests/kernel/test_network.py::"
REFUSED_ATTACK = 'outcomes[name] != "worked"'


def allowed(*calls: str) -> tuple[Change, Change]:
    """Move system calls from the refused to the allowed ones."""
    path, names = "src/squall/runtime/seccomp_calls.py", " ".join(calls)
    return (
        Change(path, "    accept accept4 access ", f"    {names} accept accept4 access "),
        Change(path, '""")\n\n# Newer', f'""") - _names("{names}")\n\n# Newer'),
    )


ISOLATION = (
    # ---- cannot: files, descriptors, the kernel
    Mutation(
        "descriptors",
        "attack list: inherited descriptors",
        "a container's first process inherits a descriptor",
        (
            Change(
                "src/squall/runtime/execute.py",
                "    os.umask(0o022)\n",
                "    os.umask(0o022)\n    os.set_inheritable(os.open('/', os.O_RDONLY), True)\n",
            ),
        ),
        {
            f"{E2E}test_container_inherits_no_descriptor_of_machine_or_agent": "OWN_DESCRIPTORS.match",
            f"{ATTACK}[hold_descriptor_beyond_standard_ones]": REFUSED_ATTACK,
        },
    ),
    Mutation(
        "host-files",
        "attack list: host root's files",
        "the machine's root stays mounted over the container's",
        (
            Change(
                "src/squall/runtime/execute.py",
                '    sc.pivot_root(".", ".")\n    sc.unmount(".")\n',
                '    sc.pivot_root(".", ".")\n',
            ),
        ),
        {
            f"{ATTACK}[read_host_file_by_cwd_of_pid_1]": REFUSED_ATTACK,
            f"{E2E}test_container_cannot_open_files_of_machine_server_or_neighbour": 'worked(tables["files"]) == {}',
        },
    ),
    Mutation(
        "mask-of-keys",
        "attack list: /sys, /proc",
        "one of the covered files is not covered",
        (Change("src/squall/runtime/plan.py", '    "/proc/timer_list",\n', ""),),
        {f"{PLAN}test_what_tells_of_the_machine_is_covered_and_its_settings_are_read_only": "covered >= memory"},
    ),
    Mutation(
        "cgroup-files",
        "attack list: cgroup files and limits",
        "the place of the control groups is not covered",
        (Change("src/squall/runtime/plan.py", '    "/sys/fs/cgroup",\n', ""),),
        {f"{PLAN}test_what_tells_of_the_machine_is_covered_and_its_settings_are_read_only": "covered >= memory"},
    ),
    Mutation(
        "sys-read-only",
        "attack list: /sys",
        "/sys is writable",
        (Change("src/squall/runtime/plan.py", '"/sys", closed | MS_RDONLY)', '"/sys", closed)'),),
        {f"{PLAN}test_what_tells_of_the_machine_is_covered_and_its_settings_are_read_only": "system.flags & MS_RDONLY"},
    ),
    Mutation(
        "proc-sys",
        "cannot write /proc/sys",
        "/proc/sys is not made read-only",
        (Change("src/squall/runtime/plan.py", '"/proc/irq", "/proc/sys")', '"/proc/irq")'),),
        {f"{PLAN}test_what_tells_of_the_machine_is_covered_and_its_settings_are_read_only": "read_only =="},
    ),
    Mutation(
        "core-limit",
        "cannot raise its limits",
        "core files are not forbidden",
        (
            Change(
                "src/squall/runtime/execute.py",
                "    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))\n",
                "    resource.setrlimit(resource.RLIMIT_CORE, (0, 4096))\n",
            ),
        ),
        {f"{ATTACK}[leave_core_files]": REFUSED_ATTACK},
    ),
    Mutation(
        "capability",
        "cannot raise its limits",
        "one more capability is kept",
        (
            Change(
                "src/squall/runtime/plan.py", '    "SYS_CHROOT": 18,\n', '    "NET_RAW": 13,\n    "SYS_CHROOT": 18,\n'
            ),
        ),
        {
            f"{ATTACK}[gain_capability]": REFUSED_ATTACK,
            f"{PLAN}test_root_keeps_few_capabilities_and_others_none": "KEPT_CAPABILITIES.values())",
        },
    ),
    Mutation(
        "call-mount",
        "cannot mount",
        "the filter lets mount pass",
        allowed("mount"),
        {f"{FILTER}test_call_that_reaches_out_of_a_container_is_refused[mount]": "refuse(errno.ENOSYS))"},
    ),
    Mutation(
        "call-module",
        "cannot load modules",
        "the filter lets init_module pass",
        allowed("init_module"),
        {f"{FILTER}test_call_that_reaches_out_of_a_container_is_refused[init_module]": "refuse(errno.ENOSYS))"},
    ),
    Mutation(
        "call-ptrace",
        "cannot ptrace out",
        "the filter lets ptrace pass",
        allowed("ptrace"),
        {
            f"{FILTER}test_call_that_reaches_out_of_a_container_is_refused[ptrace]": "refuse(errno.ENOSYS))",
        },
    ),
    Mutation(
        "call-keyctl",
        "attack list: the kernel's doors",
        "the filter lets keyctl pass",
        allowed("keyctl"),
        {f"{ATTACK}[keyctl]": REFUSED_ATTACK},
    ),
    Mutation(
        "call-unshare",
        "attack list: the kernel's doors",
        "the filter lets a container make user namespaces",
        (
            Change(
                "src/squall/runtime/seccomp.py",
                '"unshare": _filter_flags(0, CLONE_NAMESPACES | CLONE_NEWTIME),',
                '"unshare": _filter_flags(0, CLONE_NEWNET | CLONE_NEWTIME),',
            ),
        ),
        {f"{ATTACK}[make_user_namespace]": REFUSED_ATTACK},
    ),
    # ---- cannot: other containers
    Mutation(
        "pid-namespace",
        "cannot see other containers' processes",
        "containers share the machine's process namespace",
        (
            Change(
                "src/squall/runtime/launch.py",
                "sc.CLONE_NEWNS | sc.CLONE_NEWPID | sc.CLONE_NEWIPC",
                "sc.CLONE_NEWNS | sc.CLONE_NEWIPC",
            ),
        ),
        {"tests/kernel/test_isolation.py::test_container_has_every_namespace_of_its_own": "shared == set()"},
    ),
    Mutation(
        "ipc-namespace",
        "cannot see other containers' processes",
        "containers share the machine's ipc namespace",
        (
            Change(
                "src/squall/runtime/launch.py",
                "sc.CLONE_NEWPID | sc.CLONE_NEWIPC | sc.CLONE_NEWUTS",
                "sc.CLONE_NEWPID | sc.CLONE_NEWUTS",
            ),
        ),
        {"tests/kernel/test_isolation.py::test_container_has_every_namespace_of_its_own": "shared == set()"},
    ),
    Mutation(
        "id-ranges",
        "cannot read other containers' files",
        "every function gets the same ids",
        (
            Change(
                "src/squall/agent/ranges.py",
                "            owned = self._give(owner, self._free_start())\n",
                "            owned = self._give(owner, self._first)\n",
            ),
        ),
        {
            f"{RANGES}test_containers_of_one_function_share_a_range_and_other_functions_do_not": "other.start) >=",
        },
    ),
    Mutation(
        "id-range-lost-on-the-disk",
        "cannot read other containers' files",
        "a range is free for others before that is written down, which fails",
        (
            Change(
                "src/squall/agent/ranges.py",
                """        self._record("-", start, owner)
        del self._idle[owner], self._owned[owner], self._owner_of[start]
""",
                """        del self._idle[owner], self._owned[owner], self._owner_of[start]
        self._record("-", start, owner)
""",
            ),
        ),
        {f"{RANGES}test_a_range_is_taken_from_its_owner_on_the_disk_first": "freed == [mine]"},
    ),
    Mutation(
        "id-range-with-two-owners",
        "cannot read other containers' files",
        "an owner of before keeps the range that the journal gives to another",
        (
            Change(
                "src/squall/agent/ranges.py",
                """                self._lost(self._owner_of.get(start, ""))
""",
                "",
            ),
        ),
        {f"{RANGES}test_no_range_has_two_owners_whatever_the_journal_says": "== 8"},
    ),
    Mutation(
        "neighbour-port",
        "cannot reach another container over the network",
        "neither rule against packets from slot to slot is there",
        (
            Change(
                "src/squall/runtime/network/rules.py",
                '        oifname "{any_slot}" reject with icmpx admin-prohibited\n        # Somebody',
                "        # Somebody",
            ),
            Change(
                "src/squall/runtime/network/rules.py",
                '        iifname "{any_slot}" reject with icmpx admin-prohibited\n        drop\n',
                '        iifname "{any_slot}" accept\n        drop\n',
            ),
        ),
        {f"{NETWORK}test_containers_do_not_reach_each_other": '8080) == "EHOSTUNREACH"'},
    ),
    Mutation(
        "forged-sender",
        "cannot reach another container over the network",
        "a container may send from any address of the subnet",
        (Change("src/squall/runtime/network/rules.py", "        fib saddr . iif oif missing drop\n", ""),),
        {f"{NETWORK}test_container_cannot_speak_from_another_address": "outside.seen == resolver.seen == []"},
    ),
    # ---- can
    Mutation(
        "can-network",
        "can use the network",
        "what containers send is not translated to the machine's address",
        (
            Change(
                "src/squall/runtime/network/rules.py",
                '        ip saddr {network} oifname != "{any_slot}" masquerade\n',
                "",
            ),
        ),
        {f"{NETWORK}test_container_reaches_the_outside_under_the_machines_address": "await probe(slot"},
    ),
    Mutation(
        "can-low-ports",
        "can use the network",
        "ports below 1024 are closed to containers",
        (
            Change(
                "src/squall/runtime/plan.py",
                '    yield op.WriteNetworkSetting("ipv4/ip_unprivileged_port_start", "0")\n',
                "",
            ),
        ),
        {"tests/kernel/test_container.py::test_ordinary_life_goes_on_inside": "ended.std"},
    ),
    Mutation(
        "can-tmp",
        "can use /tmp",
        "/tmp is for root only",
        (
            Change(
                "src/squall/runtime/plan.py",
                'f"mode=1777,size={spec.limits.tmp_bytes},{owner}"',
                'f"mode=700,size={spec.limits.tmp_bytes},{owner}"',
            ),
        ),
        {"tests/kernel/test_container.py::test_temporary_files_have_a_size_limit": '"1777"'},
    ),
    Mutation(
        "can-shm",
        "can use /dev/shm",
        "/dev/shm is not mounted",
        (
            Change(
                "src/squall/runtime/plan.py",
                'yield op.MountKind("tmpfs", "/dev/shm", closed, f"mode=1777,size={spec.limits.shm_bytes},{owner}")',
                "yield from ()",
            ),
        ),
        {"tests/kernel/test_container.py::test_ordinary_life_goes_on_inside": "ended.std"},
    ),
    Mutation(
        "can-threads",
        "can use its own processes and threads",
        "a container may have 40 processes and threads",
        (Change("src/squall/agent/launch.py", "PIDS_MAX = 4_096", "PIDS_MAX = 40"),),
        {f"{E2E}test_container_can_use_its_files_processes_and_loopback": "== {}"},
    ),
)
