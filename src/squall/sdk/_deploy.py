"""One deploy of an app: everything it needs is put on the server, and then, at once, made its new version."""

from __future__ import annotations

import os
import re
from typing import TYPE_CHECKING

from squall.exception import InvalidError, NotFoundError
from squall.protocol import codec as wire
from squall.protocol import ids
from squall.protocol.app import DEPLOYED, AppGet, AppInfo
from squall.protocol.deployment import RECREATE, ROLLING, STRATEGIES, AppPrepare, AppPrepared, AppPublish, AppPublished
from squall.protocol.frames import BODY_BYTES_MAX
from squall.protocol.function import FunctionCreate
from squall.protocol.names import VERSION_TAG, VERSION_TAG_RULE
from squall.protocol.pages import size_of
from squall.protocol.version import VERSION
from squall.sdk import _container, _output, _source
from squall.sdk._client import Client, current
from squall.sdk._commit import find_commit
from squall.sdk._environment import environment_of
from squall.sdk._image_build import Builds
from squall.sdk._names import check_name
from squall.sdk._specs import Specs
from squall.sdk._user import user_name
from squall.sdk._value_text import value_text
from squall.sdk._web_address import announce

if TYPE_CHECKING:
    from squall.sdk.app import App


def check_strategy(strategy: object) -> str:
    """The strategy, if it is one.

    Raises:
        InvalidError: it is none.
    """
    if not isinstance(strategy, str) or strategy not in STRATEGIES:
        raise InvalidError(f"strategy={value_text(strategy)}: use 'rolling' or 'recreate'")
    return strategy


def check_tag(tag: object) -> str:
    """The tag of a version, if it can be one.

    Raises:
        InvalidError: no text, too long, or with other characters.
    """
    if not isinstance(tag, str) or not re.match(VERSION_TAG, tag):
        raise InvalidError(f"tag={value_text(tag)}: use {VERSION_TAG_RULE}")
    return tag


async def deploy(
    app: App,
    *,
    name: str | None = None,
    environment: str | None = None,
    tag: str = "",
    client: Client | None = None,
    strategy: str = ROLLING,
) -> AppPublished:
    """Deploy the app, under its own name or another.

    Raises:
        Error: a parameter is none, or something cannot be made; what is deployed stays as it was.
    """
    app.check_deployable()
    check_strategy(strategy)
    check_tag(tag)
    found = app.name if name is None else name
    if found is None:
        raise InvalidError("App.deploy: an app without a name cannot be deployed; give it one, or deploy(name=…)")
    app_name, environment = check_name(found, "app name"), environment_of(environment)
    client = client or current()
    await client.connect()
    published = await _publish(app, client, app_name, environment, tag, strategy)
    app.deployed_as(published.app_id)
    return published


async def serve(app: App, app_id: str, name: str, client: Client | None = None) -> AppPublished:
    """Let the ephemeral app of that id, held by another program, go on with what this one is made of.

    Containers of what has changed are ended, and what they run begins again in new ones.

    Raises:
        Error: something cannot be made; the app goes on as it was.
    """
    client = client or current()
    await client.connect()
    return await _publish(app, client, name, environment_of(None), "", RECREATE, app_id)


async def _publish(
    app: App, client: Client, name: str, environment: str, tag: str, strategy: str, app_id: str = ""
) -> AppPublished:
    output = _output.current()
    if app_id:
        prepared = AppPrepared(app_id)
    else:
        prepared = await client.request("AppPrepare", AppPrepare(name, environment), AppPrepared)
    functions = app.served_functions
    function_ids = {function_name: ids.function_id(prepared.app_id, function_name) for function_name in functions}
    builds = Builds(client, prepared.app_id, output)
    before = {function_name: function.bound_id for function_name, function in functions.items()}
    is_done = False
    try:
        # Ids first: a serialized function may refer to any other, and takes its id along.
        for function_name, function in functions.items():
            function.bind(function_ids[function_name])
        specs = await Specs(app, prepared.app_id, client, builds, output).make(function_ids)
        record = AppPublish(
            prepared.app_id,
            name,
            os.urandom(12).hex(),
            environment,
            tag,
            strategy,
            app.tags,
            VERSION,
            user_name(),
            find_commit(_folder_of(app)),
        )
        # As the parameters of an event, in the body: the server reads them with the codec of its choice.
        body = client.codec.encode(wire.EVENT, 0, "FunctionCreate", FunctionCreate(specs))
        if len(body) > BODY_BYTES_MAX:
            largest = max(specs, key=lambda spec: size_of(client.codec, spec))
            has = f"its {len(specs):,} functions have {len(body) / 2**20:.1f} MiB of variables, methods and mounts"
            most = f"at most {BODY_BYTES_MAX >> 20}, and {largest.name} has most"
            raise InvalidError(f"cannot deploy app {name}: {has}, {most}; put what is large into a file of the image")
        published = await client.request("AppPublish", record, AppPublished, body)
        is_done = True
    finally:
        builds.close()
        if not is_done:
            for function_name, function in functions.items():
                function.bind(before[function_name])
    for spec in specs:
        output.function_created(spec.name, spec.function_id)
    if not (app_id and published.is_unchanged):  # `squall serve` has told it before
        await announce(client, published.app_id, specs, output)
    return published


async def look_up(client: Client, name: object, environment: str | None, *, is_created: bool) -> AppInfo:
    """A deployed app by name, or any app by id; one without functions where there is none and that is asked for.

    Raises:
        Error: there is no such app; or as `App.lookup`.
    """
    if isinstance(name, str) and ids.is_id(name, "ap"):
        if is_created:
            raise InvalidError(f"App.lookup({name!r}, create_if_missing=True): ids are given, not chosen; use a name")
        return await client.request("AppGet", AppGet(name, has_functions=False), AppInfo)
    asked = AppGet(check_name(name, "app name"), environment_of(environment), has_functions=False)
    try:
        found = await client.request("AppGet", asked, AppInfo)
        if found.state == DEPLOYED:
            return found
        if not is_created:
            raise NotFoundError(f"no app is deployed as {name!r}: {found.app_id} of that name is {found.state}")
    except NotFoundError:
        if not is_created:
            raise
    if _container.current() is not None:
        raise InvalidError("App.lookup(create_if_missing=True) in a container: apps are deployed from outside")
    prepared = await client.request("AppPrepare", AppPrepare(asked.app, asked.environment), AppPrepared)
    # Without a version it is not there; whoever deploys meanwhile has made it.
    if not prepared.version:
        record = AppPublish(
            prepared.app_id, asked.app, os.urandom(12).hex(), asked.environment, "", ROLLING, {}, VERSION, user_name()
        )
        body = client.codec.encode(wire.EVENT, 0, "FunctionCreate", FunctionCreate(()))
        await client.request("AppPublish", record, AppPublished, body)
    return await client.request("AppGet", AppGet(prepared.app_id, has_functions=False), AppInfo)


def _folder_of(app: App) -> str:
    """Where the program lies."""
    for function in app.served_functions.values():
        definition = function.definition
        if definition is not None and definition.source.kind == _source.BY_FILE:
            return os.path.dirname(definition.source.path)
        if definition is not None and definition.source.kind == _source.BY_PACKAGE:
            return definition.source.path
    return os.getcwd()
