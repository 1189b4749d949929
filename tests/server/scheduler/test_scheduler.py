"""Nodes and pending containers in, a plan out."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from squall.server.scheduler import MEMORY_FLOOR_MIB, Claim, NodeView, Pending, plan


def make_node(name: str, **fields: object) -> NodeView:
    values: dict[str, object] = {"cpu_milli": 2_000, "memory_mib": 4_096, "containers_max": 400}
    return NodeView(f"nd-{name}", **(values | fields))  # type: ignore[arg-type]


def make_pending(number: int = 0, cpu_milli: int = 0, memory_mib: int = MEMORY_FLOOR_MIB) -> Pending:
    return Pending(f"ct-{number}", "fu-a", "im-a", Claim(cpu_milli, memory_mib))


def nodes_of(*arguments: tuple[Pending, ...] | tuple[NodeView, ...]) -> list[str]:
    return [one.node_id for one in plan(*arguments).placements]  # type: ignore[arg-type]


def test_without_requests_hundreds_fit_and_spread() -> None:
    made = plan(tuple(make_pending(n) for n in range(100)), (make_node("a"), make_node("b")))

    assert not made.waiting
    assert 48 <= sum(one.node_id == "nd-a" for one in made.placements) <= 52


def test_what_a_placed_container_requests_is_reserved() -> None:
    made = plan(tuple(make_pending(n, cpu_milli=1_000) for n in range(3)), (make_node("a"),))

    assert len(made.placements) == 2
    assert made.waiting == ("ct-2",)


def test_draining_node_receives_nothing() -> None:
    made = plan((make_pending(),), (make_node("a", is_draining=True),))

    assert made.waiting == ("ct-0",)


def test_count_and_memory_are_bounded() -> None:
    full = make_node("a", container_count=400)
    small = make_node("b", memory_claimed_mib=4_090)

    assert plan((make_pending(),), (full, small)).waiting == ("ct-0",)


def test_image_comes_before_room_before_function() -> None:
    empty = make_node("a")
    with_image = make_node("b", image_ids=frozenset({"im-a"}), container_count=100)
    warm = make_node("c", image_ids=frozenset({"im-a"}), function_ids=frozenset({"fu-a"}), container_count=101)
    fuller = replace(warm, node_id="nd-d", container_count=200)

    assert nodes_of((make_pending(),), (empty, with_image)) == ["nd-b"]
    assert nodes_of((make_pending(),), (empty, with_image, warm)) == ["nd-c"]
    assert nodes_of((make_pending(),), (empty, with_image, fuller)) == ["nd-b"]


def test_node_that_lacks_the_image_receives_nothing() -> None:
    without = make_node("a", missing_image_ids=frozenset({"im-a"}))

    assert plan((make_pending(),), (without,)).waiting == ("ct-0",)
    assert nodes_of((make_pending(),), (without, make_node("b", container_count=300))) == ["nd-b"]


def test_memory_requests_go_where_they_fit_tightest() -> None:
    roomy, tight = make_node("a"), make_node("b", memory_claimed_mib=3_000)

    assert nodes_of((make_pending(memory_mib=1_000),), (roomy, tight)) == ["nd-b"]


def test_what_no_node_could_take_is_said_with_the_largest() -> None:
    made = plan((make_pending(memory_mib=9_999),), (make_node("a"), make_node("b", memory_mib=8_000)))

    assert made.placements == ()
    assert "8000 MiB" in made.impossible[0][1]


def test_without_nodes_everything_waits() -> None:
    assert plan((make_pending(memory_mib=10**9),), ()).waiting == ("ct-0",)


@given(
    claims=st.lists(st.tuples(st.integers(0, 2_000), st.integers(MEMORY_FLOOR_MIB, 3_000)), max_size=30),
    used=st.lists(st.tuples(st.integers(0, 2_500), st.integers(0, 4_500), st.booleans()), max_size=4),
)
def test_a_plan_never_claims_more_than_there_is(
    claims: list[tuple[int, int]], used: list[tuple[int, int, bool]]
) -> None:
    pending = tuple(make_pending(number, cpu, memory) for number, (cpu, memory) in enumerate(claims))
    nodes = tuple(
        make_node(str(number), cpu_claimed_milli=cpu, memory_claimed_mib=memory, is_draining=draining)
        for number, (cpu, memory, draining) in enumerate(used)
    )

    made = plan(pending, nodes)

    by_id = {one.container_id: one.claim for one in pending}
    named = [one.container_id for one in made.placements] + list(made.waiting) + [one for one, _ in made.impossible]
    assert sorted(named) == sorted(by_id)
    for node in nodes:
        placed = [by_id[one.container_id] for one in made.placements if one.node_id == node.node_id]
        assert not (placed and node.is_draining)
        if placed:
            assert node.cpu_claimed_milli + sum(claim.cpu_milli for claim in placed) <= node.cpu_milli
            assert node.memory_claimed_mib + sum(claim.memory_mib for claim in placed) <= node.memory_mib
