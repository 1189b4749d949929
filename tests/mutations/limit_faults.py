"""Mutations of what holds containers to their share, ends what nobody wants, and brings back what was killed."""

from __future__ import annotations

from tests.mutations.mutation import Change, Mutation

ABUSE = "tests/e2e/test_fault_abuse.py::"
CLIENT = "tests/e2e/test_fault_client.py::"
RESTART = "tests/server/dispatch/function/test_restart.py::"
SPAWNER = "tests/kernel/test_spawner.py::"
SERVER = "tests/e2e/test_fault_server.py::"
_FLUSH = "        self._outbox.flush()\n"
_READY = '        if self._ready is not None:\n            self._link.send("Ready", self._ready)\n'

LIMIT_FAULTS = (
    # The tests fork at most 400 processes that end by themselves, and the sandbox holds all of them to 4,000.
    Mutation(
        "fork-bomb",
        "fork bomb",
        "a container may have ten times as many processes",
        (Change("src/squall/agent/launch.py", "pids_max=PIDS_MAX,", "pids_max=10 * PIDS_MAX,"),),
        {f"{ABUSE}test_forks_stop_at_the_limit_and_the_container_can_be_ended": "<= 32_768"},
    ),
    Mutation(
        "fork-bomb-v1",
        "fork bomb",
        "twice the limit is written (cgroup v1)",
        (
            Change(
                "src/squall/runtime/cgroup/v1.py",
                "else str(limits.pids_max))],",
                "else str(2 * limits.pids_max))],",
            ),
        ),
        {
            "tests/kernel/test_container.py::test_bounded_fork_bomb_is_stopped_and_can_be_killed": "== PIDS_MAX",
        },
    ),
    Mutation(
        "fork-bomb-v2",
        "fork bomb",
        "the limit is not written (cgroup v2)",
        (
            Change(
                "src/squall/runtime/cgroup/v2.py",
                '        ("pids.max", "max" if limits.pids_max is None else str(limits.pids_max)),\n',
                "",
            ),
        ),
        {"tests/runtime/test_cgroup.py::test_limits_become_v2_writes": '"pids.max": "7"'},
    ),
    Mutation(
        "endless-output",
        "endless output",
        "lines are dropped without a word",
        (Change("src/squall/agent/logs.py", "        if left_out:\n", "        if left_out < 0:\n"),),
        {f"{ABUSE}test_endless_output_is_dropped_aloud_and_costs_the_server_no_memory": "assert dropped"},
    ),
    Mutation(
        "endless-output-count",
        'endless output: visible "dropped N lines"',
        "the number of lines dropped is wrong",
        (Change("src/squall/agent/flood.py", "left_out = self._line_count - ", "left_out = 1 + self._line_count - "),),
        {f"{ABUSE}test_endless_output_is_dropped_aloud_and_costs_the_server_no_memory": "== 100 * 1024"},
    ),
    Mutation(
        "endless-output-memory",
        "endless output: bounded memory",
        "a container may print as fast as it likes",
        (Change("src/squall/agent/logs.py", "        return not pipe.is_over\n", "        return True\n"),),
        {f"{ABUSE}test_endless_output_is_dropped_aloud_and_costs_the_server_no_memory": "assert dropped"},
    ),
    Mutation(
        "flood-end",
        "the end of a flood is kept",
        "what comes over the rate is only counted",
        (Change("src/squall/agent/flood.py", "[-END_BYTES_MAX:]", "[:END_BYTES_MAX]"),),
        {"tests/agent/test_logs.py::test_end_of_a_flood_comes_before_what_comes_after_it[asyncio]": "entries[-1:]"},
    ),
    Mutation(
        "flood-before-result",
        "the end of a flood comes before the result",
        "who floods is not caught up with",
        (
            Change(
                "src/squall/agent/logs.py",
                "            if pipe.flood is not None and self._has_room_for_end():\n                self._end_flood",
                "            if False:\n                self._end_flood",
            ),
        ),
        {"tests/agent/test_logs.py::test_end_of_a_flood_comes_before_what_comes_after_it[asyncio]": "entries[-1:]"},
    ),
    Mutation(
        "flushed-lost",
        "flushed text of a container that dies is a line",
        "what has no end of line goes with its container",
        (
            Change(
                "src/squall/agent/logs.py",
                "self._now())\n        self._end_unfinished(source, pipe)\n",
                "self._now())\n",
            ),
        ),
        {"tests/agent/test_logs.py::test_text_that_was_flushed_before_a_container_died_is_a_line[asyncio]": "assert"},
    ),
    Mutation(
        "log-batch-bytes",
        "batches of lines fit a frame",
        "lines are counted, and what is in them is not",
        (Change("src/squall/protocol/log_batches.py", "batch_bytes < BATCH_BYTES and ", ""),),
        {
            "tests/server/test_store_log.py::test_batches_fit_a_frame_whatever_is_in_the_lines[escape]": "assert",
            "tests/agent/test_logs.py::test_batches_fit_a_frame_whatever_is_in_the_lines[asyncio]": "assert",
        },
    ),
    Mutation(
        "passing-kept",
        "what passes is not kept",
        "each state of a progress bar is written to the files",
        (
            Change(
                "src/squall/server/store/log.py",
                "            if entry.stage == PASSING:\n                for follower in self._followers:\n"
                "                    follower.add(entry)\n                continue\n",
                "",
            ),
        ),
        {"tests/server/test_store_log.py::test_what_passes_goes_to_followers_that_ask_and_is_not_kept": "assert"},
    ),
    Mutation(
        "overflow-source",
        "lines of one source do not push out those of another",
        "the last lines kept of a container are of all sources together",
        (
            Change(
                "src/squall/server/store/log_overflow.py",
                ".setdefault(entry.source, _Last())",
                '.setdefault("", _Last())',
            ),
        ),
        {
            "tests/server/test_store_log.py::"
            "test_more_of_one_source_than_can_be_written_takes_nothing_of_the_other": "assert"
        },
    ),
    Mutation(
        "ctrl-c",
        "Ctrl-C in the client (containers gone in 2 s)",
        "an interrupted program leaves its app to the server's grace time",
        (
            Change(
                "src/squall/sdk/_run.py",
                "            if self._is_created and not end.goes_on:\n",
                "            if self._is_created and not end.goes_on and not is_aborted:\n",
            ),
        ),
        {f"{CLIENT}test_ctrl_c_ends_app_and_containers_within_two_seconds": "squall.wait_no_processes(2.0)"},
    ),
    Mutation(
        "sigterm",
        "Ctrl-C in the client (containers gone in 2 s)",
        "SIGTERM ends the command on the spot",
        (
            Change(
                "src/squall/cli/main.py",
                "if signal.getsignal(number) is signal.SIG_DFL:",
                "if signal.getsignal(number) is signal.SIG_IGN:",
            ),
        ),
        {f"{CLIENT}test_sigterm_ends_app_and_containers_as_ctrl_c_does": "squall.wait_no_processes(2.0)"},
    ),
    Mutation(
        "client-killed",
        "client killed -9",
        "the app of a client that is gone lives on",
        (Change("src/squall/server/dispatch/client/clients.py", "        self._apps.released_by(client)\n", ""),),
        {
            f"{CLIENT}test_containers_of_a_killed_client_end_after_the_grace_time": "wait_no_processes(APP_GRACE_S +",
        },
    ),
    Mutation(
        "server-killed",
        "server killed -9 in mid-map",
        "the client does not send again what had no output yet",
        (
            Change(
                "src/squall/sdk/_calls.py",
                "            frames.append(put_inputs(self.call_id, inputs[start : start + 250]))\n",
                "            frames.append(put_inputs(self.call_id, inputs[:0]))\n",
            ),
        ),
        {f"{SERVER}test_map_survives_its_server": "running.wait(60)"},
    ),
    Mutation(
        "server-killed-adoption",
        "server killed -9 in mid-map",
        "the next server ends the containers of the one before",
        (
            Change(
                "src/squall/agent/containers.py",
                "if status.labels.get(KIND_LABEL) == FUNCTION_KIND and",
                "if status.labels.get(KIND_LABEL) != FUNCTION_KIND and",
            ),
        ),
        {f"{SERVER}test_map_survives_its_server": "late <= before"},
    ),
    Mutation(
        "exactly-once",
        "server killed -9 in mid-map: every result exactly once",
        "the server takes an input that it has an output of for a new one",
        (
            Change(
                "src/squall/server/dispatch/function/dispatcher.py",
                "if index in inputs or (done is not None and index in done):",
                "if index in inputs:",
            ),
        ),
        {f"{RESTART}test_map_goes_on_after_a_restart_with_every_result_once": "call.copies == 0"},
    ),
    Mutation(
        "run-once-guest",
        "server killed -9 in mid-map: every input runs once",
        "a guest says that it may have inputs before it says what ended meanwhile",
        (
            Change(
                "src/squall/guest/inbox.py",
                f"{_FLUSH}{_READY}",
                f"{_READY}{_FLUSH}",
            ),
        ),
        {"tests/guest/test_inbox.py::test_reconnect_delivers_what_could_not_be_sent": '["Outputs", "Ready"]'},
    ),
    Mutation(
        "exactly-once-client",
        "server killed -9 in mid-map: every result exactly once",
        "the client takes an output that it has already",
        (
            Change(
                "src/squall/sdk/_calls.py",
                "unanswered.pop(output.number, None)",
                "unanswered.get(output.number)",
            ),
        ),
        {"tests/sdk/test_calls.py::test_outputs_that_come_again_after_a_reconnect_are_given_once": "call.ready]"},
    ),
    Mutation(
        "spawner-killed",
        "server or spawner killed -9",
        "a spawner that has died is not replaced",
        (
            Change(
                "src/squall/agent/lasting_runtime.py",
                "if self._inner is not None and self._inner.is_lost:",
                "if self._inner is None and False:",
            ),
            Change(
                "src/squall/agent/lasting_runtime.py",
                "            if self._inner is inner:\n                self._inner = None\n",
                "",
            ),
        ),
        {f"{SERVER}test_idle_server_goes_on_after_its_spawner_was_killed": "ended.code == 0"},
    ),
    Mutation(
        "spawner-died-early",
        "server or spawner killed -9",
        "a spawner that is killed before it listens counts as one that cannot be started",
        (Change("src/squall/runtime/spawner.py", "return 1 if line else EXIT_DIED", "return 1"),),
        {
            f"{SPAWNER}test_spawner_that_is_killed_again_and_again_before_it_listens_is_started_again": (
                "assert not opening.done()"
            )
        },
    ),
    Mutation(
        "spawner-asked-on",
        "server or spawner killed -9",
        "an agent that begins asks two spawners and no third",
        (
            Change(
                "src/squall/agent/lasting_runtime.py",
                "deadline = loop.time() + PATIENCE_S",
                "deadline = loop.time()",
            ),
        ),
        {f"{SPAWNER}test_agent_that_begins_asks_until_a_spawner_lives_to_answer": "assert listed == []"},
    ),
)
