"""What programs call is there, by its decided names, parameters and defaults: `import squall as modal` finds them.

The decisions are in `surface.json`: for each method its parameters as Python writes them, `...` for a default that is
no value. It is changed when the reference is, and never to make a test pass. What is still to come is in `TO_COME`,
with the part that brings it; who brings it takes it out. Images have a test of their own (`tests/sdk/test_surface.py`),
and the tree of exceptions has (`test_exception.py`).
"""

from __future__ import annotations

import ast
import inspect
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

import squall

DECIDED: dict[str, dict[str, Any]] = json.loads((Path(__file__).parent / "surface.json").read_text())
FUNCTIONS: dict[str, str] = DECIDED.pop("functions")

SESSIONS = "sessions of servers"
CLIENTS = "clients with credentials of their own"
LOGS = "logs and metrics of the past"
DASHBOARD = "the dashboard"
SANDBOXES = "sandboxes"
USERS = "users and roles"
BILLING = "not ours: nobody is billed"

TO_COME: dict[str, str] = {
    "App.get_dashboard_url": DASHBOARD,
    "App.sandboxes": SANDBOXES,
    "Client": CLIENTS,
    "Cls.client": CLIENTS,
    "Cls.get_dashboard_url": DASHBOARD,
    "Dict.client": CLIENTS,
    "Dict.get_dashboard_url": DASHBOARD,
    "Environment.billing": BILLING,
    "Environment.client": CLIENTS,
    "Environment.get_dashboard_url": DASHBOARD,
    "Environment.roles": USERS,
    "Function.client": CLIENTS,
    "Function.get_dashboard_url": DASHBOARD,
    "Function.metrics": LOGS,
    "FunctionCall.client": CLIENTS,
    "FunctionCall.get_dashboard_url": DASHBOARD,
    "Secret.client": CLIENTS,
    "Secret.get_dashboard_url": DASHBOARD,
    "Server.client": CLIENTS,
    "Server.get_dashboard_url": DASHBOARD,
    "Server.metrics": LOGS,
    "Server.sessions": SESSIONS,
    "Volume.client": CLIENTS,
    "Volume.get_dashboard_url": DASHBOARD,
    "Queue.client": CLIENTS,
    "Queue.get_dashboard_url": DASHBOARD,
    "Workspace.billing": BILLING,
    "Workspace.client": CLIENTS,
    "Workspace.get_dashboard_url": DASHBOARD,
    "Workspace.hydrate": USERS,
    "Workspace.member_tokens": USERS,
    "Workspace.members": USERS,
    "Workspace.object_id": USERS,
    "Workspace.service_users": USERS,
    "Workspace.settings": USERS,
}
"""Each name that is not there yet; of a class that is to come, the class stands for all of it."""

OURS: dict[str, tuple[str, ...]] = {
    "App.function": ("isolation",),
    "App.cls": ("isolation",),
    "App.server": ("isolation",),
}
"""Parameters that only our programs give: after all others, by name, with a default."""

MAKERS: dict[str, Callable[[], Any]] = {
    "App": lambda: squall.App("surface"),
    "Function": lambda: squall.Function.from_name("surface", "function"),
    "FunctionCall": lambda: squall.FunctionCall.from_id("fc-surface"),
    "Cls": lambda: _of_package("Cls").from_name("surface", "Class"),
    "Dict": lambda: _of_package("Dict").from_name("surface"),
    "Queue": lambda: _of_package("Queue").from_name("surface"),
    "Environment": lambda: _of_package("Environment").from_name("surface"),
    "Secret": lambda: squall.Secret.from_name("surface"),
    "Server": lambda: squall.Server.from_name("surface", "Server"),
    "Volume": lambda: _of_package("Volume").from_name("surface"),
    "Workspace": lambda: _of_package("Workspace").from_context(),
}
"""How an object comes about without a server."""

Parameters = dict[str, tuple[Any, Any]]
"""Of each parameter its kind and its default."""
NO_DEFAULT = inspect.Parameter.empty


def _of_package(name: str) -> Any:
    return getattr(squall, name)


def names_of(decided: Mapping[str, Mapping[str, Any]], group: str) -> list[str]:
    """Everything of a group, as `Class.name`."""
    return [f"{kind}.{name}" for kind, parts in decided.items() for name in parts.get(group, ())]


METHODS, PROPERTIES = names_of(DECIDED, "methods"), names_of(DECIDED, "properties")
NAMESPACES = names_of(DECIDED, "namespaces")


def is_to_come(name: str) -> bool:
    """Whether it, or its whole class, is named as missing."""
    return name in TO_COME or name.partition(".")[0] in TO_COME


def parameters_of(found: Any) -> Parameters:
    """A function's parameters as a user may give them."""
    core = inspect.unwrap(getattr(found, "_core", getattr(found, "__func__", found)))
    known = inspect.signature(core).parameters.values()
    return {
        one.name: (one.kind, one.default)
        for one in known
        if one.name not in ("self", "cls") and not one.name.startswith("_")
    }


def parameters_in(text: str) -> Parameters:
    """The same of parameters as they are written in `surface.json`."""
    parsed = ast.parse(f"def f({text}): pass").body[0]
    assert isinstance(parsed, ast.FunctionDef)
    arguments, kind = parsed.args, inspect.Parameter
    found: Parameters = {}
    without = len(arguments.args) - len(arguments.defaults)
    for one, default in zip(arguments.args, [None] * without + list(arguments.defaults), strict=True):
        found[one.arg] = (kind.POSITIONAL_OR_KEYWORD, _value_of(default))
    if arguments.vararg is not None:
        found[arguments.vararg.arg] = (kind.VAR_POSITIONAL, NO_DEFAULT)
    for one, default in zip(arguments.kwonlyargs, arguments.kw_defaults, strict=True):
        found[one.arg] = (kind.KEYWORD_ONLY, _value_of(default))
    if arguments.kwarg is not None:
        found[arguments.kwarg.arg] = (kind.VAR_KEYWORD, NO_DEFAULT)
    return found


