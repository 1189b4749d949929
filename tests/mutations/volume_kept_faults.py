"""Mutations of what the server keeps of volumes, and of what it throws away beside changes, budgets and clocks."""

from __future__ import annotations

from tests.mutations.mutation import Change, Mutation

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
)
