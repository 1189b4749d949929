"""Mutations of what keeps clones in their cells: each wall taken away, and the test that sees it gone."""

from __future__ import annotations

from tests.mutations.mutation import Change, Mutation

SUITE = "tests/kernel/test_template.py::"
LOOKS = "tests/runtime/test_verification.py::"
HOSTILE = "tests/kernel/test_hostile_forks.py::"
VERIFICATION = "src/squall/runtime/verification.py"
SYSCALLS = "src/squall/runtime/syscalls.py"
SKIPS = f"{HOSTILE}test_clone_that_skips_a_step_is_never_told_who_it_is"
MORE = f"{HOSTILE}test_clone_with_more_than_it_should_have_is_never_told_who_it_is"
HOOK = f"{HOSTILE}test_attacks_of_a_fork_are_refused_whatever_it_still_holds[hook]"
REFUSED = "await refused(forge, "
KEEPS = f"{HOSTILE}test_descriptors_that_lead_back_are_found"

TEMPLATE_FAULTS = (
    Mutation(
        "clone-capabilities",
        "a fork that does not give up its capabilities",
        "nobody looks at the capabilities of a clone",
        (Change(VERIFICATION, "if int(status[name], 16) & ~expected.capabilities:", "if False:"),),
        {f"{SKIPS}[drop-kept capabilities]": REFUSED},
    ),
    Mutation(
        "clone-filter",
        "a fork that does not wear the container's filter of system calls",
        "nobody counts the filters of a clone",
        (Change(VERIFICATION, "expected.filter_count)) < expected.filter_count:", "0)) < 0:"),),
        {f"{SKIPS}[filter-does not wear the container's filter]": REFUSED},
    ),
    Mutation(
        "clone-cgroups",
        "a fork that stays out of the cgroups made for it",
        "nobody looks at the cgroups of a clone",
        (Change(VERIFICATION, 'or read_file(f"/proc/{pid}/cgroup") != wanted:', "or False:"),),
        {f"{SKIPS}[cgroup files-not in the cgroups]": REFUSED},
    ),
    Mutation(
        "clone-descriptors",
        "a fork that keeps a way back to its template",
        "nobody looks at the descriptors of a clone",
        (Change(VERIFICATION, "            _of_descriptors(pid, expected),\n", ""),),
        {f"{KEEPS}[os.open('/', os.O_RDONLY)-holds / of its template]": REFUSED},
    ),
    Mutation(
        "clone-pipes",
        "a fork that keeps a file of its template's which has the number of a pipe that it may have",
        "pipes and sockets are known by their numbers alone",
        (
            Change(SYSCALLS, "(os.makedev(major_below, minor_below), inode)", "(0, inode)"),
            Change(SYSCALLS, "return found.st_dev, found.st_ino", "return 0, found.st_ino"),
        ),
        {
            f"{LOOKS}test_pipe_is_known_by_more_than_its_number": "assert not verification",
            f"{LOOKS}test_channel_is_known_by_more_than_its_number": "assert not verification",
        },
    ),
    Mutation(
        "cell-mounts",
        "mounts of a cell that nobody in it can undo",
        "its first process makes some of them, when its mounts are its own already",
        (
            Change(
                "src/squall/runtime/plan.py",
                "    for path in PROTECTED:\n        yield op.ProtectPath(path)\n"
                "    for path in MASKED:\n        yield op.MaskPath(path)\n",
                "",
            ),
            Change(
                "src/squall/runtime/plan.py",
                "op.OwnMounts()]",
                "op.OwnMounts(), *map(op.ProtectPath, PROTECTED), *map(op.MaskPath, MASKED)]",
            ),
        ),
        {
            f"{HOSTILE}test_mounts_of_a_cell_are_locked_for_whoever_has_every_power_over_it": (
                "<= set(RESTS_ON_THE_FILTER)"
            )
        },
    ),
    Mutation(
        "template-powerless",
        "the template holds no privilege",
        "a template has the capabilities of a container",
        (
            Change(
                "src/squall/runtime/plan.py",
                "    last: list[op.Operation] = [\n        op.DropCapabilities(()),",
                "    last: list[op.Operation] = [\n        op.DropCapabilities(kept_capabilities(spec.user)),",
            ),
        ),
        {f"{SUITE}test_template_has_no_capability_and_wears_its_filter": "== {0}"},
    ),
    Mutation(
        "template-outlived",
        "clones live on when their template ends",
        "the end of a template's program takes its clones along",
        (
            Change(
                "src/squall/runtime/templates.py",
                "if not template.pid and not _is_open(template) and not template.living:",
                "if not template.pid and not _is_open(template):",
            ),
        ),
        {f"{SUITE}test_clones_outlive_their_template": "assert await runs(forge.containers, clone)"},
    ),
    Mutation(
        "fork-strays",
        "a process that a fork leaves behind in its template",
        "strays of forks are never ended",
        (Change("src/squall/runtime/strays.py", "for pid in found & seen:", "for pid in set[int]():"),),
        {
            f"{HOSTILE}test_stray_of_a_fork_is_ended": "assert made.exception() is None",
            f"{HOSTILE}test_stray_that_is_nobodys_child_is_ended[twice inside]": "until(lambda: not beside(",
            f"{HOSTILE}test_process_that_comes_into_a_cell_later_is_ended": "until(lambda: not beside(",
        },
    ),
    Mutation(
        "raw-sockets",
        "no netfilter, and no raw sockets, for whoever has power over a network namespace for a moment",
        "internet sockets of every type are allowed",
        (
            Change(
                "src/squall/runtime/seccomp.py", "SOCKET_TYPES) + _return(refuse(errno.EPERM))", "()) + _return(ALLOW)"
            ),
        ),
        {HOOK: "<= of_the_moment"},
    ),
    Mutation(
        "older-netfilter",
        "no netfilter for whoever has power over a network namespace for a moment",
        "options of sockets that change netfilter's older tables are allowed",
        (Change("src/squall/runtime/seccomp.py", '        "setsockopt": _filter_socket_option(),\n', ""),),
        {HOOK: "<= of_the_moment"},
    ),
    Mutation(
        "cell-alone",
        "a second process that a fork has brought into its cell",
        "nobody looks who else is in a cell",
        (Change(VERIFICATION, "if len(inside) != 2:", "if False:"),),
        {f"{MORE}[alone-processes that are not its own]": REFUSED},
    ),
    Mutation(
        "clone-files",
        "a fork that keeps a file of its template's, or one by which it has entered its cgroups",
        "nobody looks by which mount a clone has opened its files",
        (Change(VERIFICATION, " and file.mount_id in expected.cell.mounts", ""),),
        {
            f"{SKIPS}[tasks-holds .*tasks]": REFUSED,
            f"{KEEPS}[os.open('/etc/os-release', os.O_RDONLY)-holds /.*os-release of its template]": REFUSED,
        },
    ),
    Mutation(
        "clone-namespaces",
        "a fork that stays in a namespace of its template's",
        "nobody looks at the namespaces of a clone",
        (Change(VERIFICATION, "            _of_namespaces(pid, expected.cell),\n", ""),),
        {f"{SKIPS}[{name}-not in the {name} namespace]": REFUSED for name in ("mnt", "net", "uts", "ipc")},
    ),
    Mutation(
        "clone-places",
        "a fork whose root or working directory is its template's",
        "nobody looks where a clone is",
        (Change(VERIFICATION, "            _of_places(pid, expected.cell),\n", ""),),
        {
            f"{HOSTILE}test_working_directory_of_its_template_is_found[/opt/suite]": REFUSED,
            f"{MORE}[chroot-root directory]": REFUSED,
        },
    ),
    Mutation(
        "clone-threads",
        "a fork with threads that have not given anything up",
        "nobody counts the threads of a clone",
        (Change(VERIFICATION, 'if status["Threads"] != "1" or', "if"),),
        {f"{MORE}[thread-several threads]": REFUSED},
    ),
    Mutation(
        "clone-memory",
        "a fork whose memory is that of a process nobody looks at",
        "nobody compares the memory of a clone with its parent's",
        (Change(VERIFICATION, "if parent != expected.first_pid and", "if False and"),),
        {f"{MORE}[memory-memory is that of another process]": REFUSED},
    ),
    Mutation(
        "clone-sharers",
        "processes that are not one and share their descriptors",
        "clone is only refused to make namespaces",
        (Change("src/squall/runtime/seccomp.py", "        (_CLONE_FILES | _CLONE_FS, refused),\n", ""),),
        {
            f"{HOSTILE}test_no_process_of_a_template_shares_what_a_clone_holds": "== set()",
            "tests/runtime/test_seccomp.py::"
            "test_processes_that_are_not_one_share_neither_descriptors_nor_memory[1041-327681]": "== expected",
        },
    ),
    Mutation(
        "kept-files",
        "a template that changes what its forks find",
        "files of a template that is ready can be written",
        (
            Change(
                "src/squall/runtime/kept_files.py", '        sc.set_path_attributes("/", sc.MOUNT_ATTR_RDONLY)\n', ""
            ),
        ),
        {f"{HOSTILE}test_nobody_changes_the_files_of_a_template_that_is_ready": '"Read-only file system" in'},
    ),
    Mutation(
        "template-rest",
        "what else runs in a template whose program has ended",
        "only its program is ended",
        (
            Change(
                "src/squall/runtime/templates.py",
                "        end_rest(self._poller, template.entry.cgroup, template.entry.forked.pid)\n",
                "",
            ),
        ),
        {f"{HOSTILE}test_no_process_of_a_template_outlives_its_program": "not Path("},
    ),
    Mutation(
        "template-alone",
        "a template with a program in the background",
        "it is told ready",
        (Change("src/squall/runtime/templates.py", "if report.is_ready and (name :=", "if False and (name :="),),
        {f"{HOSTILE}test_template_with_a_program_in_the_background_is_unfit": "== (False, True)"},
    ),
    Mutation(
        "clone-repeats",
        "a fork that says it has joined more than once",
        "each time it is verified, and a descriptor of it kept",
        (
            Change(
                "src/squall/runtime/clones.py",
                '"joined" in message and not clone.pid and',
                '"joined" in message and not clone.is_joined and',
            ),
        ),
        {f"{HOSTILE}test_clone_that_says_again_and_again_that_it_has_joined_costs_nothing": "<= before + 5"},
    ),
    Mutation(
        "clone-talk",
        "a container that talks on its channel",
        "the spawner listens to all of it",
        (
            Change(
                "src/squall/runtime/clones.py",
                "            self._poller.unwatch(channel.fileno())\n            self._settle",
                "            self._settle",
            ),
        ),
        {f"{HOSTILE}test_nobody_listens_to_what_a_container_says_on_its_channel": "<= 0.2 *"},
    ),
)
