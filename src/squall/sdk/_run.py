"""One run of an app: everything it needs is put on the server, and taken off again at the end."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING, Any

from squall.exception import Error
from squall.protocol.app import DETACHED, EPHEMERAL, AppCreate, AppCreated, AppStop, AppStopped
from squall.protocol.function import Definition, FunctionCreate, FunctionCreated, FunctionSpec
from squall.protocol.ids import new_id
from squall.protocol.mount import MountRef
from squall.sdk import _blob, _mount, _output, _source
from squall.sdk._client import Client
from squall.sdk._image_build import Build, Builds
from squall.sdk._pickled import pickle_function
from squall.sdk.image import CODE_DIR, Image

if TYPE_CHECKING:
    from squall.sdk.app import App
    from squall.sdk.function import Function

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
        self._mounts: dict[str, MountRef] = {}
        self._is_created = False
        self._is_started = False
        self._default: Image | None = None

    async def start(self, name: str, *, is_detached: bool, is_interactive: bool) -> None:
        """Create the app, its images, files and functions.

        Raises:
            Error: something cannot be made; what has been made is taken off by `stop`.
        """
        client, app = self._client, self._app
        functions = app.registered_functions
        ids = {function_name: new_id("fu") for function_name in functions}
        await client.connect()
        record = AppCreate(self.app_id, name, DETACHED if is_detached else EPHEMERAL, app.tags)
        self._is_created = True
        created = await client.request("AppCreate", record, AppCreated)
        client.keep_app(record, None)
        self._output.app_created(self.app_id, name, created.url)
        if _output.is_enabled():
            self._follower = _output.LogFollower(client, self.app_id, self._output)
        # Ids first: a serialized function may refer to any other, and takes its id along.
        for function_name, function in functions.items():
            function.bind(ids[function_name])
        images = await self._begin_images(functions)
        specs = [await self._spec(function, ids[name], images, is_interactive) for name, function in functions.items()]
        for built in images.values():
            await self.builds.finish(built)
        created_functions = FunctionCreate(tuple(specs))
        if specs:
            await client.request("FunctionCreate", created_functions, FunctionCreated)
        client.keep_app(record, created_functions if specs else None)
        for spec in specs:
            self._output.function_created(spec.name, spec.function_id)
        self._is_started = True

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
                if await pending.within(STOP_S):
                    end, is_server_there = self._client.codec.record(AppStopped, pending.result()[0]), True
        except Error as error:
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

    # Images

    async def _begin_images(self, functions: dict[str, Function[..., Any]]) -> dict[int, Build]:
        """One build per image, all under way; by the identity of the image object."""
        builds: dict[int, Build] = {}
        for function in functions.values():
            image = self._image_of(function)
            if image is None:
                image = self._default = self._default or Image.debian_slim()
            builds[id(image)] = await self.builds.begin(image, f"the image of function {function.name}")
        return builds

    def _image_of(self, function: Function[..., Any]) -> Image | None:
        definition = function.definition
        assert definition is not None
        return definition.image or function.app.image or self._app.image

    # Functions

    async def _spec(
        self, function: Function[..., Any], function_id: str, images: dict[int, Build], is_interactive: bool
    ) -> FunctionSpec:
        definition = function.definition
        assert definition is not None
        image = self._image_of(function) or self._default
        assert image is not None
        mounts = [await self._add_mount(add) for add in image.adds]
        includes = definition.include_source
        if includes is None:
            includes = function.app.include_source
        if includes and definition.source.kind != _source.SERIALIZED:
            mounts.append(await self._source_mount(definition.source))
        return FunctionSpec(
            function_id=function_id,
            app_id=self.app_id,
            name=function.name,
            definition=await self._definition(function),
            image_id=images[id(image)].image_id,
            mounts=tuple(dict.fromkeys(mounts)),
            is_interactive=is_interactive,
            **definition.options.records(),
        )

    async def _definition(self, function: Function[..., Any]) -> Definition:
        definition = function.definition
        assert definition is not None
        source, raw_f = definition.source, definition.raw_f
        is_async = _source.is_async(raw_f)
        if source.kind != _source.SERIALIZED:
            return Definition(
                source.kind, source.module_name, raw_f.__qualname__, "", "", function.is_generator, is_async
            )
        sha256 = await _blob.put(self._client, pickle_function(function.raw_f, function.name))
        version = f"{sys.version_info[0]}.{sys.version_info[1]}"
        return Definition(_source.SERIALIZED, "", "", sha256, version, function.is_generator, is_async)

    async def _source_mount(self, source: _source.Source) -> MountRef:
        known = self._mounts.get(source.path)
        if known is not None:
            return known
        if source.kind == _source.BY_FILE:
            files = [_mount.LocalFile(source.path, f"{source.module_name}.py")]
        else:
            package = source.module_name.partition(".")[0]
            files = list(_mount.find_files(source.path, package, _mount.is_code_noise))
        mount = _mount.make_mount(files, source.path)
        ref = self._mounts[source.path] = MountRef(await _mount.upload(self._client, mount), CODE_DIR)
        self._output.mount_created(source.path)
        return ref

    async def _add_mount(self, add: Any) -> MountRef:
        key = f"{add.kind}:{add.source}:{add.target}:{id(add.ignore)}"
        known = self._mounts.get(key)
        if known is None:
            target, mount = add.mount()
            known = self._mounts[key] = MountRef(await _mount.upload(self._client, mount), target)
            self._output.mount_created(f"{add.source} → {add.target}")
        return known
