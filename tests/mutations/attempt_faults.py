"""Mutations of what becomes of attempts that do not succeed: crashes, retries, items and places in queues."""

from __future__ import annotations

from tests.mutations.mutation import Change, Mutation

POLICY = "tests/server/policy/test_policy.py::"
RETRIES = "tests/server/dispatch/function/test_retries.py::"
WRONG = "tests/sdk/test_wrong_parameters.py::"
QUARANTINE = "tests/server/dispatch/function/test_quarantine.py::"
ATTEMPTS = "tests/server/dispatch/function/test_attempts.py::"
ENVIRONMENTS = "tests/server/dispatch/app/test_environments.py::"
PROCESS = "tests/guest/test_process.py::"
CAUGHT = f"{PROCESS}test_what_was_cancelled_has_no_output_whatever_user_code_makes_of_it"

ATTEMPT_FAULTS = (
    Mutation(
        "single-use-adopted",
        "a container for one input that a killed server has left",
        "it is counted on for the next one, and given none",
        (
            Change(
                "src/squall/server/dispatch/function/dispatcher.py",
                "is_single_use and container.has_served and not container.is_busy:",
                "is_single_use and not container.has_served:",
            ),
        ),
        {
            "tests/server/dispatch/function/test_restart.py::"
            "test_adopted_container_for_one_input_is_not_counted_on_for_another": "stage.done(call, 1)"
        },
    ),
    Mutation(
        "cancelled-returns",
        "cancellation",
        "what user code returns after it has caught its cancellation is its output",
        (
            Change(
                "src/squall/guest/runner.py", "cancelled() if self.inbox.is_cancelled(item) else outcome", "outcome"
            ),
            Change("src/squall/guest/runner.py", "if interrupter.has_interrupted:", "if False:"),
        ),
        {
            f"{CAUGHT}[python-returns]": "== CANCELLED",
            f"{CAUGHT}[python-async]": "== CANCELLED",
        },
    ),
    Mutation(
        "end-in-library",
        "container is ended",
        "user code that waits in a library is taken for the loop, and not interrupted",
        (
            Change(
                "src/squall/guest/async_runner.py",
                "    is_of_loop = True\n    found = frame\n",
                "    if frame is None or _package(frame) in _LOOP_PACKAGES:\n        return False\n"
                "    is_of_loop, found = True, frame\n",
            ),
        ),
        {
            "tests/guest/test_instance.py::test_code_that_blocks_in_a_library_is_interrupted_when_the_process_is_told_to_end"
            "[python-event]": "not in printed",
        },
    ),
    Mutation(
        "end-cuts-answer",
        "container is ended",
        "the request to end interrupts the guest of an async function while it sends an answer",
        (
            Change(
                "src/squall/guest/async_runner.py",
                "return found is not frame and (name in _CALLERS",
                "return found is not frame and (True",
            ),
        ),
        {f"{PROCESS}test_answer_is_sent_whole_when_the_end_comes_as_it_is_sent[python]": '== ["whole"]'},
    ),
    Mutation(
        "suspects-alone",
        "poison input that kills its container",
        "a container that runs a suspect is handed others beside it",
        (
            Change(
                "src/squall/server/dispatch/function/quarantine.py",
                "return container is self._reserved or self._runs_one(container)",
                "return container is self._reserved",
            ),
        ),
        {f"{QUARANTINE}test_after_a_crash_new_calls_run_side_by_side_and_each_suspect_alone": "== [1, 8]"},
    ),
    Mutation(
        "suspects-many",
        "poison input that kills its container",
        "each turn with suspects looks at all containers of the function",
        (
            Change(
                "src/squall/server/dispatch/function/quarantine.py",
                "sum(self._runs_one(one) for one in set(self._held.values()))",
                "sum(self._runs_one(one) for one in self._dispatcher.containers.values())",
            ),
        ),
        {f"{QUARANTINE}test_turns_with_suspects_look_at_few_of_many_containers[busy]": "looks.count < 1_000"},
    ),
    Mutation(
        "suspects-ended",
        "poison input that kills its container",
        "a container stays apart after its suspect was failed by the server",
        (
            Change(
                "src/squall/server/dispatch/function/quarantine.py",
                "            self._dispatcher.refresh(container)\n\n    def left",
                "            pass\n\n    def left",
            ),
        ),
        {f"{QUARANTINE}test_container_of_a_suspect_that_was_failed_may_be_handed_others": "held(stage, spec) == [2]"},
    ),
    Mutation(
        "suspects-apart",
        "poison input that kills its container",
        "while there are suspects every container of the function holds one input",
        (
            Change(
                "src/squall/server/dispatch/function/dispatcher.py",
                "if self.attempts.suspects and self.quarantine.is_apart(container):\n"
                "            return len(container.held)",
                "if self.attempts.suspects:\n            return 1",
            ),
        ),
        {f"{QUARANTINE}test_after_a_crash_new_calls_run_side_by_side_and_each_suspect_alone": "== [1, 8]"},
    ),
    Mutation(
        "crash-again",
        "poison input that kills its container",
        "an input fails with the first container that ends under it",
        (Change("src/squall/server/policy/crash.py", "CRASHES_MAX = 3\n", "CRASHES_MAX = 1\n"),),
        {
            f"{POLICY}test_crash_of_the_only_input_is_tried_in_three_containers_apart_from_the_users_retries": (
                "first == Retry("
            )
        },
    ),
    Mutation(
        "poison-named",
        "poison input that kills its container",
        "the error does not say which input of the map it was",
        (Change("src/squall/server/policy/crash.py", 'f", input {event.index} of its call"', '""'),),
        {f"{ATTEMPTS}test_poison_input_of_a_map_is_named_and_the_others_go_on": "input 7 of its call"},
    ),
    Mutation(
        "failure-named",
        "poison input that kills its container",
        "the error does not say which function it was",
        (
            Change(
                "src/squall/server/dispatch/function/attempts.py",
                'message=f"{self._dispatcher.in_words(call.method)}: {failure.message}"',
                "message=failure.message",
            ),
        ),
        {f"{ATTEMPTS}test_input_over_its_time_is_stopped_and_named": "startswith(said)"},
    ),
    Mutation(
        "crashes-counted",
        "poison input that kills its container",
        "the error leaves out the container that ended under several inputs",
        (Change("src/squall/server/dispatch/function/attempts.py", "has_crashed and not is_only", "False"),),
        {f"{ATTEMPTS}test_containers_that_ended_under_several_inputs_are_counted_too": "so did 3 others before it"},
    ),
    Mutation(
        "wait-told",
        "container that never gets ready",
        "nobody who calls a deployed function that cannot start is told why it waits",
        (Change("src/squall/server/dispatch/function/wait_notices.py", "sink.put_notice(call_id, text)", "pass"),),
        {
            f"{ATTEMPTS}test_deployed_function_waits_until_it_can_be_loaded_and_its_log_says_why[crashed]": (
                "stage.client.notices =="
            )
        },
    ),
    Mutation(
        "deployed-waits",
        "container that never gets ready",
        "a deployed function that cannot start fails its callers",
        (
            Change(
                "src/squall/server/policy/startup.py",
                "if event.is_patient and event.failure.kind in OF_ITS_CODE:",
                "if event.is_patient and event.failure.kind in ():",
            ),
        ),
        {
            f"{ATTEMPTS}test_deployed_function_waits_until_it_can_be_loaded_and_its_log_says_why[crashed]": (
                "not call.outputs"
            )
        },
    ),
    Mutation(
        "any-cloud",
        "wrong parameters",
        "a cloud may be any text",
        (
            Change(
                "src/squall/sdk/_hosting.py",
                "if not isinstance(cloud, str) or cloud.lower() not in CLOUDS:",
                "if not isinstance(cloud, str):",
            ),
        ),
        {
            f"{WRONG}test_wrong_values_are_refused_with_their_parameter_and_what_it_may_be[app.cls(cloud)]": (
                "text is not None"
            )
        },
    ),
    Mutation(
        "empty-later",
        "wrong parameters",
        "a parameter of a later version that is empty is not looked at",
        (Change("src/squall/sdk/_not_yet.py", "        if value is None:\n", "        if not value:\n"),),
        {
            f"{WRONG}test_wrong_values_are_refused_with_their_parameter_and_what_it_may_be[app.function(gpu)]": (
                "text is not None"
            )
        },
    ),
    Mutation(
        "environment-again",
        "environments",
        "an environment that is made again lists apps of the one before",
        (
            Change(
                "src/squall/server/dispatch/app/environments.py",
                "return row.stopped_at is None or row.stopped_at >= made_at",
                "return True",
            ),
        ),
        {
            f"{ENVIRONMENTS}test_what_ended_with_an_environment_is_not_in_one_made_again_by_its_name": (
                "await listed() == []"
            )
        },
    ),
    Mutation(
        "delay-limit",
        "retries",
        "the longest delay of the policy is not honoured",
        (
            Change(
                "src/squall/server/policy/retries.py",
                "return max(0.0, min(delay_s, retries.max_delay_s))",
                "return max(0.0, delay_s)",
            ),
        ),
        {f"{RETRIES}test_longest_delay_is_that_of_the_policy": "== [2, 5, 5]"},
    ),
    Mutation(
        "items-counted",
        "chaos",
        "a generator whose last items were lost ends as if that were all",
        (
            Change(
                "src/squall/server/dispatch/function/attempts.py",
                "call.kind == wire.GENERATOR and not _is_count(",
                "call.kind == wire.GENERATOR and False and not _is_count(",
            ),
        ),
        {f"{ATTEMPTS}test_generator_whose_items_were_all_lost_begins_again_a_few_times": "runs == list(range(9))"},
    ),
    Mutation(
        "queue-once",
        "chaos",
        "an input that left the queue and came back leaves it twice",
        (
            Change(
                "src/squall/server/dispatch/function/input_queue.py",
                "return list(dict.fromkeys(one for one in held if one.is_queued))",
                "return [one for one in held if one.is_queued]",
            ),
        ),
        {
            "tests/server/dispatch/function/test_input_queue.py::test_an_input_that_left_and_came_back_leaves_once": (
                "queue.queued()] == [1, 0, 2]"
            )
        },
    ),
    Mutation(
        "no-number",
        "wrong parameters",
        "cpu and memory may be no numbers",
        (
            Change(
                "src/squall/sdk/_options.py",
                "not isinstance(part, (int, kind)) or not least <= part <= most:",
                "not isinstance(part, (int, kind)) or part < least or part > most:",
            ),
        ),
        {
            f"{WRONG}test_wrong_values_are_refused_with_their_parameter_and_what_it_may_be[app.function(cpu)]": (
                "text is not None"
            )
        },
    ),
    Mutation(
        "attempts-unmarked",
        "attempts that fail are told",
        "the log has the traceback of each attempt and not which it was",
        (
            Change(
                "src/squall/server/dispatch/function/attempts.py",
                "        self._lines.say(one, failure, verdict)\n",
                "",
            ),
        ),
        {f"{RETRIES}test_log_says_which_attempt_failed_and_when_the_next_one_follows": "attempt 1 of 3 failed"},
    ),
)
