"""Mutations of durable calls that grow, of spawning many, and of maps that nobody wants any more."""

from __future__ import annotations

from tests.mutations.mutation import Change, Mutation

SERVER = "tests/server/dispatch/durable/test_spawns.py::"
STORE = "tests/conformance/test_store_growing.py::"
EXPIRY = "tests/conformance/test_store_expiry.py::"
SDK = "tests/sdk/test_spawn.py::"
SPAWNS = "src/squall/server/dispatch/durable/spawns.py"
BACKLOG = "src/squall/server/dispatch/durable/backlog.py"
SPAWN = "src/squall/sdk/_spawn.py"
GATHERING = "src/squall/server/dispatch/durable/gathering.py"
GATHERED = "tests/server/dispatch/durable/test_gathering.py::"

DURABLE_FAULTS = (
    Mutation(
        "gather-one-by-one",
        "a thousand calls that end one after the other",
        "each output is an answer of its own, and all others are asked about again",
        (Change(GATHERING, "2 * len(found) >= len(call_ids)", "bool(found)"),),
        {f"{GATHERED}test_an_answer_waits_for_the_first_output_and_a_moment_for_more": "not asking.done()"},
    ),
    Mutation(
        "gather-large",
        "large outputs",
        "an answer has all there are",
        (Change(GATHERING, "call_id in found and size_bytes < BYTES_MAX", "call_id in found"),),
        {f"{GATHERED}test_an_answer_ends_when_it_is_large": "== (0, 1)"},
    ),
    Mutation(
        "spawn-given-up",
        "client gone while its spawn is committed",
        "a request ends with its client, and what is on disk is forgotten there",
        (
            Change(
                SPAWNS,
                "return await asyncio.shield(self._tasks.start(self._extend(record, inputs, dispatcher)))",
                "return await self._extend(record, inputs, dispatcher)",
            ),
        ),
        {f"{SERVER}test_inputs_whose_caller_went_away_while_they_were_kept_run": "await done(stage, call_id, 2)"},
    ),
    Mutation(
        "spawn-again",
        "spawn repeated after its answer was lost",
        "what the store has already is taken for being run",
        (Change(SPAWNS, "self._backlog.look_again(portion.call.function_id, portion.place)", "pass"),),
        {
            f"{SERVER}test_inputs_that_are_known_to_be_kept_only_by_the_store_run_when_they_are_put_again": (
                "await done(stage, call_id, 3)"
            )
        },
    ),
    Mutation(
        "grown-twice",
        "spawn repeated after its answer was lost",
        "that the store has inputs already is not told",
        (
            Change(
                "src/squall/server/store/sql_portions.py",
                "return Portion(call, more.first, made_at, more.inputs)\n",
                "return Portion(call, more.first, more.made_at, more.inputs)\n",
            ),
        ),
        {f"{STORE}test_repeated_inputs_of_a_growing_call_are_there_once[sqlite]": "assert again.made_at == 101.0"},
    ),
    Mutation(
        "backlog-memory",
        "spawned inputs beyond the memory of the server",
        "each function reads what it has",
        (Change(BACKLOG, "return not dispatcher.has_inputs", "return dispatcher.queued < inputs_max"),),
        {
            "tests/server/dispatch/durable/test_backlog.py::"
            "test_inputs_beyond_the_memory_of_the_server_wait_and_none_fails[True]": "waiting_bytes <= 500_000"
        },
    ),
    Mutation(
        "backlog-page-bytes",
        "spawned inputs beyond the memory of the server",
        "a page is of so many inputs, whatever their size",
        (Change(BACKLOG, "min(PAGE_BYTES, self._bytes_left)", "PAGE_BYTES"),),
        {
            "tests/server/dispatch/durable/test_backlog.py::"
            "test_inputs_beyond_the_memory_of_the_server_wait_and_none_fails[True]": "max(page_bytes) <= 500_000"
        },
    ),
    Mutation(
        "expiry-bytes",
        "large results expire while others spawn",
        "outputs expire by their number",
        (
            Change("src/squall/server/store/sql_calls.py", "EXPIRE_CALLS_MAX, EXPIRE_BYTES_MAX))", "200, 10**9))"),
            Change("src/squall/server/store/sql_calls.py", "EXPIRE_ROWS_MAX, EXPIRE_BYTES_MAX):", "200, 10**9):"),
        ),
        {f"{EXPIRY}test_expiry_takes_a_bounded_number_of_bytes_at_a_time[sqlite]": "outputs.bytes <= 10_000"},
    ),
    Mutation(
        "spawns-share",
        "100,000 spawns at once",
        "each spawn is a request of its own",
        (Change(SPAWN, "REQUESTS_MAX = 2\n", "REQUESTS_MAX = 200_000\n"),),
        {f"{SDK}test_spawns_of_one_loop_share_few_requests": "assert len(server.batches) <= 12"},
    ),
    Mutation(
        "spawns-next",
        "tasks that spawn are cancelled",
        "who waits is not told that it may be sent",
        (Change(SPAWN, "        self._tell_next()\n", ""),),
        {f"{SDK}test_spawns_that_are_given_up_do_not_hold_up_the_others": "assert not late"},
    ),
    Mutation(
        "value-limit",
        "result larger than memory limits",
        "a result of any size is sent",
        (Change("src/squall/sdk/_pieces.py", "    if size_bytes > VALUE_BYTES_MAX:\n", "    if size_bytes < 0:\n"),),
        {
            "tests/guest/test_values.py::test_result_that_is_too_large_is_refused_before_anything_is_sent": (
                "with pytest.raises(InvalidError"
            )
        },
    ),
    Mutation(
        "outputs-later",
        "outputs that are delivered again",
        "all of later inputs of a call are taken for ones that are there",
        (
            Change(
                "src/squall/server/store/sql_calls.py",
                "in present_together(connection, sa.select(*key), key, pairs)",
                "in pairs",
            ),
        ),
        {
            "tests/conformance/test_store_many.py::"
            "test_later_inputs_that_have_an_output_are_told_from_others[sqlite]": "== (True,) * len(calls)"
        },
    ),
    Mutation(
        "log-standing",
        "log that is followed on a terminal",
        "what goes on stays there when it is over",
        (Change("src/squall/cli/log.py", "        self._last_row.clear()\n", "        return\n"),),
        {"tests/cli/test_log.py::test_line_that_goes_on_is_drawn_where_somebody_looks[True]": '"".join(drawn'},
    ),
    Mutation(
        "map-line",
        "map that is given up",
        "its line stays on the terminal",
        (Change("src/squall/sdk/_map.py", "                self._progress.end(*self._counts())\n", ""),),
        {"tests/sdk/test_output.py::test_map_that_is_given_up_is_over": "assert told[-1:] == [True]"},
    ),
)
