"""What a node is told of the container that it starts."""

from __future__ import annotations

from squall.protocol.flight import ContainerFlight, ContainerShow
from squall.protocol.function import GVISOR, NAMESPACES
from squall.protocol.node import PATH_PLAIN
from squall.server.dispatch.fleet.starts import CAUSE_CHARS_MAX
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


async def test_flights_say_which_path_a_start_took_and_why_no_quicker_one() -> None:
    async with staged() as stage:
        stage.node.start_path = (PATH_PLAIN, "module watch started a thread" + "!" * 10_000)
        spec = await stage.client.function()

        await stage.done(stage.client.call(spec.function_id, 1), 1)

        shown = ContainerShow(stage.node.started[0].container_id)
        found = (await stage.client.ask("ContainerShow", shown, ContainerFlight)).container
        assert found.path == PATH_PLAIN
        assert found.path_cause.startswith("module watch started a thread!!!")
        assert len(found.path_cause) == CAUSE_CHARS_MAX
