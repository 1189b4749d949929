"""Nodes and containers that need one are told, a plan comes out."""

from __future__ import annotations

import random
from dataclasses import dataclass, field, replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from squall.server.scheduler import MEMORY_FLOOR_MIB, PLACEMENTS_MAX, Claim, NodeView, Pending, Plan, Scheduler, cluster
from squall.server.scheduler.scheduler import KEPT_S


def make_node(name: str, **fields: object) -> NodeView:
    values: dict[str, object] = {"cpu_milli": 2_000, "memory_mib": 4_096, "containers_max": 400}
    return NodeView(f"nd-{name}", **(values | fields))  # type: ignore[arg-type]


def make_pending(
    number: int = 0, cpu_milli: int = 0, memory_mib: int = MEMORY_FLOOR_MIB, function: str = "a", app: str = "a"
) -> Pending:
    return Pending(f"ct-{number}", f"fu-{function}", "im-a", Claim(cpu_milli, memory_mib), f"ap-{app}")


def make_scheduler(*nodes: NodeView, held: dict[str, int] | None = None) -> Scheduler:
    """With so many containers of functions that nobody asks about on the nodes."""
    scheduler = Scheduler()
    for node in nodes:
        scheduler.node_came(node)
    for name, count in (held or {}).items():
        for number in range(count):
            one = Pending(f"ct-held-{name}-{number}", f"fu-other-{name}", "im-a", Claim(), f"ap-other-{name}")
            scheduler.hold(one, f"nd-{name}")
    return scheduler


def planned(scheduler: Scheduler, *pending: Pending) -> Plan:
    for one in pending:
        scheduler.want(one)
    return scheduler.place()


def nodes_of(made: Plan) -> list[str]:
    return [one.node_id for one in made.placements]


def test_without_requests_hundreds_fit_and_spread() -> None:
    scheduler = make_scheduler(make_node("a"), make_node("b"))

    made = planned(scheduler, *(make_pending(n) for n in range(100)))

    assert len(made.placements) == 100
    assert 48 <= nodes_of(made).count("nd-a") <= 52


def test_what_a_placed_container_requests_is_reserved_until_it_ends() -> None:
    scheduler = make_scheduler(make_node("a"))

    made = planned(scheduler, *(make_pending(n, cpu_milli=1_000) for n in range(3)))
    assert [one.container_id for one in made.placements] == ["ct-0", "ct-1"]
    assert scheduler.waiting_count == 1

    scheduler.ended("ct-0")
    assert [one.container_id for one in scheduler.place().placements] == ["ct-2"]


def test_container_whose_inputs_wait_claims_no_cpu() -> None:
    scheduler = make_scheduler(make_node("a"))
    planned(scheduler, *(make_pending(n, cpu_milli=2_000) for n in range(2)))

    scheduler.waits("ct-0", is_waiting=True)

    assert [one.container_id for one in scheduler.place().placements] == ["ct-1"]


def test_draining_node_receives_nothing() -> None:
    scheduler = make_scheduler(make_node("a", is_draining=True))

    assert planned(scheduler, make_pending()).placements == ()
    scheduler.node_came(make_node("a"))
    assert nodes_of(scheduler.place()) == ["nd-a"]


def test_count_and_memory_are_bounded() -> None:
    scheduler = make_scheduler(make_node("a", containers_max=3), make_node("b", memory_mib=63), held={"a": 3, "b": 1})

    assert planned(scheduler, make_pending()).placements == ()


def test_image_comes_before_room_before_function() -> None:
    here = frozenset({"im-a"})
    empty, with_image = make_node("a"), make_node("b", image_ids=here)

    assert nodes_of(planned(make_scheduler(empty, with_image, held={"b": 100}), make_pending())) == ["nd-b"]

    scheduler = make_scheduler(empty, with_image, make_node("c", image_ids=here), held={"b": 100, "c": 99})
    scheduler.hold(make_pending(1), "nd-c")
    assert nodes_of(planned(scheduler, make_pending(2))) == ["nd-c"]

    scheduler = make_scheduler(empty, with_image, make_node("d", image_ids=here), held={"b": 100, "d": 199})
    scheduler.hold(make_pending(1), "nd-d")
    assert nodes_of(planned(scheduler, make_pending(2))) == ["nd-b"]


