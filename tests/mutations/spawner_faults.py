"""Mutations of what a spawner survives: what fails in it, and what containers and templates do to it."""

from __future__ import annotations

from tests.mutations.mutation import Change, Mutation

BOOKS = "tests/kernel/test_spawner_books.py::"
HOSTILE = "tests/kernel/test_hostile_forks.py::"

SPAWNER_FAULTS = (
    Mutation(
        "record-lost",
        "a crash of the machine leaves records empty",
        "what they stood for is not known",
        (
            Change(
                "src/squall/runtime/records.py",
                "                yield Record(container_id",
                "                if values:\n                    yield Record(container_id",
            ),
        ),
        {
            "tests/runtime/test_records.py::test_record_that_a_crash_has_left_empty_or_half_is_known_by_its_name[]": (
                "list(records.all()) =="
            ),
        },
    ),
    Mutation(
        "spawner-deaf",
        "a connection that cannot be taken",
        "none is taken any more",
        (
            Change(
                "src/squall/runtime/spawner.py",
                "            self._poller.call_later(ACCEPT_PAUSE_S, self._listen)\n",
                "",
            ),
        ),
        {f"{BOOKS}test_spawner_that_cannot_take_a_connection_takes_it_later": "isinstance(agent, SpawnerRuntime)"},
    ),
    Mutation(
        "fork-hangs",
        "a fork that hangs",
        "is held against its template only when its agent has given it up",
        (Change("src/squall/runtime/clones.py", "BEGIN_TIMEOUT_S = 6.0, 3.0", "BEGIN_TIMEOUT_S = 10.0, 10.0"),),
        {
            f"{HOSTILE}test_fork_that_hangs_is_its_templates_fault_before_an_agent_gives_it_up[joins]": (
                "assert told == {started}"
            ),
        },
    ),
    Mutation(
        "parked-chatter",
        "a clone that waits, and talks",
        "the spawner listens to all of it",
        (Change("src/squall/runtime/clones.py", "        if clone.waiting is None:\n", "        if False:\n"),),
        {"tests/kernel/test_made_ahead.py::test_one_that_waits_and_does_anything_else_is_ended[deaf]": "await until("},
    ),
    Mutation(
        "clone-many-descriptors",
        "a fork with a million descriptors",
        "all of them are looked at",
        (Change("src/squall/runtime/verification.py", "if len(names) > DESCRIPTORS_MAX:", "if False:"),),
        {f"{HOSTILE}test_clone_with_more_descriptors_than_are_looked_at_is_refused": "await refused(forge, "},
    ),
    Mutation(
        "place-files",
        "a template under gVisor that makes millions of files",
        "each of them is deleted while all containers wait",
        (Change("src/squall/runtime/places.py", '"nr_inodes": str(FILES_MAX)', '"nr_inodes": "0"'),),
        {"tests/kernel/test_places.py::test_files_in_one_are_few": "pytest.raises(OSError"},
    ),
    Mutation(
        "spawner-nonsense",
        "an answer of the spawner that cannot be read",
        "whoever waits for one waits for ever",
        (
            Change(
                "src/squall/runtime/client.py", "            self._disconnect(failure)\n", "            str(failure)\n"
            ),
        ),
        {
            "tests/runtime/test_client.py::test_requests_fail_when_the_spawner_says_what_cannot_be_read[[1]]": (
                "assert failed == {asked}"
            ),
        },
    ),
    Mutation(
        "copy-late",
        "a copy of a template that nobody waits for any more",
        "it stays until somebody looks after strays",
        (
            Change(
                "src/squall/guest/template.py",
                "                os._exit(0)  # nobody waits for a copy any more\n",
                "                pass\n",
            ),
        ),
        {"tests/guest/test_template.py::test_copy_that_nobody_waits_for_any_more_ends": "wait_for(lambda: not"},
    ),
)
