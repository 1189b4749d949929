"""What in a loaded file is run: the function or entrypoint that a name means, or the only one there is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import PurePath
from types import ModuleType
from typing import Any

import click

from squall.cli.class_method import ClassMethod
from squall.protocol.records import record
from squall.sdk._entrypoint import LocalEntrypoint
from squall.sdk.app import App
from squall.sdk.function import Function

NAMES_SHOWN = 20
"""Of an app with ten thousand functions, in a message."""

Target = LocalEntrypoint[..., Any] | Function[..., Any] | ClassMethod


@record
class _Candidate:
    """Something that can be run."""

    app: App
    variable: str
    """The name of the app in the file."""
    target: Target

    @property
    def long_name(self) -> str:
        return f"{self.variable}.{self.target.name}"

    @property
    def is_web(self) -> bool:
        """Whether it answers requests, and is not run from here."""
        return not isinstance(self.target, LocalEntrypoint) and self.target.is_web


def choose_function(module: ModuleType, name: str, source: str) -> tuple[App, Function[..., Any]]:
    """As `choose`, where an entrypoint is no choice, and a class is the function that serves it."""
    found = _choose(module, name, source, is_function=True)
    assert isinstance(found.target, Function)
    return found.app, found.target


def choose_app(module: ModuleType, name: str, source: str) -> App:
    """The app to deploy: the one in the variable of that name, or without one the only one there is.

    Raises:
        click.UsageError: there is none, or a choice to make; the message lists them.
    """
    where, apps = _apps(module, source)
    if name:
        if name in apps:
            return apps[name]
        import difflib  # cold start: only for what is wrong

        close = difflib.get_close_matches(name, apps, n=1)
        hint = _hint(close)
        raise click.UsageError(f"{where} has no app {name!r}; {hint}it has: {listed(list(apps))}")
    if len(set(map(id, apps.values()))) == 1 or "app" in apps:
        return apps.get("app") or next(iter(apps.values()))
    names = list(apps)
    raise click.UsageError(f"{where} has several apps; name one, as in {source}::{names[0]}: {listed(names)}")


def choose(module: ModuleType, name: str, source: str) -> tuple[App, Target]:
    """The app and what of it to run.

    Args:
        name: `target`, `app.target` or `app`, the variable that the app is in; without one the only local entrypoint is
            meant, else the only function or method. A method is `Class.method`, or `Class` if it has no other.
        source: what was typed before the name, for messages that can be typed again.

    Raises:
        click.UsageError: there is nothing to run, or a choice to make; the message lists the candidates.
    """
    found = _choose(module, name, source, is_function=False)
    return found.app, found.target


def _choose(module: ModuleType, name: str, source: str, *, is_function: bool) -> _Candidate:
    where, apps = _apps(module, source)
    app_name, _, rest = name.partition(".")
    all_of_them = _candidates(apps, is_function=is_function)
    if app_name in apps:
        apps, name = {app_name: apps[app_name]}, rest
    candidates = _candidates(apps, is_function=is_function)
    if name:
        found = _named(candidates, all_of_them, name, where, source)
    else:
        found = _only(candidates, where, source, is_function=is_function)
    if found.is_web and not is_function:
        raise click.UsageError(_web_advice([found.target.name], source))
    return found


def _web_advice(names: Sequence[str], source: str) -> str:
    verb, them = ("answers", "it an address") if len(names) == 1 else ("answer", "them addresses")
    return f"{listed(names)} {verb} requests, and cannot be called; `squall serve {source}` gives {them}"


def _apps(module: ModuleType, source: str) -> tuple[str, dict[str, App]]:
    """What to call the module, and its apps by variable."""
    where = "the program" if source == "-" else PurePath(source).name
    apps = {key: value for key, value in vars(module).items() if isinstance(value, App)}
    if not apps:
        raise click.UsageError(f"{where} has no app: make one at the top level, `app = squall.App()`")
    return where, apps


def _candidates(apps: Mapping[str, App], *, is_function: bool) -> list[_Candidate]:
    """Entrypoints before functions; an app with two variables counts by its first."""
    variables: dict[App, str] = {}
    for variable, app in apps.items():
        variables.setdefault(app, variable)
    pairs = variables.items()
    entrypoints = [_Candidate(app, key, one) for app, key in pairs for one in app.registered_entrypoints.values()]
    if is_function:
        return [_Candidate(app, key, one) for app, key in pairs for one in app.served_functions.values()]
    functions = [_Candidate(app, key, one) for app, key in pairs for one in app.registered_functions.values()]
    methods = [
        _Candidate(app, key, ClassMethod(cls, method))
        for app, key in pairs
        for cls in app.registered_classes.values()
        for method in (cls.user_class.methods if cls.user_class is not None else ())
    ]
    servers = [
        _Candidate(app, key, one.service_function) for app, key in pairs for one in app.registered_servers.values()
    ]
    return [*entrypoints, *functions, *methods, *servers]


def _named(
    candidates: Sequence[_Candidate], all_of_them: Sequence[_Candidate], name: str, where: str, source: str
) -> _Candidate:
    found = [one for one in candidates if one.target.name == name]
    if not found:
        of_class = [one for one in candidates if _class_name(one.target) == name]
        of_class = [one for one in of_class if not one.is_web] or of_class[:1]
        if len(of_class) > 1:
            names = [one.target.name for one in of_class]
            raise click.UsageError(f"{name} has several methods; name one, as in {source}::{names[0]}: {listed(names)}")
        found = of_class
    # An entrypoint before a function of its own app; one that several apps include is one.
    rivals = [one for one in found if one.app is not found[0].app and not _is_same(one.target, found[0].target)]
    if rivals:
        names = [one.long_name for one in (found[0], *rivals)]
        raise click.UsageError(f"{name!r} is in several apps; name one, as in {source}::{names[0]}: {listed(names)}")
    if found:
        return found[0]
    known = {key: key for one in all_of_them for key in (one.long_name, one.target.name)}
    elsewhere = [one.long_name for one in all_of_them if one.target.name == name]
    import difflib  # cold start: only for what is wrong

    close = elsewhere or difflib.get_close_matches(name, known, n=1)
    hint = _hint(close)
    names = [one.target.name for one in candidates if not one.is_web]
    raise click.UsageError(f"{where} has no function or entrypoint {name!r}; {hint}it has: {listed(names)}")


def _is_same(one: Target, other: Target) -> bool:
    if isinstance(one, ClassMethod) and isinstance(other, ClassMethod):
        return one.cls is other.cls and one.method == other.method
    return one is other


def _class_name(target: Target) -> str:
    return target.cls.service_function.name if isinstance(target, ClassMethod) else ""


def _only(candidates: Sequence[_Candidate], where: str, source: str, *, is_function: bool) -> _Candidate:
    entrypoints = [one for one in candidates if isinstance(one.target, LocalEntrypoint)]
    runnable = candidates if is_function else [one for one in candidates if not one.is_web]
    for kind in (entrypoints, runnable):
        if kind and all(_is_same(one.target, kind[0].target) for one in kind):
            return kind[0]
        if kind:
            names = [one.target.name for one in kind]
            names = names if len(set(names)) == len(names) else [one.long_name for one in kind]
            raise click.UsageError(f"{where} has several to run; name one, as in {source}::{names[0]}: {listed(names)}")
    if candidates:
        names = [one.target.name for one in candidates]
        raise click.UsageError(f"{where} has nothing to run: {_web_advice(names, source)}")
    raise click.UsageError(f"{where} has nothing to run: decorate a function with @app.function()")


def listed(names: Sequence[str], most: int = NAMES_SHOWN) -> str:
    """The names in a sentence, as many as can be read in one."""
    some = list(dict.fromkeys(names))
    more = f" and {len(some) - most} more" if len(some) > most else ""
    return (", ".join(some[:most]) or "nothing") + more


def _hint(close: Sequence[str]) -> str:
    return f"did you mean {close[0]!r}? " if close else ""
