"""The clients that are connected, and those that may come back."""

from __future__ import annotations

from squall.protocol.errors import EXHAUSTED, INVALID, PlatformError
from squall.protocol.ids import is_id
from squall.protocol.peer import Peer
from squall.protocol.task_set import TaskSet
from squall.server.dispatch.app.apps import Apps
from squall.server.dispatch.asset.assets import Assets
from squall.server.dispatch.client.client import Client
from squall.server.dispatch.fleet.container import Container
from squall.server.dispatch.fleet.templates import Template
from squall.server.dispatch.function.call_table import CallTable
from squall.server.dispatch.shares import Shares
from squall.server.model.clock import Clock
from squall.server.model.config import ServerConfig

CLIENTS_MAX = 10_000
"""Outside of containers; and as many inside."""
CLIENTS_BELOW_MAX = 5_000
"""In containers of one app and those started from it: it must not keep others out."""


class Clients:
    """By app they are limited to and id: a container cannot take over the calls of another app's client."""

    def __init__(
        self, *, apps: Apps, assets: Assets, calls: CallTable, clock: Clock, config: ServerConfig, tasks: TaskSet
    ) -> None:
        self._apps = apps
        self._assets = assets
        self._calls = calls
        self._clock = clock
        self._config = config
        self._tasks = tasks
        self._clients: dict[tuple[str, str], Client] = {}
        self._counts = Shares()

    @property
    def connected(self) -> int:
        """Clients outside containers that are connected now."""
        return sum(1 for one in self._clients.values() if one.peer is not None and not one.scope_app_id)

    def greet(
        self, client_id: str, scope_app_id: str, peer: Peer, container: Container | Template | None = None
    ) -> Client:
        """A client is there, for the first time or again; in that container.

        Raises:
            PlatformError: `invalid` for a wrong id, `exhausted` when there are too many.
        """
        if not is_id(client_id, "cl"):
            raise PlatformError(INVALID, f"Hello: {client_id!r} is no id of a client")
        key = (scope_app_id, client_id)
        client = self._clients.get(key)
        if client is None:
            root_app_id = self._apps.get_live(scope_app_id).row.root_app_id if scope_app_id else ""
            self._check_room(root_app_id)
            client = Client(client_id, scope_app_id, root_app_id, self._calls, self._clock, self._tasks)
            self._clients[key] = client
            self._counts.add(root_app_id)
        if client.peer is not None and client.peer is not peer:
            client.peer.channel.close()
        client.connected(peer)
        self._assets.taken_up_by(client)
        if client.away_timer is not None:
            client.away_timer.cancel()
            client.away_timer = None
        if container is not None:
            client.container_id = container.container_id
            if not container.has_clients:
                container.has_clients = True
                container.on_stopped.append(lambda: self._container_gone(container.container_id))
        return client

    def _check_room(self, root_app_id: str) -> None:
        here = self._counts[root_app_id]
        inside = len(self._clients) - self._counts[""]
        limit = CLIENTS_BELOW_MAX if root_app_id else CLIENTS_MAX
        if here >= limit or (root_app_id and inside >= CLIENTS_MAX):
            raise PlatformError(EXHAUSTED, f"Hello: {here} clients are connected or expected back")

    def _container_gone(self, container_id: str) -> None:
        """The processes that its clients were are gone for good: their calls end now, and the apps that they held."""
        for client in [one for one in self._clients.values() if one.container_id == container_id]:
            self.forget(client)
            self._assets.abandoned_by(client)
        self._apps.abandoned_by(container_id)

    def gone(self, client: Client, peer: Peer) -> None:
        """A connection is closed: its apps and calls wait for it, each for its own grace time."""
        if client.peer is not peer:
            return
        client.disconnected()
        self._apps.released_by(client)
        self._assets.released_by(client)
        grace_s = self._config.call_grace_s if client.calls or client.on_forgotten else 0.0
        client.away_timer = self._clock.call_later(grace_s, lambda: self._overdue(client))

    def _overdue(self, client: Client) -> None:
        client.away_timer = None
        if client.peer is None:
            self.forget(client)

    def forget(self, client: Client) -> None:
        """A client will not come back: its calls end."""
        if client.away_timer is not None:
            client.away_timer.cancel()
            client.away_timer = None
        key = (client.scope_app_id, client.client_id)
        if self._clients.get(key) is client:
            del self._clients[key]
            self._counts.add(client.root_app_id, -1)
        client.close_all()
        for forgotten in list(client.on_forgotten.values()):
            forgotten()
