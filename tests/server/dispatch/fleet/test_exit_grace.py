"""Containers with exit hooks get the time to run them, however they are ended; others are not waited for."""

from __future__ import annotations

from typing import Any

import pytest

from squall.protocol import call as wire
from squall.protocol.app import AppStop, AppStopped
from squall.protocol.container import ContainerStop
from squall.protocol.empty import Empty
from squall.protocol.function import BY_FILE, EXIT_GRACE_S, Definition, MethodSpec
from squall.protocol.node import ContainerEnd
from squall.protocol.request import Request
from squall.server.dispatch.app.apps import END_GRACE_S
from tests.server.doubles import FakeNode, Stage, staged


def model(*, has_exit_hooks: bool) -> Definition:
    return Definition(
        BY_FILE, "hello", "Model", is_class=True, methods=(MethodSpec("run"),), has_exit_hooks=has_exit_hooks
    )


async def graces(stage: Stage, end: Any, monkeypatch: pytest.MonkeyPatch, **definition: bool) -> list[float]:
    """What the node was told when the one container was ended."""
    told: list[float] = []
    answer = FakeNode.answer

    async def note(node: FakeNode, request: Request) -> Any:
        if request.method == "ContainerEnd":
            told.append(request.record(ContainerEnd).grace_s)
        return await answer(node, request)

    monkeypatch.setattr(FakeNode, "answer", note)
    spec = await stage.client.function(name="Model", definition=model(**definition))
    call = stage.client.open(spec.function_id, wire.REMOTE, method="run")
    stage.client.put(call, {0: b"1"})
    await stage.done(call, 1)
    await end(spec.app_id, stage.node.started[0].container_id)
    return told


@pytest.mark.parametrize(("has_exit_hooks", "grace_s"), [(True, EXIT_GRACE_S), (False, END_GRACE_S)])
async def test_at_the_end_of_an_app(monkeypatch: pytest.MonkeyPatch, has_exit_hooks: bool, grace_s: float) -> None:
    async with staged() as stage:

        async def end(app_id: str, container_id: str) -> None:
            await stage.client.ask("AppStop", AppStop(app_id, "test"), AppStopped)

        assert await graces(stage, end, monkeypatch, has_exit_hooks=has_exit_hooks) == [grace_s]


@pytest.mark.parametrize(("has_exit_hooks", "grace_s"), [(True, EXIT_GRACE_S), (False, 1.0)])
async def test_when_a_container_is_stopped(
    monkeypatch: pytest.MonkeyPatch, has_exit_hooks: bool, grace_s: float
) -> None:
    async with staged() as stage:

        async def end(app_id: str, container_id: str) -> None:
            await stage.client.ask("ContainerStop", ContainerStop(container_id), Empty)
            await stage.until(lambda: not stage.node.guests)

        assert await graces(stage, end, monkeypatch, has_exit_hooks=has_exit_hooks) == [grace_s]


async def test_not_when_it_has_to_end_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    async with staged() as stage:

        async def end(app_id: str, container_id: str) -> None:
            stage.plane.fleet.kill(stage.plane.fleet.containers[container_id], "it hangs")
            await stage.until(lambda: not stage.node.guests)

        assert await graces(stage, end, monkeypatch, has_exit_hooks=True) == [0.0]
