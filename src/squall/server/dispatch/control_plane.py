"""The control plane as one thing: composes its parts, accepts connections, keeps the second hand."""

from __future__ import annotations

import asyncio
import logging
import os
import resource
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any, Self

from squall.protocol import methods
from squall.protocol.channel.contract import Channel
from squall.protocol.codec import Codec
from squall.protocol.errors import INVALID, PlatformError
from squall.protocol.ids import new_id
from squall.protocol.peer import Peer, Service
from squall.protocol.server import ServerStatus, Welcome
from squall.protocol.task_set import TaskSet
from squall.protocol.version import PROTOCOL_VERSION, VERSION
from squall.server.dispatch.app.apps import App, Apps
from squall.server.dispatch.app.deployments import Deployments
from squall.server.dispatch.app.environments import Environments
from squall.server.dispatch.app.schedules import Schedules
from squall.server.dispatch.app.variants import Variants
from squall.server.dispatch.asset.assets import Assets
from squall.server.dispatch.asset.dicts import Dicts
from squall.server.dispatch.asset.queues import Queues
from squall.server.dispatch.asset.secrets import Secrets
from squall.server.dispatch.asset.volume_mounts import VolumeMounts
from squall.server.dispatch.asset.volumes import Volumes
from squall.server.dispatch.client.blob_budget import BlobBudgets
from squall.server.dispatch.client.callers import Caller
from squall.server.dispatch.client.clients import Clients
from squall.server.dispatch.client.shelf import Shelf
from squall.server.dispatch.client.terminal import Terminals
from squall.server.dispatch.clock import StoppableClock
from squall.server.dispatch.durable.durable import Durable
from squall.server.dispatch.fleet.fleet import ContainerFleet
from squall.server.dispatch.fleet.node_templates import NodeTemplates
from squall.server.dispatch.fleet.nodes import Nodes
from squall.server.dispatch.fleet.standstill import Standstill
from squall.server.dispatch.fleet.templates import Templates
from squall.server.dispatch.flight.flights import Flights
from squall.server.dispatch.flight.keeper import FlightKeeper
from squall.server.dispatch.flight.recorder import FlightRecorder
from squall.server.dispatch.flight.windows import Windows
from squall.server.dispatch.function.call_table import CallTable
from squall.server.dispatch.function.dispatcher import Dispatcher
from squall.server.dispatch.image.catalog import ImageCatalog
from squall.server.dispatch.image.images import Images
from squall.server.dispatch.image.store import ImageStore
from squall.server.dispatch.image.users import ImageUsers
from squall.server.dispatch.methods import Methods
from squall.server.dispatch.services import AgentService, ClientService, ContainerService
from squall.server.dispatch.streams import Streams, Uploads, no_uploads
from squall.server.dispatch.walk import Walk
from squall.server.dispatch.web.ports import open_port
from squall.server.dispatch.web.proxied import Proxies
from squall.server.dispatch.web.proxy_tokens import ProxyTokens
from squall.server.dispatch.web.requests import Requests
from squall.server.dispatch.web.routes import Routes
from squall.server.dispatch.web.tunnels import Tunnels
from squall.server.dispatch.web.web import WebFunctions
from squall.server.model.blobs import BlobStore
from squall.server.model.clock import Clock
from squall.server.model.config import ServerConfig
from squall.server.model.logs import LogStore
from squall.server.model.secret import SecretKeys
from squall.server.model.store import Store

TICK_S = 1.0
SWEEP_S = 0.1
SWEPT_MAX = 1_000
"""Functions that are looked at in one turn of the event loop."""
BLOBS_S = 60.0
ASSETS_S = 60.0
"""Between two looks at what is old in dicts and queues."""
IMAGES_S = 600.0
"""Between two notes of which images containers run on."""
VOLUMES_S = 3_600.0
"""Between two looks at which versions of volumes need not stay."""
SETTLE_S = 5.0
"""How long leaving waits for accepted outputs of durable calls to be on disk."""

_log = logging.getLogger("squall.server.dispatch.control_plane")