def _value_of(default: ast.expr | None) -> Any:
    return NO_DEFAULT if default is None else ast.literal_eval(default)


def assert_fits(name: str, found: Any, text: str) -> None:
    """Fails when a program that is right by the decided parameters would be wrong here."""
    here, decided = parameters_of(found), parameters_in(text)
    extra = OURS.get(name, ())
    assert list(here) == [*decided, *extra], f"{name} has other parameters, or in another order"
    assert all(here[one][0] == inspect.Parameter.KEYWORD_ONLY and here[one][1] is not NO_DEFAULT for one in extra), name
    for parameter, (kind, default) in decided.items():
        ours = here[parameter]
        assert ours[0] == kind, f"{name}({parameter}) is {ours[0].description}, and was decided as {kind.description}"
        if default is NO_DEFAULT:
            assert ours[1] is NO_DEFAULT, f"{name}({parameter}) must be given"
        elif default in ([], {}):
            # An empty collection says the same as none: ours is one that nobody can change by accident.
            assert ours[1] is None or (ours[1] is not NO_DEFAULT and len(ours[1]) == 0), f"{name}({parameter}={ours})"
        elif default is not ...:
            assert ours[1] == default, f"{name}({parameter}={ours[1]!r}): {default!r} was decided"
        else:
            assert ours[1] is not NO_DEFAULT, f"{name}({parameter}) may be left out"


def assert_is_to_come(name: str, owner: Any) -> None:
    """Fails when it is there: then it must leave the list; and when a program is not told that it will be."""
    last = name.rpartition(".")[2]
    assert not hasattr(owner, last), f"{name} is here: take it out of TO_COME, with its reason"
    with pytest.raises(AttributeError, match=f"{last} is not in this version of Squall yet"):
        getattr(owner, last)


@pytest.mark.parametrize("name", sorted(TO_COME))
def test_what_is_to_come_was_decided_and_is_not_there(name: str) -> None:
    kind, _, member = name.partition(".")
    known = {*DECIDED, *FUNCTIONS, *METHODS, *PROPERTIES, *NAMESPACES}

    assert name in known
    if member and kind not in TO_COME:
        assert_is_to_come(name, MAKERS[kind]())
    elif not member:
        assert_is_to_come(name, squall)


@pytest.mark.parametrize("name", FUNCTIONS)
def test_decorators_and_functions_of_the_package_have_their_parameters(name: str) -> None:
    if is_to_come(name):
        pytest.skip(f"squall.{name} comes with {TO_COME[name]}")

    assert_fits(f"squall.{name}", _of_package(name), FUNCTIONS[name])


@pytest.mark.parametrize("kind", [kind for kind, parts in DECIDED.items() if "made" in parts])
def test_classes_are_made_of_their_parameters(kind: str) -> None:
    if is_to_come(kind):
        pytest.skip(f"squall.{kind} comes with {TO_COME[kind]}")

    assert_fits(f"squall.{kind}", vars(_of_package(kind))["__init__"], DECIDED[kind]["made"])


@pytest.mark.parametrize("name", METHODS)
def test_methods_have_their_parameters_and_aio(name: str) -> None:
    if is_to_come(name):
        pytest.skip(f"{name} is to come")
    kind, _, method = name.partition(".")
    owner, decided = _of_package(kind), DECIDED[kind]
    place = owner if method in decided["of_the_class"] else MAKERS[kind]()

    assert callable(getattr(place, method, None)), f"{name} was decided; until it is there, name it in TO_COME"
    assert_fits(name, inspect.getattr_static(owner, method), decided["methods"][method])
    assert callable(getattr(getattr(place, method), "aio", None)) == (method in decided["aio"]), f"{name}.aio"


@pytest.mark.parametrize("name", PROPERTIES)
def test_properties_are_properties(name: str) -> None:
    if is_to_come(name):
        pytest.skip(f"{name} is to come")
    kind, _, last = name.partition(".")

    assert isinstance(inspect.getattr_static(_of_package(kind), last, None), property), f"{name} was decided"


@pytest.mark.parametrize("name", NAMESPACES)
def test_namespaces_have_their_methods_each_with_aio(name: str) -> None:
    if is_to_come(name):
        pytest.skip(f"{name} is to come")
    kind, _, last = name.partition(".")
    space = getattr(MAKERS[kind](), last, None)

    assert space is not None, f"{name} was decided; until it is there, name it in TO_COME"
    for method, text in DECIDED[kind]["namespaces"][last].items():
        assert callable(getattr(getattr(space, method), "aio", None)), f"{name}.{method}.aio"
        assert_fits(f"{name}.{method}", inspect.getattr_static(type(space), method), text)


@pytest.mark.parametrize("kind", ["Cls", "Environment", "Function", "FunctionCall", "Secret", "Server", "Volume"])
def test_handles_have_what_all_of_them_have(kind: str) -> None:
    """They were decided for all kinds of objects at once: what the file here leaves out would never be missed."""
    decided = DECIDED[kind]

    assert {"hydrate", "get_dashboard_url"} <= decided["methods"].keys()
    assert {"hydrate", "get_dashboard_url"} <= set(decided["aio"])
    assert {"client", "object_id"} <= set(decided["properties"])
