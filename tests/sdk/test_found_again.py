"""Handles by name, when the app they stand for was stopped and another one of its name runs."""

from __future__ import annotations

import asyncio
import pickle
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

import squall
from squall.exception import InvalidError, NotFoundError
from squall.protocol.call import FAILED, SUCCEEDED, Failure, encode_failure
from squall.sdk import _client, _lookup
from squall.sdk._calls import MapCall, Payload
from squall.sdk._invoke import says_unknown
from squall.sdk._pending import Pending
from tests.sdk.double import ServerDouble

app = squall.App("again", include_source=False)


@app.function()
def square(x: int) -> int:
    return x * x


@app.function()
def count_to(limit: int) -> Iterator[int]:
    yield from range(limit)


@app.function()
def finds_nothing(x: int) -> int:
    raise NotFoundError(f"nothing at {x}")


@app.cls()
class Scaler:
    size: int = squall.parameter(default=2)

    @squall.method()
    def times(self, x: int) -> int:
        return self.size * x

    @squall.method()
    def upto(self, limit: int) -> Iterator[int]:
        yield from range(limit)


STOPPED = r"no app runs as 'again': ap-\w+ of that name is stopped, and (function|class) '\w+' with it; deploy it again"


def method_of(size: int | None) -> Any:
    found = squall.Cls.from_name("again", "Scaler")
    return (found() if size is None else found(size=size)).times


def spawned(inputs: list[int], handle: Any) -> list[int]:
    return list(handle.experimental_spawn_map(inputs).iter())


FORMS: list[tuple[Callable[[], Any], Callable[[Any], Any], Any]] = [
    (lambda: squall.Function.from_name("again", "square"), lambda handle: handle.remote(3), 9),
    (lambda: squall.Function.from_name("again", "square"), lambda handle: handle.spawn(3).get(), 9),
    (lambda: squall.Function.from_name("again", "square"), lambda handle: list(handle.map([1, 2])), [1, 4]),
    (lambda: squall.Function.from_name("again", "square"), lambda handle: list(handle.starmap([(1,), (2,)])), [1, 4]),
    (lambda: squall.Function.from_name("again", "square"), lambda handle: handle.for_each([1, 2]), None),
    (lambda: squall.Function.from_name("again", "square"), lambda handle: spawned([1, 2], handle), [1, 4]),
    (lambda: squall.Function.from_name("again", "square").with_options(cpu=2), lambda handle: handle.remote(3), 9),
    (lambda: squall.Function.from_name("again", "count_to"), lambda handle: list(handle.remote_gen(2)), [0, 1]),
    (lambda: method_of(None), lambda handle: handle.remote(3), 6),
    (lambda: method_of(5), lambda handle: handle.remote(3), 15),
    (lambda: method_of(5), lambda handle: handle.spawn(3).get(), 15),
    (lambda: method_of(5), lambda handle: list(handle.map([1, 2])), [5, 10]),
    (lambda: method_of(5), lambda handle: spawned([1, 2], handle), [5, 10]),
]


@pytest.mark.parametrize("is_pickled", [False, True])
@pytest.mark.parametrize(("make", "use", "expected"), FORMS)
def test_the_next_call_finds_the_app_that_runs_now(
    server: ServerDouble, make: Callable[[], Any], use: Callable[[Any], Any], expected: Any, is_pickled: bool
) -> None:
    handle = make()
    with app.run():
        assert use(handle) == expected
        if is_pickled:
            handle = pickle.loads(pickle.dumps(handle))
    with app.run():
        first = [use(handle), use(handle)]

    assert first == [expected, expected]


async def test_the_async_forms_find_it_too(server: ServerDouble) -> None:
    one = squall.Function.from_name("again", "square")
    many = squall.Function.from_name("again", "count_to")
    for _ in range(2):
        async with app.run():
            assert await asyncio.gather(*[one.remote.aio(3)], return_exceptions=True) == [9]
            assert [item async for item in many.remote_gen.aio(2)] == [0, 1]


