"""Calling functions: one input, many, generators, durably; from threads, event loops and forks."""

from __future__ import annotations

import asyncio
import contextlib
import os
import pickle
import threading
import time
import traceback
import warnings
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Iterator
from pathlib import Path
from typing import Any

import pytest

import squall
from squall.exception import (
    AsyncUsageWarning,
    DeserializationError,
    ExecutionError,
    InternalFailure,
    InvalidError,
    NotFoundError,
    SerializationError,
)
from squall.exception import TimeoutError as SquallTimeoutError
from tests.sdk.double import ServerDouble

app = squall.App("calls", include_source=False)


class Unhappy(Exception):
    """An exception of the user's own, whose __init__ does not take its args."""

    def __init__(self, code: int, hint: str) -> None:
        super().__init__(f"code {code}: {hint}")
        self.code = code


@app.function()
def square(x: int) -> int:
    return x * x


@app.function()
def add(x: int, y: int = 10) -> int:
    return x + y


@app.function()
async def slow_square(x: int) -> int:
    return x * x


@app.function()
def size(data: bytes) -> int:
    return len(data)


@app.function()
def make(count: int) -> bytes:
    return b"\x07" * count


@app.function()
def fails_after(count: int) -> Iterator[int]:
    yield from range(count)
    raise ValueError(count)


@app.function()
def fail(kind: str) -> None:
    if kind == "key":
        raise KeyError("missing")
    if kind == "own":
        raise Unhappy(7, "try later")
    try:
        raise ValueError("first")
    except ValueError as error:
        raise RuntimeError("second") from error


@app.function()
def odd_fails(x: int) -> int:
    if x % 2:
        raise ValueError(f"odd {x}")
    return x


@app.function()
def ends(x: int) -> int:
    if x == 1:
        raise KeyboardInterrupt
    if x == 2:
        raise SystemExit(0)
    return x


@app.function()
def raises(kind: type[BaseException]) -> None:
    raise kind("enough")


@app.function()
def named(**kwargs: int) -> list[str]:
    return sorted(kwargs)


@app.function()
def names(**kwargs: int) -> Iterator[str]:
    yield from kwargs


@app.function()
def count_to(limit: int) -> Iterator[int]:
    yield from range(limit)


@app.function()
def count_and_fail(limit: int) -> Iterator[int]:
    yield from range(limit)
    raise ValueError("no more")


def test_remote_returns_the_value(server: ServerDouble) -> None:
    with app.run():
        assert square.remote(7) == 49
        assert add.remote(1, y=2) == 3
        assert slow_square.remote(3) == 9


def test_local_runs_here_without_a_server() -> None:
    assert square.local(3) == 9
    assert asyncio.run(slow_square.local(3)) == 9  # type: ignore[arg-type]


def test_a_function_is_not_callable() -> None:
    with pytest.raises(TypeError, match=r"square\.remote"):
        square(3)


def test_calling_outside_a_run_says_what_to_do() -> None:
    with pytest.raises(ExecutionError, match=r"with app\.run\(\)"):
        square.remote(3)


def test_functions_have_no_id_after_the_run(server: ServerDouble) -> None:
    with app.run():
        assert square.object_id.startswith("fu-")

    with pytest.raises(AttributeError):
        _ = square.object_id


def test_large_values_travel_as_blobs_both_ways(server: ServerDouble) -> None:
    with app.run():
        assert size.remote(b"x" * 9_000_000) == 9_000_000
        assert len(make.remote(9_000_000)) == 9_000_000

    assert len(server.blobs) == 2


def test_map_keeps_the_order(server: ServerDouble) -> None:
    with app.run():
        assert list(square.map(range(3000))) == [x * x for x in range(3000)]


def test_map_zips_and_takes_keyword_arguments(server: ServerDouble) -> None:
    with app.run():
        assert list(add.map([1, 2, 3], [10, 20])) == [11, 22]
        assert list(add.map([1, 2], kwargs={"y": 5})) == [6, 7]
        assert list(add.starmap([(1, 2), (3, 4)])) == [3, 7]


def test_map_of_nothing_is_empty(server: ServerDouble) -> None:
    with app.run():
        assert list(square.map([])) == []


