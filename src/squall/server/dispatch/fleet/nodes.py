"""Nodes that come and go, and what becomes of the containers they bring."""

from __future__ import annotations

from squall.protocol.errors import INVALID, PlatformError
from squall.protocol.ids import is_id
from squall.protocol.node import NodeHello, NodeImagePut, NodeImages
from squall.protocol.peer import Peer
from squall.server.dispatch.app.apps import Apps
from squall.server.dispatch.fleet.fleet import ContainerFleet
from squall.server.dispatch.fleet.node import Node
from squall.server.dispatch.function.dispatcher import Dispatcher
from squall.server.model.clock import Clock
from squall.server.model.config import ServerConfig


class Nodes:
    """The greeting of agents."""

    def __init__(self, *, fleet: ContainerFleet, apps: Apps, clock: Clock, config: ServerConfig) -> None:
        self._fleet = fleet
        self._apps = apps
        self._clock = clock
        self._config = config

    def greet(self, hello: NodeHello, peer: Peer) -> tuple[Node, tuple[str, ...]]:
        """An agent is there: the node, and which of its containers nobody wants.

        A container that this server knows goes on; one that it does not know is adopted if its function still exists.

        Raises:
            PlatformError: `invalid` for a wrong id.
        """
        if not is_id(hello.node_id, "nd"):
            raise PlatformError(INVALID, f"NodeHello: {hello.node_id!r} is no id of a node")
        node = self._fleet.nodes.get(hello.node_id)
        if node is None:
            node = Node(hello.node_id)
            node.on_images_changed = self._fleet.starts.scheduler.images_changed
            self._fleet.nodes[hello.node_id] = node
        elif node.peer is not None and node.peer is not peer:
            node.peer.channel.close()
        node.greeted(hello, peer)
        self._fleet.starts.node_changed(node)
        unwanted: list[str] = []
        listed = set()
        adopted: dict[Dispatcher, int] = {}
        for found in hello.containers:
            listed.add(found.container_id)
            known = self._fleet.containers.get(found.container_id)
            dispatcher = self._apps.dispatchers.get(found.function_id)
            if known is not None and known.node is node and not known.ending:
                continue
            if known is None and dispatcher is not None and dispatcher.stopped is None:
                self._fleet.adopt(found.container_id, dispatcher, node, found.version)
                if found.version == dispatcher.spec.version:
                    adopted[dispatcher] = adopted.get(dispatcher, 0) + 1
            else:
                unwanted.append(found.container_id)
        for container in [one for key, one in node.containers.items() if key not in listed]:
            self._fleet.lost(container)
        self._fleet.cancel_replaced(adopted)
        self._fleet.starts.place()
        return node, tuple(unwanted)

    def told_images(self, node: Node, record: NodeImages) -> None:
        """An agent says which images it has: all this server knows of those that were built before it began."""
        for image_id in record.image_ids:
            node.has_image(image_id)
        if not record.image_ids:
            node.said_all_images()
        self._fleet.starts.place()

    def image_put(self, node: Node, record: NodeImagePut) -> None:
        """An agent has put an image into the store: the others see whether theirs is that."""
        for other in self._fleet.nodes.values():
            # All of them: after a restart it is not known yet which have it.
            if other is not node and other.peer is not None:
                other.peer.event("NodeImagePut", record)

    def gone(self, node: Node, peer: Peer) -> None:
        """An agent's connection is closed: its containers wait for its return."""
        if node.peer is not peer:
            return
        node.peer = None
        self._fleet.starts.node_changed(node)
        node.lost_timer = self._clock.call_later(self._config.node_grace_s, lambda: self._fleet.node_lost(node))
