"""What a node is told of the container that it starts."""

from __future__ import annotations

from squall.protocol.function import GVISOR, NAMESPACES
from tests.server.doubles import staged


async def test_a_container_starts_as_its_function_says() -> None:
    async with staged() as stage:
        spec = await stage.client.function(is_snapshot_enabled=True, isolation=GVISOR)

        await stage.done(stage.client.call(spec.function_id, 1), 1)

        started = stage.node.starts[0]
        assert (started.is_snapshot_enabled, started.isolation) == (True, GVISOR)


async def test_a_function_that_says_nothing_has_neither_snapshots_nor_another_kernel() -> None:
    async with staged() as stage:
        spec = await stage.client.function()

        await stage.done(stage.client.call(spec.function_id, 1), 1)

        started = stage.node.starts[0]
        assert (started.is_snapshot_enabled, started.isolation) == (False, NAMESPACES)
