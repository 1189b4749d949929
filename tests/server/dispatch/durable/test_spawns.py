"""Calls that grow while they run: nothing of them is lost, and nothing runs twice."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from squall.protocol import call as wire
from squall.protocol.call import (
    CallCancel,
    CallExtend,
    CallGet,
    CallInfo,
    CallInfoGet,
    CallOpen,
    CallRead,
    CallSpawn,
    CallSpawned,
    InputBatch,
    OutputBatch,
    SpawnBatch,
)
from squall.protocol.empty import Empty
from squall.protocol.errors import UNAVAILABLE, PlatformError
from squall.protocol.ids import new_id
from squall.protocol.records import replace
from squall.server.dispatch.durable import backlog, durable
from squall.server.model.config import ServerConfig
from squall.server.model.store import Portion
from squall.server.store.memory import MemoryStore
from tests.server.doubles import Stage, settle, staged


def batch_of(call_id: str, first: int, count: int) -> tuple[InputBatch, bytes]:
    values = [str(number).encode() for number in range(first, first + count)]
    batch = InputBatch(call_id, tuple(range(first, first + count)), tuple(len(value) for value in values))
    return batch, b"".join(values)


async def begin(stage: Stage, function_id: str, count: int, call_id: str = "") -> str:
    call_id = call_id or new_id("fc")
    batch, body = batch_of(call_id, 0, count)
    opened = CallOpen(call_id, function_id, wire.SPAWN_MAP)
    await stage.client.ask("CallSpawn", CallSpawn(opened, batch, is_growing=True), CallSpawned, body)
    return call_id


async def extend(stage: Stage, call_id: str, first: int, count: int, *, is_last: bool = False) -> CallSpawned:
    batch, body = batch_of(call_id, first, count)
    answer: CallSpawned = await stage.client.ask("CallExtend", CallExtend(batch, is_last), CallSpawned, body)
    return answer


async def read(stage: Stage, call_id: str, first: int, count: int, timeout_s: float = 0.0) -> tuple[OutputBatch, bytes]:
    assert stage.client.peer is not None
    asked = CallRead(call_id, first, count, timeout_s)
    return await stage.client.peer.request_with_body("CallRead", asked, OutputBatch)


async def info(stage: Stage, call_id: str) -> CallInfo:
    found: CallInfo = await stage.client.ask("CallInfo", CallInfoGet(call_id), CallInfo)
    return found


async def done(stage: Stage, call_id: str, count: int) -> None:
    """Wait until so many outputs of the call are in the store."""
    assert isinstance(stage.store, MemoryStore)
    outputs = stage.store._outputs
    await stage.until(lambda: len(outputs[call_id]) >= count)


def runs(stage: Stage) -> int:
    """How often an input was run."""
    return sum(len(guest.received) for guest in stage.node.started)


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Little fits in memory."""
    monkeypatch.setattr(backlog, "MEMORY_INPUTS_MAX", 20)
    monkeypatch.setattr(backlog, "SHARE_INPUTS_MIN", 5)
    monkeypatch.setattr(backlog, "PAGE_INPUTS", 7)


async def test_growing_call_runs_what_it_has_and_is_whole_when_it_is_said_so() -> None:
    async with staged() as stage:
        spec = await stage.client.function()

        call_id = await begin(stage, spec.function_id, 3)
        await done(stage, call_id, 3)
        growing = await info(stage, call_id)
        await extend(stage, call_id, 3, 2)
        last = await extend(stage, call_id, 5, 1, is_last=True)
        await done(stage, call_id, 6)
        whole = await info(stage, call_id)

        assert (growing.input_count, growing.is_growing) == (3, True)
        assert (whole.input_count, whole.is_growing, last.input_count) == (6, False, 6)
        assert whole.statuses == ("succeeded",) * 6
        assert len(stage.plane.calls) == 0