@pytest.mark.parametrize(("find", "use"), [form[:2] for form in FORMS])
def test_an_app_that_was_stopped_is_named_to_who_looks_it_up_anew(
    server: ServerDouble, find: Callable[[], Any], use: Callable[[Any], Any]
) -> None:
    with app.run():
        pass

    with pytest.raises(NotFoundError, match=STOPPED):
        use(find())
    with pytest.raises(NotFoundError, match=STOPPED):
        find().hydrate()
    assert squall.Function.from_name("again", "square").info().timeout == 300  # what it was can be read


def test_it_is_asked_twice_at_most(server: ServerDouble) -> None:
    handle = squall.Function.from_name("again", "square")
    with app.run():
        assert handle.remote(3) == 9
    opened = len(server.opened)

    for _ in range(2):
        with pytest.raises(NotFoundError, match=STOPPED):
            handle.remote(3)
    # What is found by the name is the app that was stopped: there is no use in calling it again.
    assert len(server.opened) == opened + 2

    with app.run():
        assert handle.remote(3) == 9
        # Found, and gone again before it is called.
        later = squall.Function.from_name("again", "square")
        later.hydrate()
        known = server.known
        server.known = lambda function_id: None  # type: ignore[method-assign]
        with pytest.raises(NotFoundError, match="does not exist"):
            later.remote(3)
        server.known = known  # type: ignore[method-assign]


def test_what_the_function_itself_does_not_find_is_not_run_again(server: ServerDouble) -> None:
    with app.run():
        handle = squall.Function.from_name("again", "finds_nothing")
        with pytest.raises(NotFoundError, match="nothing at 3"):
            handle.remote(3)

    assert len(server.attempts) == 1


def test_a_handle_by_id_is_of_that_app(server: ServerDouble) -> None:
    with app.run():
        by_id = squall.Function.from_id(square.object_id)
        assert by_id.remote(3) == 9
    with app.run(), pytest.raises(NotFoundError, match="does not exist"):
        by_id.remote(3)


def test_a_call_that_may_have_run_is_not_repeated(server: ServerDouble) -> None:
    begun, may_end = threading.Event(), threading.Event()

    def slow(x: int) -> int:
        begun.set()
        may_end.wait(10)
        return x

    server.callables["square"] = slow
    handle = squall.Function.from_name("again", "square")
    errors: list[BaseException] = []

    def call() -> None:
        try:
            handle.remote(3)
        except BaseException as error:  # noqa: BLE001 - looked at below
            errors.append(error)

    with app.run():
        thread = threading.Thread(target=call)
        thread.start()
        assert begun.wait(10)
        # Somebody else's app, to this client: it is stopped while the connection is away, and the call with it.
        _client.current().drop_app(app.app_id or "")
        server.stopped.append(app.app_id or "")
        server.hang_up()
        server.listen()
        thread.join(10)
        may_end.set()

    assert [type(error) for error in errors] == [NotFoundError]
    assert "whether it had begun is not known" in str(errors[0])
    assert len(server.attempts) == 1
    del server.callables["square"]
    with app.run():
        assert handle.remote(3) == 9


def test_what_is_told_of_it_is_of_the_app_that_runs_now(server: ServerDouble) -> None:
    handle = squall.Function.from_name("again", "square")
    ids = []
    for _ in range(2):
        with app.run():
            handle.hydrate()
            handle.autoscaler.update(min_containers=1)
            ids.append((handle.object_id, square.object_id, server.rescaled[-1].function_id))

    assert ids[0] != ids[1]
    assert all(len(set(of_run)) == 1 for of_run in ids)


def test_a_method_that_a_later_version_has_is_found(server: ServerDouble, monkeypatch: pytest.MonkeyPatch) -> None:
    class Later:
        @squall.method()
        def thrice(self, x: int) -> int:
            return 3 * x

    Later.__name__ = Later.__qualname__ = "Scaler"
    later = squall.App("again", include_source=False)
    later.cls()(Later)
    handle = squall.Cls.from_name("again", "Scaler")
    found = handle()
    with app.run():
        assert found.times.remote(3) == 6
        with pytest.raises(NotFoundError, match="class Scaler has no method 'thrice'; it has: times, upto"):
            found.thrice.remote(3)
    with later.run():
        monkeypatch.setattr(server, "method", lambda spec, name: lambda x: (name, 3 * x))
        handle.hydrate()
        assert found.thrice.remote(3) == ("thrice", 9)