def test_map_without_order_gives_every_result_once(server: ServerDouble) -> None:
    with app.run():
        assert sorted(square.map(range(500), order_outputs=False)) == [x * x for x in range(500)]


def test_map_raises_the_first_failure_or_returns_all(server: ServerDouble) -> None:
    with app.run():
        with pytest.raises(ValueError, match="odd 1"):
            list(odd_fails.map(range(4)))
        found = list(odd_fails.map(range(4), return_exceptions=True))

    assert [type(one).__name__ for one in found] == ["int", "ValueError", "int", "ValueError"]


def test_what_ends_a_program_is_a_value_among_the_results_of_a_map(server: ServerDouble) -> None:
    with app.run():
        found = list(ends.map(range(4), return_exceptions=True))
        unordered = list(ends.map(range(4), return_exceptions=True, order_outputs=False))
        ends.for_each(range(4), ignore_exceptions=True)

    assert [repr(one) for one in found] == ["0", "KeyboardInterrupt()", "SystemExit(0)", "3"]
    assert sorted(map(repr, unordered)) == sorted(map(repr, found))


@pytest.mark.parametrize("kind", [KeyboardInterrupt, GeneratorExit, SystemExit, StopIteration, StopAsyncIteration])
def test_what_a_function_raises_is_raised_as_the_same_type(server: ServerDouble, kind: type[BaseException]) -> None:
    aio_kind = RuntimeError if kind is StopIteration else kind

    with app.run():
        with pytest.raises(kind, match="enough") as raised:
            raises.remote(kind)
        with pytest.raises(kind, match="enough"):
            raises.spawn(kind).get()
        # Python lets no coroutine raise StopIteration, which would be its end.
        with pytest.raises(aio_kind, match="enough"):
            asyncio.run(raises.remote.aio(kind))

    assert raised.value.__cause__ is raised.value.__context__ is None
    assert raised.traceback[-1].name == "raises"


def test_stop_iteration_of_a_function_does_not_end_a_map(server: ServerDouble) -> None:
    with app.run(), pytest.raises(RuntimeError, match="StopIteration"):
        list(raises.map([StopIteration]))


@pytest.mark.parametrize(("is_remote", "word"), [(True, "completed"), (False, "aborted")])
def test_keyboard_interrupt_of_a_function_is_no_ctrl_c(
    server: ServerDouble, capsys: pytest.CaptureFixture[str], is_remote: bool, word: str
) -> None:
    def end() -> None:
        if is_remote:
            raises.remote(KeyboardInterrupt)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt), squall.enable_output(), app.run():
        end()

    assert f"App {word}." in capsys.readouterr().err


def test_keyword_arguments_may_have_any_name(server: ServerDouble) -> None:
    with app.run():
        assert named.local(self=5, args=1) == ["args", "self"]
        assert named.remote(self=5, args=1) == ["args", "self"]
        assert list(named.map([], kwargs={"self": 5})) == []
        assert list(named.starmap([()], kwargs={"self": 5})) == [["self"]]
        assert named.spawn(self=5, core=2).get() == ["core", "self"]
        assert list(names.remote_gen(self=5, function=1)) == ["self", "function"]
        assert asyncio.run(named.remote.aio(self=5)) == ["self"]


@pytest.mark.long
def test_map_pulls_at_most_a_thousand_inputs_ahead(server: ServerDouble) -> None:
    pulled = 0

    def numbers() -> Iterator[int]:
        nonlocal pulled
        for number in range(5000):
            pulled += 1
            yield number

    with app.run():
        server.is_holding_outputs = True
        results = iter(square.map(numbers()))
        threading.Timer(0.5, server.release_outputs).start()
        assert next(results) == 0
        assert pulled <= 1000 + 250
        assert sum(1 for _ in results) == 4999


def test_what_the_users_iterator_raises_comes_out_of_map(server: ServerDouble) -> None:
    def numbers() -> Iterator[int]:
        yield 1
        raise LookupError("input file")

    with app.run():
        with pytest.raises(LookupError, match="input file"):
            list(square.map(numbers()))


