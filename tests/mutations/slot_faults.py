"""Mutations of network slots: what is watched in those of clones, and how many are kept."""

from __future__ import annotations

from tests.mutations.mutation import Change, Mutation

SLOTS = "tests/kernel/test_clone_slots.py::"
STOCK = "tests/runtime/test_network_stock.py::"
POOL = "src/squall/runtime/network/pool.py"

SLOT_FAULTS = (
    Mutation(
        "slot-watch",
        "a slot in which a clone has changed something",
        "nobody asks whether a slot is as it was made",
        (Change(POOL, "if stock.owner is None or self._is_as_made(slot.name):", "if True:"),),
        {
            f"{SLOTS}test_slot_in_which_anything_was_changed_is_given_to_nobody[commands0]": (
                "assert pool.free_of(OWNER) == 0"
            )
        },
    ),
    Mutation(
        "slot-strangers",
        "slots of clones that were there before the agent",
        "a slot of clones is kept for containers after a restart",
        (
            Change(
                POOL,
                "self._strangers if name.is_owned else self._stock(None, name.is_blocked)",
                "self._stock(None, name.is_blocked)",
            ),
        ),
        {f"{SLOTS}test_slots_of_living_clones_are_adopted_and_then_kept_for_nobody": "await settle("},
    ),
    Mutation(
        "slot-burst",
        "slots after a burst",
        "only the minimum is kept",
        (
            Change(
                "src/squall/runtime/network/stock.py",
                "kept = 0 if self._is_dropped else self._peak.at(now_s) - self._lent",
                "kept = 0",
            ),
        ),
        {f"{STOCK}test_what_a_burst_used_is_kept_for_a_while": "assert stock.wanted(0.0) == 60"},
    ),
    Mutation(
        "slot-bound",
        "slots of many owners",
        "nobody counts the free slots of all owners",
        (Change(POOL, "if self._owned_free_count() > OWNED_FREE_MAX:", "if False:"),),
        {f"{SLOTS}test_owner_that_waits_longest_loses_its_slots_when_all_have_too_many": "await settle("},
    ),
)
