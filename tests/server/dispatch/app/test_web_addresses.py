"""Where web functions of apps that do not stay are found, and what their program may put behind their labels."""

from __future__ import annotations

import pytest

from squall.protocol.app import AppCreate, AppCreated
from squall.protocol.errors import PlatformError
from squall.protocol.function import FunctionCreate, FunctionCreated
from squall.protocol.ids import new_id
from squall.protocol.web import ASGI, WebAddressList, WebAddressListing, WebSpec
from tests.server.doubles import Stage, make_spec, staged


async def labels(stage: Stage, app_id: str) -> list[tuple[str, str]]:
    listing = await stage.client.ask("WebAddressList", WebAddressList(app_id), WebAddressListing)
    return [(one.label, one.kind) for one in listing.addresses]


async def create(stage: Stage, app_id: str, suffix: str) -> None:
    await stage.client.ask("AppCreate", AppCreate(app_id, "shop", web_suffix=suffix), AppCreated)


async def test_suffix_is_the_programs_and_else_dev() -> None:
    async with staged() as stage:
        for suffix, label in (("", "shop-site-dev"), ("ann", "shop-site-ann")):
            app_id = new_id("ap")
            await create(stage, app_id, suffix)
            site = FunctionCreate((make_spec(app_id, "site", web=WebSpec(ASGI)),))
            await stage.client.ask("FunctionCreate", site, FunctionCreated)

            assert await labels(stage, app_id) == [(label, ASGI)]


@pytest.mark.parametrize("state", ["ephemeral", "detached"])
async def test_suffix_stays_over_a_restart_also_where_its_program_has_gone(state: str) -> None:
    async with staged() as stage:
        app_id = new_id("ap")
        record = AppCreate(app_id, "shop", state, web_suffix="ann")
        await stage.client.ask("AppCreate", record, AppCreated)
        site = FunctionCreate((make_spec(app_id, "site", web=WebSpec(ASGI)),))
        await stage.client.ask("FunctionCreate", site, FunctionCreated)

        await stage.restart()
        await stage.client.connect()

        assert await labels(stage, app_id) == [("shop-site-ann", ASGI)]


async def test_app_that_does_not_stay_runs_beside_the_deployed_one_of_its_name() -> None:
    async with staged() as stage:
        deployed = new_id("ap")
        site = make_spec(deployed, "site", web=WebSpec(ASGI))
        await stage.client.ask("AppCreate", AppCreate(deployed, "shop", "deployed"), AppCreated)
        await stage.client.ask("FunctionCreate", FunctionCreate((site,)), FunctionCreated)

        app_id = new_id("ap")
        await create(stage, app_id, "")
        await stage.client.ask(
            "FunctionCreate", FunctionCreate((make_spec(app_id, "site", web=WebSpec(ASGI)),)), FunctionCreated
        )

        assert await labels(stage, deployed) == [("shop-site", ASGI)]
        assert await labels(stage, app_id) == [("shop-site-dev", ASGI)]


@pytest.mark.parametrize("suffix", ["Ann", "a-b", "a" * 17, "a.b", "a\n"])
async def test_what_is_no_suffix_is_refused(suffix: str) -> None:
    async with staged() as stage:
        with pytest.raises(PlatformError, match=r"web_suffix .* must be 1 to 16 lower-case ASCII letters and digits"):
            await create(stage, new_id("ap"), suffix)
