"""`squall serve`: run an app while its code is written; each change of a file becomes its next edition."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from typing import Any

import click

from squall.cli import reference
from squall.cli.app_name import name_option
from squall.cli.edition import Line
from squall.cli.environment import environment_option
from squall.cli.namesake import Namesakes
from squall.cli.server_calls import ask_soon
from squall.cli.tables import counted
from squall.cli.target import listed
from squall.exception import Error, NotFoundError
from squall.protocol.app import STOPPED, STOPPING, AppGet, AppInfo
from squall.sdk import _output
from squall.sdk._environment import environment_of
from squall.sdk._names import program_name
from squall.sdk.app import App

END_S = 5.0
"""What an edition gets between the request to end and the end."""
NAMES_SHOWN = 5
LOOK_S = 5.0
"""How often it is looked whether the app is still there, and what its name means."""


@click.command("serve", epilog="Example: squall serve examples/calls/deployed.py --timeout 600")
@name_option("What lists call the app, and callers by name.")
@environment_option
@click.option("-m", "is_module", is_flag=True, help="REF is a dotted module name.")
@click.option(
    "--timeout", "timeout_s", type=click.FloatRange(min=0, min_open=True), help="End after that many seconds."
)
@click.option("--timestamps", "has_timestamps", is_flag=True, help="Begin each log line with its time.")
@click.argument("ref", type=click.Path())
def serve(app_name: str | None, is_module: bool, timeout_s: float | None, has_timestamps: bool, ref: str) -> None:
    """Run an app until Ctrl-C, and again with each change of its files: REF is path.py, path.py::variable, or with -m a
    module.

    The app keeps its id and name; containers of what has changed are replaced. Code that cannot be loaded is shown, and
    what ran before goes on.
    """
    parsed = reference.parse(ref, is_module=is_module, command="serve")
    if parsed.source == "-":
        raise click.UsageError("standard input cannot be served: it does not change; write the program to a file")
    with _output.use(_output.PlainOutput(has_timestamps=has_timestamps)):
        Serving(ref, is_module=is_module, name=app_name, timeout_s=timeout_s).run()


class _Edition:
    """One child; see `edition.py`."""

    def __init__(self, ref: str, is_module: bool) -> None:
        here, there = socket.socketpair()
        kind = "module" if is_module else "file"
        with there:
            command = [sys.executable, "-m", "squall.cli.edition", str(there.fileno()), ref, kind, environment_of(None)]
            self._process = subprocess.Popen(command, pass_fds=[there.fileno()], stdin=subprocess.DEVNULL)
        self.line = Line(here)

    def hear(self, word: str, timeout_s: float | None = None) -> Any:
        """What it has to say under that word; None if it does not in time.

        Raises:
            EOFError: it has ended.
        """
        message = self.line.hear(timeout_s)
        return None if message is None else message.get(word)

    def end(self) -> int:
        """End it, as gently as it lets us; its exit code."""
        self.line.end.close()
        for stop in (self._process.terminate, self._process.kill):
            try:
                return self._process.wait(END_S)
            except subprocess.TimeoutExpired:
                stop()
        return self._process.wait()


class _TimeIsOver(Exception):
    """`--timeout`, while an edition was awaited."""


class Serving:
    """The parent's side: it holds the app, and begins one edition after the other."""

    def __init__(self, ref: str, *, is_module: bool, name: str | None, timeout_s: float | None) -> None:
        self._ref = ref
        self._is_module = is_module
        self._name = name or ""
        self._is_name_given = bool(name)
        self._program_name = ""
        self._until = None if timeout_s is None else time.monotonic() + timeout_s
        self._app_id = ""
        self._shown_count = 0
        self._resting: set[str] = set()
        """Functions whose schedules are known to rest."""
        self._edition: _Edition
        self._namesakes: Namesakes

    def run(self) -> None:
        """Serve until the time is over, or Ctrl-C.

        Raises:
            click.exceptions.Exit: the first edition could not be loaded; it has said why.
        """
        self._edition = _Edition(self._ref, self._is_module)
        try:
            loaded = self._await(self._edition, "loaded")
            self._program_name = loaded["name"] or _name_of(self._ref)
            self._name = self._name or self._program_name
            self._namesakes = Namesakes(self._name)
            app = App(self._name, tags=loaded["tags"])
            with app.run(name=self._name):
                assert app.app_id is not None
                self._app_id = app.app_id
                self._publish(self._edition)
                self._follow()
        except _TimeIsOver:
            click.echo("The time is over, and it was still loading.", err=True)
        except EOFError:
            raise click.exceptions.Exit(self._edition.end() or 1) from None
        finally:
            self._edition.end()

    def _publish(self, edition: _Edition) -> None:
        """Let the app become what an edition has loaded.

        Raises:
            EOFError: it cannot; the edition has said why.
        """
        began_at = time.monotonic()
        edition.line.tell(app_id=self._app_id, name=self._name)
        served = self._await(edition, "served")
        if served["left_container_count"]:
            left = counted(served["left_container_count"], "container")
            click.echo(f"{left} of before did not end in time; `squall container list` shows what runs.", err=True)
        if served["is_unchanged"]:
            click.echo("Nothing that its functions are made of has changed.", err=True)
            return
        new = [name for name in served["scheduled"] if name not in self._resting]
        if new:
            _output.current().schedules_rest(new)
        self._resting = set(served["scheduled"])
        self._shown_count += 1
        did = "Serving" if self._shown_count == 1 else f"Reloaded in {time.monotonic() - began_at:.1f}s:"
        click.echo(f"{did} {_listed(served['functions'])} of {self._name}. Watched, until Ctrl-C:", err=True)
        for line in served["watched"]:
            click.echo(f"  {line}", err=True)
        self._namesakes.tell(self._app_id)

    def _tell_name(self, name: str) -> None:
        """Say so where the program gives its app another name than the edition before: callers know it by the first."""
        if self._is_name_given or name == self._program_name:
            return
        self._program_name = name
        if name != self._name:
            how = f"To serve it as {name}, end this with Ctrl-C and begin again."
            click.echo(f"The program calls its app {name} now; it is served as {self._name} still. {how}", err=True)

    def _follow(self) -> None:
        """One edition after the other, until the time is over."""
        try:
            while (left_s := self._left_s()) is None or left_s > 0:
                try:
                    changed = self._edition.hear("changed", LOOK_S if left_s is None else min(left_s, LOOK_S))
                except EOFError:
                    click.echo("The process that watches has ended; it is begun again.", err=True)
                    self._succeed()
                    continue
                if changed:
                    click.echo(f"Changed: {_listed(changed)}; reloading …", err=True)
                    self._try_to_succeed()
                self._look()
        except KeyboardInterrupt as interrupt:
            # The way to end it. Other signals are none of the user's, and end us as they end any command.
            if type(interrupt) is not KeyboardInterrupt:
                raise

    def _look(self) -> None:
        """What others may have done meanwhile.

        Raises:
            click.exceptions.Exit: they have stopped the app.
        """
        # One question as a rule: an app that the name means is there.
        bearer = self._namesakes.tell(self._app_id)
        if (bearer is None or bearer.app_id != self._app_id) and self._is_stopped():
            click.echo(f"{self._name} was stopped by somebody else; nothing is served any more.", err=True)
            raise click.exceptions.Exit(1)

    def _is_stopped(self) -> bool:
        try:
            found = ask_soon("AppGet", AppGet(self._app_id, has_functions=False), AppInfo)
        except NotFoundError:
            return True
        except Error:
            return False  # which is not known now, and then with the next look
        return found is not None and found.state in (STOPPING, STOPPED)

    def _await(self, edition: _Edition, word: str) -> Any:
        """What it has to say under that word, for as long as the app is served.

        Raises:
            EOFError: it has ended.
            _TimeIsOver: the time for all is.
        """
        said = edition.hear(word, self._left_s())
        if said is None:
            raise _TimeIsOver
        return said

    def _left_s(self) -> float | None:
        return None if self._until is None else self._until - time.monotonic()

    def _try_to_succeed(self) -> None:
        try:
            self._succeed()
        except EOFError:
            if self._is_stopped():
                return  # which the next look tells
            click.echo("It was not reloaded: what ran before goes on, until the next change.", err=True)

    def _succeed(self) -> None:
        """Another edition takes the place of the one there is.

        Raises:
            EOFError: it cannot be loaded, or nothing can be made of it; it has said why.
        """
        successor = _Edition(self._ref, self._is_module)
        try:
            loaded = self._await(successor, "loaded")
            self._publish(successor)
            self._tell_name(loaded["name"] or _name_of(self._ref))
        except BaseException:
            successor.end()
            raise
        self._edition.end()
        self._edition = successor


def _listed(names: Sequence[str]) -> str:
    return listed([os.path.relpath(name) if os.path.isabs(name) else name for name in names], NAMES_SHOWN)


def _name_of(ref: str) -> str:
    """What an app without a name is listed as: its program."""
    return program_name(ref.partition("::")[0])
