"""Functions and classes by name: the server is asked, and says what they are."""

from __future__ import annotations

from squall.exception import InvalidError, NotFoundError
from squall.protocol.function import FunctionBind, FunctionBound, FunctionGet, FunctionSpec
from squall.protocol.records import replace
from squall.sdk._client import Client
from squall.sdk._definition import Handle


async def look_up(client: Client, handle: Handle) -> FunctionSpec:
    """What a handle stands for.

    Raises:
        NotFoundError: there is no such thing, or a class where a function is meant, or the other way round.
    """
    asked = FunctionGet(handle.function_id, handle.app, handle.name, handle.environment, handle.version)
    try:
        spec = await client.request("FunctionGet", asked, FunctionSpec)
    except NotFoundError as error:
        class_name, _, method = handle.name.partition(".")
        if not method or handle.is_class:
            raise
        how = f"Cls.from_name({handle.app!r}, {class_name!r})().{method}"
        raise NotFoundError(f"{error}; methods are found by their class: {how}") from None
    if handle.name and spec.definition.is_class != handle.is_class:
        is_what, kind = ("a class", "Cls") if spec.definition.is_class else ("a function", "Function")
        how = f"{kind}.from_name({handle.app!r}, {handle.name!r})"
        raise NotFoundError(f"{handle.name} of app {handle.app!r} is {is_what}: use {how}")
    if handle.version:
        held = FunctionBind(spec.function_id, version=handle.version, app_id=spec.app_id)
        bound = await client.request("FunctionBind", held, FunctionBound)
        spec = replace(spec, function_id=bound.function_id)
    return spec


def check_version(version: object, what: str) -> int:
    """The version to be held to, 0 for none.

    Raises:
        InvalidError: it is no number of one.
    """
    if version is None:
        return 0
    if not isinstance(version, int) or isinstance(version, bool) or version < 1:
        raise InvalidError(f"{what}: version={version!r} must be the number of a version, as in `squall app history`")
    return version