def test_function_that_is_defined_when_its_app_runs_is_told_so(server: ServerDouble) -> None:
    early = squall.App("early", include_source=False)
    said = r"it was defined after its app began to run, as ap-\w+, or was deployed; define it before"

    with early.run():

        @early.function(serialized=True)
        def late(x: int) -> int:
            return x

        for call in (late.remote, late.spawn, lambda x: list(late.map([x]))):
            with pytest.raises(ExecutionError, match=rf"^function {late.name} cannot be called: {said}"):
                call(1)
        with pytest.raises(AttributeError, match=rf"has no id yet: {said}"):
            _ = late.object_id
        with pytest.raises(InvalidError, match=rf"cannot be pickled, as it has no id yet: {said}"):
            pickle.dumps(late)
    with pytest.raises(ExecutionError, match="its app does not run; call it inside"):
        late.remote(1)
    with pytest.raises(AttributeError, match=r"function f has no id yet: it has not been looked up; \.hydrate"):
        _ = squall.Function.from_name("early", "f").object_id


def test_map_that_is_never_iterated_warns(server: ServerDouble) -> None:
    with app.run(), pytest.warns(UserWarning, match="never iterated"):
        square.map([1])


def test_a_generator_that_is_never_iterated_warns_of_what_it_can_do_only(server: ServerDouble) -> None:
    with app.run(), pytest.warns(UserWarning, match="never iterated, so nothing was run; iterate it$"):
        count_to.remote_gen(1)


def test_a_map_left_early_is_closed_on_the_server(server: ServerDouble) -> None:
    with app.run():
        for _ in square.map(range(5000)):
            break
        square.remote(1)

    assert server.closed_calls[0] == server.opened[0].call_id


def test_for_each_waits_for_all(server: ServerDouble) -> None:
    with app.run():
        square.for_each(range(100))
        odd_fails.for_each(range(4), ignore_exceptions=True)
        with pytest.raises(ValueError, match="odd"):
            odd_fails.for_each(range(4))

    assert len(server.attempts) >= 104


def test_generator_items_come_in_order(server: ServerDouble) -> None:
    with app.run():
        assert list(count_to.remote_gen(3000)) == list(range(3000))


def test_generator_raises_after_the_items_before(server: ServerDouble) -> None:
    with app.run():
        items = iter(count_and_fail.remote_gen(3))
        found = [next(items), next(items), next(items)]
        with pytest.raises(ValueError, match="no more"):
            next(items)

    assert found == [0, 1, 2]


def test_closing_a_generator_gives_its_call_up(server: ServerDouble) -> None:
    async def first() -> list[int]:
        async with contextlib.aclosing(count_to.remote_gen.aio(100_000)) as items:
            async for item in items:
                return [item]
        return []

    async def first_of_its_iterator() -> int:
        async with contextlib.aclosing(aiter(count_to.remote_gen.aio(100_000))) as items:
            return await anext(items)

    with app.run():
        with contextlib.closing(count_to.remote_gen(100_000)) as items:
            assert next(items) == 0
        assert asyncio.run(first()) == [0]
        assert asyncio.run(first_of_its_iterator()) == 0
        square.remote(1)

    assert server.closed_calls[:3] == [opened.call_id for opened in server.opened[:3]]
    with pytest.raises(RuntimeError, match="once only"):
        iter(count_closed())


def test_async_iterators_of_calls_are_async_generators(server: ServerDouble) -> None:
    async def main() -> None:
        for items in (aiter(count_to.remote_gen.aio(100_000)), aiter(square.map.aio(range(100_000)))):
            assert isinstance(items, AsyncGenerator)
            assert [await anext(items), await items.asend(None)] == [0, 1]
            with pytest.raises(KeyError, match="mine"):
                await items.athrow(KeyError("mine"))
            assert [item async for item in items] == []
            await items.aclose()

    with app.run():
        asyncio.run(main())
        square.remote(1)

    assert server.closed_calls[:2] == [opened.call_id for opened in server.opened[:2]]


def count_closed() -> Iterator[int]:
    """What is closed before it is iterated runs nothing, and is not complained about."""
    items = count_to.remote_gen(1)
    items.close()
    return items


def test_generators_and_plain_functions_are_not_mixed_up(server: ServerDouble) -> None:
    with app.run():
        with pytest.raises(InvalidError, match="remote_gen"):
            count_to.remote(3)
        with pytest.raises(InvalidError, match=r"\.remote\(\)"):
            list(square.remote_gen(3))
        with pytest.raises(InvalidError, match="generator"):
            list(count_to.map([3]))
        with pytest.raises(InvalidError, match="generator"):
            count_to.spawn(3)


