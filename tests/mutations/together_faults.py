"""Mutations of inputs that share a container: in threads, in batches."""

from __future__ import annotations

from tests.mutations.mutation import Change, Mutation

ATTEMPTS = "tests/server/dispatch/function/test_attempts.py::"
BATCHES = "tests/server/dispatch/function/test_batches.py::"
DISPATCHER = "tests/server/dispatch/function/test_dispatcher.py::"
GUEST_BATCH = "tests/guest/test_batch.py::"
THREADS = "tests/guest/test_thread_runner.py::"

TOGETHER_FAULTS = (
    Mutation(
        "batch-waits-for-ever",
        "batch that does not fill",
        "a batch is run when it is full, and not otherwise",
        (
            Change(
                "src/squall/server/policy/batching.py",
                "return queued if now >= due_at(batching, oldest_at) else 0",
                "return 0",
            ),
        ),
        {f"{BATCHES}test_full_batch_goes_out_at_once_and_the_rest_when_it_has_waited": "== ([4], [4], [4, 2])"},
    ),
    Mutation(
        "batch-of-one-caller",
        "batch of many calls",
        "what came last decides when a batch is due",
        (
            Change(
                "src/squall/server/dispatch/function/batches.py",
                "return self._came[0][0] if self._came",
                "return self._came[-1][0] if self._came",
            ),
        ),
        {f"{BATCHES}test_waiting_begins_with_the_first_input_and_not_with_the_last": "assert sizes(guest) == [3]"},
    ),
    Mutation(
        "batch-length",
        "batched function that returns too few results",
        "what Python says of the two lengths is told",
        (Change("src/squall/guest/batch.py", "if len(result) != len(item.listed):", "if len(result) > 10**6:"),),
        {
            f"{GUEST_BATCH}test_what_is_no_list_of_as_many_fails_all[python-too_few-function too_few was given a batch "
            "of 2 and returned 1 results; return one for each input]": "assert status == FAILED",
        },
    ),
    Mutation(
        "batch-cancelled-whole",
        "one call of a batch is cancelled",
        "the whole batch is stopped",
        (Change("src/squall/guest/batch.py", "or len(batch.wanted) < 2:", "or batch.wanted:"),),
        {
            f"{GUEST_BATCH}test_cancelled_input_is_answered_at_once_and_the_others_go_on[python-sleep_later-1-True]": (
                "== {0: CANCELLED, 2: CANCELLED}"
            ),
        },
    ),
    Mutation(
        "batch-overfills",
        "more batches than a container may run at once",
        "a container is handed batches as long as there are any",
        (
            Change(
                "src/squall/server/dispatch/function/batches.py",
                "if len(container.batches) < at_once else 0)",
                "if len(container.batches) < 9 * at_once else 0)",
            ),
        ),
        {f"{BATCHES}test_container_holds_as_many_batches_as_it_may_run_at_once": "assert sizes(guest) == [2, 2]"},
    ),
    Mutation(
        "stuck-thread",
        "input in a thread that does not stop",
        "its container is handed new inputs until it is ended",
        (
            Change(
                "src/squall/server/dispatch/function/dispatcher.py",
                "if self.attempts.is_ending(container):",
                "if False:",
            ),
        ),
        {
            f"{ATTEMPTS}test_thread_that_goes_on_takes_its_container_along_and_the_others_run_elsewhere": (
                "assert len(first.received) == 2"
            ),
        },
    ),
    Mutation(
        "stuck-thread-blames-others",
        "input in a thread that does not stop",
        "the others in its container lose one of their eight chances",
        (
            Change(
                "src/squall/server/dispatch/function/attempts.py",
                "trouble.losses += not container.is_sacrificed",
                "trouble.losses += 1",
            ),
        ),
        {f"{ATTEMPTS}test_input_that_others_took_containers_from_is_not_lost_for_it": "assert not patient.outputs"},
    ),
    Mutation(
        "thread-is-cancelled-in-vain",
        "input in a thread is cancelled",
        "it is answered with its result",
        (
            Change(
                "src/squall/guest/runner.py",
                "cancelled() if self.inbox.is_cancelled(item) else outcome",
                "outcome",
            ),
        ),
        {
            f"{THREADS}test_cancelled_input_runs_on_and_is_answered_as_cancelled[python]": (
                "assert found[0][0] == CANCELLED"
            )
        },
    ),
    Mutation(
        "containers-never-idle",
        "little to do for many containers",
        "inputs always go to the container that runs least, so that none is ever idle",
        (
            Change(
                "src/squall/server/dispatch/function/choice.py",
                "return dispatcher.target if len(dispatcher.containers) > dispatcher.scaling.min_containers else 0",
                "return 0",
            ),
        ),
        {f"{DISPATCHER}test_container_is_filled_to_its_target_before_a_spare_one_is_used": "== [0, 1, 3]"},
    ),
    Mutation(
        "above-target",
        "more runs than was aimed at",
        "no container is started as long as nothing waits",
        (
            Change(
                "src/squall/server/autoscaler/__init__.py",
                "    return math.ceil(load.running / target)\n",
                "    return 0\n",
            ),
        ),
        {f"{DISPATCHER}test_container_runs_more_than_its_target_until_others_have_started": "containers) == 3"},
    ),
)
