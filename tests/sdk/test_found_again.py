"""Handles by name, when the app they stand for was stopped and another one of its name runs."""

from __future__ import annotations

import asyncio
import pickle
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

import squall
from squall.exception import NotFoundError
from squall.sdk import _client
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


def method_of(size: int | None) -> Any:
    found = squall.Cls.from_name("again", "Scaler")
    return (found() if size is None else found(size=size)).times


FORMS: list[tuple[Callable[[], Any], Callable[[Any], Any], Any]] = [
    (lambda: squall.Function.from_name("again", "square"), lambda handle: handle.remote(3), 9),
    (lambda: squall.Function.from_name("again", "square"), lambda handle: handle.spawn(3).get(), 9),
    (lambda: squall.Function.from_name("again", "square"), lambda handle: list(handle.map([1, 2])), [1, 4]),
    (lambda: squall.Function.from_name("again", "square"), lambda handle: handle.for_each([1, 2]), None),
    (lambda: squall.Function.from_name("again", "square").with_options(cpu=2), lambda handle: handle.remote(3), 9),
    (lambda: squall.Function.from_name("again", "count_to"), lambda handle: list(handle.remote_gen(2)), [0, 1]),
    (lambda: method_of(None), lambda handle: handle.remote(3), 6),
    (lambda: method_of(5), lambda handle: handle.remote(3), 15),
    (lambda: method_of(5), lambda handle: handle.spawn(3).get(), 15),
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


def test_it_is_asked_twice_at_most(server: ServerDouble) -> None:
    handle = squall.Function.from_name("again", "square")
    with app.run():
        assert handle.remote(3) == 9
    opened = len(server.opened)

    for _ in range(2):
        with pytest.raises(NotFoundError, match="does not exist"):
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
    found = squall.Cls.from_name("again", "Scaler")()
    with app.run():
        assert found.times.remote(3) == 6
        with pytest.raises(NotFoundError, match="class Scaler has no method 'thrice'; it has: times"):
            found.thrice.remote(3)
    with later.run():
        monkeypatch.setattr(server, "method", lambda spec, name: lambda x: (name, 3 * x))
        assert found.thrice.remote(3) == ("thrice", 9)
