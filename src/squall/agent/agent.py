"""The agent of a node: answers its server, and keeps containers going while there is none."""

from __future__ import annotations

import asyncio
import collections
import functools
import logging
import time
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from types import TracebackType
from typing import Any

from squall.agent.blobs import PeerBlobs
from squall.agent.bytecode import run_python
from squall.agent.config import AgentConfig
from squall.agent.containers import Containers
from squall.agent.disk import DiskWatch, space_of
from squall.agent.exec import serve_exec
from squall.agent.grave import Grave
from squall.agent.guest_library import GuestLibrary
from squall.agent.image import garbage
from squall.agent.image.block.stored import StoredImages
from squall.agent.image.layer.holds import LayerHolds
from squall.agent.image.layer.store import LayerStore
from squall.agent.image.progress import BuiltImage
from squall.agent.image.shell_container import ShellContainers
from squall.agent.image.step_logs import StepLogs
from squall.agent.image.transfer import Transfers
from squall.agent.known_images import Images, KnownImages
from squall.agent.log_sender import LogSender
from squall.agent.logs import Logs
from squall.agent.mounts import Mounts
from squall.agent.outfit import Network, Outfits, Services
from squall.agent.port import Ports
from squall.agent.ranges import IdRanges, read_taken_ids
from squall.agent.relay import Relay
from squall.agent.report import Usage
from squall.agent.shell import Shells
from squall.agent.template.templates import Templates
from squall.agent.told_images import tell_images
from squall.agent.volume.contents import Progress
from squall.agent.volume.source import PeerVolumes
from squall.agent.volume.volumes import NodeVolumes
from squall.protocol.channel.contract import Channel
from squall.protocol.codec import Codec
from squall.protocol.container import ContainerExec
from squall.protocol.empty import Empty
from squall.protocol.errors import INVALID, NOT_FOUND, UNAVAILABLE, PlatformError
from squall.protocol.image import BuildEvent, ImageBuild, ImageInvalid
from squall.protocol.image_catalog import ImageLogRead, NodeGc, NodeImageDelete, NodeImageGc
from squall.protocol.image_store import NodeImagesUsed, NodeStoreGc, StoreGcEvent
from squall.protocol.image_transfer import ImageExport, ImagePush
from squall.protocol.log import LogBatch
from squall.protocol.log_batches import batches
from squall.protocol.mount import MountRef
from squall.protocol.node import (
    ContainerEnd,
    ContainerExited,
    ContainerStart,
    NodeContainer,
    NodeHello,
    NodeImagePut,
    NodeWelcome,
)
from squall.protocol.peer import Peer
from squall.protocol.request import Request
from squall.protocol.task_set import TaskSet, going_on
from squall.protocol.template import (
    NodeTemplateDrop,
    NodeTemplateDropped,
    NodeTemplateList,
    NodeTemplatesFree,
    NodeTemplatesUnneeded,
)
from squall.protocol.version import PROTOCOL_VERSION, VERSION
from squall.protocol.volume import (
    NodeVolumeCommit,
    NodeVolumeReload,
    NodeVolumesFetch,
    NodeVolumesHeld,
    VolumeCommitted,
    VolumeHeld,
    VolumesFetched,
)
from squall.runtime.contract import Runtime
from squall.runtime.errors import RuntimeFailure

Connect = Callable[[], Awaitable[Channel]]

UNTOLD_MAX = 10_000
"""Events remembered for a server that is away; of older exits it finds out because they are not in `NodeHello`."""
WELCOME_S = 30.0
"""How long a container's connection waits for the server to know this node again."""
FETCH_SAID_S = 2.0
"""Between two words on how far the fetching of volumes is."""
RULES_S = 30.0
_FIRST_PAUSE_S = 0.05
_END_ALL_S = 30.0
_DROPPED_S = 5.0

_log = logging.getLogger("squall.agent")


