"""Mutations of what starts and ends containers, and of who gets the next place and the next turn."""

from __future__ import annotations

from tests.mutations.mutation import Change, Mutation

AUTOSCALER = "tests/server/autoscaler/test_autoscaler.py::"
PLACES = "tests/server/dispatch/fleet/test_fair_places.py::"
AUTOSCALING = "tests/server/dispatch/fleet/test_autoscaling.py::"
GIVING = "tests/server/dispatch/fleet/test_giving_way.py::"
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
        "scaling-blind",
        "autoscaler storms",
        "containers that start slowly are doubled each second before anybody knows how long inputs take",
        (
            Change(
                "src/squall/server/autoscaler/__init__.py",
                "    if _are_long(load):\n",
                "    if True:\n",
            ),
        ),
        {
            "tests/simulation/test_slow_machine.py::"
            "test_a_map_of_short_inputs_needs_few_containers_on_a_busy_machine[0]": "most <= CONTAINERS_MAX",
        },
    ),
    Mutation(
        "scaling-refused",
        "autoscaler storms",
        "containers that there was no room to ask for are asked for when the next scaledown window ends",
        (
            Change(
                "src/squall/server/dispatch/fleet/scaling.py",
                "STEP_S if wait_s is None else min(wait_s, STEP_S)",
                "STEP_S if wait_s is None else wait_s",
            ),
        ),
        {
            f"{AUTOSCALING}test_what_there_was_no_room_to_ask_for_is_asked_for_again_within_a_second": "== 3",
        },
    ),
    Mutation(
        "fair-places",
        "a function takes every place",
        "who has most gives no place up",
        (
            Change(
                "src/squall/server/scheduler/giving_way.py",
                "donor = None if function.is_passed else self._donor(function, one)\n",
                "donor = None\n",
            ),
        ),
        {f"{PLACES}test_a_single_call_of_another_app_gets_a_place": "in call.outputs.values()]"},
    ),
    Mutation(
        "giving-way-refused",
        "a function takes every place",
        "who had nothing to give is asked again and again, and nobody else",
        (
            Change(
                "src/squall/server/scheduler/giving_way.py",
                "        donor.gives_nothing = True\n",
                "",
            ),
        ),
        {
            f"{GIVING}test_who_has_most_and_may_give_nothing_keeps_nobody_waiting[kept]": "in call.outputs.values()]",
            f"{GIVING}test_those_that_nobody_can_make_room_for_keep_nobody_waiting": "in call.outputs.values()]",
        },
    ),
    Mutation(
        "giving-way-images",
        "a function takes every place",
        "who has no room for a claim is asked again for each image that somebody waits for",
        (
            Change(
                "src/squall/server/scheduler/giving_way.py",
                "if before is None or before[0] != one.claim or now >= self._unfit_until:",
                "if True:",
            ),
        ),
        {
            "tests/server/scheduler/test_refused_moves.py::test_who_has_no_room_is_not_asked_again_for_each_image": (
                "assert world.asked == len(donors)"
            ),
        },
    ),
    Mutation(
        "giving-way-image-missing",
        "a function takes every place",
        "who waits for an image that a node lacks keeps those waiting whose image is there",
        (
            Change(
                "src/squall/server/dispatch/fleet/givers.py",
                "answer = Answer.NO_IMAGE",
                "answer = Answer.UNFIT",
            ),
        ),
        {f"{GIVING}test_nobody_gives_way_on_a_node_that_lacks_the_image": '== [b"8"]'},
    ),
    Mutation(
        "giving-way-promised",
        "a function loses every place",
        "what gives way is forgotten, and more give way each second until the first of it has ended",
        (
            Change(
                "src/squall/server/dispatch/fleet/starts.py",
                "            self.scheduler.promise(container.container_id, one, now)\n",
                "            pass\n",
            ),
        ),
        {f"{GIVING}test_nobody_gives_more_than_half_while_those_that_give_way_take_long": "open_of(stage, rich) >= 4"},
    ),
    Mutation(
        "giving-way-slow",
        "a function takes every place",
        "what takes long to end is counted on for ever",
        (
            Change(
                "src/squall/server/scheduler/promises.py",
                "            if now - made_at < SLOW_S:\n",
                "            if True:\n",
            ),
        ),
        {f"{GIVING}test_long_inputs_of_those_that_give_way_hold_up_nobody_for_long": "call.outputs.values()]"},
    ),
    Mutation(
        "giving-way-fails",
        "a function takes every place",
        "a choice that fails in its second turn is the last one",
        (
            Change(
                "src/squall/server/dispatch/fleet/starts.py",
                "        self._is_choosing = False\n        now",
                "        now",
            ),
        ),
        {f"{GIVING}test_a_choice_that_fails_is_not_the_last": "in call.outputs.values()]"},
    ),
    Mutation(
        "making-room",
        "a function takes every place",
        "idle containers make no room while others finish what they run",
        (
            Change(
                "src/squall/server/dispatch/fleet/starts.py",
                "self.scheduler.waiting_count - len(self._making_room)\n",
                "self.scheduler.waiting_count - sum(one.is_draining for one in self._fleet.containers.values())\n",
            ),
        ),
        {f"{GIVING}test_idle_containers_make_room_while_others_finish_what_is_long": "in call.outputs.values()]"},
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
