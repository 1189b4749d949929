"""Mutations of schedules: run once, one at a time, and not forgotten; and of what is served."""

from __future__ import annotations

from tests.mutations.mutation import Change, Mutation

TESTS = "tests/server/dispatch/app/test_schedules.py::"
FOLLOWER = "src/squall/server/dispatch/app/schedules.py"
PLAN = "src/squall/server/schedule/plan.py"

SCHEDULE_FAULTS = (
    Mutation(
        "schedule-call-id",
        "server killed while a schedule is due",
        "a firing's call has an id of its own each time",
        (Change(FOLLOWER, "call_id = plan.call_id_of(entry.row)", 'call_id = new_id("fc")'),),
        {f"{TESTS}test_server_that_ends_between_call_and_row_runs_it_once": "len(runs_of(stage).inputs) == 1"},
    ),
    Mutation(
        "schedule-at-once",
        "schedule is due while its last run goes on",
        "runs of one schedule join each other",
        (
            Change(
                FOLLOWER,
                "            if not entry.row.skipped_count:\n",
                "            entry.row = replace(entry.row, last_outcome=UNKNOWN)\n"
                "        if entry.row.is_running:\n"
                "            if not entry.row.skipped_count:\n",
            ),
        ),
        {f"{TESTS}test_run_that_goes_on_is_not_joined_by_another": "(RUNNING, 2)"},
    ),
    Mutation(
        "schedule-catch-up",
        "server was down when schedules were due",
        "every time that was missed is run",
        (Change(PLAN, "max(now, due_at))", "due_at)"),),
        {f"{TESTS}test_what_was_missed_is_caught_up_with_once[schedule0]": "len(runs_of(stage).inputs) == 1"},
    ),
    Mutation(
        "schedule-deploy",
        "deploys",
        "a deploy counts a cron anew",
        (
            Change(
                PLAN,
                "            return replace(known, version=version)",
                "            return replace(known, version=version, next_at=next_run(schedule, now, now + 86_400.0))",
            ),
        ),
        {f"{TESTS}test_deploy_begins_periods_anew_and_moves_no_cron": "cron.next_at == cron_due_at"},
    ),
    Mutation(
        "schedule-clock-back",
        "the clock is set back",
        "periods wait until the clock is where it was",
        (Change(FOLLOWER, "            self._tasks.start(self._correct_all())\n", "            pass\n"),),
        {f"{TESTS}test_clock_set_back_does_not_hold_up_a_period": "len(runs_of(stage).inputs) == 2"},
    ),
    Mutation(
        "serve-edit-meanwhile",
        "a file is edited while it is loaded",
        "files are watched from when they were loaded, not from when they were read",
        (
            Change(
                "src/squall/cli/watch.py",
                "self._files: dict[str, Stamp | None] = dict(files)",
                "self._files: dict[str, Stamp | None] = {path: _stamp(path) for path in files}",
            ),
        ),
        {"tests/cli/test_watch.py::test_change_between_reading_and_watching_is_told": ".changes() == [str("},
    ),
    Mutation(
        "schedule-fold",
        "clocks go back in a time zone",
        "times of the first of two equal hours are due in the second",
        (Change("src/squall/protocol/cron.py", "            if at > after:\n", "            if at:\n"),),
        {"tests/protocol/test_cron.py::test_second_of_two_equal_hours_is_not_the_first_again": "due == at("},
    ),
    Mutation(
        "cron-set-back",
        "a clock is set back to the middle of an hour",
        "what that brings again is stepped over",
        (Change("src/squall/protocol/cron.py", "        if change is not None:\n", "        if False:\n"),),
        {
            "tests/protocol/test_cron.py::test_clocks_that_are_set_forward_and_back"
            "[50 */2 * * *-Pacific/Chatham-2026-04-04 13:20-expected14]": "== expected"
        },
    ),
)
