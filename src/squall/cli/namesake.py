"""Other apps of the name that is served: which of them the name means, and what to do where that is another one."""

from __future__ import annotations

from collections.abc import Callable

import click

from squall.cli.server_calls import ask, ask_soon
from squall.exception import Error, NotFoundError
from squall.protocol.app import DEPLOYED, STOPPED, STOPPING, AppGet, AppInfo
from squall.sdk._environment import environment_of

NAME_CHARS_MAX = 64


class Namesakes:
    """What was said of them, so that it is said again only when it has changed. The server decides what a name means:
    the deployed app, else the one that was started last."""

    def __init__(self, name: str) -> None:
        """Ask before the app of that name is made.

        Raises:
            Error: the server cannot be asked.
        """
        self._name = name
        self._before = self._bearer(ask)
        self._said: str | None = None

    def tell(self, app_id: str) -> AppInfo | None:
        """Say what the name means now that the app of that id has it, too; nothing where that is what anyone expects.

        Nothing either when the server has no answer soon: what is served does not depend on it. Returns the app that
        the name means, None where there is none, or none is known now.
        """
        try:
            bearer = self._bearer(ask_soon)
        except Error:
            return None
        if bearer is not None and bearer.app_id != self._said:
            self._say(app_id, bearer)
        return bearer

    def _say(self, app_id: str, bearer: AppInfo) -> None:
        if bearer.app_id != app_id:
            _warn(f"{_described(bearer)} has the name {self._name}, too. {self._means(bearer.app_id)}")
            another = f"{self._name[: NAME_CHARS_MAX - 4]}-dev"
            click.echo(f"  To call what is served here, serve it under another name: --name {another}", err=True)
        elif self._said is not None:
            click.echo(f"The name {self._name} means what is served here again.", err=True)
        elif self._before is not None:
            _warn(f"{_described(self._before)} has the name {self._name}, too. {self._means('what is served here')}")
        self._said = bearer.app_id

    def _bearer(self, ask_by: Callable[[str, AppGet, type[AppInfo]], AppInfo | None]) -> AppInfo | None:
        try:
            found = ask_by("AppGet", AppGet(self._name, environment_of(None), has_functions=False), AppInfo)
        except NotFoundError:
            return None
        return None if found is None or found.state in (STOPPING, STOPPED) else found

    def _means(self, what: str) -> str:
        return f"Function.from_name({self._name!r}, …) and commands that name it mean {what}."


def _warn(text: str) -> None:
    click.echo(f"{click.style('Warning:', fg='yellow', bold=True)} {text}", err=True)


def _described(app: AppInfo) -> str:
    if app.state == DEPLOYED:
        return f"The deployed app {app.app_id} (version {app.version})"
    return f"The {app.state} app {app.app_id}, which somebody runs or serves,"