def test_the_users_exception_is_raised_again_with_its_remote_frames(server: ServerDouble) -> None:
    with app.run(), pytest.raises(KeyError) as caught:
        fail.remote("key")

    names = [str(entry.path) for entry in caught.traceback]
    assert any("<ct-double>:" in name for name in names), names
    assert "raise KeyError" in str(caught.getrepr(chain=False))


def ours(error: BaseException) -> list[str]:
    """The frames of Squall's own in its traceback."""
    return [frame.name for frame in traceback.extract_tb(error.__traceback__) if "/squall/sdk/" in frame.filename]


def test_one_frame_of_ours_is_between_those_of_the_caller_and_of_the_container(
    server: ServerDouble, monkeypatch: pytest.MonkeyPatch
) -> None:
    with app.run():
        with pytest.raises(KeyError) as called:
            fail.remote("key")
        with pytest.raises(KeyError) as spawned:
            fail.spawn("key").get()
        with pytest.raises(KeyError) as mapped:
            list(fail.map(["key"]))
        with pytest.raises(InvalidError) as refused:
            count_to.remote(3)
        monkeypatch.setenv("SQUALL_TRACEBACK", "1")
        with pytest.raises(KeyError) as whole:
            fail.remote("key")

    assert [len(ours(one.value)) for one in (called, spawned, mapped, refused)] == [1, 1, 1, 1]
    assert len(ours(whole.value)) > 1
    for one in (called, spawned, mapped, whole):
        assert one.traceback[0].path == Path(__file__)
        assert str(traceback.extract_tb(one.value.__traceback__)[-1].filename).startswith("<ct-double>:")


async def test_one_frame_of_ours_is_there_in_the_async_forms_too(server: ServerDouble) -> None:
    async def mapped() -> None:
        async for _ in fail.map.aio(["key"]):
            pass

    async def iterated() -> None:
        async for _ in fails_after.remote_gen.aio(2):
            pass

    async def spawned() -> None:
        call = await fail.spawn.aio("key")
        await call.get.aio()

    async with app.run():
        forms: list[tuple[Awaitable[object], type[Exception]]] = [
            (fail.remote.aio("key"), KeyError),
            (mapped(), KeyError),
            (iterated(), ValueError),
            (spawned(), KeyError),
            (count_to.remote.aio(3), InvalidError),
        ]
        for form, kind in forms:
            with pytest.raises(kind) as caught:
                await form

            assert len(ours(caught.value)) == 1, ours(caught.value)
            assert caught.traceback[0].path == Path(__file__)


def test_what_nobody_awaited_is_told_by_its_name() -> None:
    unawaited = fail.remote.aio
    with pytest.warns(RuntimeWarning, match=r"coroutine 'Function.remote' was never awaited"):
        unawaited("key")  # type: ignore[unused-coroutine]


def test_exceptions_with_odd_constructors_keep_their_type(server: ServerDouble) -> None:
    with app.run(), pytest.raises(Unhappy, match="code 7") as caught:
        fail.remote("own")

    assert caught.value.code == 7


def test_causes_of_exceptions_travel_along(server: ServerDouble) -> None:
    with app.run(), pytest.raises(RuntimeError) as caught:
        fail.remote("chain")

    assert isinstance(caught.value.__cause__, ValueError)


def test_unpicklable_arguments_and_results_say_so(server: ServerDouble) -> None:
    server.callables["square"] = lambda x: threading.Lock()

    with app.run():
        with pytest.raises(SerializationError, match="function square: cannot pickle arguments"):
            square.remote(threading.Lock())  # type: ignore[arg-type]
        with pytest.raises(SerializationError, match="cannot pickle lock"):
            square.remote(1)


class Unreadable:
    """Its pickle cannot be read here."""

    def __reduce__(self) -> tuple[Any, ...]:
        return int, ("none",)


