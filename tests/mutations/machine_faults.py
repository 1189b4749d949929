"""Mutations of what is said of a machine that lacks something, of what is left behind, and of other versions."""

from __future__ import annotations

from tests.mutations.mutation import Change, Mutation

DISK = "tests/e2e/test_fault_disk.py::"
MACHINE = "tests/e2e/test_fault_machine.py::"
VERSION = "tests/e2e/test_fault_version.py::"
NETWORK = "tests/kernel/test_network.py::"
CHECKS = "tests/runtime/test_checks.py::"
ANY_E2E = "tests/e2e/test_fault_source.py::test_file_without_an_app_says_how_to_make_one"
DOCTOR = "tests/e2e/test_cli_commands.py::test_doctor_checks_what_is_needed"
DEV = "tests/main/test_dev.py::"
AGENT = "tests/agent/test_agent.py::"

MACHINE_FAULTS = (
    Mutation(
        "disk-full",
        "disk full in the data directory",
        "the error of a container that cannot start does not say what to do",
        (
            Change(
                "src/squall/agent/start_errors.py",
                'hint = "; free space in the data directory\'s file system, or move it" if is_full else ""',
                'hint = ""',
            ),
        ),
        {f"{DISK}test_full_disk_fails_what_needs_it_and_nothing_else": "free space in the data directory"},
    ),
    Mutation(
        "disk-full-at-start",
        "disk full in the data directory",
        "the server does not try whether it can write before it starts",
        (
            Change("src/squall/main/data_dir.py", '        probe.write_bytes(b"x" * 4096)\n', ""),
            Change(
                "src/squall/main/data_dir.py", "        probe.unlink()\n", "        probe.unlink(missing_ok=True)\n"
            ),
        ),
        {f"{DISK}test_server_does_not_start_on_a_full_disk_and_says_so": "cannot use the data directory"},
    ),
    Mutation(
        "removed-once",
        "a container whose last process waits for a disk when it is to be removed",
        "what it has is nobody's until the agent is started again",
        (
            Change(
                "src/squall/agent/outfit.py",
                "        self._tasks.start(self._give_back_later(outfit, failure))\n",
                "",
            ),
        ),
        {f"{AGENT}test_what_the_runtime_cannot_remove_is_removed_later": "assert not world.left()"},
    ),
    Mutation(
        "not-root",
        "not root and no sudo",
        "the command does not say that starting a server needs root",
        (Change("src/squall/sdk/_local_server.py", "    if os.geteuid() != 0:\n", "    if os.geteuid() < 0:\n"),),
        {f"{MACHINE}test_without_root_and_server_the_command_says_how_to_get_one": "and starting one needs root"},
    ),
    Mutation(
        "stop-twice",
        "a server is stopped while it is ending, by a member of the group",
        "it is taken for one that was killed",
        (Change("src/squall/main/dev.py", "        return lock.holder() is not None\n", "        return False\n"),),
        {f"{DEV}test_who_may_not_see_the_lock_waits_for_a_server_that_is_ending_too": '(0, "stopped Squall'},
    ),
    Mutation(
        "stop-at-its-beginning",
        "a server is stopped while it begins",
        "it is not asked to once it can be",
        (
            Change(
                "src/squall/main/dev.py",
                "    if read_server_file(config.data_dir) is not None:\n",
                "    if False:\n",
            ),
        ),
        {f"{DEV}test_server_that_begins_while_it_is_stopped_is_asked_then": '(0, "stopped Squall'},
    ),
    Mutation(
        "stop-by-force-of-one-without-address",
        "a server hangs before it has begun",
        "nothing ends it",
        (Change("src/squall/main/dev.py", "found is not None else lock.holder()", "found is not None else None"),),
        {f"{DEV}test_server_that_neither_begins_nor_ends_is_killed_by_force_only": '"--force", "--data-dir"'},
    ),
    Mutation(
        "not-root-server",
        "not root and no sudo",
        "the server does not say that it needs root",
        (Change("src/squall/main/start.py", "    if os.geteuid() != 0:\n", "    if os.geteuid() < 0:\n"),),
        {f"{MACHINE}test_without_root_and_server_the_command_says_how_to_get_one": "needs root; start it by sudo"},
    ),
    Mutation(
        "feature-missing-cgroups",
        "kernel feature missing (named)",
        "a machine without cgroups is not refused",
        (
            Change(
                "src/squall/runtime/cgroup/__init__.py",
                "    if not hierarchies:\n        raise FeatureMissing(",
                "    if not hierarchies:\n        return TreeV1({})\n        raise FeatureMissing(",
            ),
        ),
        {f"{MACHINE}test_missing_cgroups_are_named_with_where_to_mount_them": "ended.code == 1"},
    ),
    Mutation(
        "feature-missing-program",
        "kernel feature missing (named)",
        "the program that is missing is not named with its package",
        (
            Change(
                "src/squall/runtime/programs.py",
                "cannot run containers: tini-static is missing; install the package tini",
                "cannot run containers",
            ),
        ),
        {
            f"{MACHINE}test_missing_program_is_named_with_its_package[/usr/bin/tini-static-tini-static is missing;"
            " install the package tini]": "said in ended.err",
        },
    ),
    Mutation(
        "feature-missing-kernel",
        "kernel feature missing (named)",
        "what failed in the trial is not told with its fix",
        (Change("src/squall/runtime/checks/kernel.py", 'error, FIXES.get(step, ""))', 'error, "")'),),
        {f"{CHECKS}test_probe_errors_become_findings": '"5.19" in checks["idmapped mounts"].fix'},
    ),
    # ---- nothing leaks
    Mutation(
        "leak-process",
        "nothing leaks: process",
        "the spawner goes on when the server was told to stop",
        (Change("src/squall/main/parts.py", "if self._is_taken_down or has_failed:", "if has_failed:"),),
        {ANY_E2E: "assert not left"},
    ),
    Mutation(
        "leak-mount",
        "nothing leaks: mount",
        "the directory of network namespaces stays mounted",
        (
            Change(
                "src/squall/runtime/network/node_network.py",
                "        remove_pin_directory(self.pins)\n        os.rm",
                "        os.rm",
            ),
        ),
        {ANY_E2E: "assert not mounted"},
    ),
    Mutation(
        "leak-cgroup",
        "nothing leaks: cgroup",
        "the cgroups above the containers' own stay",
        (
            Change(
                "src/squall/runtime/sweep.py",
                'for name in (*tree.names("squall"), "squall"):',
                'for name in ("squall",):',
            ),
        ),
        {ANY_E2E: "assert not left"},
    ),
    Mutation(
        "leak-link",
        "nothing leaks: veth",
        "the bridge and what hangs on it stay",
        (
            Change(
                "src/squall/runtime/network/node_network.py",
                "        links.remove_link(self.names.bridge)\n        rules.remove_rules",
                "        rules.remove_rules",
            ),
        ),
        {ANY_E2E: "assert not left"},
    ),
    Mutation(
        "leak-rules",
        "nothing leaks: firewall rules",
        "the table of rules stays",
        (
            Change(
                "src/squall/runtime/network/node_network.py",
                "        rules.remove_rules(self.names)\n        remove_pin_directory(self.pins)\n        os.rmdir",
                "        remove_pin_directory(self.pins)\n        os.rmdir",
            ),
        ),
        {ANY_E2E: "assert not left"},
    ),
    Mutation(
        "leak-namespace",
        "nothing leaks: namespace",
        "what a killed pool left (namespaces, links, rules) is not swept",
        (
            Change(
                "src/squall/runtime/network/node_network.py",
                "    node.sweep(())\n    node.tear_down()\n",
                "    node.close()\n",
            ),
        ),
        {
            f"{NETWORK}test_killed_pool_leaves_nothing_after_a_sweep": '"state") == []',
        },
    ),
    Mutation(
        "leak-file",
        "nothing leaks: file",
        "directories of containers that are gone stay",
        (
            Change(
                "src/squall/agent/grave.py", "                remove_tree(str(path))\n", "                str(path)\n"
            ),
        ),
        {ANY_E2E: "assert not undeleted"},
    ),
    Mutation(
        "leak-after-kill",
        "nothing leaks: after kill -9",
        "cgroups that a killed spawner left are not swept",
        (Change("src/squall/runtime/sweep.py", "            _remove_cgroup(group)\n", "            group.pids()\n"),),
        {"tests/kernel/test_spawner.py::test_killed_spawner_and_a_sweep_leave_nothing": "detect_cgroups().names("},
    ),
    # ---- other versions
    Mutation(
        "version-idle",
        "version mismatch: an idle server is replaced",
        "an idle server of another version says that it is busy",
        (
            Change(
                "src/squall/server/dispatch/control_plane.py",
                "self.config.url, self.is_idle)",
                "self.config.url, False)",
            ),
        ),
        {f"{VERSION}test_idle_server_is_replaced_by_the_clients_version": "ended.code == 0"},
    ),
    Mutation(
        "version-busy",
        "version mismatch: a busy server is left alone",
        "a client works with a server of any version",
        (
            Change(
                "src/squall/sdk/_greeting.py",
                "if abs(welcome.protocol_version - PROTOCOL_VERSION) > 1 or endpoint.data_dir:",
                "if abs(welcome.protocol_version - PROTOCOL_VERSION) > 1:",
            ),
        ),
        {f"{VERSION}test_busy_server_is_left_alone_and_the_client_told": "ended.code == 1"},
    ),
    # ---- squall doctor
    Mutation(
        "doctor-root",
        "doctor: root",
        "it is not said that root is needed",
        (
            Change(
                "src/squall/runtime/checks/kernel.py",
                "    if uid == 0:\n        return Check(",
                "    if uid >= 0:\n        return Check(",
            ),
        ),
        {
            f"{CHECKS}test_root_is_needed": 'check_root(1000).fix == "run it with sudo"',
            f"{MACHINE}test_doctor_without_root_says_so_and_fails": "ended.code == 1",
        },
    ),
    Mutation(
        "doctor-kernel",
        "doctor: kernel",
        "an old kernel is taken for a good one",
        (Change("src/squall/runtime/checks/kernel.py", "KERNEL_MIN = (5, 19)", "KERNEL_MIN = (5, 0)"),),
        {f"{CHECKS}test_kernel_version[5.15.0-91-generic-fail]": "check_kernel(release).status == status"},
    ),
    Mutation(
        "doctor-cgroups",
        "doctor: cgroups",
        "a missing controller is not told",
        (
            Change(
                "src/squall/runtime/checks/kernel.py", "missing = missing_controllers(tree)", "missing = list[str]()"
            ),
        ),
        {f"{CHECKS}test_cgroups_without_memory_are_a_warning_with_the_boot_option": 'check.status == "warn"'},
    ),
    Mutation(
        "doctor-ports",
        "doctor: ports",
        "the port of the server is not looked at",
        (Change("src/squall/main/doctor.py", "        checks.append(check_server_port(config))\n", ""),),
        {DOCTOR: "expected in names"},
    ),
    Mutation(
        "doctor-port-taken",
        "doctor: ports",
        "a port that somebody else has is taken for free",
        (
            Change(
                "src/squall/runtime/checks/machine.py",
                "            listener.bind((host, port))\n",
                "            listener.bind((host, 0))\n",
            ),
        ),
        {f"{CHECKS}test_port_in_use_fails_and_a_free_one_does_not": 'taken.status == "fail"'},
    ),
    Mutation(
        "doctor-firewall",
        "doctor: firewall",
        "what drops forwarded packets is not told",
        (
            Change(
                "src/squall/runtime/checks/machine.py",
                "    if findings:\n",
                "    if not findings:\n        findings = []\n    if len(findings) > 9:\n",
            ),
        ),
        {f"{CHECKS}test_firewall": "(other.status, other.finding, other.fix)"},
    ),
    Mutation(
        "doctor-disk",
        "doctor: disk",
        "a disk without room is taken for a good one",
        (Change("src/squall/runtime/checks/machine.py", "DISK_NEEDED_BYTES = 2 * 2**30", "DISK_NEEDED_BYTES = 0"),),
        {f"{CHECKS}test_disk_space[1-fail]": "== status"},
    ),
    Mutation(
        "doctor-registries",
        "doctor: registries",
        "no registry is asked",
        (Change("src/squall/main/doctor.py", "        checks.append(check_python_images(config, os.environ))\n", ""),),
        {DOCTOR: "expected in names"},
    ),
    Mutation(
        "doctor-mirrors",
        "doctor: registries",
        "a mirror that does not answer is taken for a good one",
        (Change("src/squall/runtime/checks/mirrors.py", "        if answer.error\n", "        if not answer.url\n"),),
        {f"{CHECKS}test_mirror_that_fails_is_named_without_its_password": '== ("warn", "look")'},
    ),
    Mutation(
        "request-twice",
        "a program asks while its connection is made",
        "its request is sent twice, and the server's log has an error",
        (
            Change(
                "src/squall/sdk/_client.py",
                "            if line is None or request.sent_over is line:\n",
                "            if line is None:\n",
            ),
        ),
        {
            f"tests/sdk/test_client.py::test_a_request_that_meets_a_new_connection_is_sent_over_it_once[{who}]": (
                "could not be handled"
            )
            for who in ("the asker", "the keeper")
        },
    ),
)
