"""Mutations of containers under gVisor: what keeps sandboxes from the machine, and snapshots from being trusted."""

from __future__ import annotations

from tests.mutations.mutation import Change, Mutation

BUNDLE = "src/squall/runtime/gvisor/bundle.py"
GVISOR = "tests/kernel/test_gvisor.py::"
SNAPSHOTS = "tests/kernel/test_gvisor_snapshots.py::"

GVISOR_FAULTS = (
    Mutation(
        "gvisor-slot-not-restored",
        "a sandbox is removed",
        "its network slot goes to the next container without an address",
        (Change("src/squall/runtime/registry.py", "    restore_slot(state_dir)\n", ""),),
        {f"{GVISOR}test_slot_is_what_it_was_when_a_sandbox_has_gone": "== outside"},
    ),
    Mutation(
        "gvisor-machines-ids",
        "code escapes from its sandbox",
        "runsc keeps a capability that it does not need",
        (
            Change(
                "src/squall/runtime/gvisor/plan.py",
                "op.DropCapabilities(tuple(RUNSC_CAPABILITIES.values()))",
                "op.DropCapabilities((*RUNSC_CAPABILITIES.values(), 27))",
            ),
        ),
        {f"{GVISOR}test_runsc_itself_has_the_capabilities_it_needs_and_no_others": "[mask] * 3"},
    ),
    Mutation(
        "gvisor-program-without-limits-of-power",
        "hostile code in a sandbox",
        "the program has every capability over its own kernel",
        (
            Change(
                BUNDLE,
                '[f"CAP_{name}" for name in KEPT_CAPABILITIES] if uid == 0 else []',
                '["CAP_SYS_ADMIN", "CAP_NET_ADMIN"]',
            ),
        ),
        {f"{GVISOR}test_exec_under_gvisor_is_in_the_container": "CapEff"},
    ),
    Mutation(
        "gvisor-dead-sandbox",
        "a sandbox panics",
        "its container ends as if its program had said so",
        (Change("src/squall/runtime/gvisor/executor.py", "in (FAILED_CODE, PANIC_CODE)", "in ()"),),
        {f"{GVISOR}test_processes_over_the_limit_end_a_sandbox": "ExitStatus"},
    ),
    Mutation(
        "gvisor-snapshot-unchecked",
        "a process does not survive being saved",
        "a snapshot is used that was never restored",
        (
            Change(
                "src/squall/runtime/gvisor/snapshots.py",
                '"" if status.code == 0 else',
                '"" if True else',
            ),
        ),
        {f"{SNAPSHOTS}test_one_whose_check_ends_with_a_failure_is_unfit": "report == TemplateReport"},
    ),
    Mutation(
        "gvisor-snapshot-kept",
        "secrets in what was saved",
        "the memory of a template is kept when the template is gone",
        (
            Change(
                "src/squall/runtime/gvisor/executor.py", "            self.places.drop(name)\n", "            pass\n"
            ),
        ),
        {f"{SNAPSHOTS}test_what_is_in_its_memory_and_who_containers_are_is_on_no_disk": "not images_of"},
    ),
    Mutation(
        "gvisor-deleted-files",
        "files that are deleted and held open in a sandbox",
        "they are not counted: the disk fills up",
        (
            Change(
                "src/squall/agent/disk_use.py",
                'devices.add(os.lstat(f"{proc}/{pid}/root/root").st_dev)',
                "pass",
            ),
        ),
        {
            "tests/kernel/test_disk_use.py::test_what_is_deleted_of_its_own_files_is_the_containers[gvisor]": (
                "(use.inodes, use.is_whole) =="
            )
        },
    ),
    Mutation(
        "gvisor-zeros-saved",
        "a template with much memory that is empty",
        "its zeros lie in the node's memory, and are read at each start",
        (Change(BUNDLE, ', "--exclude-committed-zero-pages"]', "]"),),
        {f"{SNAPSHOTS}test_pages_of_zeros_take_no_room_in_a_snapshot": "report.memory_bytes < 100_000_000"},
    ),
    Mutation(
        "gvisor-files-not-copied",
        "a template has written files",
        "containers begin without what the kernel in their snapshot knows of",
        (Change("src/squall/runtime/gvisor/snapshots.py", "            snapshot.copy_files(template, spec)\n", ""),),
        {f"{SNAPSHOTS}test_containers_begin_where_the_template_has_come_to": "by the template"},
    ),
    Mutation(
        "gvisor-same-randomness",
        "containers begin from one snapshot",
        "their random numbers are the same",
        (Change("src/squall/guest/renewal.py", 'found.append(sys.modules["random"].seed)', "pass"),),
        {
            "tests/guest/test_snapshot.py::test_it_waits_with_its_function_and_goes_on_as_who_it_is_told": (
                "random numbers are its own"
            )
        },
    ),
    Mutation(
        "gvisor-same-keys",
        "containers begin from one snapshot",
        "what libraries draw is the same in all: OpenSSL, numpy, torch, uuid, tempfile, multiprocessing",
        (Change("src/squall/guest/snapshot.py", "        self._renewals.run()\n", ""),),
        {"tests/guest/test_snapshot.py::test_what_it_draws_is_its_own": "same(*drawn) =="},
    ),
    Mutation(
        "gvisor-old-runsc",
        "a program is too old",
        "runsc is given flags that it does not know",
        (Change("src/squall/runtime/gvisor/program.py", "if release >= OLDEST:", "if True:"),),
        {"tests/runtime/test_gvisor.py::test_runsc_that_will_not_do_is_named[old]": "pytest.raises(FeatureMissing"},
    ),
    Mutation(
        "gvisor-check-twice",
        "a check of a snapshot is over just when it has come to itself",
        "the later word of the two counts",
        (Change("src/squall/runtime/gvisor/snapshots.py", "        known.has_check_ended = True\n", ""),),
        {
            "tests/runtime/test_gvisor_snapshots.py::test_what_is_told_of_a_check_while_it_is_removed_changes_nothing"
            "[False]": "len(removals) == 1"
        },
    ),
    Mutation(
        "gvisor-given-up",
        "a start from a snapshot is given up while files are copied for it",
        "it is said to be gone, and begins: a container that nobody knows",
        (
            Change(
                "src/squall/runtime/gvisor/snapshots.py",
                "        self._pending[container_id].append(answer)\n",
                "        answer(Reply())\n",
            ),
        ),
        {
            "tests/runtime/test_gvisor_snapshots.py::"
            "test_one_that_is_removed_while_its_files_are_copied_does_not_begin": "not answers"
        },
    ),
)
