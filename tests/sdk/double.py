"""A double of the server for tests of the SDK: real frames over a unix socket, functions run in this process.

It keeps what it is told, so that tests can look; it can break connections and forget what it knew, as a server that
is killed does.
"""

from __future__ import annotations

import asyncio
import hashlib
import inspect
import os
import sys
import threading
import time
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from squall.protocol import (
    app,
    autoscaler,
    blob,
    call,
    deployment,
    function,
    image,
    image_catalog,
    log,
    mount,
    parameters,
    server,
    web,
)
from squall.protocol import codec as wire
from squall.protocol.channel.stream import StreamChannel
from squall.protocol.codec import JsonCodec
from squall.protocol.empty import Empty
from squall.protocol.errors import NOT_FOUND, PlatformError
from squall.protocol.guest import GuestHello
from squall.protocol.ids import new_id
from squall.protocol.peer import Peer
from squall.protocol.request import Request
from squall.protocol.version import PROTOCOL_VERSION, VERSION
from squall.sdk._serialization import deserialize, encode_exception, serialize
from squall.server.model import variant
from squall.server.model.web_label import label_of, webs_of


async def pass_by(spec: image.ImageSpec) -> None:
    """What a build waits for that nobody holds up."""


class ServerDouble:
    """Start it with a socket path; use `state` attributes from the test's thread once things are quiet."""

    web_domain = "localhost"
    addresses_max = 100
    """Of web functions, in one answer."""

    def __init__(self, socket_path: str) -> None:
        self.socket_path = socket_path
        self.version = VERSION
        self.is_idle = False
        self.apps: dict[str, app.AppCreate] = {}
        self.stopped: list[str] = []
        self.is_sparing = False
        """Whether detached apps go on when their programs end."""
        self.functions: dict[str, function.FunctionSpec] = {}
        self.mounts: dict[str, mount.MountManifest] = {}
        self.blobs: dict[str, bytes] = {}
        self.blobs_put: list[str] = []
        """Each time that one came, also again."""
        self.partial: dict[str, bytearray] = {}
        self.images: list[image.ImageSpec] = []
        self.run_ids: list[str] = []
        """Of the builds of these."""
        self.build_events: list[image.BuildEvent] = []
        self.build_error: PlatformError | None = None
        self.builds_at_once = 0
        """So many builds must have begun before any ends."""
        self.builds_may_end = asyncio.Event()
        self.on_build: Callable[[image.ImageSpec], Awaitable[None]] = pass_by
        """Each build ends when this does."""
        self.log_lines: list[log.LogEntry] = []
        self.logs_read: list[log.LogRead] = []
        self.image_logs_read: list[image_catalog.ImageLogRead] = []
        self.hellos: list[server.Hello] = []
        self.guest_hellos: list[GuestHello] = []
        self.opened: list[call.CallOpen] = []
        self.rescaled: list[autoscaler.AutoscalerUpdate] = []
        self.looked_up: list[function.FunctionGet] = []
        """Functions that were asked for by name or id."""
        self.lookup_s = 0.0
        """How long that takes."""
        self.bound: list[function.FunctionBind] = []
        """Variants that were asked for."""
        self.closed_calls: list[str] = []
        self.cancelled: list[str] = []
        self.outputs: dict[tuple[str, int], tuple[int, bytes, str]] = {}
        self.attempts: list[tuple[str, int]] = []
        self.callables: dict[str, Callable[..., Any]] = {}
        """By name of function; anything else is looked up as a container would."""
        self.spawned: dict[str, tuple[call.CallOpen, int, bool]] = {}
        """Durable calls: how many inputs they have, and whether they grow."""
        self.portions: list[int] = []
        """How many inputs came with each request for one."""
        self.durable_tasks: set[asyncio.Future[Any]] = set()
        self.gathered: list[int] = []
        """How many calls each question for the outputs of several was about."""
        self.batches: list[int] = []
        """How many calls came with each request for several."""
        self.spawn_error: PlatformError | None = None
        self.refusals: list[float] = []
        """The next requests of growing calls are told to come again after so long."""
        self.spawn_s = 0.0
        """How long a spawn takes to be on disk."""
        self.is_holding_outputs = False
        self.prints_before_results = False
        self.items_sent_max: int | None = None
        """Later ones of a generator are lost on the way."""
        """A line leaves before each output and item, to whoever follows."""
        self.breaks_at_last_lines = False
        """The connection is lost once, when the app has stopped and its last lines have not gone out."""
        self.connections: list[Connection] = []
        self.server_id = new_id("sv")
        self.executor = ThreadPoolExecutor(8)
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._server: asyncio.AbstractServer | None = None

    def __enter__(self) -> ServerDouble:
        self._thread.start()
        self.listen()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.hang_up()
        self.executor.shutdown(wait=False, cancel_futures=True)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(5)
        self._loop.close()

    def listen(self) -> None:
        """Take connections."""

        async def begin() -> None:
            self._server = await self._loop.create_unix_server(
                lambda: StreamChannel(lambda channel: self.connections.append(Connection(self, channel))),
                self.socket_path,
            )

        self.do(begin())

    def hang_up(self) -> None:
        """Break all connections and take no more."""

        async def end() -> None:
            if self._server is not None:
                self._server.close()
                self._server = None
            connections, self.connections = self.connections, []
            for connection in connections:
                await connection.peer.close()
            await asyncio.sleep(0)

        self.do(end())
        if os.path.exists(self.socket_path):
            os.unlink(self.socket_path)

    def restart(self) -> None:
        """As a kill -9 and a new start: apps and calls are forgotten, blobs and mounts are on disk."""
        self.hang_up()
        self.apps, self.functions, self.outputs = {}, {}, {}
        self.server_id = new_id("sv")
        self.listen()

    def do(self, coroutine: Any) -> Any:
        """Run something on the double's loop."""
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result(20)

    def release_outputs(self) -> None:
        """Send what was held, and hold no more."""

        async def release() -> None:
            self.is_holding_outputs = False
            for connection in self.connections:
                connection.send_held()

        self.do(release())

    def known(self, function_id: str) -> function.FunctionSpec | None:
        """A function, unless its app was stopped."""
        spec = self.functions.get(function_id)
        return spec if spec is not None and spec.app_id not in self.stopped else None

    def find(self, spec: function.FunctionSpec) -> Callable[..., Any]:
        """The callable of a function, as a container finds it."""
        if spec.name in self.callables:
            return self.callables[spec.name]
        if spec.definition.kind == function.SERIALIZED:
            return deserialize(self.blobs[spec.definition.blob_sha256])  # type: ignore[no-any-return]
        found: Any = sys.modules[spec.definition.module]
        for name in spec.definition.qualname.split("."):
            found = getattr(found, name)
        return getattr(found, "raw_f", found)  # type: ignore[no-any-return]

    def method(self, spec: function.FunctionSpec, name: str) -> Callable[..., Any]:
        """A method of a class, of an instance as a container makes it, and entered."""
        found: Any = sys.modules[spec.definition.module]
        for part in spec.definition.qualname.split("."):
            found = getattr(found, part)
        instance = found.user_class.make(parameters.decode(spec.parameters))
        for hook in found.user_class.enter_hooks:
            hook(instance)
        return found.user_class.raw_methods[name].__get__(instance)  # type: ignore[no-any-return]


