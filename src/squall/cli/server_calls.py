"""Ask the server, from the command line: blocking, with errors that end the command in one message."""

from __future__ import annotations

import socket
import sys
import time
from collections.abc import Iterator
from typing import Any, TypeVar

import click

from squall.exception import ConnectionError as ServerUnreachable
from squall.exception import Error
from squall.protocol.pages import Question
from squall.sdk import _client, _local_server
from squall.sdk._pending import iterate, run

R = TypeVar("R")

PROBE_S = 5.0
PROBE_EVERY_S = 0.2
SOON_S = 1.0
"""What a look that is repeated may cost."""


def is_server_running() -> bool:
    """Whether there is a server to ask; starts none. What is wrong with one that is there, asking it will tell."""
    endpoint = _local_server.find_endpoint()
    if not endpoint.data_dir:
        return True
    with socket.socket(socket.AF_UNIX) as probe:
        probe.settimeout(PROBE_S)
        try:
            probe.connect(endpoint.socket_path)
        except (FileNotFoundError, NotADirectoryError, ConnectionRefusedError):
            return False
        except OSError:
            return True
    return True


def wait_for_server(timeout_s: float) -> bool:
    """Whether a server answers within that time; starts none."""
    deadline = time.monotonic() + timeout_s
    while not is_server_running():
        if time.monotonic() > deadline:
            return False
        time.sleep(PROBE_EVERY_S)
    return True


def is_list_empty() -> bool:
    """Whether a list has nothing to show because no server runs; says so on stderr."""
    if is_server_running():
        return False
    click.echo("No server runs; `squall server start` starts one, which lists what is kept.", err=True)
    return True


def require_server() -> None:
    """For commands about what is there already: nothing is, without a server.

    Raises:
        click.ClickException: no server runs.
    """
    if not is_server_running():
        raise click.ClickException("no server runs; `squall run` starts one, `squall server start` too")


def ask(method: str, record: Any, reply: type[R], body: bytes = b"") -> R:
    """One request; starts the local server when none runs."""
    client = _client.current()
    run(client.connect())
    return run(client.request(method, record, reply, body))


def ask_soon(method: str, record: Any, reply: type[R]) -> R | None:
    """The answer, if there is one soon: for looks that are repeated, which must not hold up the command."""
    return _client.current().ask_soon(method, record, reply, SOON_S)


def ask_pages(method: str, question: Question[R], reply: type[R]) -> Iterator[R]:
    """The pages of a long answer, one by one."""
    following: Question[R] | None = question
    while following is not None:
        answer = ask(method, following, reply)
        yield answer
        following = following.following(answer)


def follow(method: str, record: Any, item: type[R]) -> Iterator[tuple[R, bytes]]:
    """The items of a streaming request."""
    client = _client.current()
    run(client.connect())
    yield from iterate(client.stream(method, record).items(item))


def open_stream(method: str, record: Any) -> _client.ClientStream:
    """A stream that is also fed: see `ClientStream`."""
    client = _client.current()
    run(client.connect())
    return client.stream(method, record)


def data_dir() -> str:
    """Of the local server this command talks to.

    Raises:
        click.ClickException: it talks to a server elsewhere.
    """
    endpoint = _local_server.find_endpoint()
    if not endpoint.data_dir:
        raise click.ClickException("this command is for the server of this machine; unset SQUALL_SERVER_URL to use it")
    return endpoint.data_dir


def fail(error: Error) -> click.ClickException:
    """The one message an error of the SDK ends a command with."""
    hint = "" if not isinstance(error, ServerUnreachable) else "\nrun `squall doctor` to see what this machine lacks"
    return click.ClickException(f"{error}{hint}")


def is_terminal() -> bool:
    """Whether a person is at both ends of this command."""
    return sys.stdin.isatty() and sys.stdout.isatty()
