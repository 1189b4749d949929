"""What a name in a file means, and what is said when it means nothing or too much."""

from __future__ import annotations

from types import ModuleType

import click
import pytest

import squall
from squall.cli.target import choose, choose_function, listed


def square(x: int) -> int:
    return x * x


def main() -> None:
    return


def make_module(**content: object) -> ModuleType:
    module = ModuleType("two")
    vars(module).update(content)
    return module


def make_apps() -> tuple[squall.App, squall.App]:
    """Two with a function `f` each, one of them with `g` too."""
    one, two = squall.App("one"), squall.App("two")
    one.function(name="f")(square)
    two.function(name="f")(square)
    two.function(name="g")(square)
    return one, two


def test_only_entrypoint_is_run_before_the_only_function() -> None:
    app = squall.App("x")
    app.function()(square)
    only_function = choose(make_module(app=app), "", "x.py")[1]
    app.local_entrypoint()(main)

    assert only_function.name == "square"
    assert choose(make_module(app=app), "", "x.py")[1].name == "main"


def test_entrypoint_is_no_function() -> None:
    app = squall.App("x")
    app.function()(square)
    app.local_entrypoint()(main)

    assert choose_function(make_module(app=app), "", "x.py")[1].name == "square"
    with pytest.raises(click.UsageError, match="it has: square"):
        choose_function(make_module(app=app), "main", "x.py")


def test_app_before_the_name_says_whose() -> None:
    one, two = make_apps()

    for name, app in (("one.f", one), ("two.f", two), ("one", one), ("g", two)):
        assert choose(make_module(one=one, two=two), name, "two.py")[0] is app


def test_app_with_two_variables_is_one() -> None:
    one, _ = make_apps()

    assert choose(make_module(app=one, stub=one), "", "x.py") == (one, one.registered_functions["f"])


def test_function_that_another_app_includes_is_no_choice() -> None:
    one, _ = make_apps()
    both = squall.App("both").include(one)

    assert choose(make_module(one=one, both=both), "f", "x.py")[0] is one


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("f", "'f' is in several apps; name one, as in two.py::one.f: one.f, two.f"),
        ("", "two.py has several to run; name one, as in two.py::one.f: one.f, two.f, two.g"),
        ("h", "two.py has no function or entrypoint 'h'; it has: f, g"),
        ("onee.f", "'onee.f'; did you mean 'one.f'? it has: f, g"),
        ("one.g", "'g'; did you mean 'two.g'? it has: f"),
    ],
)
def test_what_cannot_be_chosen_is_listed_as_it_can_be_typed(name: str, said: str) -> None:
    one, two = make_apps()

    with pytest.raises(click.UsageError) as caught:
        choose(make_module(one=one, two=two), name, "two.py")

    assert said in caught.value.message


@pytest.mark.parametrize(
    ("source", "content", "said"),
    [
        ("x.py", {}, "x.py has no app: make one at the top level, `app = squall.App()`"),
        ("-", {}, "the program has no app"),
        ("x.py", {"app": squall.App("x")}, "x.py has nothing to run: decorate a function"),
    ],
)
def test_file_with_nothing_to_run_is_told_what_it_lacks(source: str, content: dict[str, object], said: str) -> None:
    with pytest.raises(click.UsageError) as caught:
        choose(make_module(**content), "", source)

    assert caught.value.message.startswith(said)


def test_ten_thousand_names_are_no_message() -> None:
    assert listed([]) == "nothing"
    assert listed(["b", "a", "b"]) == "b, a"
    assert listed([f"f{number}" for number in range(10_000)]).endswith("f18, f19 and 9980 more")


def make_shop() -> squall.App:
    """With one function that is called among what answers requests."""
    app = squall.App("shop")

    class Desk:
        @squall.asgi_app()
        def page(self) -> None: ...

        @squall.method()
        def shut(self) -> None: ...

    Desk.__qualname__ = "Desk"

    class Counter:
        @squall.enter()
        def listen(self) -> None: ...

    Counter.__qualname__ = "Counter"
    app.cls()(Desk)
    app.server()(Counter)
    app.function(name="site")(squall.asgi_app()(main))
    return app


def test_what_answers_requests_is_no_choice() -> None:
    module = make_module(app=make_shop())

    assert choose(module, "", "shop.py")[1].name == "Desk.shut"
    assert choose(module, "Desk", "shop.py")[1].name == "Desk.shut"
    with pytest.raises(click.UsageError, match=r"it has: Desk\.shut$"):
        choose(module, "other", "shop.py")


@pytest.mark.parametrize("name", ["site", "Desk.page", "Counter", "app.site"])
def test_what_answers_requests_says_what_serves_it(name: str) -> None:
    short = name.removeprefix("app.")
    with pytest.raises(click.UsageError) as caught:
        choose(make_module(app=make_shop()), name, "shop.py")

    advice = "answers requests, and cannot be called; `squall serve shop.py` gives it an address"
    assert caught.value.message == f"{short} {advice}"


def test_file_with_nothing_but_web_functions_says_what_serves_them() -> None:
    app = squall.App("shop")
    for name in ("site", "find"):
        app.function(name=name)(squall.asgi_app()(main))
    with pytest.raises(click.UsageError) as caught:
        choose(make_module(app=app), "", "shop.py")

    assert "shop.py has nothing to run: site, find answer requests" in caught.value.message
    assert "`squall serve shop.py` gives them addresses" in caught.value.message


def test_shell_is_opened_like_what_answers_requests() -> None:
    assert choose_function(make_module(app=make_shop()), "Counter", "shop.py")[1].name == "Counter"
