"""Who has which tunnel, and for how long: a control plane with real ports, and clients in containers that it knows."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from squall.protocol.app import AppCreate, AppCreated
from squall.protocol.empty import Empty
from squall.protocol.errors import CONFLICT, EXHAUSTED, INVALID, PlatformError
from squall.protocol.function import FunctionCreate, FunctionCreated
from squall.protocol.ids import new_id
from squall.protocol.records import replace
from squall.protocol.tunnel import TUNNELS_MAX, TunnelClose, TunnelOpen, TunnelOpened
from squall.server.ingress.tunnel import Entries
from squall.server.model.config import ServerConfig
from tests.server.doubles import FakeClient, Stage, make_spec, staged

APP = "ap-0123456789ABCDEFGHabcd"
PORTS = range(31_000, 32_000)


class Tunnelled:
    """A container that runs, with a client in it."""

    def __init__(self, stage: Stage) -> None:
        self.stage = stage
        self.inside: FakeClient
        self.made: list[Entries] = []

    @property
    def container_id(self) -> str:
        return self.stage.node.started[0].container_id

    async def begin(self) -> None:
        self.give_ports()
        spec = make_spec(APP, "serve", min_containers=1)
        await self.stage.client.ask("AppCreate", AppCreate(APP, "tunnels"), AppCreated)
        await self.stage.client.ask("FunctionCreate", FunctionCreate((spec,)), FunctionCreated)
        await self.stage.until(lambda: bool(self.stage.node.guests))
        self.inside = await self.client()

    def give_ports(self, ports: range = PORTS, **how: Any) -> None:
        self.made.append(Entries("127.0.0.1", "127.0.0.1", ports, **how))
        self.stage.plane.tunnels.entries = self.made[-1]

    async def client(self) -> FakeClient:
        return await FakeClient(self.stage.plane, self.stage.codec).connect_inside(self.container_id)

    async def open(self, asked: TunnelOpen, client: FakeClient | None = None) -> TunnelOpened:
        opened: TunnelOpened = await (client or self.inside).ask("TunnelOpen", asked, TunnelOpened)
        return opened


@asynccontextmanager
async def tunnelled() -> AsyncIterator[Tunnelled]:
    async with staged(ServerConfig(call_grace_s=10.0)) as stage:
        one = Tunnelled(stage)
        await one.begin()
        yield one
        for entries in one.made:
            await entries.close()


def asked(port: int = 8000, **how: Any) -> TunnelOpen:
    return TunnelOpen(new_id("tu"), port, **how)


async def is_open(port: int) -> bool:
    """Whether somebody listens; nothing does in the container, so that what is connected is reset."""
    try:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
    except ConnectionRefusedError:
        return False
    with pytest.raises(ConnectionResetError):
        await reader.read()
    writer.close()
    return True


async def refusal(one: Tunnelled, wanted: TunnelOpen, client: FakeClient | None = None) -> PlatformError:
    with pytest.raises(PlatformError) as caught:
        await one.open(wanted, client)
    return caught.value


async def test_asked_again_it_is_the_same_and_closed_again_it_stays_closed() -> None:
    async with tunnelled() as one:
        wanted = asked(is_unencrypted=True)
        opened, at_once = await asyncio.gather(one.open(wanted), one.open(wanted))
        again = await one.open(replace(wanted, wanted_port=opened.port))

        assert opened == at_once == again
        assert (opened.host, opened.is_tls) == ("127.0.0.1", False)
        assert opened.unencrypted_port == opened.port, "without a certificate one port is enough"
        assert await is_open(opened.port)
        for _ in range(2):
            await one.inside.ask("TunnelClose", TunnelClose(wanted.tunnel_id), Empty)
        assert not await is_open(opened.port)


async def test_two_tunnels_lead_to_one_port() -> None:
    async with tunnelled() as one:
        first, second = await one.open(asked()), await one.open(asked())

        assert first.port != second.port


async def test_what_cannot_be_is_refused() -> None:
    async with tunnelled() as one:
        outside = await refusal(one, asked(), one.stage.client)
        assert (outside.code, outside.message) == (INVALID, "TunnelOpen: only a container has ports to lead to")
        assert "port 0: a port is from 1 to 65535" in (await refusal(one, asked(0))).message
        assert (await refusal(one, asked(65_536))).code == INVALID
        assert "is no id of a tunnel" in (await refusal(one, TunnelOpen("ap-x", 80))).message
        one.give_ports(why_no_plain="with TLS only")
        with pytest.raises(PlatformError, match="unencrypted: with TLS only"):
            await one.open(asked(is_unencrypted=True))
        one.stage.plane.tunnels.entries = None
        assert "this server has no tunnels" in (await refusal(one, asked())).message


async def test_container_whose_network_is_blocked_has_no_tunnels() -> None:
    async with tunnelled() as one:
        container = one.stage.plane.fleet.containers[one.container_id]
        container.spec = replace(container.spec, is_network_blocked=True)

        with pytest.raises(PlatformError, match="serve has block_network=True") as refused:
            await one.open(asked())

    assert refused.value.code == INVALID


async def test_tunnel_is_its_clients() -> None:
    async with tunnelled() as one:
        wanted = asked()
        opened = await one.open(wanted)
        other = await one.client()

        assert (await refusal(one, wanted, other)).code == CONFLICT
        assert (await refusal(one, replace(wanted, port=22))).code == CONFLICT
        await other.ask("TunnelClose", TunnelClose(wanted.tunnel_id), Empty)
        assert await is_open(opened.port)


async def test_a_container_has_so_many_and_one_that_could_not_be_is_none() -> None:
    async with tunnelled() as one:
        one.give_ports(range(0))
        for _ in range(TUNNELS_MAX + 1):
            assert "no port of this server is free" in (await refusal(one, asked())).message
        one.give_ports()
        for _ in range(TUNNELS_MAX):
            await one.open(asked())

        full = await refusal(one, asked())
        assert (full.code, f"{TUNNELS_MAX} tunnels already" in full.message) == (EXHAUSTED, True)


async def test_it_outlives_a_connection_and_no_more() -> None:
    async with tunnelled() as one:
        opened = await one.open(asked())
        assert one.inside.peer is not None
        await one.inside.peer.close()
        await one.stage.pass_time(one.stage.config.call_grace_s - 1, 1.0)
        assert await is_open(opened.port)

        await one.stage.pass_time(2, 1.0)

        assert not await is_open(opened.port)


async def test_it_ends_with_its_container() -> None:
    async with tunnelled() as one:
        opened = await one.open(asked())
        reader, writer = await asyncio.open_connection("127.0.0.1", opened.port)

        ended = one.container_id
        one.stage.node.started[0].exit(signal=9)
        await one.stage.until(lambda: ended not in one.stage.plane.fleet.containers)

        assert not await is_open(opened.port)
        with pytest.raises(ConnectionResetError):
            await reader.read()
        writer.close()
        assert "no ports" in (await refusal(one, asked())).message


async def test_next_server_gives_it_its_port_again() -> None:
    async with tunnelled() as one:
        wanted = asked()
        opened = await one.open(wanted)
        client_id = one.inside.client_id
        await one.stage.restart()
        assert not await is_open(opened.port)
        one.give_ports()
        client = await FakeClient(one.stage.plane, one.stage.codec, client_id).connect_inside(one.container_id)

        again = await one.open(replace(wanted, wanted_port=opened.port), client)

        assert again == opened
        assert await is_open(opened.port)
