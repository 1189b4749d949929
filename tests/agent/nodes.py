"""Nodes whose containers are started by one path or another, and what is on them."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any

from squall.agent.agent import Agent
from squall.protocol.ids import new_id
from squall.protocol.node import ContainerStarted
from squall.protocol.template import (
    NodeTemplate,
    NodeTemplateList,
    NodeTemplateListing,
)
from squall.runtime.spec import ContainerSpec
from tests.agent.parts import until
from tests.agent.world import World


@contextlib.asynccontextmanager
async def node(world: World, start_path: str = "auto", **changes: Any) -> AsyncIterator[Agent]:
    """An agent, on a node that has the image."""
    async with asyncio.timeout(30), world.running(start_path=start_path, **changes) as agent:
        if not world.images.built:
            await world.build()
        yield agent


async def started(world: World, **changes: Any) -> tuple[str, ContainerStarted]:
    """Start a container; returns its id, and the answer."""
    container_id = new_id("ct")
    return container_id, await world.ask(container_id=container_id, **changes)


async def snapshot(world: World, **changes: Any) -> tuple[str, ContainerStarted]:
    """The same, of a function that asks for function templates."""
    return await started(world, is_snapshot_enabled=True, **changes)


async def listed(world: World, function_id: str = "") -> NodeTemplateListing:
    asked = NodeTemplateList(function_id)
    found: NodeTemplateListing = await world.server.peer.request("NodeTemplateList", asked, NodeTemplateListing)
    return found


async def told(world: World, function_id: str = "") -> list[NodeTemplate]:
    return list((await listed(world, function_id)).templates)


def template_of(world: World) -> Any:
    """The one template of the node."""
    (found,) = world.agent.templates._roster.live.values()
    return found


def specs(world: World, kind: str) -> list[ContainerSpec]:
    """What runs, by the kinds of ids."""
    return [one.spec for name, one in world.machine.containers.items() if name.startswith(kind)]


async def filled(world: World) -> None:
    """Wait until as much is ready as is wanted."""
    await until(lambda: template_of(world).parked and template_of(world).cells)
    await until(lambda: not world.agent.templates._pools.wanted([template_of(world)]))
