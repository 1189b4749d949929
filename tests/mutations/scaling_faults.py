"""Mutations of what starts and ends containers, and of who gets the next place and the next turn."""

from __future__ import annotations

from tests.mutations.mutation import Change, Mutation

AUTOSCALER = "tests/server/autoscaler/test_autoscaler.py::"
PLACES = "tests/server/dispatch/fleet/test_fair_places.py::"
SIMULATION = "tests/simulation/test_scaling.py::test_limits_hold_and_everything_ends_whatever_happens"
DISPATCHER = "tests/server/dispatch/function/test_dispatcher.py::"

SCALING_FAULTS = (
    Mutation(
        "scaling-starting",
        "autoscaler storms",
        "containers that are starting do not count",
        (
            Change(
                "src/squall/server/autoscaler/__init__.py",
                "return load.busy + len(load.idle) + load.starting + load.pending",
                "return load.busy + len(load.idle) + load.pending",
            ),
        ),
        {f"{SIMULATION}[0]": "await simulate(seed, SMALL)"},
    ),
    Mutation(
        "scaling-idle",
        "scale to zero",
        "nobody looks again when a scaledown window ends",
        (
            Change(
                "src/squall/server/autoscaler/__init__.py",
                "    waits += [one.idle_since + window_s - load.now for one in load.idle]\n",
                "",
            ),
        ),
        {
            f"{AUTOSCALER}test_time_alone_is_waited_for_only_when_it_changes_something[idle]": "== again_s",
        },
    ),
    Mutation(
        "fair-places",
        "a function takes every place",
        "who has most gives no place up",
        (
            Change(
                "src/squall/server/scheduler/giving_way.py",
                "            donor = self._donor(function, one)\n",
                "            donor = None\n",
            ),
        ),
        {f"{PLACES}test_a_single_call_of_another_app_gets_a_place": "in call.outputs.values()]"},
    ),
    Mutation(
        "fair-inputs",
        "a map starves a single call",
        "callers of a function take no turns",
        (
            Change(
                "src/squall/server/dispatch/function/input_queue.py",
                "                caller.turns.rotate(-1)\n                self._turns.rotate(-1)\n",
                "                pass\n",
            ),
        ),
        {f"{DISPATCHER}test_a_single_call_overtakes_the_map_of_another_client": "stage.until(lambda: single.outputs)"},
    ),
    Mutation(
        "fair-loop",
        "a map starves a single call",
        "all that waits is handed out in one turn of the event loop",
        (
            Change(
                "src/squall/server/dispatch/function/dispatcher.py",
                "                    left -= count\n",
                "                    left -= 0\n",
            ),
        ),
        {f"{DISPATCHER}test_only_so_many_inputs_are_handed_out_in_a_turn": "first_turn == TURN_INPUTS_MAX"},
    ),
    Mutation(
        "kept-containers",
        "a function takes every place",
        "containers that are on their way out count as kept",
        (
            Change(
                "src/squall/server/dispatch/function/dispatcher.py",
                "sum(not one.is_draining and not one.ending for one in self.containers.values()) > least",
                "len(self.containers) > least",
            ),
        ),
        {f"{PLACES}test_containers_that_are_kept_in_any_case_make_no_room": "staying.state"},
    ),
)
