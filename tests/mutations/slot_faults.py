"""Mutations of network slots: what is watched in those of clones, and how many are kept."""

from __future__ import annotations

from tests.mutations.mutation import Change, Mutation

SLOTS = "tests/kernel/test_clone_slots.py::"
HOSTILE = "tests/kernel/test_hostile_forks.py::"
STOCK = "tests/runtime/test_network_stock.py::"
POOL = "src/squall/runtime/network/pool.py"

SLOT_FAULTS = (
    Mutation(
        "wire-cut",
        "descriptors that the kernel drops",
        "an answer whose descriptors are all dropped takes those of the next",
        (Change("src/squall/runtime/wire.py", "if descriptors or is_cut:", "if descriptors:"),),
        {
            "tests/runtime/test_wire.py::test_descriptors_that_the_kernel_drops_are_not_taken_from_the_next_frame[0]": (
                "assert frames == "
            )
        },
    ),
    Mutation(
        "wire-lost-start",
        "a start whose answer has lost its descriptors",
        "the container goes on, and nobody reads what it prints",
        (Change("src/squall/runtime/client.py", "            await self.remove(container_id)\n", ""),),
        {
            "tests/runtime/test_client.py::test_container_whose_output_is_lost_at_its_start_is_removed[start]": (
                "assert not starting.done()"
            )
        },
    ),
    Mutation(
        "slot-watch",
        "a slot in which a clone has changed something",
        "nobody asks whether a slot is as it was made",
        (Change(POOL, "if not is_spoiled and (stock.owner is None or self._is_as_made(slot.name)):", "if True:"),),
        {
            f"{SLOTS}test_slot_in_which_anything_was_changed_is_given_to_nobody[commands0]": (
                "assert pool.free_of(OWNER) == 0"
            )
        },
    ),
    Mutation(
        "slot-way-told",
        "a slot that a fork may have entered, which says nothing more",
        "its container's next one is given it",
        (
            Change(
                "src/squall/runtime/clones.py",
                "if failure is None or clone.is_joined or _is_gone(template):",
                "if True:",
            ),
        ),
        {
            f"{HOSTILE}test_clone_that_vanishes_in_its_network_says_that_it_may_be_there": (
                "assert type(failed.value) is JoinFailure"
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
                "max(self._peak.at(now_s) - self._lent, self.minimum)",
                "self.minimum",
            ),
        ),
        {f"{STOCK}test_what_a_burst_used_is_kept_for_a_while": "assert stock.wanted(0.0) == 60"},
    ),
    Mutation(
        "slot-settings",
        "what is changed of an interface",
        "its flags are all that is looked at",
        (
            Change(
                "src/squall/runtime/network/rtnl.py",
                "LinkState(index, flags & ~_IFF_BY_ITSELF, frozenset(attributes))",
                "LinkState(index, flags & ~_IFF_BY_ITSELF, frozenset())",
            ),
        ),
        {
            f"{SLOTS}test_slot_in_which_anything_was_changed_is_given_to_nobody[commands13]": (
                "assert pool.free_of(OWNER) == 0"
            )
        },
    ),
    Mutation(
        "slot-retired",
        "slots that are retired while they are in use",
        "they go back to their owner",
        (
            Change(
                POOL, "self._stock_of[name] = self._strangers", "self._stock_of[name] = self._stock(stock.owner, False)"
            ),
        ),
        {f"{SLOTS}test_retired_slots_are_given_to_nobody[id_range0]": "assert (pool.free_of(OWNER)"},
    ),
    Mutation(
        "range-hold",
        "user namespaces of a range with containers",
        "they are closed when many others are used",
        (
            Change(
                "src/squall/runtime/id_ranges.py",
                "if id_range not in self._hold_counts and id_range != kept:",
                "if id_range != kept:",
            ),
        ),
        {
            "tests/runtime/test_id_ranges.py::"
            "test_namespaces_of_a_range_with_containers_stay_however_many_there_are": "assert (namespaces.get(held)"
        },
    ),
    Mutation(
        "waits-told",
        "the end of a parked clone",
        "nobody is told of it",
        (
            Change(
                "src/squall/runtime/forking.py",
                "if is_known and (clone.is_begun or not entry.removals):",
                "if is_known and clone.is_begun:",
            ),
        ),
        {
            "tests/kernel/test_made_ahead.py::"
            "test_end_of_one_that_waits_is_told_and_it_is_there_until_it_is_removed[True]": "await until("
        },
    ),
    Mutation(
        "slot-bound",
        "slots of many owners",
        "nobody counts the free slots of all owners",
        (Change(POOL, "if self._owned_free_count() > OWNED_FREE_MAX:", "if False:"),),
        {f"{SLOTS}test_owner_that_waits_longest_loses_its_slots_when_all_have_too_many": "await settle("},
    ),
    Mutation(
        "slot-too-few",
        "a process without descriptors is given fewer namespaces than were sent",
        "what was left over counts as being made for ever",
        (
            Change(
                POOL,
                "            for name in names:\n"
                "                self._fail(stock, name, failure)\n"
                "                self._end_one(stock)\n",
                "",
            ),
        ),
        {
            f"{SLOTS}test_who_is_given_too_few_namespaces_tells_some_and_goes_on"
            "[spare0-fewer namespaces came than were asked for]": "assert not unanswered"
        },
    ),
)
