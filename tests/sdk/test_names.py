"""What things may be called: whichever way a name is given, it is refused with the rule for it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from click.testing import CliRunner

import squall
from squall.cli import main
from squall.exception import InvalidError
from squall.protocol.errors import PlatformError
from squall.protocol.image_catalog import parse_name
from squall.protocol.names import APP_TAG_RULE, ENVIRONMENT_RULE, NAME_RULE, VERSION_TAG_RULE

# Letters of people, but none of a name: they would be seen in host names, paths and shells that take ASCII.
NAME = "grö\u00dfe"


def _function(**given: Any) -> object:
    def handler() -> None: ...

    return squall.App("names").function(serialized=True, **given)(handler)


def _function_of_that_name() -> object:
    def handler() -> None: ...

    handler.__qualname__ = handler.__name__ = NAME
    return squall.App("names").function(serialized=True)(handler)


def _class() -> object:
    @squall.method()
    def answer(self: object) -> None: ...

    return squall.App("names").cls(serialized=True)(type(NAME, (), {"answer": answer}))


def _entrypoint() -> object:
    return squall.App("names").local_entrypoint(name=NAME)(lambda: None)


WAYS: dict[str, tuple[Callable[[], object], str]] = {
    "App": (lambda: squall.App(NAME), NAME_RULE),
    "App(tags=), key": (lambda: squall.App("names", tags={NAME: "1"}), APP_TAG_RULE),
    "App(tags=), value": (lambda: squall.App("names", tags={"size": NAME}), APP_TAG_RULE),
    "App.deploy(name=)": (lambda: squall.App("names").deploy(name=NAME), NAME_RULE),
    "App.deploy(tag=)": (lambda: squall.App("names").deploy(tag=NAME), VERSION_TAG_RULE),
    "App.deploy(environment_name=)": (lambda: squall.App("names").deploy(environment_name=NAME), ENVIRONMENT_RULE),
    "App.lookup": (lambda: squall.App.lookup(NAME), NAME_RULE),
    "App.lookup(environment_name=)": (lambda: squall.App.lookup("names", environment_name=NAME), ENVIRONMENT_RULE),
    "function(name=)": (lambda: _function(name=NAME), NAME_RULE),
    "def": (_function_of_that_name, f"{NAME_RULE}; or give it another one: @app.function(name=…)"),
    "class": (_class, NAME_RULE),
    "local_entrypoint(name=)": (_entrypoint, NAME_RULE),
    "Function.from_name": (lambda: squall.Function.from_name(NAME, "f"), NAME_RULE),
    "Cls.from_name": (lambda: squall.Cls.from_name(NAME, "C"), NAME_RULE),
}


@pytest.mark.parametrize("way", WAYS)
def test_names_in_programs_are_ascii_and_the_refusal_says_so(way: str) -> None:
    give, rule = WAYS[way]

    with pytest.raises(InvalidError) as refused:
        give()

    assert rule in str(refused.value)
    assert "ASCII" in rule


@pytest.mark.parametrize("text", [NAME, f"names:{NAME}", f"{NAME}/names"])
def test_names_of_images_are_ascii_and_the_refusal_says_so(text: str) -> None:
    with pytest.raises(PlatformError, match=NAME_RULE):
        parse_name(text)


@pytest.mark.parametrize(
    ("arguments", "rule"),
    [
        (["run", "--name", NAME, "nothing.py"], NAME_RULE),
        (["deploy", "--name", NAME, "nothing.py"], NAME_RULE),
        (["serve", "--name", NAME, "nothing.py"], NAME_RULE),
        (["app", "list", "--env", NAME], ENVIRONMENT_RULE),
        (["environment", "create", NAME], ENVIRONMENT_RULE),
    ],
)
def test_names_on_the_command_line_are_ascii_and_the_refusal_says_so(arguments: list[str], rule: str) -> None:
    ended = CliRunner().invoke(main.squall, arguments)

    assert ended.exit_code != 0
    assert rule in " ".join(f"{ended.output} {ended.exception}".split())
