"""The end of the server that somebody asks for: what would be cut off, and what those hear who wait for it.

Apps that run are stopped, for good. What is deployed stays deployed, and the next server takes it up with the calls
that are on disk. Other calls of deployed apps fail: their callers would start a server at once, to go on with them.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import TYPE_CHECKING

from squall.protocol.app import DEPLOYED
from squall.protocol.call import Failure
from squall.protocol.errors import CONFLICT, PlatformError
from squall.protocol.server import ServerStop
from squall.server.dispatch.app.apps import App

if TYPE_CHECKING:
    from squall.server.dispatch.control_plane import ControlPlane

FORCED_STOP_S = 5.0
"""How long a server that is stopped by force waits for its apps to end as they do when they are stopped."""
NAMES_SHOWN = 5
REASON = "the server was stopped"


async def stop_server(plane: ControlPlane, record: ServerStop) -> None:
    """End what runs, tell who waits for it, and let the server end.

    Raises:
        PlatformError: `conflict` where anything would be cut off that must not be; it names what.
    """
    apps = list(plane.apps.live.values())
    ending = [app for app in apps if app.row.state != DEPLOYED]
    busy = [app for app in apps if app.row.state == DEPLOYED and plane.apps.is_busy(app)]
    if not record.is_forced and (ending or busy):
        raise PlatformError(CONFLICT, f"ServerStop: {_refusal(ending, busy)}")
    # Who waits in a call hears why before its containers and the server are gone.
    _fail_calls(plane, {app.app_id for app in apps if app.row.state == DEPLOYED})
    stops = [asyncio.ensure_future(plane.apps.stop(app, REASON)) for app in ending]
    if stops:
        await asyncio.wait(stops, timeout=FORCED_STOP_S)
    plane.request_stop()


def _fail_calls(plane: ControlPlane, app_ids: set[str]) -> None:
    """Those of programs outside. A call that an input makes goes with that input, which perhaps begins anew."""
    # Also of functions that a deploy left out, as long as anything of them runs.
    for dispatcher in [one for one in plane.apps.dispatchers.values() if one.spec.app_id in app_ids]:
        calls = [call for call in plane.calls.of(dispatcher) if not call.is_durable and call.parent is None]
        inputs = [one for call in calls for one in list(call.inputs.values())]
        dispatcher.fail(inputs, Failure("stopped", f"call of {dispatcher.spec.name}: {REASON}"))


def _refusal(ending: Sequence[App], busy: Sequence[App]) -> str:
    """What runs, and the ways on. Apps that others have started end with those, and are only counted."""
    roots = [app for app in ending if not app.row.ancestors]
    names = [_shown(app, app.row.state) for app in roots]
    names += [_shown(app, f"{DEPLOYED}, calls under way") for app in busy]
    shown = names[:NAMES_SHOWN]
    if more := len(names) - len(shown):
        shown.append(f"{more} more")
    if children := len(ending) - len(roots):
        shown.append(f"{children} started by others")
    count = "an app runs" if len(ending) + len(busy) == 1 else f"{len(ending) + len(busy)} apps run"
    force = "`squall server stop --force`, which ends what runs; what is deployed stays deployed"
    return f"{count}: {', '.join(shown)}; wait for the end, or use {force}"


def _shown(app: App, state: str) -> str:
    return f"{app.row.name or 'without a name'} ({app.app_id}, {state})"