def resident_bytes() -> int:
    """Memory of this process that is in use."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()


class ControlPlane:
    """Everything the server decides. Entering loads what the store remembers; leaving stops without ending containers.

    Used from one event loop; the stores are opened and closed by whoever passes them in.
    """

    def __init__(
        self, store: Store, blobs: BlobStore, logs: LogStore, secret_keys: SecretKeys, codec: Codec,
        config: ServerConfig, clock: Clock,
    ) -> None:  # fmt: skip
        self.store = store
        self.blobs = blobs
        self.logs = logs
        self.codec = codec
        self.config = config
        self.clock = StoppableClock(clock)
        self.server_id = config.server_id or new_id("sv")
        self.tasks = TaskSet()
        self.calls = CallTable(Shelf(blobs, self.tasks, config.kept_bytes_max), FlightRecorder(self.clock))
        self.fleet = ContainerFleet(clock=self.clock, config=config, logs=logs, tasks=self.tasks)
        self.standstill = Standstill(self.fleet, self.calls)
        self.flights = Flights(self)
        self.windows = Windows(self)
        self.flight_keeper = FlightKeeper(
            self.calls.recorder, store, self.clock, config, find=self.flights.find_container, look=self.windows.look
        )
        self.apps = Apps(
            store=store,
            logs=logs,
            fleet=self.fleet,
            calls=self.calls,
            clock=self.clock,
            config=config,
            tasks=self.tasks,
        )
        self.environments = Environments(apps=self.apps, store=store, clock=self.clock, tasks=self.tasks)
        self.apps.entering = self.environments.entering
        self.apps.is_of_its_environment = self.environments.is_of_it
        self.deployments = Deployments(
            apps=self.apps, environments=self.environments, fleet=self.fleet, store=store, clock=self.clock,
            tasks=self.tasks,
        )  # fmt: skip
        self.assets = Assets(
            apps=self.apps, environments=self.environments, store=store, codec=codec, clock=self.clock, config=config,
            tasks=self.tasks,
        )  # fmt: skip
        self.environments.delete_assets = self.assets.delete_in
        self.volumes = Volumes(assets=self.assets, store=store, blobs=blobs, codec=codec, clock=self.clock)
        self.volume_mounts = VolumeMounts(assets=self.assets, volumes=self.volumes, fleet=self.fleet)
        self.assets.is_mounted = self.volume_mounts.is_mounted
        self.volumes.garbage.held = self.volume_mounts.held
        self.fleet.starts.volumes = self.volume_mounts.starts
        self.secrets = Secrets(
            apps=self.apps, assets=self.assets, store=store, keys=secret_keys, codec=codec, clock=self.clock,
            tasks=self.tasks,
        )  # fmt: skip
        self.fleet.starts.given = self.secrets.given
        self.fleet.starts.buckets = self.secrets.for_buckets
        self.dicts = Dicts(assets=self.assets, store=store, blobs=blobs, clock=self.clock, tasks=self.tasks)
        self.queues = Queues(assets=self.assets, store=store, clock=self.clock, tasks=self.tasks)
        self.clients = Clients(
            apps=self.apps, assets=self.assets, calls=self.calls, clock=self.clock, config=config, tasks=self.tasks
        )
        self.nodes = Nodes(fleet=self.fleet, apps=self.apps, clock=self.clock, config=config)
        self.durable = Durable(
            store=store,
            calls=self.calls,
            clock=self.clock,
            config=config,
            tasks=self.tasks,
            find=self.apps.dispatchers.get,
        )
        self.apps.stored_count = self.durable.backlog.count
        self.schedules = Schedules(
            store=store, apps=self.apps, durable=self.durable, logs=logs, clock=self.clock, tasks=self.tasks
        )
        proxies = Proxies(open_port, self.tasks)
        self.web = WebFunctions(Routes(config.url, config.web_domain), Requests(self.calls, self.clock, proxies))
        self.proxy_tokens = ProxyTokens(
            store=store.proxy_tokens, environments=self.environments, clock=self.clock, tasks=self.tasks
        )
        self.web.opens = self.proxy_tokens.opens
        self.tunnels = Tunnels(self.fleet, open_port, self.tasks)
        self.apps.claiming = self.web.routes.claiming
        self.apps.on_change = self._app_changed
        self.durable.on_kept = self.schedules.output_kept
        self.variants = Variants(
            apps=self.apps,
            calls=self.calls,
            store=store,
            clock=self.clock,
            config=config,
            tasks=self.tasks,
            in_version=lambda app_id, version, function_id: self.deployments.function_of_id(
                app_id, version, function_id
            ),
        )
        self.secrets.find_function = self.variants.find_spec
        self.blob_budgets = BlobBudgets(
            store=store,
            blobs=blobs,
            calls=self.calls,
            clock=self.clock,
            bytes_max=config.app_blob_bytes_max,
            alone=self.volumes.garbage.alone,
        )
        self.volumes.on_named = self.blob_budgets.named
        self.image_users = ImageUsers(apps=self.apps, fleet=self.fleet, clock=self.clock)
        self.catalog = ImageCatalog(store=store, users=self.image_users, clock=self.clock)
        self.images = Images(
            lambda: list(self.fleet.nodes.values()),
            self.tasks,
            catalog=self.catalog,
            users=self.image_users,
            clock=self.clock,
        )
        self.image_store = ImageStore(self)
        self.templates = Templates(self)
        self.volume_mounts.find_template = self.templates.known
        self.volume_mounts.specs = lambda: (one.spec for one in self.apps.dispatchers.values())
        self.node_templates = NodeTemplates(self)
        self.fleet.free_templates = self.node_templates.free
        self.terminals = Terminals(self.tasks)
        self._sweep = Walk[Dispatcher](clock, lambda one: one.sweep(clock.monotonic()), at_a_time=SWEPT_MAX)
        self.methods = Methods(self)
        self.streams = Streams(self)
        self._peers: set[Peer] = set()
        self.visit_count = 0
        """Connections and calls over HTTP so far."""
        self._started_at = clock.monotonic()
        self._stop = asyncio.Event()

    async def __aenter__(self) -> Self:
        await self.environments.load()
        await self.proxy_tokens.load()
        await self.apps.load()
        for app in self.apps.live.values():
            self.web.routes.app_changed(app)
        await self.assets.load()
        await self.volumes.garbage.load()
        await self.secrets.load()
        if self.apps.live:
            self.fleet.starts.expect_nodes()
        await self.schedules.load()
        await self.variants.load()
        await self.durable.load()
        self._every(SWEEP_S, self.sweep)
        self._every(TICK_S, self.tick)
        self._every(BLOBS_S, self._tidy_blobs)
        self._every(ASSETS_S, self.dicts.tidy_soon)
        self._every(ASSETS_S, self.queues.tidy_soon)
        self._every(IMAGES_S, self._note_images)
        self._every(IMAGES_S, self._note_stored)
        self._every(VOLUMES_S, self._tidy_volumes)
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self.durable.settle(SETTLE_S)
        await self.flight_keeper.settle()
        await self.secrets.note()
        await self.proxy_tokens.note()
        self._stop.set()
        self.web.requests.proxies.close()
        self.tunnels.close_all()
        self.clock.stop()
        for peer in list(self._peers):
            await peer.close()
        await self.tasks.close()

    def _every(self, period_s: float, callback: Any) -> None:
        def again() -> None:
            if not self._stop.is_set():
                self.clock.call_later(period_s, again)
                callback()

        self.clock.call_later(period_s, again)

    def sweep(self) -> None:
        """Time limits, and inputs that wait in one container while another is idle."""
        self._sweep.begin(self.fleet.active.values())

    def tick(self) -> None:
        """What needs a look each second."""
        now = self.clock.monotonic()
        self.fleet.tick()
        self.apps.tick(now)
        self.variants.tick(now)
        self.standstill.tick(now)
        self.schedules.tick()
        self.secrets.tick(now)
        self.proxy_tokens.tick(now)
        self.web.requests.tick()
        self.tasks.start(self.durable.tick(now))
        self.tasks.start(self.flight_keeper.tick())

    def _app_changed(self, app: App) -> None:
        self.web.routes.app_changed(app)
        self.schedules.app_changed(app)

    def _tidy_blobs(self) -> None:
        self.tasks.start(self.blob_budgets.tick(self.apps.live))

    def _tidy_volumes(self) -> None:
        self.tasks.start(self.volumes.tick())

    def _note_images(self) -> None:
        self.tasks.start(self._note_images_used())

    def _note_stored(self) -> None:
        self.tasks.start(self.image_store.tick())

    async def _note_images_used(self) -> None:
        try:
            await self.catalog.used(self.image_users.of_containers())
        except PlatformError as error:
            _log.warning("cannot note which images are used: %s", error)

    # Connections

    def accept_client(self, channel: Channel) -> None:
        """A client connected."""
        self._accept(channel, ClientService)

    def accept_agent(self, channel: Channel) -> None:
        """An agent connected."""
        self._accept(channel, AgentService)

    def accept_container(self, channel: Channel) -> None:
        """An agent passes a container's connection on."""
        self._accept(channel, ContainerService)

    def _accept(self, channel: Channel, make_service: Callable[[ControlPlane, Peer], Service]) -> None:
        self.visit_count += 1
        peer = Peer(channel, self.codec)
        self._peers.add(peer)
        self.tasks.start(self._watch(peer))
        peer.start(make_service(self, peer))

    async def _watch(self, peer: Peer) -> None:
        await peer.wait_closed()
        self._peers.discard(peer)

    # The HTTP twin

    async def answer(self, method: str, record: Any, body: bytes = b"") -> tuple[Any, bytes]:
        """Carry out a unary method for a caller without a connection of frames.

        Raises:
            PlatformError: what the method says.
        """
        self.visit_count += 1
        found = methods.METHODS.get(method)
        if found is None or found.shape != methods.UNARY or found.asked_by != methods.CLIENT:
            raise PlatformError(INVALID, f"{method}: no such method over HTTP; events need a channel")
        if method == "Hello":
            return self.welcome(), b""
        return await self.methods.answer(Caller(), method, record, body)

    def stream(
        self, method: str, record: Any, body: bytes = b"", uploads: Uploads | None = None
    ) -> AsyncIterator[tuple[Any, bytes]]:
        """The items of a stream, for the same."""
        return self.streams.open(Caller(), method, record, uploads or no_uploads())

    # The whole

    @property
    def is_idle(self) -> bool:
        """Nothing runs, is deployed or connected."""
        has_inputs = self.calls.has_inputs or bool(len(self.durable.backlog))
        return not (self.apps.live or self.fleet.containers or self.clients.connected or has_inputs)

    def welcome(self) -> Welcome:
        """What a greeting client hears."""
        return Welcome(VERSION, PROTOCOL_VERSION, self.server_id, self.config.url, self.is_idle)

    def status(self) -> ServerStatus:
        """How the server is."""
        return ServerStatus(
            self.server_id,
            VERSION,
            os.getpid(),
            self.config.url,
            self.config.data_dir,
            self.clock.monotonic() - self._started_at,
            len(self.apps.live),
            len(self.fleet.containers),
            self.clients.connected,
            sum(1 for node in self.fleet.nodes.values() if node.peer is not None),
            resident_bytes(),
            self.flight_keeper.dropped_inputs,
            self.calls.recorder.dropped_calls,
            sum(node.report.template_memory_mib for node in self.fleet.nodes.values() if node.report is not None),
            dict(self.config.settings),
        )

    def request_stop(self) -> None:
        """Let `wait_stop` return, once the answer to whoever asked is on its way."""
        self.clock.call_later(0.05, self._stop.set)

    async def wait_stop(self) -> None:
        """Return when somebody asked the server to stop."""
        await self._stop.wait()
