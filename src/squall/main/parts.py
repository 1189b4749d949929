"""The parts of the programs, put together from a configuration: the control plane with its stores, and a node."""

from __future__ import annotations

import asyncio
import os
import shutil
import socket
import sys
import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace
from pathlib import Path

from sqlalchemy import Connection

from squall.agent.agent import Agent, Connect
from squall.agent.config import PLAIN, AgentConfig
from squall.agent.grave import Grave
from squall.agent.image.bases.debian import known_bases
from squall.agent.image.block.errors import BlockError
from squall.agent.image.block.lazy import LazyLayers
from squall.agent.image.block.store import Patience, open_store
from squall.agent.image.block.stored import StoredImages
from squall.agent.image.builder import ImageBuilder
from squall.agent.image.layer.holds import LayerHolds
from squall.agent.image.layer.store import LayerStore
from squall.agent.image.machine.settings import MachineSettings, read_machine_settings
from squall.agent.image.progress import BuiltImage
from squall.agent.image.transfer import Transfers
from squall.agent.lasting_runtime import LastingRuntime
from squall.agent.mounts import mount_path
from squall.agent.ranges import build_ranges
from squall.main.config import Config, ConfigError, told_settings
from squall.main.data_dir import write_atomically
from squall.main.housekeeping import housekeeping
from squall.main.secret_keys import FileSecretKeys
from squall.main.spawner import instance_name, open_spawner
from squall.main.tcp import is_loopback
from squall.protocol.codec import Codec
from squall.protocol.ids import is_id, new_id
from squall.runtime.layer_mounts import can_mount_from_file, can_mount_images
from squall.runtime.network.pool import NetworkPool
from squall.server.dispatch import ControlPlane, SystemClock
from squall.server.ingress.tunnel import Entries
from squall.server.model.config import ServerConfig
from squall.server.store.blob import ObjectBlobStore
from squall.server.store.log import FileLogStore
from squall.server.store.sql import SqlStore

FUSE_DEVICE = "/dev/fuse"
STORE_VARIABLES = ("AWS_", "GOOGLE_", "AZURE_", "SSL_CERT_")
PROXY_VARIABLES = ("http_proxy", "https_proxy", "all_proxy", "no_proxy")


def migrate(connection: Connection) -> None:
    """Bring the database to the newest schema."""
    # cold start: Alembic takes a fifth of a second to load, and is only needed when a database is new or old.
    from squall.server.store.migration import upgrade

    upgrade(connection)


@asynccontextmanager
async def control_plane(
    config: Config, environ: Mapping[str, str], codec: Codec, url: str
) -> AsyncIterator[ControlPlane]:
    """The server, not yet listening."""
    clock = SystemClock()
    database_url = config.database_url or f"sqlite:///{config.data_dir}/squall.db"
    async with AsyncExitStack() as stack:
        if config.database_url is None:
            _close_to_others(config.data_dir / "squall.db")
        store = await stack.enter_async_context(SqlStore(database_url, migrate))
        blobs = await stack.enter_async_context(_blobs(config, clock))
        logs = await stack.enter_async_context(FileLogStore(str(config.data_dir / "logs"), config.log_bytes_max))
        server = ServerConfig(
            web_domain=config.web_domain,
            url=url,
            data_dir=str(config.data_dir),
            app_blob_bytes_max=_app_blob_bytes_max(config.data_dir),
            failed_input_bytes_max=config.failed_input_bytes_max,
            settings=told_settings(environ),
        )
        keys = FileSecretKeys(config.data_dir, config.secret_key)
        await stack.enter_async_context(housekeeping(store, blobs, config.blob_bytes_max))
        control = await stack.enter_async_context(ControlPlane(store, blobs, logs, keys, codec, server, clock))
        control.tunnels.entries = entries = tunnel_entries(config)
        if entries is not None:
            stack.push_async_callback(entries.close)
        yield control


