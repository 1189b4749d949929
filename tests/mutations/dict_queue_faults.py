"""Mutations of what is promised of dicts and queues: nothing is lost, doubled, taken by nobody or seen too late."""

from __future__ import annotations

from tests.mutations.mutation import Change, Mutation

ASSET = "src/squall/server/dispatch/asset/"
STORE = "src/squall/server/store/"
DICTS = "tests/server/dispatch/asset/test_dicts.py::"
QUEUES = "tests/server/dispatch/asset/test_queues.py::"
KEPT_DICTS = "tests/conformance/test_store_dicts.py::"
STORE_QUEUES = "tests/conformance/test_store_queues.py::"
LOCK = f"{KEPT_DICTS}test_of_many_who_want_a_lock_one_gets_it_and_gets_it_when_it_asks_again[sqlite]"
STALE = f"{DICTS}test_a_read_that_was_under_way_when_another_wrote_is_not_remembered"
AGAIN = f"{STORE_QUEUES}test_a_request_that_comes_again_puts_nothing_more_and_takes_the_same[sqlite]"
BACK = f"{QUEUES}test_what_was_taken_for_one_who_is_gone_is_his_when_he_comes_back"
SDK_DICT = "tests/sdk/test_dict.py::"
SDK_QUEUE = "tests/sdk/test_queue.py::"

