"""One edition of a served app: a fresh process that loads the code, makes the app of it, and says when a file changes.

`squall serve` begins one, and another at each change; the one before ends when its successor has taken its place. They
talk over a socket that the child inherits, in JSON lines:

    child                                   parent
    {"loaded": {"name": …, "tags": …}}  ─▶
                                        ◀─  {"app_id": …, "name": …}
    {"served": {…}}                     ─▶
    {"changed": [paths]}                ─▶  (again and again)

The child ends when the socket is closed, also by the parent's end.
"""

from __future__ import annotations

import json
import select
import signal
import socket
import sys
import time
from typing import Any, NoReturn

import click

from squall.cli import reference
from squall.cli.target import choose_app
from squall.cli.watch import PERIOD_S, SCAN_SHARE, Watch, describe
from squall.exception import Error
from squall.sdk import _deploy, _output, _shipped
from squall.sdk._environment import choose
from squall.sdk._pending import run
from squall.sdk.app import App

QUIET_S = 0.2
"""So long nothing may change before a change counts: files are written one after the other."""
QUIET_WAIT_S = 5.0
LINE_BYTES_MAX = 2**20


class Line:
    """JSON lines over a socket, either way."""

    def __init__(self, end: socket.socket) -> None:
        self.end = end
        self._read = b""

    def tell(self, **message: Any) -> None:
        """Say something; whoever is gone does not hear it."""
        try:
            self.end.sendall(json.dumps(message).encode() + b"\n")
        except OSError:
            return

    def hear(self, timeout_s: float | None) -> dict[str, Any] | None:
        """The next message, or None when none came in time.

        Raises:
            EOFError: the other end is gone.
        """
        until = None if timeout_s is None else time.monotonic() + timeout_s
        while b"\n" not in self._read:
            left_s = None if until is None else max(0.0, until - time.monotonic())
            if not select.select([self.end], [], [], left_s)[0]:
                return None
            try:
                data = self.end.recv(2**16)
            except OSError as error:
                raise EOFError from error
            if not data or len(self._read) > LINE_BYTES_MAX:
                raise EOFError
            self._read += data
        line, _, self._read = self._read.partition(b"\n")
        message: dict[str, Any] = json.loads(line)
        return message


def main(arguments: list[str]) -> int:
    """Be an edition; the arguments are those that `squall serve` gives."""
    descriptor, ref, is_module, environment = int(arguments[0]), arguments[1], arguments[2] == "module", arguments[3]
    # Ctrl-C is the parent's: it ends us.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    sys.argv = [ref]
    line = Line(socket.socket(fileno=descriptor))
    try:
        choose(environment)
        parsed = reference.parse(ref, is_module=is_module, command="serve")
        app = choose_app(reference.load(parsed), parsed.name, parsed.source)
        with _output.use(_output.PlainOutput()):
            _serve(app, line)
        _watch(line)
    except EOFError:
        return 0
    except click.exceptions.Exit as ended:
        return ended.exit_code
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except Error as error:
        click.echo(f"{click.style('Error:', fg='red', bold=True)} {error}", err=True)
        return 1


def _serve(app: App, line: Line) -> None:
    line.tell(loaded={"name": app.name, "tags": app.tags})
    told = line.hear(None)
    assert told is not None
    published = run(_deploy.serve(app, told["app_id"], told["name"]))
    line.tell(
        served={
            "is_unchanged": published.is_unchanged,
            "left_container_count": published.left_container_count,
            "functions": sorted([*app.registered_functions, *app.registered_servers]),
            "scheduled": sorted(_scheduled(app)),
            "watched": describe(_shipped.files, _shipped.directories)[:100],
        }
    )


def _scheduled(app: App) -> list[str]:
    return [
        name
        for name, one in app.registered_functions.items()
        if one.definition is not None and one.definition.options.schedule is not None
    ]


def _watch(line: Line) -> NoReturn:
    """Say what changes, until the parent is gone.

    Raises:
        EOFError: it is.
    """
    watch = Watch(_shipped.files, _shipped.directories)
    wait_s = 0.0
    while True:
        line.hear(wait_s)
        began_at = time.monotonic()
        changed = set(watch.changes())
        wait_s = max(PERIOD_S, SCAN_SHARE * (time.monotonic() - began_at))
        if not changed:
            continue
        while time.monotonic() - began_at < QUIET_WAIT_S:
            line.hear(QUIET_S)
            more = watch.changes()
            changed.update(more)
            if not more:
                break
        line.tell(changed=sorted(changed)[:100])


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