def test_what_cannot_travel_names_the_function(server: ServerDouble) -> None:
    server.callables["square"] = lambda x: Unreadable()
    lock: Any = threading.Lock()
    refused = "function square: cannot pickle arguments"

    with app.run():
        for send in (lambda: square.spawn(lock), lambda: list(square.map([lock])), lambda: square.spawn_map([lock])):
            with pytest.raises(SerializationError, match=refused):
                send()
        for read in (lambda: square.remote(1), lambda: list(square.map([1]))):
            with pytest.raises(DeserializationError, match="function square: cannot read a value"):
                read()


def test_spawn_returns_at_once_and_get_waits(server: ServerDouble) -> None:
    with app.run():
        call = square.spawn(9)
        assert call.get(timeout=10) == 81
        assert call.get() == 81
        assert squall.FunctionCall.from_id(call.object_id).get() == 81
        assert call.num_inputs() == 1
        call.cancel()

    assert server.cancelled == [call.object_id]


def test_get_without_result_times_out(server: ServerDouble) -> None:
    server.callables["square"] = lambda x: time.sleep(0.5)

    with app.run():
        call = square.spawn(9)
        with pytest.raises(SquallTimeoutError, match="no result within 0 s"):
            call.get(timeout=0)
        with pytest.raises(TimeoutError, match=r"no result within 0\.01 s"):  # as programs poll
            call.get(timeout=0.01)


def test_gather_keeps_the_order_and_raises_the_first_failure(server: ServerDouble) -> None:
    with app.run():
        assert squall.FunctionCall.gather(square.spawn(2), add.spawn(1)) == [4, 11]
        with pytest.raises(ValueError, match="odd 1"):
            squall.FunctionCall.gather(odd_fails.spawn(2), odd_fails.spawn(1))


def test_a_handle_by_name_is_looked_up_when_used(server: ServerDouble) -> None:
    unknown = squall.Function.from_name("calls", "cube")

    with app.run():
        handle = squall.Function.from_name("calls", "square")
        assert handle.remote(4) == 16
        assert list(squall.Function.from_id(square.object_id).map([1, 2])) == [1, 4]
        assert list(squall.Function.from_name("calls", "count_to").remote_gen(2)) == [0, 1]
        with pytest.raises(NotFoundError, match="cube"):
            unknown.remote(1)
        with pytest.raises(ExecutionError, match="code is not in this program"):
            handle.local(1)


def test_stats_are_named_as_programs_expect(server: ServerDouble) -> None:
    with app.run():
        stats = square.get_current_stats()

    assert (stats.backlog, stats.num_total_runners, stats.num_running_inputs) == (3, 5, 2)
    assert stats[:3] == (3, 5, 2)  # programs take it apart as well


@pytest.mark.long
def test_everything_has_an_async_form(server: ServerDouble) -> None:
    async def numbers() -> AsyncIterator[int]:
        for number in range(1500):
            yield number

    async def main() -> None:
        async with app.run():
            assert await square.remote.aio(7) == 49
            assert [x async for x in square.map.aio(range(2500))] == [x * x for x in range(2500)]
            assert [x async for x in square.map.aio(numbers())] == [x * x for x in range(1500)]
            assert [x async for x in count_to.remote_gen.aio(5)] == [0, 1, 2, 3, 4]
            call = await square.spawn.aio(3)
            assert await call.get.aio(timeout=5) == 9
            assert await asyncio.gather(*[square.remote.aio(x) for x in range(50)]) == [x * x for x in range(50)]
            assert len(await make.remote.aio(3_000_000)) == 3_000_000

    asyncio.run(main())


def test_a_cancelled_async_call_is_closed_on_the_server(server: ServerDouble) -> None:
    async def main() -> None:
        async with app.run():
            server.is_holding_outputs = True
            pending = asyncio.ensure_future(square.remote.aio(7))
            await asyncio.sleep(0.2)
            pending.cancel()
            with pytest.raises(asyncio.CancelledError):
                await pending

    asyncio.run(main())

    assert server.closed_calls


def test_blocking_in_an_event_loop_works_and_warns(server: ServerDouble) -> None:
    async def main() -> None:
        async with app.run():
            with pytest.warns(AsyncUsageWarning, match=r"remote\.aio") as caught:
                assert square.remote(7) == 49
            assert caught[0].filename == __file__
            with pytest.warns(AsyncUsageWarning, match=r"remote_gen\.aio") as caught:
                assert list(count_to.remote_gen(2)) == [0, 1]
            assert caught[0].filename == __file__

    asyncio.run(main())


