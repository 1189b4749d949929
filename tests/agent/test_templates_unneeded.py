"""What nobody asks for any more takes its templates along: they hold its code and variables."""

from __future__ import annotations

import json
from typing import Any

import pytest

from squall.agent.template import roster, user, wanted
from squall.protocol.ids import new_id
from squall.protocol.template import NodeTemplateList, NodeTemplateListing, NodeTemplatesUnneeded
from squall.runtime.contract import TemplateReport
from tests.agent.parts import until
from tests.agent.world import World

pytestmark = [pytest.mark.long, pytest.mark.timeout(60)]

APP, ONE, OTHER, VARIANT = "ap-00000001", "fu-00000001", "fu-00000002", "fu-00000003"


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wanted, "SETTLE_S", 0.0)
    monkeypatch.setattr(roster, "END_AGAIN_S", 0.05)


async def start(world: World, function_id: str = ONE, **changes: Any) -> str:
    container_id = new_id("ct")
    named = {"function_id": function_id, "follows_id": function_id, **changes}
    await world.ask(container_id=container_id, is_snapshot_enabled=True, **named)
    return container_id


async def start_plainly(world: World, function_id: str = ONE, **changes: Any) -> None:
    """So that a template of its image is there afterwards."""
    await world.ask(function_id=function_id, follows_id=function_id, **changes)
    await until(lambda: any(function_id in one.users and one.is_ready for one in live(world)))


def live(world: World) -> list[Any]:
    return list(world.agent.templates._roster.live.values())


async def functions_told(world: World) -> list[str]:
    """Those that the node has templates of, or verdicts on them."""
    listing = await world.server.peer.request("NodeTemplateList", NodeTemplateList(), NodeTemplateListing)
    return sorted(one.function_id for one in listing.templates if one.state != "dropped")


def tell(world: World, app_id: str, function_id: str = "", functions: dict[str, int] | None = None) -> None:
    record = NodeTemplatesUnneeded(app_id, function_id, functions or {})
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


async def test_templates_of_what_was_edited_go_at_once_and_those_of_what_was_not_stay(world: World) -> None:
    async with world.running(start_path="auto"):
        await world.build()
        running = await start(world, version=1)
        await start(world, OTHER, version=1)
        await start(world, VARIANT, follows_id=ONE, version=1)
        await start(world, "fu-00000004", follows_id="", version=1)  # held to its version

        tell(world, APP, functions={ONE: 2, OTHER: 1})

        assert await functions_told(world) == [OTHER, "fu-00000004"]
        assert world.agent.containers.is_running(running)


async def test_templates_of_functions_that_were_left_out_go_at_once(world: World) -> None:
    async with world.running(start_path="auto"):
        await world.build()
        await start(world, version=1)
        await start(world, OTHER, version=1)

        tell(world, APP, functions={OTHER: 1})

        assert await functions_told(world) == [OTHER]


@pytest.mark.parametrize(("env", "stays"), [({}, True), ({"PASSWORD": "before"}, False)])
async def test_of_an_image_those_go_that_hold_variables_of_a_version_before(
    world: World, env: dict[str, str], stays: bool
) -> None:
    async with world.running(start_path="auto"):
        await world.build()
        await start_plainly(world, env=env, version=1)

        tell(world, APP, functions={ONE: 2})

        await functions_told(world)
        assert world.agent.templates.ready_count == stays


async def test_one_of_an_image_that_the_new_version_has_used_already_stays(world: World) -> None:
    async with world.running(start_path="auto"):
        await world.build()
        await start_plainly(world, env={"A": "1"}, version=1)
        await start_plainly(world, env={"A": "1"}, version=2)

        tell(world, APP, functions={ONE: 2})

        await functions_told(world)
        assert world.agent.templates.ready_count == 1


async def test_one_of_an_image_stays_for_those_that_were_not_edited(world: World) -> None:
    async with world.running(start_path="auto"):
        await world.build()
        for function_id in (ONE, OTHER):
            await start_plainly(world, function_id, env={"A": "1"}, version=1)

        tell(world, APP, functions={ONE: 2, OTHER: 1})
        await functions_told(world)
        assert [list(one.users) for one in live(world)] == [[OTHER]]

        tell(world, APP, functions={ONE: 2, OTHER: 3})
        await functions_told(world)
        assert not live(world)


@pytest.mark.parametrize(("version", "stays"), [(3, True), (4, False)])
async def test_the_next_agent_knows_of_which_versions_its_templates_are(
    world: World, version: int, stays: bool
) -> None:
    async with world.running(start_path="auto"):
        await world.build()
        await start_plainly(world, env={"A": "1"}, version=2)
        # Known beside what it was made for.
        await start_plainly(world, OTHER, env={"A": "1"}, version=3)
        await start(world, VARIANT, version=3)

    async with world.running(start_path="auto"):
        assert await functions_told(world) == ["", VARIANT]
        tell(world, APP, functions={ONE: 4, OTHER: version, VARIANT: version})

        assert await functions_told(world) == ["", VARIANT] * stays


@pytest.mark.parametrize("version", [1, 3])
async def test_of_two_that_an_agent_has_left_to_a_function_the_newer_one_is_its_own(world: World, version: int) -> None:
    async with world.running(start_path="auto"):
        await world.build()
        await start_plainly(world, ONE, env={"A": "1"}, version=2)
        await start_plainly(world, OTHER, env={"A": "2"}, version=version)
        (place,) = [one.outfit.directory for one in live(world) if OTHER in one.users]
    # As if it was ended between the start of the function by the second and the end of the first.
    known = json.loads((place / "template.json").read_text())
    known["users"][ONE] = known["users"][OTHER]
    (place / "template.json").write_text(json.dumps(known))

    async with world.running(start_path="auto"):
        found = sorted(sorted(one.users) for one in live(world))
        assert found == ([[ONE], [OTHER]] if version == 1 else [[ONE, OTHER]])


async def test_only_so_many_are_known_to_use_a_template(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(roster, "USERS_MAX", 2)
    async with world.running(start_path="auto"):
        await world.build()
        for function_id in (ONE, OTHER, ONE, VARIANT):
            await start_plainly(world, function_id, env={"A": "1"}, version=1)

        assert [list(one.users) for one in live(world)] == [[ONE, VARIANT]]
        assert user.USERS_MAX >= 64, "what is ready for a function goes when it is not known any more"