DICT_QUEUE_FAULTS = (
    Mutation(
        "cleared-takes-along",
        "puts while what was cleared out is purged",
        "what was put since goes, too",
        (
            Change(
                f"{STORE}sql_assets.py",
                '    emptied = {"content_id": f"{asset_id}.{generation}"}\n',
                '    emptied = {"content_id": f"{asset_id}.{min(generation, 1)}"}\n',
            ),
        ),
        {
            f"{KEPT_DICTS}test_what_was_cleared_out_goes_some_at_a_time_and_nothing_that_came_since[sqlite]": (
                'count("di-1", 100) == 1'
            )
        },
    ),
    Mutation(
        "cleared-twice",
        "a clear that is asked again",
        "what the dict remembers to have done is purged with what was in it: asked again it is cleared again",
        (
            Change(
                f"{STORE}sql_assets.py",
                "if kind.startswith(_CLEARED) and column is ASSET_ANSWERS.c.asset_id:",
                "if False:",
            ),
        ),
        {
            f"{KEPT_DICTS}test_what_was_cleared_out_goes_some_at_a_time_and_nothing_that_came_since[sqlite]": (
                'count("di-1", 100) == 1'
            )
        },
    ),
    Mutation(
        "lock-of-a-stranger",
        "a lock that is asked for again",
        "who holds it is told that somebody else does",
        (Change(f"{STORE}sql_dicts.py", "results.append(put_id == write.request_id)", "results.append(False)"),),
        {LOCK: 'lock(b"k", "rq-0")'},
    ),
    Mutation(
        "pop-forgets",
        "a pop that is asked again",
        "what it took is not remembered",
        (
            Change(
                f"{STORE}sql_dicts.py",
                "remember(connection, {asked: Answer(entry.key, entry.value, entry.blob_sha256)}, taking.now)",
                "remember(connection, {}, taking.now)",
            ),
        ),
        {f"{KEPT_DICTS}test_what_is_taken_out_is_gone_and_told_again_to_who_took_it[sqlite]": 'again.value == b"v"'},
    ),
    Mutation(
        "dict-orphan",
        "an entry that comes after its dict was deleted",
        "it is kept for good",
        (
            Change(
                f"{STORE}sql_dicts.py",
                "        content_id = contents.get(write.dict_id)\n",
                "        content_id = contents.get(write.dict_id, write.dict_id)\n",
            ),
        ),
        {f"{KEPT_DICTS}test_nothing_is_put_into_a_dict_that_is_deleted[sqlite]": '["not_found"] * 4'},
    ),
    Mutation(
        "dict-stale-read",
        "a read that is under way while another writes",
        "what it saw stays in memory",
        (Change(f"{ASSET}dict_cache.py", "            reading.is_stale = True\n", "            pass\n"),),
        {STALE: 'await cache.get(b"k") == b"new"'},
    ),
    Mutation(
        "dict-expires-at-once",
        "a server that starts with a wrong clock",
        "entries go in its first hour",
        (Change(f"{ASSET}dicts.py", "self._began_at >= WAITED_S", "self._began_at >= 0"),),
        {f"{DICTS}test_a_server_lets_nothing_expire_in_its_first_hour": "await cache.count() == 1"},
    ),
    Mutation(
        "dict-read-unnoted",
        "an entry that is only read",
        "it expires a week after it was put",
        (Change(f"{ASSET}dicts.py", "            await self._store.use(used)\n", "            pass\n"),),
        {f"{DICTS}test_entries_expire_a_week_after_they_were_used_last": '[None, b"v", b"v", b"w"]'},
    ),
    Mutation(
        "key-of-two-forms",
        "a key that was put together",
        "it is another one than the same key written out",
        (Change("src/squall/sdk/_plain_key.py", "    pickler.fast = True\n", ""),),
        {f"{SDK_DICT}test_plain_keys_are_the_same_bytes_however_they_came_about": "encode_key((text, text))"},
    ),
    Mutation(
        "queue-put-doubled",
        "a put that is asked again",
        "its items are there twice",
        (
            Change(
                f"{STORE}sql_queues.py",
                "    sql_answers.remember(connection, {asked: Answer()}, write.now)\n",
                "",
            ),
        ),
        {AGAIN: 'await take(store, 9) == [b"b"]'},
    ),
    Mutation(
        "queue-get-lost",
        "a get that is asked again",
        "it takes other items, and the first are lost",
        (Change(f"{STORE}sql_queues.py", "(connection, {asked: answer}, taking.now)", "(connection, {}, taking.now)"),),
        {AGAIN: 'take(store, 1, "rq-2")'},
    ),
    Mutation(
        "queue-waiter-passed",
        "somebody who does not wait, while others do",
        "he gets what they wait for",
        (
            Change(
                f"{ASSET}lines.py",
                "        if not self._waiters:\n            result = await",
                "        if timeout_s <= 0 or not self._waiters:\n            result = await",
            ),
        ),
        {f"{QUEUES}test_a_full_partition_lets_those_wait_who_put_and_wakes_them_in_order": 'not await there.put(b"z")'},
    ),
    Mutation(
        "queue-large-put-passed",
        "a large put that waits for room",
        "a small one behind it takes the room",
        (Change(f"{ASSET}queues.py", "Line(False, clock, tasks, at_once=1)", "Line(False, clock, tasks, at_once=9)"),),
        {f"{QUEUES}test_a_full_partition_lets_those_wait_who_put_and_wakes_them_in_order": "(False, False)"},
    ),
    Mutation(
        "queue-taken-for-nobody",
        "a client that is gone when its item is taken",
        "the item is lost",
        (
            Change(
                f"{ASSET}lines.py",
                "            change.add_done_callback(lambda _: unheard() if self._has_result(change) else None)\n",
                "",
            ),
        ),
        {f"{QUEUES}test_what_was_taken_for_one_who_stays_away_is_put_back": 'await jobs.get(9) == [b"a", b"b"]'},
    ),
    Mutation(
        "queue-given-back-at-once",
        "a client that comes back for its item",
        "another one has got it too",
        (Change(f"{ASSET}queues.py", "call_later(UNHEARD_S, overdue)", "call_later(0.0, overdue)"),),
        {BACK: 'await jobs.get() == [b"b"]'},
    ),
    Mutation(
        "queue-two-commits",
        "a get that waits for an item",
        "it waits for the disk twice",
        (
            Change(
                f"{ASSET}queues.py",
                "await spot.gets.serve_with(self._store.put(write), len(write.values))",
                "await self._store.put(write)\n            spot.gets.serve()",
            ),
        ),
        {f"{SDK_QUEUE}test_an_item_and_who_waited_for_it_share_a_commit": "commits == [2]"},
    ),
    Mutation(
        "queue-given-up-keeps",
        "a get that is interrupted",
        "what it has taken is lost",
        (
            Change(
                "src/squall/sdk/queue.py",
                '                client.ask("QueueGiveBack", QueueGiveBack(queue_id, request_id))\n',
                "",
            ),
        ),
        {f"{SDK_QUEUE}test_an_item_that_cannot_be_read_here_stays": "pytest.raises"},
    ),
)