@pytest.mark.parametrize(
    ("memory_mib", "otherwise"), [(MEMORY_FLOOR_MIB, "the emptiest"), (512, "the fullest with room")]
)
def test_a_node_with_its_template_comes_first(memory_mib: int, otherwise: str) -> None:
    held = {"b": 2} if otherwise == "the emptiest" else {"c": 2}
    scheduler = make_scheduler(make_node("a"), make_node("b"), make_node("c"), held=held)
    assert nodes_of(planned(scheduler, make_pending(0, memory_mib=memory_mib))) != ["nd-b"]
    scheduler.templates_told("nd-b", ["fu-a"])

    assert nodes_of(planned(scheduler, make_pending(1, memory_mib=memory_mib))) == ["nd-b"]
    assert nodes_of(planned(scheduler, make_pending(2, function="b"))) != ["nd-b"]


def test_not_where_it_is_much_fuller_than_another_one_or_has_no_room() -> None:
    scheduler = make_scheduler(make_node("a"), make_node("b"), held={"b": 3})
    scheduler.templates_told("nd-b", ["fu-a"])
    made = planned(scheduler, *(make_pending(number) for number in range(40)))
    assert nodes_of(made)[:2] == ["nd-b", "nd-b"]
    assert 15 <= nodes_of(made).count("nd-b") <= 23

    scheduler = make_scheduler(make_node("a"), make_node("b", memory_mib=512))
    scheduler.templates_told("nd-b", ["fu-a"])
    assert nodes_of(planned(scheduler, make_pending(1, memory_mib=1_024))) == ["nd-a"]


def test_what_a_node_said_of_its_templates_holds_until_it_says_something_else_or_is_gone() -> None:
    scheduler = make_scheduler(make_node("a"), make_node("b"), held={"b": 1})
    scheduler.templates_told("nd-b", ["fu-a"])
    scheduler.templates_told("nd-b", [])
    scheduler.templates_told("nd-unknown", ["fu-a"])
    assert nodes_of(planned(scheduler, make_pending(1))) == ["nd-a"]

    scheduler.templates_told("nd-b", ["fu-a"])
    scheduler.node_gone("nd-b")
    assert nodes_of(planned(scheduler, make_pending(2))) == ["nd-a"]


def test_node_that_lacks_the_image_receives_nothing_until_it_has_it() -> None:
    missing = {"im-a"}
    scheduler = make_scheduler(make_node("a", missing_image_ids=missing))
    assert planned(scheduler, make_pending()).placements == ()

    missing.clear()
    scheduler.images_changed()

    assert nodes_of(scheduler.place()) == ["nd-a"]


def test_memory_requests_go_where_they_fit_tightest() -> None:
    scheduler = make_scheduler(make_node("a"), make_node("b"))
    scheduler.hold(make_pending(9, memory_mib=3_000, function="z"), "nd-b")

    assert nodes_of(planned(scheduler, make_pending(memory_mib=1_000))) == ["nd-b"]


def test_what_no_node_could_take_is_said_with_the_largest() -> None:
    scheduler = make_scheduler(make_node("a"), make_node("b", memory_mib=8_000))

    made = planned(scheduler, make_pending(memory_mib=9_999))

    assert made.placements == ()
    assert "8000 MiB" in made.impossible[0][1]


def test_what_was_not_asked_for_is_not_said_to_be_too_much() -> None:
    made = planned(make_scheduler(make_node("a")), make_pending(memory_mib=10**9))

    ((_, why),) = made.impossible
    assert why.startswith("no node is large enough for memory=1000000000 MiB: ")


def test_without_nodes_everything_waits() -> None:
    made = planned(make_scheduler(), make_pending(memory_mib=10**9))

    assert made == Plan()


def test_lost_node_keeps_no_claim() -> None:
    scheduler = make_scheduler(make_node("a"))
    planned(scheduler, make_pending(0, memory_mib=4_096), make_pending(1, memory_mib=4_096))

    scheduler.node_gone("nd-a")
    scheduler.ended("ct-0")
    scheduler.node_came(make_node("b"))

    assert nodes_of(scheduler.place()) == ["nd-b"]