@pytest.mark.usefixtures("small")
async def test_inputs_that_come_beyond_what_fits_in_memory_run_once_in_order() -> None:
    async with staged() as stage:
        spec = await stage.client.function(max_containers=1)
        call_id = await begin(stage, spec.function_id, 4)
        for first in range(4, 200, 4):
            await extend(stage, call_id, first, 4, is_last=first == 196)
            if first % 40 == 0:
                await stage.pass_time(0.05)
        await done(stage, call_id, 200)
        await stage.pass_time(2.0)

        assert runs(stage) == 200
        assert (await read(stage, call_id, 0, 200))[1] == b"".join(b"%d" % (2 * number) for number in range(200))
        assert len(stage.plane.durable.backlog) == 0
        assert not await stage.store.unfinished_counts()


@pytest.mark.usefixtures("small")
async def test_call_goes_on_growing_after_a_restart() -> None:
    async with staged() as stage:
        spec = await stage.client.function(max_containers=1)
        stage.node.is_slow_to_load = True
        call_id = await begin(stage, spec.function_id, 30)
        await extend(stage, call_id, 30, 30)

        await stage.restart()
        stage.node.is_slow_to_load = False
        await stage.client.connect()
        await stage.take_up(spec)
        await extend(stage, call_id, 30, 30)  # said again: its answer was lost
        await extend(stage, call_id, 60, 30, is_last=True)
        for guest in list(stage.node.guests.values()):
            guest.exit(0)
        await done(stage, call_id, 90)
        await stage.pass_time(2.0)

        assert runs(stage) == 90
        assert not await stage.store.unfinished_counts()


async def test_repeated_inputs_run_once_wherever_they_are() -> None:
    async with staged() as stage:
        spec = await stage.client.function()
        call_id = await begin(stage, spec.function_id, 2)
        for _ in range(3):
            await begin(stage, spec.function_id, 2, call_id)
            await extend(stage, call_id, 2, 3)
        await done(stage, call_id, 5)
        await extend(stage, call_id, 2, 3)
        for _ in range(2):
            await extend(stage, call_id, 5, 0, is_last=True)
        await stage.pass_time(2.0)

        assert runs(stage) == 5
        assert not (await info(stage, call_id)).is_growing


async def test_inputs_whose_caller_went_away_while_they_were_kept_run(monkeypatch: pytest.MonkeyPatch) -> None:
    async with staged() as stage:
        spec = await stage.client.function()
        call_id = await begin(stage, spec.function_id, 1)
        await done(stage, call_id, 1)
        extend_call, is_kept, may_go_on = stage.store.extend_call, asyncio.Event(), asyncio.Event()

        async def wait_after(*args: object, **kwargs: object) -> Portion:
            portion: Portion = await extend_call(*args, **kwargs)  # type: ignore[arg-type]
            is_kept.set()
            await may_go_on.wait()
            return portion

        monkeypatch.setattr(stage.store, "extend_call", wait_after)
        extending = asyncio.ensure_future(extend(stage, call_id, 1, 1))
        await stage.until(is_kept.is_set)
        stage.client.disconnect()
        await settle()
        may_go_on.set()
        await done(stage, call_id, 2)

        assert runs(stage) == 2
        with pytest.raises(PlatformError):
            await extending


async def test_inputs_that_are_known_to_be_kept_only_by_the_store_run_when_they_are_put_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with staged() as stage:
        spec = await stage.client.function()
        call_id = await begin(stage, spec.function_id, 1)
        extend_call = stage.store.extend_call

        async def lose_the_answer(*args: object, **kwargs: object) -> Portion:
            await extend_call(*args, **kwargs)  # type: ignore[arg-type]
            raise PlatformError(UNAVAILABLE, "the database cannot be reached")

        monkeypatch.setattr(stage.store, "extend_call", lose_the_answer)
        with pytest.raises(PlatformError, match="cannot be reached"):
            await extend(stage, call_id, 1, 2)
        monkeypatch.setattr(stage.store, "extend_call", extend_call)
        await extend(stage, call_id, 1, 2)
        await done(stage, call_id, 3)

        assert runs(stage) == 3