def test_a_handle_that_is_known_is_not_asked_for_again(server: ServerDouble) -> None:
    handle = squall.Function.from_name("again", "square")
    with app.run():
        assert list(handle.map([1, 2])) == [1, 4]
        asked = len(server.looked_up)
        for _ in range(3):
            assert list(handle.map([1, 2])) == [1, 4]
            handle.for_each([1])
            handle.spawn_map([1])
            assert handle.remote(2) == 4

    assert (asked, len(server.looked_up)) == (1, 1)


@pytest.mark.parametrize("is_ordered", [True, False])
def test_a_map_of_many_inputs_is_made_again_as_a_whole(server: ServerDouble, is_ordered: bool) -> None:
    handle = squall.Function.from_name("again", "square")
    with app.run():
        handle.hydrate()
    before = len(server.attempts)
    with app.run():
        values = list(handle.map(range(3_000), order_outputs=is_ordered))

    assert sorted(values) == [x * x for x in range(3_000)]
    assert len(server.attempts) == before + 3_000


async def test_a_map_of_an_async_iterator_is_made_again(server: ServerDouble) -> None:
    async def numbers() -> AsyncIterator[int]:
        for number in range(300):
            if number % 50 == 0:
                await asyncio.sleep(0.01)
            yield number

    handle = squall.Function.from_name("again", "square")
    async with app.run():
        await handle.hydrate.aio()
    async with app.run():
        assert [value async for value in handle.map.aio(numbers())] == [x * x for x in range(300)]


def test_a_map_whose_name_stands_for_nothing_is_not_found(server: ServerDouble) -> None:
    handle = squall.Function.from_name("again", "square")
    with app.run():
        handle.hydrate()
    for _ in range(2):
        with pytest.raises(NotFoundError, match=STOPPED):
            list(handle.map(range(300), return_exceptions=True))
        with pytest.raises(NotFoundError, match=STOPPED):
            handle.spawn_map(range(300))


def test_a_map_that_has_begun_is_not_made_again(server: ServerDouble) -> None:
    def first_only(x: int) -> int:
        server.stopped.append(app.app_id or "")
        return x

    handle = squall.Function.from_name("again", "square")
    server.callables["square"] = first_only
    with app.run():
        handle.hydrate()
        given = iter(range(2))
        results = iter(handle.map(slowly(given, server), return_exceptions=True))
        assert next(results) == 0
        assert isinstance(next(results), NotFoundError)

    assert len(server.attempts) == 1


def slowly(inputs: Iterator[int], server: ServerDouble) -> Iterator[int]:
    """The second one when the first has been run, which does not wait for it."""
    yield next(inputs)
    deadline = time.monotonic() + 10
    while not server.stopped:
        assert time.monotonic() < deadline, "the first input has not been run"
        time.sleep(0.01)
    yield next(inputs)


def test_looking_it_up_takes_nothing_from_those_who_use_it(server: ServerDouble) -> None:
    handle = squall.Function.from_name("again", "square")
    with app.run():
        assert handle.remote(2) == 4
        server.lookup_s = 0.3
        asking = threading.Thread(target=handle.hydrate)
        asking.start()
        asked = len(server.looked_up)
        while asking.is_alive():
            assert handle.object_id == square.object_id
            assert handle.remote(3) == 9
        asking.join()

    assert asked <= 2
    assert len(server.looked_up) == 2


MAKE: dict[str, Callable[[], Any]] = {
    "function": lambda: squall.Function.from_name("again", "square"),
    "method": lambda: method_of(1),
}