def test_a_plan_is_cut_so_that_others_have_their_turn() -> None:
    scheduler = make_scheduler(make_node("a", containers_max=10_000, memory_mib=10**9))

    made = planned(scheduler, *(make_pending(n) for n in range(PLACEMENTS_MAX + 5)))

    assert len(made.placements) == PLACEMENTS_MAX
    assert made.has_more
    assert len(scheduler.place().placements) == 5


# Fairness


def test_a_single_container_of_another_app_is_placed_before_a_thousand() -> None:
    scheduler = make_scheduler(make_node("a", containers_max=10))
    planned(scheduler, *(make_pending(n, app="greedy") for n in range(1_000)))
    planned(scheduler, make_pending(5_000, function="single", app="other"))

    scheduler.ended("ct-0")

    assert [one.container_id for one in scheduler.place().placements] == ["ct-5000"]


def test_two_apps_that_want_everything_have_half_each() -> None:
    scheduler = make_scheduler(make_node("a", containers_max=10))
    planned(scheduler, *(make_pending(n, app="one") for n in range(100)))
    planned(scheduler, *(make_pending(n, function="b", app="two") for n in range(100, 200)))
    rng, held = random.Random(1), {f"ct-{n}" for n in range(10)}

    for _ in range(100):
        ended = rng.choice(sorted(held))
        held.remove(ended)
        scheduler.ended(ended)
        held |= {one.container_id for one in scheduler.place().placements}

    assert sum(int(one[3:]) < 100 for one in held) in (4, 5, 6)


def test_functions_of_one_app_have_equal_turns() -> None:
    scheduler = make_scheduler(make_node("a", containers_max=4))
    wanted = [make_pending(n) for n in range(50)] + [make_pending(n, function="b") for n in range(50, 100)]

    made = planned(scheduler, *wanted)

    assert sum(int(one.container_id[3:]) < 50 for one in made.placements) == 2


def test_what_does_not_fit_lets_others_pass() -> None:
    scheduler = make_scheduler(make_node("a", memory_mib=1_000))
    scheduler.hold(make_pending(9, memory_mib=500, function="z", app="z"), "nd-a")

    made = planned(scheduler, make_pending(0, memory_mib=900), make_pending(1, function="b", app="b"))

    assert [one.container_id for one in made.placements] == ["ct-1"]


@pytest.mark.parametrize(
    ("idle_s", "count", "may"), [(0.1, 1, False), (0.1, 2, True), (KEPT_S, 1, True)], ids=["fresh", "rich", "old"]
)
def test_idle_containers_are_evicted_from_who_has_more_or_when_they_are_old(
    idle_s: float, count: int, may: bool
) -> None:
    scheduler = make_scheduler(make_node("a", containers_max=3))
    for number in range(count):
        scheduler.hold(make_pending(number, function="idle", app="idle"), "nd-a")
    for number in range(10, 13 - count):
        scheduler.hold(make_pending(number, function="busy", app="busy"), "nd-a")
    planned(scheduler, make_pending(30, function="busy", app="busy"))

    assert scheduler.may_evict("ct-0", idle_s) is may


# Kept as it changes, and looked at from scratch


@dataclass
class Model:
    """Everything there is, as it is told, and what a look at all of it would choose."""

    nodes: dict[str, NodeView] = field(default_factory=dict)
    held: dict[str, tuple[Pending, str, bool]] = field(default_factory=dict)

    def choices(self, one: Pending) -> list[str]:
        """Nodes that may take it, best first."""
        ranked = []
        for node_id, node in self.nodes.items():
            here = [(held, waits) for held, where, waits in self.held.values() if where == node_id]
            cpu = sum(held.claim.cpu_milli for held, waits in here if not waits)
            memory = sum(held.claim.memory_mib for held, _ in here)
            fits = (
                not node.is_draining
                and len(here) < node.containers_max
                and cpu + one.claim.cpu_milli <= node.cpu_milli
                and memory + one.claim.memory_mib <= node.memory_mib
                and one.image_id not in node.missing_image_ids
            )
            if one.claim.memory_mib > MEMORY_FLOOR_MIB:
                fit = node.memory_mib - memory
            else:
                fit = len(here) * 1_000 // node.cpu_milli
            is_cold = one.function_id not in {held.function_id for held, _ in here}
            if fits:
                ranked.append((one.image_id not in node.image_ids, fit, is_cold, node_id))
        return [node_id for *_, node_id in sorted(ranked)]


