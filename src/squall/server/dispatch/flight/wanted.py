"""Whose calls a list of calls is to have: an app's, those of all apps of a name, or a function's of these."""

from __future__ import annotations

from typing import TYPE_CHECKING

from squall.protocol.errors import INVALID, NOT_FOUND, PlatformError
from squall.protocol.flight import CallList
from squall.protocol.function import FunctionSpec
from squall.protocol.ids import is_id
from squall.protocol.records import field, record
from squall.server.dispatch.app.near import near
from squall.server.dispatch.client.callers import Caller
from squall.server.dispatch.flight.recorder import CallTrack
from squall.server.model.store import StoredApp
from squall.server.model.variant import has_none_of_its_own, merged

if TYPE_CHECKING:
    from squall.server.dispatch.control_plane import ControlPlane

APPS_MAX = 200
"""Of one name; each run of a program is one."""
FUNCTIONS_MAX = 500
"""That are looked for in the store at once."""


@record
class Wanted:
    """What a call must be of; nothing for all."""

    app_ids: tuple[str, ...] = ()
    specs: dict[str, FunctionSpec] = field(default_factory=dict)
    has_variants: bool = False
    is_cut: bool = False
    """There are more apps or variants."""

    def has(self, track: CallTrack) -> bool:
        """Whether the call is of these; also of a variant that the store lists too late."""
        spec = track.spec
        if self.app_ids and spec.app_id not in self.app_ids:
            return False
        is_variant = self.has_variants and spec.variant_of in self.specs
        return not self.specs or is_variant or spec.function_id in self.specs


async def wanted_of(plane: ControlPlane, caller: Caller, asked: CallList) -> Wanted:
    """What a request means.

    Raises:
        PlatformError: `not_found` for an app or function, `invalid` for a function's name without its app.
    """
    rows: list[StoredApp] = []
    is_cut = False
    if asked.app:
        rows, is_cut = await _apps(plane, caller, asked)
    app_ids = tuple(row.app_id for row in rows)
    if not asked.function:
        return Wanted(app_ids, is_cut=is_cut)
    if is_id(asked.function, "fu"):
        spec = await plane.variants.spec_of(asked.function)
        caller.check_use("CallList", await plane.apps.get(spec.app_id))
        named = [spec]
    elif rows:
        named = await _named(plane, rows, asked)
    else:
        raise PlatformError(INVALID, "CallList: a function's name says nothing without its app; name that too")
    has_variants = asked.has_variants or any(has_none_of_its_own(spec) for spec in named)
    specs = {spec.function_id: spec for spec in named}
    for spec in named if has_variants else ():
        variants, are_more = await variants_of(plane, spec, max(0, FUNCTIONS_MAX - len(specs)))
        specs |= {one.function_id: one for one in variants}
        is_cut = is_cut or are_more
    return Wanted(app_ids, specs, has_variants, is_cut)


async def variants_of(plane: ControlPlane, spec: FunctionSpec, limit: int) -> tuple[list[FunctionSpec], bool]:
    """The variants of a function, the last used first, and whether there are more."""
    found: list[FunctionSpec] = []
    stored = await plane.store.list_variants(spec.function_id, limit + 1)
    for one in stored[:limit]:
        dispatcher = plane.apps.dispatchers.get(one.function_id)
        found.append(merged(spec, one.asked()) if dispatcher is None else dispatcher.spec)
    return found, len(stored) > limit


async def _apps(plane: ControlPlane, caller: Caller, asked: CallList) -> tuple[list[StoredApp], bool]:
    """The app of an id, or all of a name, the one first that it means elsewhere; and whether there are more."""
    row = await plane.apps.find(asked.app, caller.scope_app_id, asked.environment)
    caller.check_use("CallList", row)
    if row.app_id == asked.app or caller.scope_app_id:
        return [row], False
    found = await plane.store.list_apps(APPS_MAX + 1, environment=row.environment, name=row.name)
    others = [one for one in found[:APPS_MAX] if one.app_id != row.app_id and not one.ancestors]
    others = [one for one in others if plane.environments.is_of_it(one)]
    return [row, *others], len(found) > APPS_MAX


async def _named(plane: ControlPlane, rows: list[StoredApp], asked: CallList) -> list[FunctionSpec]:
    found = [await plane.store.find_function(row.app_id, asked.function) for row in rows]
    named = [spec for spec in found if spec is not None]
    if not named:
        app = plane.apps.live.get(rows[0].app_id)
        hint = near(asked.function, app.functions if app is not None else ())
        what = f"CallList: app {asked.app!r} has no function {asked.function[:200]!r}"
        raise PlatformError(NOT_FOUND, f"{what}{hint}")
    return named
