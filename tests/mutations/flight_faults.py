"""Mutations of what is remembered of calls that ran, and of what is run again."""

from __future__ import annotations

from tests.mutations.mutation import Change, Mutation

RECORDER = "tests/server/dispatch/flight/test_recorder.py::"
STORE = "tests/conformance/test_store_flights.py::"
FLIGHT = "src/squall/server/dispatch/flight/"

FLIGHT_FAULTS = (
    Mutation(
        "flight-bounds",
        "a hundred thousand calls",
        "the recorder remembers every call",
        (
            Change(f"{FLIGHT}recorder.py", "> self._calls_max or", "> 10**9 or"),
            Change(f"{FLIGHT}recorder.py", "> self._calls_max:", "> 10**9:"),
        ),
        {f"{RECORDER}test_hundred_thousand_calls_stay_within_the_bounds": "<= 1_000"},
    ),
    Mutation(
        "flight-lost-with-server",
        "the server is started again",
        "what failed is not written to the store",
        (Change(f"{FLIGHT}keeper.py", "if flights or inputs:", "if not flights and inputs:"),),
        {f"{RECORDER}test_what_is_kept_of_one_call_is_bounded": "kept is not None"},
    ),
    Mutation(
        "flight-foreign-parent",
        "a call says what it was made by",
        "a call of another app that names a parent is believed",
        (Change(f"{FLIGHT}flights.py", "return app is not None and of_app_id in app.row.ancestors", "return True"),),
        {f"{RECORDER}test_graph_follows_calls_to_what_they_called": "is not believed"},
    ),
    Mutation(
        "flight-circle",
        "calls name each other as parents",
        "the call graph goes round and round",
        (Change(f"{FLIGHT}graphs.py", "track.call_id not in seen and ", ""),),
        {f"{RECORDER}test_calls_that_name_each_other_as_parents_make_no_circle": "[first, second]"},
    ),
    Mutation(
        "flight-inputs-off",
        "arguments are not to be kept",
        "arguments of inputs that failed are kept although that is turned off",
        (
            Change(f"{FLIGHT}keeper.py", "if config.failed_input_bytes_max > 0:", "if True:"),
            Change(f"{FLIGHT}keeper.py", "is_full or size > self._config.failed_input_bytes_max", "is_full"),
        ),
        {f"{RECORDER}test_no_arguments_are_kept_where_that_is_turned_off": "is_kept"},
    ),
    Mutation(
        "flight-inputs-bound",
        "thousands of inputs of a call fail",
        "the arguments of all of them are kept",
        (
            Change(
                f"{FLIGHT}recorder.py", "len(track.kept_indexes) < KEPT_INPUTS_MAX", "len(track.kept_indexes) < 10**9"
            ),
        ),
        {f"{RECORDER}test_failures_are_listed_and_their_arguments_kept_up_to_a_bound": "KEPT_INPUTS_MAX"},
    ),
    Mutation(
        "flight-prune",
        "flights fill the disk",
        "the oldest arguments stay when there are too many bytes of them",
        (
            Change(
                "src/squall/server/store/sql_flights.py",
                "if count <= count_max and size <= bytes_max:",
                "if count <= count_max:",
            ),
        ),
        {f"{STORE}test_flights_beyond_the_limits_are_forgotten_oldest_first[sqlite]": "gone == 2 + 4"},
    ),
)