@pytest.mark.parametrize("form", ["map", "starmap"])
def test_blocking_map_in_an_event_loop_is_refused(server: ServerDouble, form: str) -> None:
    async def main() -> None:
        async with app.run():
            mapped = getattr(square, form)
            with pytest.raises(InvalidError, match=rf"async for … in ….{form}\.aio"):
                list(mapped([(1,)]))
            with pytest.raises(InvalidError, match=rf"{form}\.aio"):
                next(mapped([(1,)]))
            assert [item async for item in square.map.aio([3])] == [9]

    asyncio.run(main())


def test_threads_share_one_connection(server: ServerDouble) -> None:
    found: dict[int, list[int]] = {}

    def work(number: int) -> None:
        found[number] = [square.remote(number * 100 + x) for x in range(100)]

    with app.run():
        threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)

    assert found == {number: [(number * 100 + x) ** 2 for x in range(100)] for number in range(8)}
    assert len(server.hellos) == 1


def test_threads_and_a_loop_work_beside_each_other(server: ServerDouble) -> None:
    results: list[int] = []

    async def in_loop() -> list[int]:
        return [await square.remote.aio(x) for x in range(200)]

    def work() -> None:
        results.extend(square.remote(x) for x in range(200))

    with app.run():
        threads = [threading.Thread(target=work) for _ in range(3)]
        for thread in threads:
            thread.start()
        assert asyncio.run(in_loop()) == [x * x for x in range(200)]
        for thread in threads:
            thread.join(60)

    assert len(results) == 600


def test_a_loop_inside_a_blocking_map_works(server: ServerDouble) -> None:
    def numbers() -> Iterator[int]:
        for number in range(3):
            yield asyncio.run(square.remote.aio(number))
            yield add.remote(number)

    with app.run():
        assert list(square.map(numbers())) == [0, 100, 1, 121, 16, 144]


def test_a_forked_child_makes_its_own_connection(server: ServerDouble) -> None:
    with app.run():
        assert square.remote(2) == 4
        reading, writing = os.pipe()
        with warnings.catch_warnings():
            # Python 3.12 warns of forks in programs with threads, which is what this test is about.
            warnings.simplefilter("ignore", DeprecationWarning)
            child = os.fork()
        if child == 0:
            try:
                os.write(writing, str(square.remote(5)).encode())
            finally:
                os._exit(0)
        os.close(writing)
        assert os.read(reading, 100) == b"25"
        os.close(reading)
        os.waitpid(child, 0)
        assert square.remote(3) == 9

    assert len(server.hellos) == 2


def test_a_function_travels_as_a_handle(server: ServerDouble) -> None:
    server.callables["size"] = lambda function: function.remote(6)

    with pytest.raises(SerializationError, match="does not run"):
        with app.run():
            size.remote(squall.App("other").function(include_source=False)(square.raw_f))  # type: ignore[arg-type]
    with app.run():
        assert size.remote(square) == 36  # type: ignore[arg-type]


def test_generator_that_ends_before_all_its_items_came_is_an_error(server: ServerDouble) -> None:
    server.items_sent_max = 3

    with app.run():
        items = iter(count_to.remote_gen(5))
        found = [next(items), next(items), next(items)]
        with pytest.raises(InternalFailure, match="only 3 of 5 items came; call the generator again"):
            next(items)

    assert found == [0, 1, 2]


def test_without_an_id_it_is_said_why(server: ServerDouble) -> None:
    app = squall.App("ids", include_source=False)
    function = app.function(name="asked")(test_without_an_id_it_is_said_why)

    with pytest.raises(AttributeError, match="function asked has no id yet: its app does not run"):
        function.object_id  # noqa: B018
    assert not hasattr(function, "object_id")
    with pytest.raises(AttributeError, match=r"function other has no id yet: it has not been looked up; \.hydrate"):
        squall.Function.from_name("ids", "other").object_id  # noqa: B018
    with app.run():
        variant = function.with_options(timeout=9)
        with pytest.raises(AttributeError, match=r"has no id yet: it has not been looked up; \.hydrate"):
            variant.object_id  # noqa: B018
        assert variant.hydrate().object_id != function.object_id
