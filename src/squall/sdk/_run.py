"""One run of an app: everything it needs is put on the server, and taken off again at the end."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from squall.exception import Error, NotFoundError
from squall.protocol.app import DETACHED, EPHEMERAL, AppCreate, AppCreated, AppStop, AppStopped
from squall.protocol.function import EXIT_GRACE_S, FunctionCreate, FunctionCreated
from squall.protocol.ids import function_id, new_id
from squall.protocol.pages import pages
from squall.sdk import _output
from squall.sdk._client import Client
from squall.sdk._dev_suffix import dev_suffix
from squall.sdk._image_build import Builds
from squall.sdk._specs import Specs
from squall.sdk._user import user_name
from squall.sdk._web_address import announce

if TYPE_CHECKING:
    from squall.sdk.app import App

STOP_S = 10.0


class Running:
    """The run: `start` it, `stop` it."""

    def __init__(self, app: App, client: Client) -> None:
        self._app = app
        self._client = client
        self.app_id = new_id("ap")
        self._pid = os.getpid()
        self._output = _output.current()
        self.builds = Builds(client, self.app_id, self._output)
        self._follower: _output.LogFollower | None = None
        self._is_created = False
        self._is_started = False

    async def start(self, name: str, environment: str, *, is_detached: bool, is_interactive: bool) -> None:
        """Create the app, its images, files and functions.

        Raises:
            Error: something cannot be made; what has been made is taken off by `stop`.
        """
        client, app = self._client, self._app
        functions = app.served_functions
        ids = {function_name: function_id(self.app_id, function_name) for function_name in functions}
        await client.connect()
        state = DETACHED if is_detached else EPHEMERAL
        record = AppCreate(self.app_id, name, state, app.tags, environment, user_name(), dev_suffix())
        self._is_created = True
        created = await client.request("AppCreate", record, AppCreated)
        client.keep_app(record)
        self._output.app_created(self.app_id, name, created.url)
        if _output.is_enabled():
            self._follower = _output.LogFollower(client, self.app_id, self._output)
        # Ids first: a serialized function may refer to any other, and takes its id along.
        for function_name, function in functions.items():
            function.bind(ids[function_name])
        made = Specs(app, self.app_id, client, self.builds, self._output)
        specs = await made.make(ids, is_interactive=is_interactive)
        # Some at a time: one frame does not take them all.
        pieces = [FunctionCreate(some) for some in pages(client.codec, specs)]
        for piece in pieces:
            await client.request("FunctionCreate", piece, FunctionCreated)
        client.keep_app(record, tuple(pieces))
        for spec in specs:
            self._output.function_created(spec.name, spec.function_id)
        await announce(client, self.app_id, specs, self._output)
        if any(spec.schedule is not None for spec in specs):
            self._output.schedules_rest([spec.name for spec in specs if spec.schedule is not None])
        self._is_started = True

    def _stop_s(self) -> float:
        """How long its end may take: exit hooks of its classes run then."""
        both = (self._app.registered_classes.values(), self._app.registered_servers.values())
        classes = [one.user_class for some in both for one in some]
        has_hooks = any(one is not None and one.exit_hooks for one in classes)
        return STOP_S + EXIT_GRACE_S if has_hooks else STOP_S

    async def stop(self, *, is_aborted: bool, is_detached: bool) -> None:
        """Stop the app and show its last lines. A detached one that was interrupted, or spawned calls, goes on."""
        if os.getpid() != self._pid:
            return  # a forked child came out of the block: the run is its parent's
        self.builds.close()
        self._client.drop_app(self.app_id)
        end, is_server_there = AppStopped(goes_on=is_detached and is_aborted), False
        try:
            if self._is_created and not end.goes_on:
                reason = "its program was interrupted" if is_aborted else "its program ended"
                pending = self._client.ask("AppStop", AppStop(self.app_id, reason, is_sparing=is_detached))
                if await pending.within(self._stop_s()):
                    end, is_server_there = self._client.codec.record(AppStopped, pending.result()[0]), True
        except Error as error:
            # An app that could not be made is not there; why, the error says that ends the run.
            if self._is_started or not isinstance(error, NotFoundError):
                self._output.notice(f"app {self.app_id} was not stopped from here: {error}")
        finally:
            if self._follower is not None:
                # The lines of an app that goes on have no end to wait for.
                drain_s = 0.0 if end.goes_on else _output.DRAIN_S
                self._follower.finish(drain_s, is_server_there=is_server_there)
            if end.goes_on:
                self._output.app_detached(self.app_id)
            # Of one that could not be started, the error says all.
            elif self._is_created and (self._is_started or is_aborted or end.was_stopped):
                self._output.app_stopped(self.app_id, is_aborted, end.was_stopped)
