"""What an app's functions are made of, put on the server: images built, files and pickles stored, records made."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

from squall.exception import InvalidError
from squall.protocol.function import SPEC_BYTES_MAX, Definition, FunctionSpec
from squall.protocol.mount import MountRef
from squall.protocol.pages import size_of
from squall.sdk import _blob, _mount, _output, _source
from squall.sdk._client import Client
from squall.sdk._image_build import Build, Builds
from squall.sdk._pickled import pickle_function
from squall.sdk.image import CODE_DIR, Image

if TYPE_CHECKING:
    from squall.protocol.bucket import BucketMount
    from squall.protocol.volume import VolumeMount
    from squall.sdk._user_class import UserClass
    from squall.sdk._volume_mounts import Mounted
    from squall.sdk.app import App
    from squall.sdk.function import Function
    from squall.sdk.secret import Secret


def check_spec_size(size_bytes: int, name: str) -> None:
    """Raises InvalidError for a function whose record is too large."""
    if size_bytes > SPEC_BYTES_MAX:
        has = f"its variables, methods and mounts have {size_bytes / 2**20:.1f} MiB, at most {SPEC_BYTES_MAX >> 20}"
        raise InvalidError(f"function {name}: {has}; put what is large into a file of its image, and read that")


class Specs:
    """Makes the records of one app's functions, for a run of it or a deploy."""

    def __init__(self, app: App, app_id: str, client: Client, builds: Builds, output: _output.Output) -> None:
        self._app = app
        self._app_id = app_id
        self._client = client
        self._builds = builds
        self._output = output
        self._mounts: dict[str, MountRef] = {}
        self._secrets: dict[int, list[str]] = {}
        """Of each secret, by its identity, the id; none where nothing is in it."""
        self._default: Image | None = None

    async def make(self, ids: dict[str, str], *, is_interactive: bool = False) -> tuple[FunctionSpec, ...]:
        """The records of all functions, whose images are built then; `ids` by name.

        Raises:
            Error: something cannot be made.
        """
        functions = self._app.served_functions
        images = await self._begin_images(functions)
        specs = [await self._spec(function, ids[name], images, is_interactive) for name, function in functions.items()]
        for spec in specs:
            check_spec_size(size_of(self._client.codec, spec), spec.name)
        for built in images.values():
            await self._builds.finish(built)
        return tuple(specs)

    # Images

    async def _begin_images(self, functions: dict[str, Function[..., Any]]) -> dict[int, Build]:
        """One build per image, all under way; by the identity of the image object."""
        builds: dict[int, Build] = {}
        for function in functions.values():
            image = self._image_of(function)
            if image is None:
                image = self._default = self._default or Image.debian_slim()
            builds[id(image)] = await self._builds.begin(image, f"the image of function {function.name}")
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
        volumes, buckets = await self._mounted({**function.app.given_volumes, **definition.options.volumes})
        return FunctionSpec(
            function_id=function_id,
            app_id=self._app_id,
            name=function.name,
            definition=await self._definition(function),
            image_id=images[id(image)].image_id,
            mounts=tuple(dict.fromkeys(mounts)),
            is_interactive=is_interactive,
            secrets=await self._secret_ids((*function.app.given_secrets, *definition.options.secrets)),
            volumes=volumes,
            buckets=buckets,
            **definition.options.records(),
        )

    async def _definition(self, function: Function[..., Any]) -> Definition:
        definition = function.definition
        assert definition is not None
        source, raw_f = definition.source, definition.raw_f
        if definition.user_class is not None:
            return await self._class_definition(function, definition.user_class)
        is_async = _source.is_async(raw_f)
        if source.kind != _source.SERIALIZED:
            return Definition(
                source.kind, source.module_name, raw_f.__qualname__, "", "", function.is_generator, is_async
            )
        sha256 = await _blob.put(self._client, pickle_function(function.raw_f, function.name))
        version = f"{sys.version_info[0]}.{sys.version_info[1]}"
        return Definition(_source.SERIALIZED, "", "", sha256, version, function.is_generator, is_async)

    async def _class_definition(self, function: Function[..., Any], user_class: UserClass) -> Definition:
        definition = function.definition
        assert definition is not None
        source = definition.source
        sha256 = version = ""
        if source.kind == _source.SERIALIZED:
            sha256 = await _blob.put(self._client, pickle_function(function.raw_f, function.name))
            version = f"{sys.version_info[0]}.{sys.version_info[1]}"
        return Definition(
            source.kind,
            source.module_name,
            user_class.raw.__qualname__ if source.kind != _source.SERIALIZED else "",
            sha256,
            version,
            is_async=user_class.is_async,
            is_class=True,
            methods=tuple(user_class.methods.values()),
            parameters=user_class.givable,
            has_exit_hooks=bool(user_class.exit_hooks),
        )

    async def _mounted(self, given: dict[str, Mounted]) -> tuple[tuple[VolumeMount, ...], tuple[BucketMount, ...]]:
        if not given:
            return (), ()
        from squall.sdk._volume_mounts import mounts_of  # cold start: functions with volumes only

        return await mounts_of(given, self._client, self._secret_id)

    async def _secret_id(self, secret: Secret) -> str:
        return "".join(await self._secret_ids((secret,)))

    async def _secret_ids(self, secrets: tuple[Secret, ...]) -> tuple[str, ...]:
        """Each is looked up, or sent, once."""
        for one in secrets:
            if id(one) not in self._secrets:
                from squall.sdk._given_secrets import ids_of  # cold start: functions with secrets only

                self._secrets[id(one)] = await ids_of((one,), self._client, app_id=self._app_id)
        return tuple(secret_id for one in secrets for secret_id in self._secrets[id(one)])

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
