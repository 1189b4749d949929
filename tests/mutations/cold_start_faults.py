"""Mutations of what is measured and told of cold starts."""

from __future__ import annotations

from tests.mutations.mutation import Change, Mutation

BENCH = "tests/cli/test_bench.py::"
COLD_START = "tests/cli/test_cold_start.py::"
TEMPLATE = "tests/cli/test_template.py::"

COLD_START_FAULTS = (
    Mutation(
        "bench-in-a-hurry",
        "a copy answers before its node has told how it began",
        "a start is looked at while its container still runs",
        (Change("src/squall/cli/cold_start.py", "replace(ended, asked_ms=known.asked_ms)", "known"),),
        {f"{COLD_START}test_a_start_is_looked_at_when_its_container_is_gone": 'found.path == "parked"'},
    ),
    Mutation(
        "bench-two-at-once",
        "the same is done twice at a time",
        "two commands measure one function, each with the other's containers",
        (
            Change(
                "src/squall/cli/cold_start.py",
                '    while ask("FunctionStats"',
                '    while False and ask("FunctionStats"',
            ),
        ),
        {f"{COLD_START}test_two_do_not_measure_one_function_at_a_time": "measured by somebody else"},
    ),
    Mutation(
        "bench-leaves",
        "a command is interrupted",
        "what it measured goes on running",
        (Change("src/squall/cli/bench.py", "            leave(subject)\n", "            pass\n"),),
        {f"{BENCH}test_an_interrupted_measurement_leaves_no_container": "node.is_left"},
    ),
    Mutation(
        "bench-before-its-template",
        "a node is busy",
        "starts are counted before what they are to be forked from is begun",
        (
            Change(
                "src/squall/cli/cold_start.py",
                "if is_made and not any(page.is_one_coming for page in pages):",
                "if is_made:",
            ),
        ),
        {f"{COLD_START}test_its_template_is_waited_for_from_before_it_is_begun": "server.looks_until_begun"},
    ),
    Mutation(
        "bench-blames-memory",
        "an app ends while starts are measured",
        "its templates are told as lost to the measurement",
        (
            Change(
                "src/squall/cli/cold_start.py",
                "one.node_id not in silent and one.template.app_id in apps and",
                "one.node_id not in silent and",
            ),
        ),
        {
            f"{COLD_START}test_templates_of_others_that_are_gone_are_known_by_what_they_were_of": (
                "gone_of_others(SUBJECT, before) == []"
            ),
        },
    ),
    Mutation(
        "bench-killed",
        "a command is killed",
        "what nodes have made for it stays as long as its app",
        (
            Change(
                "src/squall/server/dispatch/app/apps.py",
                "if dispatcher is not None and is_measured(dispatcher.spec):",
                "if False:",
            ),
        ),
        {
            "tests/server/dispatch/fleet/test_node_templates.py::"
            "test_what_was_made_for_a_measurement_goes_when_that_was_killed": "NodeTemplatesUnneeded(spec.app_id"
        },
    ),
    Mutation(
        "bench-waits-for-ever",
        "a function does not load",
        "who measures its starts waits for one for ever",
        (
            Change(
                "src/squall/server/dispatch/function/attempts.py",
                "dispatcher.is_deployed and not is_measured(dispatcher.spec)",
                "dispatcher.is_deployed",
            ),
        ),
        {
            "tests/server/dispatch/function/test_attempts.py::"
            "test_who_measures_starts_of_a_deployed_function_is_told_why_there_are_none": "len(call.outputs) == 1"
        },
    ),
    Mutation(
        "template-drop-of-others",
        "one function of several cannot be forked",
        "with what is remembered of it the template of all others is dropped",
        (
            Change(
                "src/squall/agent/template/verdicts.py",
                'before.template_id if before is not None else new_id("tp")',
                "template.template_id",
            ),
        ),
        {
            "tests/agent/template/test_image_templates.py::"
            "test_what_is_remembered_of_one_function_is_dropped_alone": "template.is_ready"
        },
    ),
    Mutation(
        "template-drop-everywhere",
        "several environments share the nodes",
        "to drop all of one drops those of the others",
        (
            Change(
                "src/squall/server/dispatch/fleet/node_templates.py",
                "            wanted = await self._inside(found, record.environment)\n",
                "            wanted = found\n",
            ),
        ),
        {
            "tests/server/dispatch/fleet/test_node_templates.py::"
            "test_those_of_an_environment_are_named_so_and_dropped_alone": "== {theirs.template_id}"
        },
    ),
    Mutation(
        "template-drop-silent",
        "a node does not answer",
        "templates that may be on it are taken for dropped",
        (
            Change(
                "src/squall/cli/template.py",
                "    if silent:\n        _tell_silent",
                "    if False:\n        _tell_silent",
            ),
        ),
        {f"{TEMPLATE}test_drop_fails_where_a_node_may_have_more": "ended.exit_code == 1"},
    ),
    Mutation(
        "path-cause-endless",
        "hostile input",
        "the cause that a template gives is kept however long it is",
        (Change("src/squall/server/dispatch/fleet/starts.py", "started.cause[:CAUSE_CHARS_MAX]", "started.cause"),),
        {
            "tests/server/dispatch/fleet/test_container_start.py::"
            "test_flights_say_which_path_a_start_took_and_why_no_quicker_one": "== CAUSE_CHARS_MAX"
        },
    ),
)
