"""Starts that were to be copies and are none are told in the app's log, once for each cause."""

from __future__ import annotations

from typing import Any

import pytest

from squall.protocol.function import FunctionBind, FunctionBound, FunctionOptions, FunctionSpec
from squall.protocol.node import PATH_FORK, PATH_PARKED, PATH_PLAIN, PATH_RESTORE
from squall.server.dispatch.fleet import detours
from tests.server.doubles import Stage, staged

CAUSE = "the thread 'poller' of module watch cannot be copied"
TOLD = f"function square was loaded anew, and not copied from a memory snapshot: {CAUSE}"
FORKED = f"function square was copied from its image's template, and not from a memory snapshot: {CAUSE}"


async def start(stage: Stage, spec: FunctionSpec, path: str, cause: str, function_id: str = "") -> None:
    """One more container of it."""
    stage.node.start_path = (path, cause)
    before = len(stage.node.started)
    await stage.done(stage.client.call(function_id or spec.function_id, 1), 1)
    assert len(stage.node.started) == before + 1


def lines(stage: Stage) -> list[str]:
    return [one.text for one in stage.logs.entries if "snapshot" in one.text]


async def snapshotting(stage: Stage, **fields: Any) -> FunctionSpec:
    """A function each of whose inputs has a container of its own."""
    return await stage.client.function(is_snapshot_enabled=True, is_single_use=True, **fields)


async def test_a_cause_is_told_once_with_the_container_in_the_log_of_its_app() -> None:
    async with staged() as stage:
        spec = await snapshotting(stage)

        for _ in range(3):
            await start(stage, spec, PATH_PLAIN, CAUSE)

        assert lines(stage) == [TOLD]
        (entry,) = [one for one in stage.logs.entries if one.text == TOLD]
        assert (entry.source, entry.app_id, entry.function_id) == ("system", spec.app_id, spec.function_id)
        assert entry.container_id == stage.node.started[0].container_id


@pytest.mark.parametrize("path", [PATH_FORK, PATH_PARKED])
async def test_a_copy_that_is_none_of_its_function_is_told_too(path: str) -> None:
    async with staged() as stage:
        spec = await snapshotting(stage)

        for _ in range(2):
            await start(stage, spec, path, CAUSE)

        assert lines(stage) == [FORKED]


async def test_a_copy_of_its_function_that_took_longer_than_it_might_have_is_not() -> None:
    async with staged() as stage:
        stage.node.has_snapshot = True
        spec = await snapshotting(stage)

        for path in (PATH_FORK, PATH_PARKED, PATH_RESTORE):
            await start(stage, spec, path, "its template was made anew")

        assert not lines(stage)


async def test_each_cause_is_told_but_not_without_end() -> None:
    async with staged() as stage:
        spec = await snapshotting(stage)

        for number in range(6):
            await start(stage, spec, PATH_PLAIN, f"cause {number}")

        assert [text[-7:] for text in lines(stage)] == ["cause 0", "cause 1", "cause 2"]


async def test_variants_have_their_causes_in_common() -> None:
    async with staged() as stage:
        spec = await snapshotting(stage)
        asked = FunctionBind(spec.function_id, options=FunctionOptions(timeout_s=5.0))
        variant_id = (await stage.client.ask("FunctionBind", asked, FunctionBound)).function_id

        await start(stage, spec, PATH_PLAIN, CAUSE)
        await start(stage, spec, PATH_PLAIN, CAUSE, variant_id)

        assert lines(stage) == [TOLD]


@pytest.mark.parametrize(
    ("path", "cause", "is_snapshot_enabled"),
    [(PATH_PLAIN, CAUSE, False), (PATH_FORK, CAUSE, False), (PATH_PLAIN, "", True), (PATH_PARKED, "", True)],
)
async def test_nothing_is_told_of_what_nobody_asked_for_or_what_went_well(
    path: str, cause: str, is_snapshot_enabled: bool
) -> None:
    async with staged() as stage:
        spec = await stage.client.function(is_snapshot_enabled=is_snapshot_enabled, is_single_use=True)

        await start(stage, spec, path, cause)

        assert not lines(stage)


async def test_what_is_remembered_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(detours, "FUNCTIONS_MAX", 1)
    async with staged() as stage:
        one, other = await snapshotting(stage), await snapshotting(stage)

        for spec in (one, other, one):
            await start(stage, spec, PATH_PLAIN, CAUSE)

        assert len(lines(stage)) == 3