@pytest.mark.parametrize("kind", MAKE)
def test_threads_that_find_it_again_do_so_together(server: ServerDouble, kind: str) -> None:
    handle = MAKE[kind]()
    with app.run():
        assert handle.remote(1) == 1
    asked, bound = len(server.looked_up), len(server.bound)
    server.lookup_s = 0.2
    ready = threading.Barrier(8)
    found: list[Any] = []

    def call() -> None:
        ready.wait(10)
        for _ in range(5):
            try:
                found.append(handle.remote(1))
            except BaseException as error:  # noqa: BLE001 - looked at below
                found.append(error)

    with app.run():
        threads = [threading.Thread(target=call) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(30)

    assert found == [1] * 40
    # Nobody asks for what another one has found, or looks for.
    assert len(server.looked_up) - asked == 1
    assert len(server.bound) - bound <= 8


def test_an_answer_to_an_earlier_question_does_not_take_the_place_of_a_later_one(server: ServerDouble) -> None:
    handle = squall.Function.from_name("again", "square")
    with app.run():
        handle.hydrate()
        first = handle.object_id
        lookup = handle._lookup
        assert lookup is not None
        lookup._newest = 100  # somebody has asked later, and was answered before
        handle._function_id = "fu-later"
        handle.hydrate()

    assert handle.object_id == "fu-later" != first


def test_the_first_use_by_two_threads_finds_it_whichever_is_answered_first(
    server: ServerDouble, monkeypatch: pytest.MonkeyPatch
) -> None:
    handle = squall.Function.from_name("again", "square")
    is_answered, may_go_on = threading.Event(), threading.Event()
    real_answered, real_ask = _lookup._answered, _lookup.Lookup.ask

    def call() -> Any:
        return handle.remote(3)

    async def answered(*given: Any) -> Any:
        """The earlier question's answer is looked at only after the later one's."""
        spec = await real_answered(*given)
        if threading.current_thread() is not threading.main_thread():
            is_answered.set()
            assert may_go_on.wait(10)
        return spec

    async def ask(*given: Any) -> None:
        """As if the thread of the later question were switched off right after it."""
        await real_ask(*given)
        if threading.current_thread() is threading.main_thread():
            may_go_on.set()
            assert earlier.result(10) == 9

    monkeypatch.setattr(_lookup, "_answered", answered)
    monkeypatch.setattr(_lookup.Lookup, "ask", ask)
    with app.run(), ThreadPoolExecutor(1) as thread:
        earlier = thread.submit(call)
        assert is_answered.wait(10)
        assert call() == 9


def test_a_variant_nobody_has_asked_for_is_found_though_its_class_is_of_an_app_that_was_stopped(
    server: ServerDouble,
) -> None:
    found = squall.Cls.from_name("again", "Scaler")
    with app.run():
        assert found(size=3).times.remote(2) == 6
    with app.run():
        assert found(size=4).times.remote(2) == 8


def test_a_generator_is_known_as_one_whoever_was_asked_first(server: ServerDouble) -> None:
    with app.run():
        found = squall.Cls.from_name("again", "Scaler")()
        assert found.times.remote(3) == 6
        with pytest.raises(InvalidError, match="is a generator"):
            found.upto.remote(2)
        there = pickle.loads(pickle.dumps(squall.Cls.from_name("again", "Scaler")))()
        assert list(there.upto.remote_gen(2)) == [0, 1]
        here = pickle.loads(pickle.dumps(Scaler))()  # as it is given to another function
        assert list(here.upto.remote_gen(2)) == [0, 1]


def test_a_map_is_not_made_again_while_an_input_may_run() -> None:
    unknown = encode_failure(Failure("not_found", "function fu-1 does not exist"))
    call = MapCall("fc-1", "fu-1", "", Pending(), "", says_unknown)  # type: ignore[arg-type]
    call.add([(index, Payload(b"x")) for index in range(3)])

    call.take_outputs({"indexes": [0, 1], "statuses": [FAILED] * 2, "sizes": [len(unknown)] * 2}, 2 * unknown)
    assert call.refusal is None
    assert not call.ready
    call.take_outputs({"indexes": [2], "statuses": [SUCCEEDED], "sizes": [1]}, b"y")

    assert call.refusal is None
    assert [output.number for output in call.ready] == [0, 1, 2]
