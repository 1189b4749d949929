"""What decorators below `@app.function` and `@app.cls` leave behind, and what they refuse together."""

from __future__ import annotations

import re
from typing import Any

import pytest

import squall
from squall.exception import InvalidError
from squall.sdk._partial import Partial, mark, take_apart


def plain(xs: list[int]) -> list[int]:
    """Doubles them."""
    return [2 * x for x in xs]


class Model:
    def predict(self, xs: list[int]) -> list[int]:
        return xs


def refused(target: Any, *names: str) -> str:
    for name in names[:-1]:
        target = mark(target, name, True)
    with pytest.raises(InvalidError) as caught:
        mark(target, names[-1], True)
    return str(caught.value)


def test_partial_keeps_the_users_function_and_what_was_asked() -> None:
    partial = mark(mark(plain, "batched", 1), "concurrent", 2)

    assert take_apart(partial) == (plain, {"batched": 1, "concurrent": 2})
    assert partial.__doc__ == "Doubles them."
    assert take_apart(plain) == (plain, {})


def test_asking_more_leaves_an_earlier_partial_as_it_was() -> None:
    first = mark(plain, "batched", 1)

    mark(first, "concurrent", 2)

    assert first.asked == {"batched": 1}


def test_partial_is_not_called_and_says_what_is_missing() -> None:
    with pytest.raises(TypeError, match=re.escape("plain has @squall.batched() on it and no @app.function() above")):
        mark(plain, "batched", 1)([1])
    with pytest.raises(TypeError, match=re.escape("Model has @squall.concurrent() on it and no @app.cls() above")):
        mark(Model, "concurrent", 1)()


def test_partial_in_a_plain_class_is_a_method_there() -> None:
    class Twice:
        factor = 2
        times = mark(lambda self, x: self.factor * x, "method", True)

    assert Twice().times(4) == 8
    assert isinstance(Twice.times, Partial)


def test_class_can_be_derived_from_a_partial_one() -> None:
    partial: Any = mark(Model, "concurrent", 1)

    class Derived(partial):  # type: ignore[misc]
        pass

    assert Derived.__mro__[1] is Model


@pytest.mark.parametrize("name", ["concurrent", "batched", "method", "enter", "exit"])
def test_twice_is_refused(name: str) -> None:
    assert refused(plain, name, name) == f"@squall.{name}() is on plain twice; leave one out"


@pytest.mark.parametrize("name", ["batched", "method", "enter", "exit"])
def test_what_is_for_functions_is_refused_on_a_class(name: str) -> None:
    assert refused(Model, name) == f"@squall.{name}() on the class Model: put it on a method of it"


def test_concurrency_of_a_method_is_refused() -> None:
    expected = "put it on Model, all of whose methods share a container"

    assert expected in refused(Model.predict, "concurrent")
    assert "put it on its class" in refused(plain, "method", "concurrent")
    assert "put it on its class" in refused(plain, "concurrent", "method")


@pytest.mark.parametrize("hook", ["enter", "exit"])
@pytest.mark.parametrize("other", ["method", "batched", "concurrent"])
def test_hook_is_nothing_else(hook: str, other: str) -> None:
    assert "what is run by itself cannot be called as well" in refused(plain, hook, other)
    assert "what is run by itself cannot be called as well" in refused(plain, other, hook)


def test_function_may_be_run_at_both_ends() -> None:
    assert mark(mark(plain, "enter", 1), "exit", 1).asked == {"enter": 1, "exit": 1}


def test_batched_method_needs_no_other_mark() -> None:
    assert "@squall.batched() alone makes it a method" in refused(plain, "method", "batched")


def test_what_an_app_has_decorated_is_refused() -> None:
    app = squall.App("order")
    function = app.function(serialized=True)(plain)
    entrypoint = app.local_entrypoint()(plain)

    for name in ("concurrent", "batched"):
        assert "it goes on a plain function, below @app.function()" in refused(function, name)
        assert "it goes on a plain function, below @app.function()" in refused(entrypoint, name)


def test_what_is_for_methods_is_refused_on_a_function_of_an_app() -> None:
    with pytest.raises(InvalidError, match=r"@squall.method\(\) on function plain: it goes on methods of a class"):
        squall.App("order").function()(mark(plain, "method", True))


def test_entrypoint_takes_no_partial() -> None:
    entrypoint: Any = squall.App("order").local_entrypoint()

    with pytest.raises(InvalidError, match="it takes a plain function"):
        entrypoint(mark(plain, "concurrent", 1))
