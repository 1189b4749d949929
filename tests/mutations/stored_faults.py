"""Mutations of what a full disk costs and of what is kept: lines, calls and flights."""

from __future__ import annotations

from tests.mutations.mutation import Change, Mutation

LOG = "tests/server/test_store_log.py::"
STORE = "src/squall/server/store/"
BACKLOG = "tests/server/dispatch/durable/test_backlog.py::"
JUMPS = "tests/server/dispatch/test_clock_jumps.py::"
PEER = "tests/protocol/test_peer.py::"
GROWING = "tests/conformance/test_store_growing.py::"
RECORDER = "tests/server/dispatch/flight/test_recorder.py::"

STORED_FAULTS = (
    Mutation(
        "log-count-again",
        "disk full",
        "what stands for lines that the disk refused counts as one line when it is refused again",
        (Change(f"{STORE}log_overflow.py", "last.dropped += entry.dropped or 1", "last.dropped += 1"),),
        {
            f"{LOG}test_lines_that_a_full_disk_costs_are_counted_however_often_it_is_tried": "== 10_010",
            f"{LOG}test_what_stands_for_lines_counts_for_as_many": "== 5 + 140",
        },
    ),
    Mutation(
        "log-half-line",
        "disk full",
        "half a line stays behind, and the next ones are written behind it",
        (Change(f"{STORE}log_segments.py", "                file.truncate(size)\n", ""),),
        {f"{LOG}test_what_a_full_disk_refuses_is_there_later": "for number in range(6)]"},
    ),
    Mutation(
        "log-no-folder",
        "disk full",
        "an app whose folder could not be made is taken for one that has it",
        (
            Change(f"{STORE}log_segments.py", "            (self._folder / app).mkdir(exist_ok=True)\n", ""),
            Change(
                f"{STORE}log_segments.py",
                "            self._sizes[number] = (app, 0)\n",
                "            self._sizes[number] = (app, 0)\n            (self._folder / app).mkdir(exist_ok=True)\n",
            ),
        ),
        {f"{LOG}test_app_whose_folder_found_no_room_is_written_later": "== ["},
    ),
    Mutation(
        "log-told-twice",
        "disk full",
        "followers are told again of lines that they have read",
        (Change(f"{STORE}log.py", "self._unwritten.add(entry)", "self._overflow.add(entry)"),),
        {f"{LOG}test_followers_of_a_full_disk_read_each_line_once": "for number in range(400)]"},
    ),
    Mutation(
        "log-goes-with-its-reader",
        "disk full",
        "lines that the disk refused go with the reader who had them written and went away",
        (Change(f"{STORE}log.py", "await asyncio.shield(self._tasks.start(self._flush()))", "await self._flush()"),),
        {f"{LOG}test_reader_that_goes_away_takes_no_lines_along_that_a_full_disk_refuses": "for number in range(21)]"},
    ),
    Mutation(
        "log-overtaken",
        "lines of a container stay in order",
        "new lines of a container overtake those that went to its app's account",
        (
            Change(
                f"{STORE}log_overflow.py",
                'return [(app_id, ""), (app_id, container_id)]',
                "return [(app_id, container_id)]",
            ),
        ),
        {f"{LOG}test_lines_of_containers_without_an_account_stay_in_order": "for number in range(4)]"},
    ),
    Mutation(
        "log-not-again",
        "disk full",
        "lines that the disk refused wait for the next one",
        (Change(f"{STORE}log.py", "                self._has_entries.set()\n", ""),),
        {f"{LOG}test_lines_are_written_when_there_is_room_though_none_comes": "assert has_written()"},
    ),
    Mutation(
        "expiry-growing",
        "a call that grows expires in parts",
        "it takes more inputs when its first outputs are gone",
        (Change(f"{STORE}sql_calls.py", ".values(is_growing=False))", ".values(call_id=call_id))"),),
        {
            f"{GROWING}test_growing_call_takes_no_more_inputs_once_part_of_it_has_expired[{case}]": (
                "it took an input, and its first outputs are gone"
            )
            for case in ("sqlite-False", "sqlite-True")
        },
    ),
    Mutation(
        "clock-forward",
        "clock jumps",
        "what is kept for a week is old when the clock is set forward",
        (
            Change(
                "src/squall/server/dispatch/clock.py",
                "return min(now, self._lead + passed)",
                "return now",
            ),
        ),
        {
            f"{JUMPS}test_results_are_kept_their_time_whatever_the_clock_says[7200.0]": "are_kept == [True, True]",
            f"{JUMPS}test_what_became_of_calls_is_told_and_kept_over_a_jump[2592000.0]": "is not None",
            f"{JUMPS}test_variants_are_not_forgotten_because_the_clock_was_set": "variant_id in stage.store._variants",
        },
    ),
    Mutation(
        "clock-forward-for-good",
        "clock jumps",
        "nothing grows old any more once the clock was set forward",
        (Change("src/squall/server/dispatch/clock.py", "if passed - self._looked_at >= HELD_S:", "if False:"),),
        {
            f"{JUMPS}test_a_clock_that_stays_set_forward_is_believed_in_the_end[3600.0]": "== pytest.approx(0.0)",
            f"{JUMPS}test_results_expire_although_the_clock_was_set_right_after_the_start": "assert not await is_kept",
        },
    ),
    Mutation(
        "clock-forward-and-back",
        "clock jumps",
        "a clock that was set forward is believed where it stands when it is looked at, not where it stood all day",
        (
            Change(
                "src/squall/server/dispatch/clock.py",
                "self._lowest = min(self._lowest, now - passed)",
                "self._lowest = now - passed",
            ),
        ),
        {
            f"{JUMPS}test_a_clock_that_is_set_forward_and_back_within_a_day_makes_nothing_older[7]": "lag_s == ",
            f"{JUMPS}test_a_jump_that_nobody_saw_begin_is_not_believed_at_once": "30 * DAY_S",
        },
    ),
    Mutation(
        "disk-full-internal",
        "disk full",
        "what a full disk keeps a request from doing is told as a mistake of ours",
        (
            Change(
                "src/squall/protocol/errors.py",
                "return isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT)",
                "return False",
            ),
        ),
        {
            f"{PEER}test_request_that_finds_a_full_disk_says_so": "with pytest.raises(PlatformError",
            "tests/server/api/test_http.py::test_request_that_finds_a_full_disk_says_so": "status_code == 429",
        },
    ),
    Mutation(
        "backlog-ending-pages",
        "spawned inputs beyond the memory of the server",
        "inputs that only end are read one by one while the memory is full",
        (
            Change(
                "src/squall/server/dispatch/durable/backlog.py",
                "PAGE_BYTES if is_ending else max(1, min(PAGE_BYTES, self._bytes_left))",
                "max(1, min(PAGE_BYTES, self._bytes_left))",
            ),
        ),
        {
            f"{BACKLOG}test_what_ends_with_its_app_is_read_in_whole_pages_however_full_the_memory_is": (
                "assert pages <= 60 / backlog.PAGE_INPUTS + 2"
            )
        },
    ),
    Mutation(
        "flight-forgotten",
        "calls beyond the bounds of the flight recorder",
        "a call that was forgotten meanwhile is written, as one without inputs",
        (
            Change(
                "src/squall/server/dispatch/flight/keeper.py",
                "        tracks = [track for track in tracks if track.bytes]  # others were forgotten meanwhile\n",
                "",
            ),
        ),
        {
            f"{RECORDER}test_call_that_is_forgotten_while_the_store_is_asked_is_not_written_over_what_there_is": (
                "kept.call_id) == kept"
            )
        },
    ),
    Mutation(
        "flight-dropped-uncounted",
        "disk full",
        "calls that are forgotten before they could be written are not counted",
        (
            Change(
                "src/squall/server/dispatch/flight/recorder.py",
                "                self.dropped_calls += 1\n",
                "                pass\n",
            ),
        ),
        {
            f"{RECORDER}test_calls_forgotten_before_they_could_be_written_are_counted_and_the_cause_is_said_once": (
                "dropped_calls == 20"
            )
        },
    ),
    Mutation(
        "replay-lease",
        "server killed while a call is replayed",
        "the app of a replay is not taken up again",
        (Change("src/squall/cli/call_replay.py", "        client.keep_app(record)\n", ""),),
        {
            "tests/cli/test_call_replay.py::"
            "test_app_of_a_replay_outlives_the_server_that_is_lost_while_its_functions_are_made": (
                "assert app_id in server.apps"
            )
        },
    ),
)
