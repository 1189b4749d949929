"""Numbers, calls and variants of a function: all of its own, however many others there are beside it."""

from __future__ import annotations

from typing import Any

import pytest

from squall.protocol.errors import PlatformError
from squall.protocol.flight import CallList, CallListing
from squall.protocol.function import (
    FunctionBind,
    FunctionBound,
    FunctionCreate,
    FunctionCreated,
    FunctionOptions,
    FunctionSpec,
    ParameterSpec,
)
from squall.protocol.function_window import (
    AppWindow,
    AppWindowGet,
    FunctionWindow,
    FunctionWindowGet,
    VariantList,
    VariantListing,
)
from squall.protocol.node import PATH_FORK, PATH_PARKED, PATH_PLAIN
from squall.protocol.records import replace
from squall.server.dispatch.flight import windows
from squall.server.model.variant import StoredVariant
from tests.server.dispatch.app.test_variants import MODEL, bind, ran
from tests.server.doubles import Stage, make_spec, staged

NEEDY = replace(MODEL, parameters=(ParameterSpec("size", "int", is_required=True),))
"""A class that has no objects without parameters."""


async def crowded(stage: Stage) -> FunctionSpec:
    """A class of which two objects have run, beside another one that has had many objects since."""
    app_id = await stage.client.app()
    specs = [make_spec(app_id, name, definition=NEEDY) for name in ("Model", "Crowd")]
    await create(stage, *specs)
    for size in (3, 4):
        await ran(stage, await bind(stage.client, specs[0], size))
    for number in range(1_100):
        await stage.store.put_variant(
            StoredVariant(f"fu-crowd{number}", specs[1].function_id, app_id, used_at=stage.clock.now() + 1)
        )
    return specs[0]


async def create(stage: Stage, *specs: FunctionSpec) -> None:
    await stage.client.ask("FunctionCreate", FunctionCreate(specs), FunctionCreated)


async def window(stage: Stage, function_id: str, **fields: Any) -> FunctionWindow:
    found: FunctionWindow = await stage.client.ask(
        "FunctionWindow", FunctionWindowGet(function_id, **fields), FunctionWindow
    )
    return found


async def test_class_shows_all_of_its_own_beside_one_with_a_thousand_objects() -> None:
    async with staged() as stage:
        spec = await crowded(stage)
        await stage.restart()
        await stage.client.connect()

        numbers = await window(stage, spec.function_id)
        variants = await stage.client.ask("VariantList", VariantList(spec.function_id), VariantListing)
        of_app = await stage.client.ask("AppWindow", AppWindowGet(spec.app_id), AppWindow)

        assert (numbers.succeeded_inputs, numbers.variant_count, numbers.is_cut) == (2, 2, False)
        assert {one.parameters for one in variants.variants} == {'{"size":3}', '{"size":4}'}
        assert of_app.functions["Model"].succeeded_inputs == 2


async def test_calls_of_a_class_are_listed_beside_one_with_a_thousand_objects() -> None:
    async with staged() as stage:
        spec = await crowded(stage)

        listing = await stage.client.ask("CallList", CallList(function=spec.function_id), CallListing)

        assert len(listing.calls) == 2
        assert not listing.is_cut


async def test_what_is_cut_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(windows, "MINUTES_MAX", 1)
    async with staged() as stage:
        spec = await crowded(stage)
        await stage.restart()
        await stage.client.connect()

        numbers = await window(stage, spec.function_id)
        variants = await stage.client.ask("VariantList", VariantList(spec.function_id, 1), VariantListing)

        assert (numbers.succeeded_inputs, numbers.variant_count, numbers.is_cut) == (1, 2, True)
        assert (len(variants.variants), variants.is_cut) == (1, True)


async def listed(stage: Stage, spec: FunctionSpec, **fields: Any) -> int:
    asked = CallList(function=spec.function_id, **fields)
    return len((await stage.client.ask("CallList", asked, CallListing)).calls)


async def test_object_without_parameters_counts_alone_and_with_the_others_when_asked() -> None:
    async with staged() as stage:
        (spec,) = specs = [make_spec(await stage.client.app(), "Model", definition=MODEL)]
        await create(stage, *specs)
        for function_id in (spec.function_id, await bind(stage.client, spec, 3), await bind(stage.client, spec, 4)):
            await ran(stage, function_id)

        own = await window(stage, spec.function_id)
        every = await window(stage, spec.function_id, has_variants=True)

        assert (own.succeeded_inputs, own.variant_count) == (1, 2)
        assert (every.succeeded_inputs, every.variant_count) == (3, 2)
        assert (await listed(stage, spec), await listed(stage, spec, has_variants=True)) == (1, 3)


async def called(stage: Stage, function_id: str, count: int) -> None:
    call = stage.client.open(function_id)
    stage.client.put(call, dict.fromkeys(range(count), b"4"))
    await stage.done(call, count)
    stage.client.close_call(call)


async def test_container_counts_alone_and_only_for_its_own_function() -> None:
    async with staged() as stage:
        spec = await stage.client.function(max_containers=1)
        other = await stage.client.ask(
            "FunctionBind", FunctionBind(spec.function_id, "", FunctionOptions(timeout_s=9.0)), FunctionBound
        )
        await called(stage, spec.function_id, 2)
        (container_id,) = [one.container_id for one in stage.node.started]
        await called(stage, other.function_id, 1)

        of_it = await window(stage, spec.function_id, container_id=container_id)

        assert (of_it.succeeded_inputs, of_it.container_count) == (2, 1)
        for function_id, named in ((other.function_id, container_id), (spec.function_id, "ct-none")):
            with pytest.raises(PlatformError, match=f"{named} is no container of this function") as refused:
                await window(stage, function_id, container_id=named)
            assert refused.value.code == "not_found"


async def test_containers_are_counted_by_how_they_came_about() -> None:
    async with staged() as stage:
        spec = await stage.client.function(is_single_use=True)
        for path in (PATH_PLAIN, PATH_FORK, PATH_PARKED, PATH_PARKED, "by magic"):
            stage.node.start_path = (path, "")
            await called(stage, spec.function_id, 1)
        parked = stage.node.started[2].container_id

        whole = await window(stage, spec.function_id)
        one = await window(stage, spec.function_id, container_id=parked)

        assert whole.started_containers == 5
        assert whole.started_by_path == {PATH_PLAIN: 1, PATH_FORK: 1, PATH_PARKED: 2}, "and of one it is not known"
        assert one.started_by_path == {PATH_PARKED: 1}


async def test_a_container_whose_guest_is_slower_than_its_agent_counts_when_it_serves() -> None:
    async with staged() as stage:
        stage.node.is_slow_to_load = True
        stage.node.start_path = (PATH_FORK, "")
        spec = await stage.client.function(min_containers=1)
        await stage.until(lambda: stage.node.started)

        before = await window(stage, spec.function_id)
        stage.node.started[0].ready()
        await stage.pass_time(0.1)
        after = await window(stage, spec.function_id)

        assert (before.started_by_path, after.started_by_path) == ({}, {PATH_FORK: 1})
