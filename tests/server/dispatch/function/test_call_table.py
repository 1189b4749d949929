"""Calls of a function, found without looking at those of others."""

from __future__ import annotations

import asyncio

from squall.server.dispatch.function.call_table import CallTable
from squall.server.dispatch.function.input import Call
from tests.server.doubles import FakeGuest, staged


class Counting(dict[str, Call]):
    """Calls, and how often somebody went through all of them."""

    passes = 0

    def values(self):  # type: ignore[no-untyped-def]
        self.passes += 1
        return super().values()


async def forever(guest: FakeGuest, value: bytes) -> bytes:
    await asyncio.Event().wait()
    return value


async def test_a_function_that_ends_does_not_look_at_the_calls_of_others() -> None:
    async with staged() as stage:
        busy, other = await stage.client.function(name="busy"), await stage.client.function(name="other")
        stage.node.run = forever
        calls = [stage.client.call(busy.function_id, 1) for _ in range(3)]
        mine = stage.client.call(other.function_id, 1)
        table: CallTable = stage.plane.calls
        await stage.until(lambda: len(table) == 4)
        dispatchers = stage.plane.apps.dispatchers
        counting = table._calls = Counting(table._calls)

        assert [one.call_id for one in table.of(dispatchers[other.function_id])] == [mine.call_id]
        assert {one.call_id for one in table.of(dispatchers[busy.function_id])} == {one.call_id for one in calls}
        assert table.dispatchers() == {dispatchers[busy.function_id], dispatchers[other.function_id]}
        assert not counting.passes


async def test_a_function_whose_calls_are_over_is_not_remembered() -> None:
    async with staged() as stage:
        spec = await stage.client.function()
        call = stage.client.call(spec.function_id, 1)
        await stage.done(call, 1)
        stage.client.close_call(call)
        await stage.until(lambda: len(stage.plane.calls) == 0)

        assert not stage.plane.calls.dispatchers()
        assert not list(stage.plane.calls.of(stage.plane.apps.dispatchers[spec.function_id]))
