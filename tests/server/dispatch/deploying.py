"""Deploys over the wire, for tests: what `squall deploy` asks, with functions that need no images."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from squall.protocol import ids
from squall.protocol.codec import EVENT
from squall.protocol.deployment import AppPrepare, AppPrepared, AppPublish, AppPublished, AppRollback
from squall.protocol.function import FunctionCreate, FunctionSpec
from squall.protocol.ids import new_id
from squall.protocol.image import ImageConfig, ImageSpec
from squall.server.model.image import StoredImage
from tests.server.doubles import Stage, make_spec


def deployable(app_id: str, name: str = "square", **fields: Any) -> FunctionSpec:
    """A function as a deploy makes it: under the id that follows from its name."""
    return replace(make_spec(app_id, name, **fields), function_id=ids.function_id(app_id, name))


async def prepare(stage: Stage, name: str = "greeter", environment: str = "") -> AppPrepared:
    """Ask which app it is."""
    prepared: AppPrepared = await stage.client.ask("AppPrepare", AppPrepare(name, environment), AppPrepared)
    return prepared


async def publish(
    stage: Stage, app_id: str, *functions: FunctionSpec, name: str = "greeter", deploy_id: str = "", **fields: Any
) -> AppPublished:
    """Publish these functions."""
    record = AppPublish(app_id, name, deploy_id or new_id("rq"), **fields)
    body = stage.codec.encode(EVENT, 0, "FunctionCreate", FunctionCreate(functions))
    published: AppPublished = await stage.client.ask("AppPublish", record, AppPublished, body)
    return published


async def deploy(
    stage: Stage, *, name: str = "greeter", code: str = "1", function: str = "square", **fields: Any
) -> AppPublished:
    """A whole deploy of one function; `code` is what differs between two of them."""
    prepared = await prepare(stage, name)
    publishing = {key: fields.pop(key) for key in ("strategy", "tag", "deploy_id") if key in fields}
    spec = deployable(prepared.app_id, function, env={"CODE": code}, **fields)
    return await publish(stage, prepared.app_id, spec, name=name, **publishing)


async def roll_back(stage: Stage, app: str = "greeter", version: int = 0, **fields: Any) -> AppPublished:
    """Go back."""
    record = AppRollback(app, new_id("rq"), version=version, **fields)
    published: AppPublished = await stage.client.ask("AppRollback", record, AppPublished)
    return published


async def keep_image(stage: Stage) -> None:
    """Have the image that functions of tests need, so that a rollback finds it."""
    await stage.store.put_image(StoredImage("im-test", ImageSpec(()), ImageConfig(), (), 1.0, 1.0))