class Connection:
    """One client's channel."""

    def __init__(self, double: ServerDouble, channel: StreamChannel) -> None:
        self.double = double
        self.codec = JsonCodec()
        self.peer = Peer(channel, self.codec, self)
        self.calls: dict[str, call.CallOpen] = {}
        self.held: list[tuple[str, int]] = []
        self.following: list[Request] = []
        self.tasks: set[asyncio.Future[Any]] = set()
        self.peer.start()

    async def answer(self, request: Request) -> tuple[Any, bytes] | None:
        method = getattr(self, f"_answer_{request.method}", None)
        if method is None:
            raise PlatformError("unsupported", f"the double has no {request.method}")
        result = method(request)
        answer: tuple[Any, bytes] | None = await result if inspect.isawaitable(result) else result
        return answer

    def event(self, method: str, params: Any, body: bytes) -> None:
        if method == "GuestHello":
            self.double.guest_hellos.append(self.codec.record(GuestHello, params))
        elif method == "CallOpen":
            opened = self.codec.record(call.CallOpen, params)
            self.calls[opened.call_id] = opened
            self.double.opened.append(opened)
        elif method == "PutInputs":
            self._run_batch(self.calls[params["call_id"]], self.codec.record(call.InputBatch, params), body)
        elif method == "CallClose":
            self.double.closed_calls.append(params["call_id"])

    def closed(self, reason: str) -> None:
        for task in self.tasks:
            task.cancel()

    # Calls

    def _run_batch(self, opened: call.CallOpen, batch: call.InputBatch, body: bytes) -> None:
        for index, value in zip(batch.indexes, call.cut(body, batch.sizes), strict=True):
            if str(index) in batch.blobs:
                value = self.double.blobs[batch.blobs[str(index)]]
            # A generator runs again: its items are not kept.
            if opened.kind != call.GENERATOR and (opened.call_id, index) in self.double.outputs:
                self._send(opened.call_id, index)
                continue
            task = asyncio.ensure_future(self._run(opened, index, value))
            # Durable calls outlive the connection they came by.
            owner = self.double.durable_tasks if opened.call_id in self.double.spawned else self.tasks
            owner.add(task)
            task.add_done_callback(owner.discard)

    async def _run(self, opened: call.CallOpen, index: int, value: bytes) -> None:
        key = (opened.call_id, index)
        spec = self.double.known(opened.function_id)
        if spec is None:
            failure = call.Failure("not_found", f"function {opened.function_id} does not exist")
            self.double.outputs[key] = call.FAILED, call.encode_failure(failure), ""
            self._send(*key)
            return
        self.double.attempts.append(key)
        loop = asyncio.get_running_loop()
        if opened.kind == call.GENERATOR:
            output = await loop.run_in_executor(self.double.executor, self._generate, spec, opened, value)
        else:
            output = await loop.run_in_executor(self.double.executor, self._compute, spec, opened, value)
        self.double.outputs[key] = output
        if opened.call_id not in self.double.spawned:
            self._send(*key)

    def _callable(self, spec: function.FunctionSpec, opened: call.CallOpen) -> Callable[..., Any]:
        return self.double.method(spec, opened.method) if opened.method else self.double.find(spec)

    def _compute(self, spec: function.FunctionSpec, opened: call.CallOpen, value: bytes) -> tuple[int, bytes, str]:
        try:
            args, kwargs = deserialize(value)
            result = self._callable(spec, opened)(*args, **kwargs)
            if inspect.isawaitable(result):
                result = asyncio.run(as_coroutine(result))
            return self._stored(serialize(result))
        except BaseException as error:  # noqa: BLE001 - as in a container
            return call.FAILED, encode_exception(error, "ct-double"), ""

    def _stored(self, data: bytes) -> tuple[int, bytes, str]:
        if len(data) <= 2**20:
            return call.SUCCEEDED, data, ""
        sha256 = hashlib.sha256(data).hexdigest()
        self.double.blobs[sha256] = data
        return call.SUCCEEDED, b"", sha256

    def _generate(self, spec: function.FunctionSpec, opened: call.CallOpen, value: bytes) -> tuple[int, bytes, str]:
        loop = self.double._loop
        count = 0
        try:
            args, kwargs = deserialize(value)
            for item in self._callable(spec, opened)(*args, **kwargs):
                if opened.call_id in self.double.closed_calls:
                    break
                data = serialize(item)
                batch = call.ItemBatch(opened.call_id, 0, 1, count, (len(data),))
                loop.call_soon_threadsafe(self._put_items, batch, data)
                count += 1
            return call.SUCCEEDED, str(count).encode(), ""
        except BaseException as error:  # noqa: BLE001 - as in a container
            return call.FAILED, encode_exception(error, "ct-double"), ""

    def _send(self, call_id: str, index: int) -> None:
        if self.double.is_holding_outputs:
            self.held.append((call_id, index))
            return
        status, value, sha256 = self.double.outputs[(call_id, index)]
        batch = call.OutputBatch(
            call_id,
            (index,),
            (status,),
            (-1 if sha256 else len(value),),
            blobs={str(index): sha256} if sha256 else {},
        )
        self._print()
        self.peer.event("PutOutputs", batch, value)

    def _print(self) -> None:
        """As a container that prints while it runs an input."""
        if self.double.prints_before_results:
            for request in self.following:
                self.peer.send(
                    wire.ITEM, request.number, "", log.LogBatch((log.LogEntry(time.time(), "stdout", new_id("in")),))
                )

    def _put_items(self, batch: call.ItemBatch, data: bytes) -> None:
        if self.double.items_sent_max is not None and batch.first >= self.double.items_sent_max:
            return
        self._print()
        self.peer.event("PutItems", batch, data)

    def send_held(self) -> None:
        held, self.held = self.held, []
        for key in held:
            self._send(*key)

    # Requests

    def _answer_Hello(self, request: Request) -> tuple[Any, bytes]:  # noqa: N802 - named for the method
        self.double.hellos.append(request.record(server.Hello))
        double = self.double
        return server.Welcome(double.version, PROTOCOL_VERSION, double.server_id, "", double.is_idle), b""

    def _answer_AppCreate(self, request: Request) -> tuple[Any, bytes]:  # noqa: N802
        record = request.record(app.AppCreate)
        if record.app_id in self.double.stopped:
            raise PlatformError("conflict", f"AppCreate: app {record.app_id} is stopped; create another")
        self.double.apps[record.app_id] = record
        return app.AppCreated(record.app_id), b""

    def _answer_AppGet(self, request: Request) -> tuple[Any, bytes]:  # noqa: N802
        app_id = request.record(app.AppGet).app
        record = self.double.apps.get(app_id)
        if record is None:
            raise PlatformError("not_found", f"AppGet: no app {app_id}")
        state = app.STOPPED if app_id in self.double.stopped else record.state
        return app.AppInfo(app_id, record.name, state, 0.0), b""

    def _answer_AppStop(self, request: Request) -> tuple[Any, bytes]:  # noqa: N802
        record = request.record(app.AppStop)
        if record.is_sparing and self.double.is_sparing:
            return app.AppStopped(goes_on=True), b""
        was_stopped = record.app in self.double.stopped
        self.double.stopped.append(record.app)
        return app.AppStopped(was_stopped=was_stopped), b""

    def _answer_FunctionCreate(self, request: Request) -> tuple[Any, bytes]:  # noqa: N802
        specs = request.record(function.FunctionCreate).functions
        self.double.functions.update({spec.function_id: spec for spec in specs})
        return function.FunctionCreated(tuple(spec.function_id for spec in specs)), b""

    def _answer_AppPrepare(self, request: Request) -> tuple[Any, bytes]:  # noqa: N802
        name = request.record(deployment.AppPrepare).name
        known = [one.app_id for one in self.double.apps.values() if one.name == name and one.state == app.DEPLOYED]
        return deployment.AppPrepared(known[0] if known else new_id("ap")), b""

    def _answer_AppPublish(self, request: Request) -> tuple[Any, bytes]:  # noqa: N802
        asked, double = request.record(deployment.AppPublish), self.double
        double.apps.setdefault(asked.app_id, app.AppCreate(asked.app_id, asked.name, app.DEPLOYED))
        specs = self.codec.record(function.FunctionCreate, self.codec.decode(request.body).params).functions
        is_unchanged = all(double.functions.get(spec.function_id) == spec for spec in specs)
        double.functions.update({spec.function_id: spec for spec in specs})
        return deployment.AppPublished(asked.app_id, 1, is_unchanged=is_unchanged), b""

    def _answer_FunctionList(self, request: Request) -> tuple[Any, bytes]:  # noqa: N802
        app_id = request.record(function.FunctionList).app_id
        return function.FunctionListing(tuple(s for s in self.double.functions.values() if s.app_id == app_id)), b""

    async def _answer_FunctionGet(self, request: Request) -> tuple[Any, bytes]:  # noqa: N802
        asked = request.record(function.FunctionGet)
        self.double.looked_up.append(asked)
        await asyncio.sleep(self.double.lookup_s)
        # Of a name: the one whose app runs, or else one whose app did.
        for spec in sorted(self.double.functions.values(), key=lambda one: one.app_id in self.double.stopped):
            app_name = self.double.apps[spec.app_id].name
            is_named = asked.app == app_name and asked.name == spec.name and not spec.variant_of
            if spec.function_id == asked.function_id or is_named:
                return spec, b""
        raise PlatformError("not_found", f"no function {asked.name or asked.function_id}")

    def _answer_FunctionBind(self, request: Request) -> tuple[Any, bytes]:  # noqa: N802
        asked = request.record(function.FunctionBind)
        self.double.bound.append(asked)
        base = self.double.known(asked.function_id)
        if base is None:
            raise PlatformError("not_found", f"FunctionBind: function {asked.function_id} does not exist")
        variant.check_asked(base, asked)
        spec = variant.merged(base, asked)
        self.double.functions[spec.function_id] = spec
        return function.FunctionBound(spec.function_id), b""

    def _answer_AutoscalerUpdate(self, request: Request) -> tuple[Any, bytes]:  # noqa: N802
        asked = request.record(autoscaler.AutoscalerUpdate)
        self.double.rescaled.append(asked)
        return autoscaler.AutoscalerSettings(asked.min_containers or 0, asked.max_containers, 0, 60.0), b""

    def _answer_FunctionStats(self, request: Request) -> tuple[Any, bytes]:  # noqa: N802
        return function.FunctionStats(3, 2, 5, 1), b""

    def _answer_WebAddressList(self, request: Request) -> tuple[Any, bytes]:  # noqa: N802
        asked, double = request.record(web.WebAddressList), self.double
        meant = double.functions.get(asked.function_id)
        base_id = meant.variant_of or meant.function_id if meant is not None else ""
        found = []
        for spec in double.functions.values():
            if spec.variant_of or base_id not in ("", spec.function_id) or asked.app_id not in ("", spec.app_id):
                continue
            record = double.apps[spec.app_id]
            for method, kind in webs_of(spec):
                suffix = "" if record.state == app.DEPLOYED else record.web_suffix
                label = label_of(kind, record.name, spec.name, method, suffix=suffix)
                urls = f"http://{label}.{double.web_domain}:1", f"http://127.0.0.1:1/w/{label}"
                found.append(web.WebAddress(spec.function_id, spec.name, method, label, *urls, kind=kind.kind))
        found = sorted((one for one in found if one.label > asked.after), key=lambda one: one.label)
        page = tuple(found[: double.addresses_max])
        return web.WebAddressListing(page, len(found) > len(page)), b""

    def _answer_MountCreate(self, request: Request) -> tuple[Any, bytes]:  # noqa: N802
        manifest = request.record(mount.MountCreate).manifest
        self.double.mounts[manifest.mount_id()] = manifest
        lacking = dict.fromkeys(one for file in manifest.files for one in file.blobs if one not in self.double.blobs)
        return mount.MountCreated(manifest.mount_id(), tuple(lacking)), b""

    def _answer_BlobStat(self, request: Request) -> tuple[Any, bytes]:  # noqa: N802
        asked = request.record(blob.BlobStat).sha256s
        return blob.BlobMissing(tuple(sha256 for sha256 in asked if sha256 not in self.double.blobs)), b""

    def _answer_BlobPut(self, request: Request) -> tuple[Any, bytes]:  # noqa: N802
        record = request.record(blob.BlobPut)
        partial = self.double.partial.setdefault(record.sha256, bytearray())
        if record.offset != len(partial):
            raise PlatformError("conflict", f"BlobPut: expected offset {len(partial)}, got {record.offset}")
        partial += request.body
        if len(partial) == record.size_bytes:
            data = bytes(self.double.partial.pop(record.sha256))
            assert hashlib.sha256(data).hexdigest() == record.sha256
            self.double.blobs[record.sha256] = data
            self.double.blobs_put.append(record.sha256)
        return Empty(), b""

    def _answer_BlobGet(self, request: Request) -> tuple[Any, bytes]:  # noqa: N802
        record = request.record(blob.BlobGet)
        data = self.double.blobs.get(record.sha256)
        if data is None:
            raise PlatformError("not_found", "no such blob")
        return blob.BlobChunk(len(data), record.offset), data[record.offset : record.offset + record.length]

    async def _answer_ImageGet(self, request: Request) -> tuple[Any, bytes]:  # noqa: N802
        wanted = request.record(image_catalog.ImageGet).image
        if wanted not in {image.image_id(spec) for spec in self.double.images}:
            raise PlatformError(NOT_FOUND, f"ImageGet: no image {wanted} was built here")
        return image_catalog.ImageInfo(wanted, 0.0, 0.0), b""

    async def _answer_ImageBuild(self, request: Request) -> None:  # noqa: N802
        asked = request.record(image.ImageBuild)
        spec = asked.spec
        self.double.images.append(spec)
        self.double.run_ids.append(asked.run_id)
        if len(self.double.images) >= self.double.builds_at_once:
            self.double.builds_may_end.set()
        await asyncio.wait_for(self.double.builds_may_end.wait(), 5)
        await self.double.on_build(spec)
        for event in self.double.build_events:
            await request.send_item(event)
        if self.double.build_error is not None:
            raise self.double.build_error
        await request.send_item(image.BuildEvent("built", image_id=image.image_id(spec)))

    async def _answer_ImageLogRead(self, request: Request) -> None:  # noqa: N802
        self.double.image_logs_read.append(request.record(image_catalog.ImageLogRead))
        await request.send_item(log.LogBatch(tuple(self.double.log_lines)))

    async def _answer_LogRead(self, request: Request) -> None:  # noqa: N802
        asked = request.record(log.LogRead)
        self.double.logs_read.append(asked)
        sent = 0
        self.following.append(request)
        while True:
            is_stopped = asked.app in self.double.stopped
            lines = self.double.log_lines
            if self.double.breaks_at_last_lines:
                if is_stopped:
                    self.double.breaks_at_last_lines = False
                    await asyncio.sleep(0.1)  # the answer to AppStop goes out, and the client waits for its lines
                    await self.peer.close()
                    return
            elif sent < len(lines):
                await request.send_item(log.LogBatch(tuple(lines[sent:])))
                sent = len(lines)
            elif is_stopped:
                return
            await asyncio.sleep(0.01)

    async def _answer_CallSpawn(self, request: Request) -> tuple[Any, bytes]:  # noqa: N802
        record = request.record(call.CallSpawn)
        if self.double.known(record.call.function_id) is None:
            raise PlatformError("not_found", f"CallSpawn: function {record.call.function_id} does not exist")
        if record.is_growing and self.double.refusals:
            return call.CallSpawned(record.call.call_id, retry_s=self.double.refusals.pop(0)), b""
        await asyncio.sleep(self.double.spawn_s)
        call_id = record.call.call_id
        if call_id not in self.double.spawned:
            self.double.opened.append(record.call)
            self.double.spawned[call_id] = (record.call, 0, record.is_growing)
        return self._extended(record.inputs, request.body, record.is_growing)

    async def _answer_CallSpawnMany(self, request: Request) -> tuple[Any, bytes]:  # noqa: N802
        record = request.record(call.SpawnBatch)
        if self.double.spawn_error is not None:
            raise self.double.spawn_error
        if self.double.known(record.function_id) is None:
            raise PlatformError("not_found", f"CallSpawnMany: function {record.function_id} does not exist")
        self.double.batches.append(len(record.call_ids))
        await asyncio.sleep(self.double.spawn_s)
        values = call.cut(request.body, record.sizes)
        for number, (call_id, size, value) in enumerate(zip(record.call_ids, record.sizes, values, strict=True)):
            opened = call.CallOpen(call_id, record.function_id, call.SPAWN, record.parent_input_id, record.method)
            blobs = {"0": record.blobs[str(number)]} if size < 0 else {}
            if call_id not in self.double.spawned:
                self.double.opened.append(opened)
                self.double.spawned[call_id] = (opened, 0, False)
            self._extended(call.InputBatch(call_id, (0,), (size,), (), blobs), value, False)
        return Empty(), b""

    async def _answer_CallExtend(self, request: Request) -> tuple[Any, bytes]:  # noqa: N802
        record = request.record(call.CallExtend)
        if self.double.refusals:
            return call.CallSpawned(record.inputs.call_id, retry_s=self.double.refusals.pop(0)), b""
        if record.inputs.call_id not in self.double.spawned:
            raise PlatformError("not_found", f"CallExtend: no call {record.inputs.call_id}")
        return self._extended(record.inputs, request.body, not record.is_last)

    def _extended(self, batch: call.InputBatch, body: bytes, is_growing: bool) -> tuple[Any, bytes]:
        """What is in `spawned` is on disk: it outlives a restart."""
        opened, count, _ = self.double.spawned[batch.call_id]
        self.double.portions.append(len(batch.indexes))
        if batch.indexes and batch.indexes[0] == count:
            count += len(batch.indexes)
            self._run_batch(opened, batch, body)
        assert not batch.indexes or batch.indexes[-1] < count, "inputs that do not follow"
        self.double.spawned[batch.call_id] = (opened, count, is_growing)
        return call.CallSpawned(batch.call_id, count), b""

    async def _answer_CallRead(self, request: Request) -> tuple[Any, bytes]:  # noqa: N802
        record = request.record(call.CallRead)
        outputs = self.double.outputs
        deadline = asyncio.get_running_loop().time() + record.timeout_s
        while (record.call_id, record.first) not in outputs:
            if asyncio.get_running_loop().time() >= deadline:
                return call.OutputBatch(record.call_id, (), (), ()), b""
            await asyncio.sleep(0.005)
        found: list[tuple[int, bytes, str]] = []
        while len(found) < record.count and (record.call_id, record.first + len(found)) in outputs:
            found.append(outputs[record.call_id, record.first + len(found)])
        indexes = tuple(range(record.first, record.first + len(found)))
        statuses = tuple(status for status, _, _ in found)
        sizes = tuple(-1 if sha256 else len(value) for _, value, sha256 in found)
        blobs = {str(index): one[2] for index, one in zip(indexes, found, strict=True) if one[2]}
        return call.OutputBatch(record.call_id, indexes, statuses, sizes, blobs=blobs), b"".join(
            value for _, value, _ in found
        )

    async def _answer_CallGet(self, request: Request) -> tuple[Any, bytes]:  # noqa: N802
        record = request.record(call.CallGet)
        deadline = asyncio.get_running_loop().time() + record.timeout_s
        while (record.call_id, record.index) not in self.double.outputs:
            if asyncio.get_running_loop().time() >= deadline:
                return call.OutputBatch(record.call_id, (), (), ()), b""
            await asyncio.sleep(0.005)
        status, value, sha256 = self.double.outputs[(record.call_id, record.index)]
        blobs = {str(record.index): sha256} if sha256 else {}
        size = -1 if sha256 else len(value)
        return call.OutputBatch(record.call_id, (record.index,), (status,), (size,), blobs=blobs), value

    async def _answer_CallGather(self, request: Request) -> tuple[Any, bytes]:  # noqa: N802
        record = request.record(call.CallGather)
        self.double.gathered.append(len(record.call_ids))
        deadline = asyncio.get_running_loop().time() + record.timeout_s
        outputs = self.double.outputs
        while True:
            found = [number for number, call_id in enumerate(record.call_ids) if (call_id, 0) in outputs]
            if found or asyncio.get_running_loop().time() >= deadline:
                break
            await asyncio.sleep(0.005)
        there = [(number, *outputs[record.call_ids[number], 0]) for number in found]
        batch = call.OutputBatch(
            "",
            tuple(found),
            tuple(status for _, status, _, _ in there),
            tuple(-1 if sha256 else len(value) for _, _, value, sha256 in there),
            blobs={str(number): sha256 for number, _, _, sha256 in there if sha256},
        )
        return batch, b"".join(value for _, _, value, _ in there)

    def _answer_CallInfo(self, request: Request) -> tuple[Any, bytes]:  # noqa: N802
        call_id = request.record(call.CallInfoGet).call_id
        _, count, is_growing = self.double.spawned[call_id]
        return call.CallInfo(call_id, "", call.SPAWN, count, 0.0, is_growing=is_growing), b""

    def _answer_CallCancel(self, request: Request) -> tuple[Any, bytes]:  # noqa: N802
        self.double.cancelled.append(request.record(call.CallCancel).call_id)
        return Empty(), b""


async def as_coroutine(awaitable: Any) -> Any:
    """`asyncio.run` takes coroutines only."""
    return await awaitable