class Agent:
    """One node. Entering adopts what an earlier agent left running and begins to serve; leaving lets containers run on.

    Args:
        connect: opens the control channel to the server.
        connect_container: opens one more channel to the server, for one connection of one container.
        now: seconds since 1970, for log lines.
        stored: where other nodes get the images that are built here, and this one theirs.
        holds: on the layers of this node, which the builder holds too.
        transfers: takes images out of this node.
        shells: makes containers to look around in.
        grave: of this node, where others leave there what is to be deleted.
    """

    def __init__(
        self,
        config: AgentConfig,
        runtime: Runtime,
        network: Network,
        images: Images,
        codec: Codec,
        connect: Connect,
        connect_container: Connect,
        now: Callable[[], float] = time.time,
        stored: StoredImages | None = None,
        holds: LayerHolds | None = None,
        transfers: Transfers | None = None,
        shells: ShellContainers | None = None,
        grave: Grave | None = None,
    ) -> None:
        self.config = config
        self._runtime = runtime
        self._network = network
        self._codec = codec
        self._connect = connect
        self._connect_container = connect_container
        self._threads = ThreadPoolExecutor(max_workers=4, thread_name_prefix="agent")
        self._blobs = PeerBlobs(self._threads)
        self._mounts = Mounts(config.data_dir, self._blobs, self._threads, config.mounts_bytes_max)
        self._volumes = self._make_volumes()
        self._images = KnownImages(config.data_dir, images, stored)
        if stored is not None:
            stored.on_put = self._put
        self._holds = holds or LayerHolds(LayerStore(config.data_dir))
        self._now = now
        self._collecting = asyncio.Lock()
        self._step_logs = StepLogs(config.data_dir, now)
        self._ranges = IdRanges(config.data_dir, read_taken_ids(), network.retire)
        self._library = GuestLibrary(config.data_dir, self._threads, self._run_python)
        self._grave = grave or Grave(config.data_dir)
        self.logs = Logs(now)
        self._log_sender = LogSender(self.logs, codec)
        relay = Relay(codec, self._open_for_container)
        services = Services(
            runtime,
            network,
            self._images,
            self._holds,
            self._ranges,
            self._mounts,
            self._volumes,
            self._library,
            relay,
            self.logs,
            self._log_sender,
            self._grave,
        )
        self._outfits = outfits = Outfits(services)
        self.templates = Templates(config, services, outfits, now)
        self.containers = Containers(config, services, outfits, self.templates, self._exited)
        self._disk = DiskWatch(
            lambda: [*self.containers.writers(), *self.templates.writers(), *images.writers()],
            self._over_disk,
            lambda: space_of(config.data_dir),
        )
        self._builder = images
        self._transfers = transfers
        self._shells = Shells(runtime, self._images, shells, self._holds, self._mounts, self._ranges)
        self._ports = Ports(network, self.containers.found)
        self._usage = Usage(config)
        self._tasks = TaskSet()
        self._peer: Peer | None = None
        self._is_welcome = asyncio.Event()
        self._untold: collections.deque[tuple[str, Any]] = collections.deque(maxlen=UNTOLD_MAX)

    async def __aenter__(self) -> Agent:
        try:
            await self._prepare()
        except BaseException:
            await self.containers.close()
            await self.templates.close()
            await self._outfits.close()
            self.logs.close()
            self._threads.shutdown(wait=True, cancel_futures=True)
            raise
        for activity in (
            self.containers.watch,
            self.templates.run,
            self._disk.run,
            self._volumes.run,
            self._grave.run,
            self._log_sender.run,
            self._report,
            self._guard,
            self._serve,
        ):
            self._tasks.keep(activity)
        self._tasks.start(self._library.warm())
        self._images.put_rest()
        return self

    async def _prepare(self) -> None:
        loop = asyncio.get_running_loop()
        self._builder.use_volumes(self._volumes)
        parts = (self._images, self._grave, self._library, self._mounts, self._volumes, self.templates)
        for part in parts:
            await loop.run_in_executor(self._threads, part.prepare)
        began = time.monotonic()
        await self.containers.adopt()
        container_count, template_count = len(self.containers.running()), self.templates.ready_count
        if container_count or template_count:
            took_ms = (time.monotonic() - began) * 1000
            _log.info("took over containers: %d, templates: %d, in %.1f ms", container_count, template_count, took_ms)
        await self._mounts.evict()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.containers.settle(_END_ALL_S)
        await self._grave.wait_empty(_END_ALL_S)
        self._log_sender.flush()
        await self._tasks.close()
        await self._shells.close()
        await self.containers.close()
        await self.templates.close()
        await self._outfits.close()
        await self._volumes.stop()
        self.logs.close()
        if self._peer is not None:
            await self._peer.close()
        self._threads.shutdown(wait=True, cancel_futures=True)

    @property
    def is_connected(self) -> bool:
        """Whether a server knows this node now."""
        return self._is_welcome.is_set()

    async def wait_connected(self) -> None:
        """Return when a server knows this node."""
        await self._is_welcome.wait()

    async def end_all(self, grace_s: float) -> None:
        """End every container, and return when they are gone: for a node that is taken down with them."""
        await self.containers.end_all(grace_s)

    # Service of the control channel

    async def answer(self, request: Request) -> tuple[Any, bytes] | None:
        """See `protocol.peer.Service`."""
        if request.method == "ContainerStart":
            return await self.containers.start(request.record(ContainerStart)), b""
        if request.method == "ContainerEnd":
            asked = request.record(ContainerEnd)
            await self.containers.end(asked.container_id, asked.grace_s)
            return Empty(), b""
        if request.method == "NodeVolumesFetch":
            await self._fetch_volumes(request)
            return None
        if request.method == "NodeVolumeCommit":
            commit = request.record(NodeVolumeCommit)
            runtime_id = self.containers.inside(commit.container_id).runtime_id
            return VolumeCommitted(await self._volumes.commit(runtime_id, commit.volume_id)), b""
        if request.method == "NodeVolumeReload":
            reload = request.record(NodeVolumeReload)
            runtime_id = self.containers.inside(reload.container_id).runtime_id
            return await self._volumes.reload(runtime_id, reload.volume_id), b""
        if request.method == "NodeTemplateList":
            return self.templates.listing(request.record(NodeTemplateList).function_id), b""
        if request.method == "NodeTemplatesFree":
            return NodeTemplateDropped(self.templates.free(request.record(NodeTemplatesFree).wanted_mib)), b""
        if request.method == "NodeTemplateDrop":
            return NodeTemplateDropped(self.templates.drop_ids(request.record(NodeTemplateDrop).template_ids)), b""
        if request.method == "NodeImageBuild":
            await self._build(request)
            return None
        if request.method == "NodeImageGc":
            return await self._collect(request.record(NodeImageGc)), b""
        if request.method == "NodeImageDelete":
            return await self._collect(request.record(NodeImageDelete)), b""
        if request.method == "NodeStoreGc":
            await self._remove_stored(request)
            return None
        if request.method == "NodeImagesUsed":
            await self._images.note_used(request.record(NodeImagesUsed).image_ids)
            return Empty(), b""
        if request.method in ("NodeImagePush", "NodeImageExport"):
            await self._transfer(request)
            return None
        if request.method == "NodeImageLogs":
            await self._send_build_log(request)
            return None
        if request.method == "NodeImageShell":
            await self._shells.serve(request)
            return None
        if request.method == "NodeExec":
            inside = self.containers.inside(request.record(ContainerExec).container_id)
            await serve_exec(self._runtime, request, inside)
            return None
        if request.method == "NodePort":
            await self._ports.serve(request)
            return None
        raise PlatformError(INVALID, f"{request.method}: a node does not do that")

    def event(self, method: str, params: Any, body: bytes) -> None:
        """See `protocol.peer.Service`."""
        if method == "NodeImagePut":
            self._tasks.start(self._images.put_by_another(self._codec.record(NodeImagePut, params).image_id))
            return
        if method == "NodeTemplatesUnneeded":
            gone = self._codec.record(NodeTemplatesUnneeded, params)
            self.templates.drop_of(gone.app_id, gone.function_id, gone.functions)
            return
        _log.warning("the server sent an event %s, which a node does not know", method)

    def closed(self, reason: str) -> None:
        """See `protocol.peer.Service`."""
        if self._peer is None or self._peer.is_closed:
            self._is_welcome.clear()
            self._blobs.peer = None

    async def _build(self, request: Request) -> None:
        """Build an image and pass on what happens; waits for a reader that is slow by dropping nothing but time."""
        asked = request.record(ImageBuild)
        spec = asked.spec
        events: asyncio.Queue[BuildEvent] = asyncio.Queue()
        copied = [step.mount_id for step in spec.steps if step.mount_id]
        held = [await self._mounts.acquire([MountRef(mount_id, "/")], ()) for mount_id in copied]
        building = self._tasks.start(self._images.build(spec, events.put_nowait, asked.secrets, asked.run_id))
        try:
            while not (building.done() and events.empty()):
                await self._pass_on(request, events, building)
            built = building.result()
        except ImageInvalid as error:
            raise PlatformError(INVALID, str(error)) from error
        finally:
            building.cancel()
            for files in held:
                await self._mounts.release(files.name)
        # Ready before the first container asks: compiling for a Python that is not ours takes a while.
        self._tasks.start(self._warm_library(built))
        await request.send_item(BuildEvent("built", image_id=built.image_id, config=built.config, layers=built.parts))

    async def _warm_library(self, built: BuiltImage) -> None:
        hold = self._holds.begin(f"first look at {built.image_id}")
        try:
            if hold.add_paths(built.layers):
                await self._library.get(built.layers, built.config, built.image_id)
        finally:
            hold.release()

    async def _send_build_log(self, request: Request) -> None:
        """What the steps of an image printed when they were built here."""
        asked = request.record(ImageLogRead)
        read = functools.partial(self._step_logs.read, asked.image, asked.layers, asked.tail)
        entries = await asyncio.get_running_loop().run_in_executor(self._threads, read)
        if entries is None:
            raise PlatformError(NOT_FOUND, f"image {asked.image[:100]} was not built on node {self.config.node_id}")
        for batch in batches(iter(entries)):
            await request.send_item(LogBatch(batch))

    async def _collect(self, request: NodeImageGc | NodeImageDelete) -> NodeGc:
        """Remove the layers that nobody needs, or of these those of some images."""
        # Now, not when it is our turn: what is asked for after this is not in what the server says is needed.
        asked_at = self._now()

        def collect() -> NodeGc:
            survey = self._images.survey()
            if isinstance(request, NodeImageDelete):
                done = garbage.delete(self._holds, self.config.node_id, survey, request, asked_at)
            else:
                done = garbage.collect(self._holds, self.config.node_id, survey, request, asked_at)
            if not request.is_dry_run:
                self._images.forget_unbuilt(survey, asked_at)
                self._step_logs.tidy(lambda key: self._holds.store.find(key) is not None)
            return done

        async with self._collecting:
            await self.templates.drop_images(request.needed, _DROPPED_S)
            done = await asyncio.get_running_loop().run_in_executor(self._threads, collect)
            if not request.is_dry_run:
                self._images.forget(done.gone_image_ids)
                try:
                    # Also when nothing was removed: whoever did it the last time may have been killed before this.
                    await self._runtime.drop_removed_layers()
                except RuntimeFailure as error:
                    _log.warning("removed layers that are still mounted keep their space: %s", error)
        if isinstance(request, NodeImageDelete) and request.is_dry_run:
            # Whoever asks for the rest next is not to find what was used a moment ago.
            await asyncio.sleep(garbage.rest_s(done, self._now()))
        return done

    async def _remove_stored(self, request: Request) -> None:
        """Remove garbage from the store of layers, and pass on what happens."""
        lines: asyncio.Queue[str | None] = asyncio.Queue()
        removing = self._tasks.start(self._images.remove_stored(request.record(NodeStoreGc), lines.put_nowait))
        removing.add_done_callback(lambda done: lines.put_nowait(None))
        try:
            while (line := await lines.get()) is not None:
                await request.send_item(StoreGcEvent("line", line))
            await request.send_item(removing.result())
        finally:
            removing.cancel()

    async def _fetch_volumes(self, request: Request) -> None:
        """Have versions of volumes here, and say how far it is."""
        progress = Progress()
        with self._volumes.holding() as hold:
            fetching = self._tasks.start(hold.fetch(request.record(NodeVolumesFetch).volumes, progress))
            try:
                while not (await asyncio.wait((fetching,), timeout=FETCH_SAID_S))[0]:
                    await request.send_item(VolumesFetched(progress.fetched_bytes, progress.wanted_bytes))
                fetching.result()
                await request.send_item(VolumesFetched(progress.fetched_bytes, progress.wanted_bytes, is_done=True))
            finally:
                fetching.cancel()

    async def _transfer(self, request: Request) -> None:
        """Take an image out of this node."""
        is_push = request.method == "NodeImagePush"
        wanted = (request.record(ImagePush) if is_push else request.record(ImageExport)).image_id
        hold = self._holds.begin(f"transfer of {wanted}")
        try:
            built = await self._images.get(wanted, hold)
            if built is None or self._transfers is None:
                raise PlatformError(NOT_FOUND, f"this node has no image {wanted}")
            transfer = self._transfers.push if is_push else self._transfers.export
            await transfer(request, built, self._images.definition(wanted))
        finally:
            hold.release()

    async def _pass_on(
        self, request: Request, events: asyncio.Queue[BuildEvent], building: asyncio.Future[Any]
    ) -> None:
        """Send one event, or return when the build is over."""
        if events.empty():
            getting = asyncio.ensure_future(events.get())
            try:
                await asyncio.wait([getting, building], return_when=asyncio.FIRST_COMPLETED)
            finally:
                # Nobody takes it: the build is over, or whoever asked for it has gone.
                is_over = not getting.done() and getting.cancel()
            if is_over:
                return
            event = getting.result()
        else:
            event = events.get_nowait()
        if event.kind != "built":
            await request.send_item(event)

    # The connection to the server

    async def _serve(self) -> None:
        """Keep a control channel open for ever."""
        pause_s = _FIRST_PAUSE_S
        while True:
            try:
                if await self._converse():
                    pause_s = _FIRST_PAUSE_S
            except (PlatformError, OSError, ValueError) as error:
                _log.warning("no server: %s", error)
            finally:
                self._is_welcome.clear()
            await asyncio.sleep(pause_s)
            pause_s = min(self.config.reconnect_s_max, pause_s * 2)

    async def _converse(self) -> bool:
        """One connection from its hello to its end; True when the server took us."""
        peer = Peer(await self._connect(), self._codec, self)
        self._peer = peer
        peer.start()
        telling: asyncio.Future[Any] | None = None
        try:
            welcome = await peer.request("NodeHello", self._hello(), NodeWelcome)
            self._blobs.peer = peer
            self._is_welcome.set()
            _log.info("connected to server %s", welcome.server_id)
            telling = self._tasks.start(tell_images(self._images, peer, self._threads, self._collecting))
            self._log_sender.begin(peer)
            self._tell_held(self._volumes.held())
            while self._untold:
                peer.event(*self._untold.popleft())
            for container_id in welcome.unwanted_container_ids:
                self._tasks.start(self.containers.end(container_id, 0.0))
            await peer.wait_closed()
            return True
        finally:
            if telling is not None:
                # The next connection tells anew; one that comes and goes would have all of them look at the same time.
                telling.cancel()
            self._log_sender.pause()
            await peer.close()

    def _hello(self) -> NodeHello:
        config = self.config
        running: tuple[NodeContainer, ...] = self.containers.running()
        return NodeHello(
            config.node_id,
            VERSION,
            PROTOCOL_VERSION,
            config.cpu_milli,
            config.memory_mib,
            config.hostname,
            running,
            config.pythons,
        )

    async def _open_for_container(self) -> Channel:
        # A server that has just started has to hear from the node which containers are its own.
        try:
            await asyncio.wait_for(self._is_welcome.wait(), WELCOME_S)
        except TimeoutError:
            raise PlatformError(UNAVAILABLE, f"no server within {WELCOME_S:g} s") from None
        return await self._connect_container()

    # What the server is told

    def _exited(self, exited: ContainerExited) -> None:
        # Its last lines come before it.
        self._log_sender.flush()
        self._tell("ContainerExited", exited)

    def _put(self, image_id: str) -> None:
        # For the other nodes that have it.
        self._tell("NodeImagePut", NodeImagePut(image_id))

    def _tell(self, method: str, record: Any) -> None:
        """Tell the server, if there is none now the next."""
        if self._peer is not None and self._is_welcome.is_set():
            self._peer.event(method, record)
        else:
            self._untold.append((method, record))

    def _tell_held(self, held: tuple[VolumeHeld, ...]) -> None:
        """Which versions of volumes this node needs. A server that comes is told anyway."""
        if self._peer is not None and self._is_welcome.is_set():
            self._peer.event("NodeVolumesHeld", NodeVolumesHeld(held))

    def _make_volumes(self) -> NodeVolumes:
        directory, source = (
            self.config.data_dir / "volumes",
            PeerVolumes(self._blobs, self._codec, self.config.blob_dir),
        )
        runtime, threads = self._runtime, self._threads
        return NodeVolumes(directory, source, runtime, threads, self._tell_held, self._say_of_volumes)

    def _say_of_volumes(self, container_id: str, line: str) -> None:
        # Whose it is, the server knows.
        self.logs.say(container_id, "", "", line)

    def _over_disk(self, container_id: str, why: str) -> None:
        self.containers.over_disk(container_id, why)
        for clone_id in self.templates.over_disk(container_id, why):
            self.containers.over_disk(clone_id, f"the template that it is a fork of: {why}")
        self._builder.over_disk(container_id, why)

    async def _report(self) -> None:
        """Say how the node is, for ever."""
        while True:
            await asyncio.sleep(self.config.report_period_s)
            peer = self._peer
            if peer is not None and self._is_welcome.is_set():
                templates = self.templates
                used = (len(self.containers.running()), templates.memory_bytes(), templates.function_ids())
                with going_on("cannot say how this node is"):
                    peer.event("NodeReport", self._usage.report(*used))

    async def _guard(self) -> None:
        """Keep the containers' network rules loaded, for ever."""
        while True:
            await asyncio.sleep(RULES_S)
            with going_on("cannot look after the network rules of the containers"):
                try:
                    if await self._network.ensure_rules():
                        _log.warning("somebody removed the network rules of the containers; they are loaded again")
                except RuntimeFailure as error:
                    _log.error("%s", error)

    async def _run_python(self, layers: Any, python_path: str, program: str, library_dir: str) -> bytes:
        return await run_python(
            self._runtime, self._ranges, self.config.data_dir, layers, python_path, program, library_dir
        )
