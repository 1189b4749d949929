"""Mutations of what the server keeps of volumes, and of what it throws away beside changes, budgets and clocks."""

from __future__ import annotations

from tests.mutations.mutation import Change, Mutation

BUDGET = "src/squall/server/dispatch/client/blob_budget.py"
BUDGETS = "tests/server/dispatch/client/test_blob_budget.py::"
GARBAGE = "tests/server/dispatch/asset/test_volume_garbage.py::"
ASSET = "src/squall/server/dispatch/asset/"

VOLUME_KEPT_FAULTS = (
    Mutation(
        "volume-rollback-beside-gc",
        "garbage is collected in the middle of a rollback",
        "the newest version of a volume has a root that is gone: nothing can be done with the volume any more",
        (
            Change(
                f"{ASSET}volumes.py",
                "        async with self.garbage.untouched():\n            earlier =",
                "        if True:\n            earlier =",
            ),
        ),
        {
            f"{GARBAGE}test_a_change_that_garbage_is_collected_beside_leaves_a_volume_that_can_be_read"
            "[VolumeRollback]": "assert isinstance(changed, wire.VolumeCommitted)"
        },
    ),
    Mutation(
        "volume-gc-starves",
        "commits that come one after the other",
        "a collection of garbage waits until there is no commit for a moment, and holds up all others meanwhile",
        (
            Change(
                f"{ASSET}volume_garbage.py",
                "            await self._changed.wait_for(lambda: not self._is_taking)\n            self._naming += 1",
                "            self._naming += 1",
            ),
        ),
        {
            f"{GARBAGE}test_commits_that_come_one_after_the_other_do_not_keep_garbage_from_being_collected": (
                "assert order == []"
            )
        },
    ),
    Mutation(
        "volume-clock-jumps",
        "clock set forward",
        "the history of all volumes is thrown away",
        (Change(f"{ASSET}volume_garbage.py", "said, self._age.now(), held)", "said, self._clock.now(), held)"),),
        {
            f"{GARBAGE}test_a_clock_that_is_set_forward_makes_no_version_old_for_a_day": (
                "assert (await collect(client, volume_id)).version_count == 0"
            )
        },
    ),
    Mutation(
        "volume-gc-after-restart",
        "garbage is collected as soon as the server is back",
        "a version that a container of a node writes on goes before the node is back and can say so",
        (Change(f"{ASSET}volume_garbage.py", "self._began_at >= UNHEARD_S", "self._began_at >= 0"),),
        {
            f"{GARBAGE}test_for_an_hour_after_the_server_has_started_versions_stay_that_nodes_may_need": (
                "assert (gone.version_count, gone.unheard_count) == (1, 3)"
            )
        },
    ),
    Mutation(
        "budget-deletes-what-was-told",
        "app over its budget, and a block that somebody was just told is here",
        "it is deleted, and the commit that names it has a file without content",
        (
            Change(
                BUDGET,
                "if not is_named and await self._blobs.delete_untold(sha256):",
                "if not is_named and (await self._blobs.delete(sha256) or True):",
            ),
        ),
        {
            f"{BUDGETS}test_what_somebody_was_told_of_is_not_deleted_to_make_room[True]": (
                "await missing(stage.client, first) == (() if is_told else (first,))"
            )
        },
    ),
    Mutation(
        "budget-counts-volumes",
        "app that writes to volumes for a long time",
        "what is in them counts for the app, until it may put nothing any more",
        (
            Change(
                f"{ASSET}volumes.py",
                "        self.on_named(frozenset(",
                "        frozenset((",
            ),
        ),
        {f"{BUDGETS}test_what_is_in_a_volume_counts_for_the_app_no_more_and_stays": "len(blocks) == 12"},
    ),
    Mutation(
        "named-version-forgotten",
        "function that mounts an old version of a volume",
        "the version goes with others of its age, and the function cannot be started any more",
        (Change(f"{ASSET}volume_mounts.py", "            for spec in self.specs()\n", "            for spec in ()\n"),),
        {
            "tests/server/dispatch/asset/test_volume_mounts.py::"
            "test_a_version_that_a_function_names_is_there_and_stays": "for one in history.versions) == [1, 3]"
        },
    ),
    Mutation(
        "blob-not-synced",
        "loss of power after a block was put",
        "its name is there, and its content is not",
        (Change("src/squall/server/store/blob.py", "            os.fsync(file.fileno())\n", ""),),
        {
            "tests/conformance/test_blobs.py::"
            "test_content_and_its_name_are_on_the_disk_when_a_put_has_returned": "done[-3:] =="
        },
    ),
    Mutation(
        "queue-put-not-synced",
        "loss of power after an item was put",
        "it was acknowledged, and is gone",
        (
            Change(
                "src/squall/server/store/sql_queues.py",
                "self._database.write(_put, write)",
                "self._database.write(_put, write, is_waiting=False)",
            ),
        ),
        {
            "tests/server/test_store_sync.py::"
            "test_what_is_put_into_queues_and_volumes_waits_for_the_disk_and_dicts_do_not": "waited(store.queues.put("
        },
    ),
)