@pytest.mark.long
@settings(deadline=None)
@given(seed=st.integers(0, 2**32), node_count=st.integers(1, 40))
def test_what_is_kept_chooses_as_a_look_at_everything_would(seed: int, node_count: int) -> None:
    rng = random.Random(seed)
    model, scheduler = Model(), Scheduler()
    waiting: dict[str, Pending] = {}
    wants = [
        (name, Claim(rng.choice((0, 0, 500)), rng.choice((MEMORY_FLOOR_MIB, 100, 300))), rng.choice(("im-a", "im-b")))
        for name in "abcde"
    ]

    def make_view(number: int) -> NodeView:
        return make_node(
            f"{number:02}", cpu_milli=rng.choice((1_000, 2_000)), memory_mib=rng.choice((256, 1_024)),
            containers_max=rng.choice((2, 5)), is_draining=rng.random() < 0.1,
            image_ids=frozenset(one for one in ("im-a", "im-b") if rng.random() < 0.5),
        )  # fmt: skip

    for step in range(80):
        what = rng.random()
        if what < 0.15 or not model.nodes:
            view = make_view(rng.randrange(node_count))
            model.nodes[view.node_id] = view
            scheduler.node_came(view)
        elif what < 0.2:
            node_id = rng.choice(sorted(model.nodes))
            del model.nodes[node_id]
            scheduler.node_gone(node_id)
            for key in [key for key, (_, where, _) in model.held.items() if where == node_id]:
                del model.held[key]
        elif what < 0.3:
            node_id = rng.choice(sorted(model.nodes))
            view = replace(model.nodes[node_id], missing_image_ids=frozenset({rng.choice(("im-a", "im-c"))}))
            model.nodes[node_id] = view
            scheduler.node_came(view)
        elif what < 0.45 and model.held:
            key = rng.choice(sorted(model.held))
            one, where, waits = model.held[key]
            if rng.random() < 0.5:
                del model.held[key]
                scheduler.ended(key)
            else:
                model.held[key] = (one, where, not waits)
                scheduler.waits(key, is_waiting=not waits)
        else:
            function, claim, image_id = rng.choice(wants)
            one = Pending(f"ct-{step}", f"fu-{function}", image_id, claim, f"ap-{function < 'c'}")
            waiting[one.container_id] = one
            scheduler.want(one)

        for placement in scheduler.place().placements:
            one = waiting.pop(placement.container_id)
            assert model.choices(one)[0] == placement.node_id
            model.held[one.container_id] = (one, placement.node_id, False)
        assert not [one for one in waiting.values() if model.choices(one)]


def test_where_no_cpu_is_left_nodes_are_looked_at_once_and_not_for_each_image(monkeypatch: pytest.MonkeyPatch) -> None:
    nodes, images = 30, 200
    scheduler = make_scheduler(*(make_node(f"{number:02}", cpu_milli=1_000) for number in range(nodes)))
    running = [make_pending(number, 1_000, function="first", app="first") for number in range(nodes)]
    assert len(planned(scheduler, *running).placements) == nodes
    for number in range(images):
        one = make_pending(1_000 + number, 1_000, function=f"f{number}", app="second")
        scheduler.want(replace(one, image_id=f"im-{number}"))
    looks = 0
    has_room = cluster._Node.has_room

    def counted(node: cluster._Node, claim: Claim) -> bool:
        nonlocal looks
        looks += 1
        return has_room(node, claim)

    monkeypatch.setattr(cluster._Node, "has_room", counted)
    scheduler.ended("ct-3")
    made = scheduler.place()

    assert [one.container_id for one in made.placements] == ["ct-1000"]
    assert looks <= 5 * nodes
    scheduler.ended("ct-4")
    assert len(scheduler.place().placements) == 1