def tunnel_entries(config: Config) -> Entries | None:
    """Where tunnels begin: at the address of the server, and as it with TLS if there is a certificate."""
    if not config.tunnel_ports:
        return None
    address = config.http_host
    host = config.http_names[0] if config.http_names else address
    if host in ("0.0.0.0", "::"):
        host = socket.gethostname()
    tls = (config.tls_cert, config.tls_key) if config.tls_cert and config.tls_key else None
    why_no_plain = ""
    if tls is not None and not is_loopback(address) and not config.tunnel_plain:
        why_no_plain = f"this server listens at {address} with TLS only; SQUALL_TUNNEL_PLAIN=1 lets tunnels be without"
    return Entries(address, host, config.tunnel_ports, tls, why_no_plain)


def _app_blob_bytes_max(data_dir: Path) -> int:
    """A quarter of the file system for one app, so that its blobs alone fill no disk."""
    state = os.statvfs(data_dir)
    return min(ServerConfig().app_blob_bytes_max, state.f_blocks * state.f_frsize // 4)


def _close_to_others(database: Path) -> None:
    """It holds arguments and results. Before it is opened: SQLite gives its companions the mode it has then."""
    os.close(os.open(database, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
    for path in (database, *(database.with_name(database.name + ending) for ending in ("-wal", "-shm"))):
        if path.exists():
            path.chmod(0o600)


def _blobs(config: Config, clock: SystemClock) -> ObjectBlobStore:
    folder = str(config.data_dir / "blobs")
    if config.blob_url is None:
        return ObjectBlobStore(folder, clock.now)
    # cold start: only where blobs are in a bucket.
    from obstore.store import from_url

    return ObjectBlobStore(folder, clock.now, from_url(config.blob_url))


class Node:
    """This machine as a node: enter to adopt what runs and to serve, leave to let it run on.

    Args:
        connect, connect_container: as for `Agent`.
    """

    def __init__(
        self, config: Config, codec: Codec, environ: Mapping[str, str], connect: Connect, connect_container: Connect
    ) -> None:
        self._config = config
        self._codec = codec
        self._environ = environ
        self._connect = connect
        self._connect_container = connect_container
        self._stack = AsyncExitStack()
        self._is_taken_down = False
        self._agent: Agent | None = None
        self._runtime: LastingRuntime | None = None

    async def __aenter__(self) -> Node:
        """Return once the node can make containers.

        Raises:
            RuntimeFailure: this machine cannot; the message says why.
        """
        async with AsyncExitStack() as stack:
            data_dir = self._config.data_dir
            runtime = self._runtime = await stack.enter_async_context(LastingRuntime(lambda: open_spawner(data_dir)))
            stack.push_async_callback(self._end_spawner)
            machine = await asyncio.to_thread(read_machine_settings, self._environ)
            settings = replace(machine, python_image=self._config.python_image)
            network = await stack.enter_async_context(await self._network(runtime))
            layers = LayerStore(data_dir, is_packed=can_mount_images())
            holds = LayerHolds(layers)
            stored = await stack.enter_async_context(self._stored(holds))
            grave = Grave(data_dir)
            images = await stack.enter_async_context(
                self._images(runtime, network, settings, holds, stored, grave.bury)
            )
            pythons = tuple(base.python_version for base in known_bases(settings))
            self._agent = await stack.enter_async_context(
                Agent(
                    _agent_config(self._config, pythons),
                    runtime,
                    network,
                    images,
                    self._codec,
                    self._connect,
                    self._connect_container,
                    time.time,
                    stored,
                    holds,
                    Transfers(layers, settings),
                    images.shells,
                    grave,
                )
            )
            self._stack = stack.pop_all()
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self._stack.aclose()

    async def wait_connected(self) -> None:
        """Return when a server knows this node."""
        assert self._agent is not None, "entered before"
        await self._agent.wait_connected()

    async def take_down(self, grace_s: float = 2.0) -> None:
        """End every container, and on leaving the spawner too: nobody is meant to go on after this."""
        assert self._agent is not None, "entered before"
        await self._agent.end_all(grace_s)
        self._is_taken_down = True

    async def _end_spawner(self) -> None:
        if self._runtime is None:
            return
        has_failed = self._agent is None and not await self._runtime.list()
        if self._is_taken_down or has_failed:
            await self._runtime.shutdown()

    async def _network(self, runtime: LastingRuntime) -> NetworkPool:
        living = [status.container_id for status in await runtime.list()]
        proxies = {name: value for name, value in self._environ.items() if name.lower() in PROXY_VARIABLES}
        data_dir = self._config.data_dir
        return NetworkPool.open(
            str(data_dir / "network"),
            instance_name(data_dir),
            self._config.network_slots,
            living=living,
            proxy_env=proxies,
            make_namespaces=runtime.make_network_namespaces,
        )

    @asynccontextmanager
    async def _stored(self, holds: LayerHolds) -> AsyncIterator[StoredImages | None]:
        """What the store of layers has, if there is such a place."""
        url, data_dir = self._config.layers_at, self._config.data_dir
        if not url:
            yield None
            return
        try:
            store = open_store(url)
        except BlockError as error:
            raise ConfigError(str(error)) from error
        async with AsyncExitStack() as stack:
            lazy = None
            if can_mount_from_file() and os.path.exists(FUSE_DEVICE):
                variables = {name: value for name, value in self._environ.items() if is_of_store(name)}
                lazy = await stack.enter_async_context(LazyLayers(data_dir, url, Patience(), variables))
            yield await stack.enter_async_context(StoredImages(store, holds, data_dir, lazy))
            if lazy is not None and self._is_taken_down:
                await lazy.end()

    def _images(
        self,
        runtime: LastingRuntime,
        network: NetworkPool,
        settings: MachineSettings,
        holds: LayerHolds,
        stored: StoredImages | None,
        discard: Callable[[Path], None],
    ) -> ImageBuilder:
        def fetched(image_id: str) -> BuiltImage | None:
            # Builds hold what they use, and only that is used.
            return stored.find_here(image_id, is_used=False) if stored is not None else None

        data_dir = self._config.data_dir
        return ImageBuilder(
            runtime=runtime,
            network=network,
            store=holds.store,
            settings=settings,
            data_dir=data_dir,
            id_ranges=build_ranges(data_dir, self._config.image_builds),
            mount_path=lambda mount_id: mount_path(data_dir, mount_id),
            uv_path=find_uv(),
            step_timeout_s=self._config.step_timeout_s,
            step_bytes_max=self._config.step_bytes_max,
            package_bytes_max=self._config.package_bytes_max,
            holds=holds,
            fetched=fetched,
            discard=discard,
        )


def _agent_config(config: Config, pythons: tuple[str, ...]) -> AgentConfig:
    memory_bytes = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return AgentConfig(
        data_dir=config.data_dir,
        node_id=read_or_make_node_id(config.data_dir),
        cpu_milli=config.cpu_milli or 1_000 * len(os.sched_getaffinity(0)),
        memory_mib=config.memory_mib or memory_bytes // 2**20,
        hostname=socket.gethostname(),
        pythons=pythons,
        # Without memory none would live longer than its first start.
        start_path=PLAIN if config.template_memory_mib == 0 else config.start_path,
        template_memory_mib=config.template_memory_mib,
        template_disk_mib=config.template_disk_mib,
        blob_dir=config.data_dir / "blobs" / "content" if config.blob_url is None else None,
    )


def is_of_store(name: str) -> bool:
    """Whether a variable says how to reach a bucket, and as whom."""
    return name.startswith(STORE_VARIABLES) or name == "HOME" or name.lower() in PROXY_VARIABLES


def find_uv() -> str:
    """The uv program that came with us, or the machine's."""
    beside = Path(sys.executable).parent / "uv"
    return str(beside) if beside.exists() else shutil.which("uv") or ""


def read_or_make_node_id(data_dir: Path) -> str:
    """This node's id, the same at each start."""
    path = data_dir / "node-id"
    try:
        node_id = path.read_text(encoding="ascii").strip()
    except FileNotFoundError:
        node_id = ""
    if not is_id(node_id, "nd"):
        node_id = new_id("nd")
        write_atomically(path, node_id + "\n", 0o600)
    return node_id
