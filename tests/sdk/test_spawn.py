"""Starting many durable calls, and their results in order."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

import squall
from squall.exception import InvalidError, ResourceExhaustedError
from squall.protocol.errors import EXHAUSTED, PlatformError
from squall.sdk import _durable, _invoke, _map, _pieces, _spawn
from tests.sdk.double import ServerDouble

app = squall.App("spawn", include_source=False)


@app.function()
def square(x: int) -> int:
    return x * x


@app.function()
def size_of(value: bytes) -> int:
    return len(value)


@app.function()
def odd_fails(x: int) -> int:
    if x % 2:
        raise ValueError(f"odd {x}")
    return x


def late_square(x: int) -> int:
    time.sleep(0.005 * (x % 5))
    return x * x


def eventually(server: ServerDouble, count: int) -> None:
    deadline = time.monotonic() + 10
    while len(server.attempts) < count and time.monotonic() < deadline:
        time.sleep(0.01)
    assert len(server.attempts) == count


def test_spawn_map_is_one_call_that_grows_in_portions(server: ServerDouble, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_spawn, "PORTION_INPUTS", 100)
    with app.run():
        assert square.spawn_map(range(250)) is None
        eventually(server, 250)

    ((opened, count, is_growing),) = server.spawned.values()
    assert (opened.kind, count, is_growing) == ("spawn_map", 250, False)
    assert server.portions == [100, 100, 50]


def test_large_inputs_make_small_portions(server: ServerDouble, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_map, "BATCH_BYTES", 100_000)
    with app.run():
        call = size_of.experimental_spawn_map(bytes(30_000) for _ in range(9))
        assert list(call.iter()) == [30_000] * 9

    assert server.portions == [4, 4, 1]


@pytest.mark.parametrize("count", [0, 1, 512])
def test_call_of_few_inputs_is_whole(server: ServerDouble, count: int) -> None:
    with app.run():
        call = square.experimental_spawn_map(range(count))
        assert call.num_inputs() == count
        assert list(call.iter()) == [x * x for x in range(count)]

    assert [is_growing for _, _, is_growing in server.spawned.values()] == [False]


def test_inputs_are_pulled_no_further_than_the_server_takes_them(
    server: ServerDouble, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_spawn, "PORTION_INPUTS", 10)
    server.spawn_s = 0.3
    pulled: list[tuple[int, int]] = []

    def numbers() -> Iterator[int]:
        for number in range(100):
            pulled.append((number, sum(count for _, count, _ in server.spawned.values())))
            yield number

    with app.run():
        square.spawn_map(numbers())

    assert max(number - kept for number, kept in pulled) <= 20


def test_where_too_many_wait_spawn_map_waits(server: ServerDouble, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_spawn, "PORTION_INPUTS", 10)
    server.refusals = [0.02, 0.02, 0.02]

    with app.run():
        call = square.experimental_spawn_map(range(35))
        assert list(call.iter()) == [x * x for x in range(35)]

    assert server.refusals == []
    assert server.portions == [10, 10, 10, 5]


def test_what_an_iterator_gave_before_it_raised_is_run_and_the_error_comes_out(
    server: ServerDouble, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_spawn, "PORTION_INPUTS", 10)

    def numbers() -> Iterator[int]:
        yield from range(25)
        raise RuntimeError("the file ends here")

    with app.run():
        with pytest.raises(RuntimeError, match="the file ends here"):
            square.spawn_map(numbers())
        eventually(server, 20)


def test_spawn_map_goes_on_over_a_reconnect_with_nothing_twice(
    server: ServerDouble, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_spawn, "PORTION_INPUTS", 10)

    def numbers() -> Iterator[int]:
        for number in range(100):
            if number in (35, 70):
                server.hang_up()
                server.listen()
            yield number

    with app.run():
        call = square.experimental_spawn_map(numbers())
        assert list(call.iter()) == [x * x for x in range(100)]

    assert len(server.attempts) == len(set(server.attempts)) == 100


async def test_spawn_map_takes_async_iterators_in_its_async_form(server: ServerDouble) -> None:
    async def numbers() -> AsyncIterator[int]:
        for number in range(5):
            await asyncio.sleep(0)
            yield number

    async with app.run():
        call = await square.experimental_spawn_map.aio(numbers())
        assert [value async for value in call.iter.aio()] == [0, 1, 4, 9, 16]


# Many at once


async def test_spawns_of_one_loop_share_few_requests(server: ServerDouble) -> None:
    server.spawn_s = 0.05
    async with app.run():
        calls = await asyncio.gather(*(square.spawn.aio(number) for number in range(1_200)))
        values = await asyncio.gather(*(call.get.aio() for call in calls[:50]))

    assert values == [x * x for x in range(50)]
    assert len({call.object_id for call in calls}) == len(server.spawned) == 1_200
    assert sum(server.batches) == 1_200
    assert server.batches[0] == 1
    assert len(server.batches) <= 12


@pytest.mark.long
def test_spawns_of_threads_share_requests(server: ServerDouble) -> None:
    server.spawn_s = 0.05
    with app.run(), ThreadPoolExecutor(30) as pool:
        calls = list(pool.map(square.spawn, range(200)))

        assert squall.FunctionCall.gather(*calls) == [x * x for x in range(200)]
    assert sum(server.batches) == 200
    assert len(server.batches) < 40


def test_one_spawn_waits_for_no_other(server: ServerDouble) -> None:
    with app.run():
        square.spawn(1)
        square.spawn(2)

    assert server.batches == [1, 1]


async def test_inputs_that_are_large_share_a_request_with_few(
    server: ServerDouble, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_map, "BATCH_BYTES", 100_000)
    server.spawn_s = 0.02
    async with app.run():
        values = [bytes(30_000)] * 8 + [bytes(2**21)]
        calls = await asyncio.gather(*(size_of.spawn.aio(value) for value in values))

        assert [await call.get.aio() for call in calls] == [len(value) for value in values]
    assert max(server.batches) == 4


async def test_spawns_of_several_functions_keep_apart(server: ServerDouble) -> None:
    server.spawn_s = 0.02
    async with app.run():
        functions = [square if number % 3 else odd_fails for number in range(30)]
        calls = await asyncio.gather(*(function.spawn.aio(2) for function in functions))

        assert [await call.get.aio() for call in calls] == [4 if number % 3 else 2 for number in range(30)]


async def test_spawns_of_two_functions_in_turn_share_few_requests(server: ServerDouble) -> None:
    server.spawn_s = 0.05
    async with app.run():
        functions = [square if number % 2 else odd_fails for number in range(1_200)]
        await asyncio.gather(*(function.spawn.aio(2) for function in functions))

    assert sum(server.batches) == 1_200
    assert len(server.batches) <= 40


@pytest.mark.long
async def test_spawn_of_one_function_waits_for_few_of_another(
    server: ServerDouble, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_spawn, "PORTION_INPUTS", 10)
    server.spawn_s = 0.02
    async with app.run():
        many = [asyncio.ensure_future(square.spawn.aio(number)) for number in range(500)]
        await asyncio.sleep(0)
        await size_of.spawn.aio(b"1")
        waiting = sum(not one.done() for one in many)
        await asyncio.gather(*many)

    assert waiting > 400


async def test_spawns_that_share_nothing_are_under_way_together_within_a_limit(server: ServerDouble) -> None:
    server.spawn_s = 0.05
    under_way_max = 0
    async with app.run():
        spawner = _spawn.Spawner(square._get_client())
        function_id = str(square.object_id)

        async def one(number: int) -> None:
            nonlocal under_way_max
            payload = await _invoke.pack(spawner._client, (number,), {})
            await spawner.spawn((function_id, "", f"fc-parent{number}:0"), payload)

        spawning = [asyncio.ensure_future(one(number)) for number in range(60)]
        while not all(task.done() for task in spawning):
            under_way_max = max(under_way_max, len(spawner._under_way))
            await asyncio.sleep(0.001)
        await asyncio.gather(*spawning)

        assert not spawner._lines
        assert not spawner._turns
    assert under_way_max == _spawn.ALL_REQUESTS_MAX
    assert server.batches == [1] * 60


async def test_refusal_is_raised_by_each_spawn_that_it_is_of(server: ServerDouble) -> None:
    async with app.run():
        await square.spawn.aio(1)
        server.spawn_error = PlatformError(EXHAUSTED, "CallSpawnMany: the disk is full")
        refused = await asyncio.gather(*(square.spawn.aio(n) for n in range(20)), return_exceptions=True)
        server.spawn_error = None
        assert await (await square.spawn.aio(3)).get.aio() == 9

    assert {str(one) for one in refused} == {"cannot spawn the call: the disk is full"}
    assert {type(one) for one in refused} == {ResourceExhaustedError}
    assert len({id(one) for one in refused}) == 20


async def test_spawns_that_are_given_up_do_not_hold_up_the_others(
    server: ServerDouble, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_spawn, "LOOK_S", 60.0)
    server.spawn_s = 0.05
    async with app.run():
        spawning = [asyncio.ensure_future(square.spawn.aio(number)) for number in range(40)]
        await asyncio.sleep(0.02)
        for task in spawning[:30]:
            task.cancel()
        _, late = await asyncio.wait(spawning, timeout=10.0)
        assert not late
        done = [task.result() for task in spawning[30:]]

        assert [await call.get.aio() for call in done] == [x * x for x in range(30, 40)]
        assert len(server.spawned) <= 10 + _spawn.REQUESTS_MAX, "what was given up before it was sent is not run"


def test_spawns_of_a_thread_go_out_though_a_loop_that_spawned_stands_still(
    server: ServerDouble, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_spawn, "LOOK_S", 60.0)
    server.spawn_s = 0.05

    async def stand_still() -> None:
        spawning = [asyncio.ensure_future(square.spawn.aio(number)) for number in range(2)]
        await asyncio.sleep(0)
        with ThreadPoolExecutor(1) as pool:
            assert pool.submit(lambda: square.spawn(5).get()).result(5) == 25
        await asyncio.gather(*spawning)

    with app.run():
        asyncio.run(stand_still())


async def test_spawns_survive_a_reconnect_and_start_nothing_twice(server: ServerDouble) -> None:
    server.spawn_s = 0.05
    async with app.run():
        spawning = [asyncio.ensure_future(square.spawn.aio(number)) for number in range(700)]
        await asyncio.sleep(0.07)
        await asyncio.to_thread(server.hang_up)
        await asyncio.to_thread(server.listen)
        calls = await asyncio.gather(*spawning)
        assert [await call.get.aio() for call in calls] == [x * x for x in range(700)]

    assert len(server.attempts) == len(set(server.attempts)) == 700


def test_input_that_is_too_large_is_refused_before_anything_is_sent(
    server: ServerDouble, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_pieces, "VALUE_BYTES_MAX", 3 * 2**20)
    with app.run():
        for call in (size_of.spawn, size_of.remote):
            with pytest.raises(InvalidError, match=r"the input has .* GiB, and a value may have"):
                call(bytes(4 * 2**20))
        with pytest.raises(InvalidError, match="the input has"):
            list(size_of.map([bytes(4 * 2**20)]))

    assert not server.blobs_put
    assert not server.opened


# Results


def test_results_come_in_order_and_of_the_range_asked_for(
    server: ServerDouble, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_durable, "READ_OUTPUTS", 7)
    with app.run():
        call = square.experimental_spawn_map(range(40))

        assert list(call.iter()) == [x * x for x in range(40)]
        assert list(call.iter(start=10, end=30)) == [x * x for x in range(10, 30)]
        assert list(call.iter(start=40)) == []
        assert call.get(index=39) == 39 * 39


@pytest.mark.parametrize(("start", "end"), [(-1, None), (0, 6), (4, 3), (6, None)])
def test_range_that_the_call_does_not_have_is_refused(server: ServerDouble, start: int, end: int | None) -> None:
    with app.run():
        call = square.experimental_spawn_map(range(5))

        with pytest.raises(ValueError, match="has 5 inputs: there is no range from"):
            list(call.iter(start=start, end=end))


def test_failure_is_raised_in_its_place(server: ServerDouble) -> None:
    with app.run():
        results = iter(odd_fails.experimental_spawn_map(range(3)).iter())

        assert next(results) == 0
        with pytest.raises(ValueError, match="odd 1"):
            next(results)


def test_results_that_are_never_iterated_are_warned_of(server: ServerDouble) -> None:
    with app.run():
        call = square.experimental_spawn_map(range(5))

        with pytest.warns(UserWarning, match=r"the result of \.iter\(\) was never iterated, so nothing was fetched"):
            call.iter()


def test_many_calls_are_gathered_some_at_a_time(server: ServerDouble, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_durable, "GATHER_MAX", 20)
    server.callables["square"] = late_square
    with app.run():
        calls = [square.spawn(x) for x in range(150)]

        assert squall.FunctionCall.gather(*calls) == [x * x for x in range(150)]
        assert squall.FunctionCall.gather() == []
    assert max(server.gathered) == 20


def test_calls_that_are_done_are_gathered_in_one_question(server: ServerDouble) -> None:
    with app.run():
        calls = [square.spawn(x) for x in range(150)]
        for call in calls:
            call.get()

        # One may be there twice, and each place has a value of its own.
        assert squall.FunctionCall.gather(*calls, calls[3]) == [*(x * x for x in range(150)), 9]
    assert server.gathered == [150]


def test_large_results_and_failures_are_gathered(server: ServerDouble) -> None:
    server.callables["square"] = lambda x: b"x" * (3 << 20) if x else 0
    with app.run():
        assert [len(one) for one in squall.FunctionCall.gather(square.spawn(1), square.spawn(2))] == [3 << 20] * 2
        with pytest.raises(ValueError, match="odd 1"):
            squall.FunctionCall.gather(square.spawn(0), odd_fails.spawn(1))


def test_gather_asks_again_until_results_are_there(server: ServerDouble, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_durable, "POLL_S", 0.001)
    server.callables["square"] = late_square
    with app.run():
        assert squall.FunctionCall.gather(square.spawn(2), square.spawn(3)) == [4, 9]