@pytest.mark.usefixtures("small")
async def test_cancelled_call_runs_nothing_more_of_what_it_has_and_grows_no_more(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(durable, "CANCELLED_AT_ONCE", 10)
    async with staged() as stage:
        spec = await stage.client.function(max_containers=1)
        stage.node.is_slow_to_load = True
        call_id = await begin(stage, spec.function_id, 15)
        for first in range(15, 105, 15):
            await extend(stage, call_id, first, 15)

        await stage.client.ask("CallCancel", CallCancel(call_id), Empty)
        with pytest.raises(PlatformError, match="was cancelled: it takes no more inputs"):
            await extend(stage, call_id, 105, 1)
        await done(stage, call_id, 105)
        stage.node.is_slow_to_load = False
        for guest in list(stage.node.guests.values()):
            guest.exit(0)
        await stage.pass_time(2.0)

        assert runs(stage) == 0
        assert not await stage.store.unfinished_counts()
        record, _ = await read(stage, call_id, 0, 200)
        assert record.statuses == (wire.CANCELLED,) * 105
        assert len(stage.plane.durable.backlog) == 0


async def test_cancelled_call_without_inputs_to_run_grows_no_more() -> None:
    async with staged() as stage:
        spec = await stage.client.function()
        call_id = await begin(stage, spec.function_id, 1)
        await done(stage, call_id, 1)

        await stage.client.ask("CallCancel", CallCancel(call_id), Empty)

        with pytest.raises(PlatformError, match="was cancelled") as caught:
            await extend(stage, call_id, 1, 1)
        assert caught.value.code == "conflict"


async def test_growing_call_waits_where_others_are_refused() -> None:
    async with staged(ServerConfig(spawned_inputs_max=5)) as stage:
        spec = await stage.client.function(max_containers=1)
        stage.node.is_slow_to_load = True
        call_id = await begin(stage, spec.function_id, 4)

        batch, body = batch_of(other := new_id("fc"), 0, 2)
        single = CallSpawn(CallOpen(other, spec.function_id, wire.SPAWN), batch)

        later = await extend(stage, call_id, 4, 2)
        with pytest.raises(PlatformError, match="has 4 inputs that wait, and at most 5 may") as caught:
            await stage.client.ask("CallSpawn", single, CallSpawned, body)

        assert later.retry_s > 0
        assert caught.value.code == "exhausted"
        assert (await info(stage, call_id)).input_count == 4


@pytest.mark.parametrize(
    ("extension", "match"),
    [
        (CallExtend(InputBatch("", (3,), (1,))), "do not follow"),
        (CallExtend(InputBatch("", (2, 4), (1, 1))), "do not follow each other"),
        (CallExtend(InputBatch("", (-1,), (1,))), "do not follow each other"),
        (CallExtend(InputBatch("", (), ())), "only to say that there are no more"),
        (CallExtend(InputBatch("", (2**31 - 1,), (1,))), "do not follow each other"),
    ],
)
async def test_inputs_that_do_not_continue_a_call_are_refused(extension: CallExtend, match: str) -> None:
    async with staged() as stage:
        spec = await stage.client.function()
        call_id = await begin(stage, spec.function_id, 2)
        inputs = InputBatch(call_id, extension.inputs.indexes, extension.inputs.sizes)

        with pytest.raises(PlatformError, match=match):
            await stage.client.ask("CallExtend", CallExtend(inputs), CallSpawned, b"7" * len(inputs.indexes))

        assert (await info(stage, call_id)).input_count == 2


async def test_call_of_no_inputs_is_over_at_once() -> None:
    async with staged() as stage:
        spec = await stage.client.function()
        call_id = new_id("fc")
        opened = CallOpen(call_id, spec.function_id, wire.SPAWN_MAP)

        await stage.client.ask("CallSpawn", CallSpawn(opened, InputBatch(call_id, (), ())), CallSpawned)

        assert (await info(stage, call_id)).input_count == 0
        with pytest.raises(PlatformError, match="has index 0: it has no inputs"):
            await stage.client.ask("CallGet", CallGet(call_id, 0, 30.0), OutputBatch)


async def test_outputs_are_read_in_order_as_they_come() -> None:
    async with staged() as stage:
        spec = await stage.client.function()
        call_id = await begin(stage, spec.function_id, 3)
        await done(stage, call_id, 3)

        there = await read(stage, call_id, 1, 10)
        waiting = asyncio.ensure_future(read(stage, call_id, 3, 10, 30.0))
        await settle()
        assert not waiting.done()
        await extend(stage, call_id, 3, 2, is_last=True)
        await stage.until(waiting.done)

        assert (there[0].indexes, there[1]) == ((1, 2), b"24")
        assert (waiting.result()[0].indexes, waiting.result()[1]) == ((3,), b"6")
        with pytest.raises(PlatformError, match="it has 5 inputs"):
            await read(stage, call_id, 5, 1, 5.0)


async def test_waiting_for_an_input_that_is_to_come_ends_without_it() -> None:
    async with staged() as stage:
        spec = await stage.client.function()
        call_id = await begin(stage, spec.function_id, 1)

        waiting = asyncio.ensure_future(read(stage, call_id, 7, 1, 2.0))
        await stage.pass_time(2.5)

        assert waiting.result()[0].indexes == ()


# Several calls in one request


async def spawn_many(stage: Stage, function_id: str, call_ids: list[str], /, **changes: Any) -> None:
    values = [str(number).encode() for number in range(len(call_ids))]
    record = SpawnBatch(function_id, tuple(call_ids), tuple(len(value) for value in values))
    await stage.client.ask("CallSpawnMany", replace(record, **changes), Empty, b"".join(values))


async def test_several_calls_of_one_request_are_calls_like_others() -> None:
    async with staged() as stage:
        spec = await stage.client.function()
        call_ids = [new_id("fc") for _ in range(5)]

        for _ in range(2):  # said again: the answer was lost
            await spawn_many(stage, spec.function_id, call_ids)
            for call_id in call_ids:
                await done(stage, call_id, 1)
        await stage.pass_time(1.0)

        outputs = [await stage.plane.durable.get(call_id, 0, 0.0) for call_id in call_ids]
        assert [value for _, value in outputs] == [b"%d" % (2 * number) for number in range(5)]
        assert runs(stage) == 5
        assert [(await info(stage, call_id)).kind for call_id in call_ids] == [wire.SPAWN] * 5


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"call_ids": ("fc-1", "fc-1")}, "each with an id of its own"),
        ({"call_ids": (), "sizes": ()}, "takes one call or more"),
        ({"call_ids": ("in-1", "fc-2")}, "a call needs an id"),
        ({"sizes": (1,)}, "each with a size"),
        ({"sizes": (1, 5)}, "do not add up"),
        ({"sizes": (1, -1), "blobs": {"1": "x"}}, "blobs"),
        ({"parent_input_id": "x" * 300}, "no id of an input"),
        ({"method": "there_is_none"}, "no class"),
    ],
)
async def test_calls_of_a_request_that_is_wrong_are_all_refused(changes: dict[str, Any], match: str) -> None:
    async with staged() as stage:
        spec = await stage.client.function()
        call_ids = [new_id("fc") for _ in range(2)]

        with pytest.raises(PlatformError, match=match) as caught:
            await spawn_many(stage, spec.function_id, call_ids, **changes)

        assert caught.value.code == "invalid"
        assert not await stage.store.unfinished_counts()


async def test_calls_of_a_request_for_which_there_is_no_room_are_all_refused() -> None:
    async with staged(ServerConfig(spawned_inputs_max=5)) as stage:
        spec = await stage.client.function(max_containers=1)
        stage.node.is_slow_to_load = True
        await spawn_many(stage, spec.function_id, [new_id("fc") for _ in range(4)])

        with pytest.raises(PlatformError, match="at most 5 may") as caught:
            await spawn_many(stage, spec.function_id, [new_id("fc") for _ in range(2)])

        assert caught.value.code == "exhausted"
        assert await stage.store.unfinished_counts() == {spec.function_id: 4}
