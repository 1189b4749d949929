"""What nobody asks for any more takes its templates along: they hold its code and variables."""

from __future__ import annotations

from typing import Any

import pytest

from squall.agent.template import roster, wanted
from squall.protocol.ids import new_id
from squall.protocol.template import NodeTemplateList, NodeTemplateListing, NodeTemplatesUnneeded
from squall.runtime.contract import TemplateReport
from tests.agent.parts import until
from tests.agent.world import World

pytestmark = [pytest.mark.long, pytest.mark.timeout(60)]

ONE, OTHER = "fu-00000001", "fu-00000002"


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wanted, "SETTLE_S", 0.0)
    monkeypatch.setattr(roster, "END_AGAIN_S", 0.05)


async def start(world: World, function_id: str = ONE, **changes: Any) -> str:
    container_id = new_id("ct")
    await world.ask(container_id=container_id, function_id=function_id, is_snapshot_enabled=True, **changes)
    return container_id


async def functions_told(world: World) -> list[str]:
    """Those that the node has templates of, or verdicts on them."""
    listing = await world.server.peer.request("NodeTemplateList", NodeTemplateList(), NodeTemplateListing)
    return sorted(one.function_id for one in listing.templates if one.state != "dropped")


def tell(world: World, app_id: str, function_id: str = "", before_version: int = 0) -> None:
    record = NodeTemplatesUnneeded(app_id, function_id, before_version)
    world.server.peer.event("NodeTemplatesUnneeded", record)


async def test_templates_go_with_their_app_and_those_of_others_stay(world: World) -> None:
    async with world.running(start_path="auto"):
        await world.build()
        running = await start(world)
        await start(world, "fu-00000003", app_id="ap-00000002")
        assert await functions_told(world) == [ONE, "fu-00000003"]

        tell(world, "ap-00000001")

        assert await functions_told(world) == ["fu-00000003"]
        assert world.agent.containers.is_running(running)


async def test_templates_go_with_their_function_alone(world: World) -> None:
    async with world.running(start_path="auto"):
        await world.build()
        for function_id in (ONE, OTHER):
            await world.end(await start(world, function_id))

        tell(world, "ap-00000001", ONE)

        assert await functions_told(world) == [OTHER]
        await until(lambda: [one.spec.labels["squall.function"] for one in templates_in(world)] == [OTHER])


def templates_in(world: World) -> list[Any]:
    return [one for name, one in world.machine.containers.items() if name.startswith("tp-")]


async def test_what_was_found_of_a_function_is_forgotten_with_it(world: World) -> None:
    world.report = TemplateReport(is_ready=False, cause="a socket is open")
    async with world.running(start_path="auto"):
        await world.build()
        await start(world)
        assert await functions_told(world) == [ONE]

        tell(world, "ap-00000001")

        assert not await functions_told(world)


async def test_templates_of_versions_before_go_at_once_and_those_of_the_new_one_stay(world: World) -> None:
    async with world.running(start_path="auto"):
        await world.build()
        running = await start(world, version=1)
        await start(world, OTHER, version=2)

        tell(world, "ap-00000001", before_version=2)

        assert await functions_told(world) == [OTHER]
        assert world.agent.containers.is_running(running)


@pytest.mark.parametrize(("env", "stays"), [({}, True), ({"PASSWORD": "before"}, False)])
async def test_of_an_image_those_go_that_hold_variables_of_a_version_before(
    world: World, env: dict[str, str], stays: bool
) -> None:
    async with world.running(start_path="auto"):
        await world.build()
        await world.ask(env=env, version=1)
        await until(lambda: world.agent.templates.ready_count)

        tell(world, "ap-00000001", before_version=2)

        await functions_told(world)
        assert world.agent.templates.ready_count == stays


async def test_one_of_an_image_that_the_new_version_has_used_already_stays(world: World) -> None:
    async with world.running(start_path="auto"):
        await world.build()
        await world.ask(env={"A": "1"}, version=1)
        await until(lambda: world.agent.templates.ready_count)
        await world.ask(env={"A": "1"}, version=2)

        tell(world, "ap-00000001", before_version=2)

        await functions_told(world)
        assert world.agent.templates.ready_count == 1
