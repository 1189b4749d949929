"""One connection being made: a transport opened, the client introduced, its apps taken up again.

All of it happens before the connection is anybody else's, in the keeper's thread. The local server is started when
nobody answers, and replaced when it is of another version and idle.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any, TypeVar

from squall import exception
from squall.protocol import codec as wire
from squall.protocol.app import AppCreate, AppCreated
from squall.protocol.codec import JsonCodec
from squall.protocol.errors import ErrorRecord
from squall.protocol.frames import FrameDecoder
from squall.protocol.function import FunctionCreate, FunctionCreated
from squall.protocol.guest import ROLE_CLIENT, GuestHello
from squall.protocol.records import record
from squall.protocol.server import Hello, ServerStop, Welcome
from squall.protocol.version import PROTOCOL_VERSION, VERSION
from squall.sdk import _local_server
from squall.sdk._local_server import Endpoint
from squall.sdk._refusals import translate
from squall.sdk._transport import Transport, UnixTransport

R = TypeVar("R")

ANSWER_S = 30.0
"""How long one answer may take before the connection is given up and another one made."""


class NotYet(Exception):
    """Try to connect again."""


@record
class Introduction:
    """Who connects."""

    endpoint: Endpoint
    client_id: str
    codec: JsonCodec
    numbers: Iterator[int]
    """Of requests; shared with what is asked later, so that no answer fits two questions."""
    is_reconnect: bool


@record
class Greeted:
    """A connection on which the server has greeted us."""

    transport: Transport
    decoder: FrameDecoder
    welcome: Welcome


def connect(introduction: Introduction, apps: Iterable[tuple[AppCreate, tuple[FunctionCreate, ...]]]) -> Greeted:
    """Make a connection.

    Raises:
        OSError: nobody answers.
        NotYet: it is worth trying again.
        Error: it is not: a refusal, or another version that is busy.
    """
    transport = _open_transport(introduction.endpoint)
    try:
        asking = _Asking(introduction, transport)
        asking.introduce()
        welcome = asking.greet()
        for app, functions in apps:
            asking.take_up(app, functions)
    except BaseException:
        transport.close()
        raise
    return Greeted(transport, asking.decoder, welcome)


def _open_transport(endpoint: Endpoint) -> Transport:
    if endpoint.url:
        from squall.sdk._websocket_transport import WebSocketTransport  # cold start: only for a server elsewhere

        return WebSocketTransport(endpoint.url, endpoint.token)
    try:
        return UnixTransport(endpoint.socket_path)
    except PermissionError as error:
        raise exception.PermissionDeniedError(
            f"may not connect to {endpoint.socket_path}: {error.strerror}; use sudo, or join the group 'squall' "
            "(which is as good as root)"
        ) from error
    except (FileNotFoundError, ConnectionRefusedError) as error:
        if not endpoint.data_dir:
            raise
        _notice("starting the local server")
        _local_server.start(endpoint.data_dir)
        raise NotYet(str(error)) from error


class _Asking:
    """Questions and answers, one by one."""

    def __init__(self, introduction: Introduction, transport: Transport) -> None:
        self._introduction = introduction
        self._transport = transport
        self.decoder = FrameDecoder()

    def introduce(self) -> None:
        """In a container: to the agent behind the socket."""
        introduction, endpoint = self._introduction, self._introduction.endpoint
        if not endpoint.container_token:
            return
        hello = GuestHello(
            endpoint.container_token,
            ROLE_CLIENT,
            endpoint.container_id,
            VERSION,
            PROTOCOL_VERSION,
            client_id=introduction.client_id,
            pid=os.getpid(),
            is_reconnect=introduction.is_reconnect,
        )
        self._send(introduction.codec.encode(wire.EVENT, 0, "GuestHello", hello))

    def greet(self) -> Welcome:
        """To the server, which is to be of our version."""
        introduction, endpoint = self._introduction, self._introduction.endpoint
        version = f"{sys.version_info[0]}.{sys.version_info[1]}"
        hello = Hello(VERSION, PROTOCOL_VERSION, introduction.client_id, version, endpoint.token)
        welcome = self.ask("Hello", hello, Welcome)
        if welcome.version == VERSION:
            return welcome
        if endpoint.data_dir and welcome.is_idle:
            _notice(f"replacing the idle server of version {welcome.version}")
            self.ask("ServerStop", ServerStop(), dict)
            raise NotYet(f"the server of version {welcome.version} is being replaced")
        if abs(welcome.protocol_version - PROTOCOL_VERSION) > 1 or endpoint.data_dir:
            raise exception.VersionError(
                f"this is Squall {VERSION} and the server is {welcome.version}, which is busy; let its apps end, or "
                "stop it by `squall server stop --force`, and the next command starts it in this version"
                if endpoint.data_dir
                else f"this is Squall {VERSION} and the server is {welcome.version}; install that version here"
            )
        return welcome

    def take_up(self, app: AppCreate, functions: tuple[FunctionCreate, ...]) -> None:
        """Hold an app again."""
        try:
            self.ask("AppCreate", app, AppCreated)
            for some in functions:
                self.ask("FunctionCreate", some, FunctionCreated)
        except (exception.ConflictError, exception.NotFoundError):
            # A container runs its own function on this connection, too: an app that it started and that was stopped
            # meanwhile fails its own calls, and no others.
            if not self._introduction.endpoint.container_token:
                raise

    def ask(self, method: str, record: Any, reply: type[R]) -> R:
        """Ask and read until the answer is there."""
        codec = self._introduction.codec
        number = next(self._introduction.numbers)
        self._send(codec.encode(wire.REQUEST, number, method, record))
        deadline = time.monotonic() + ANSWER_S
        while True:
            data = self._transport.read(deadline)
            if not data:
                raise NotYet(
                    f"{method}: "
                    + (f"no answer within {ANSWER_S:.0f} s" if data is None else "the connection was closed")
                )
            for frame in self.decoder.feed(data):
                envelope = codec.decode(frame.header)
                if envelope.number != number:
                    continue
                if envelope.kind == wire.ERROR:
                    raise translate(codec.record(ErrorRecord, envelope.params).to_error())
                if reply is dict:
                    return reply()
                return codec.record(reply, envelope.params)

    def _send(self, header: bytes) -> None:
        self._transport.write(len(header).to_bytes(4, "little") + b"\0\0\0\0" + header)


def _silent(text: str) -> None:
    """Nobody wants to know."""


_notice: Callable[[str], None] = _silent


def set_notice(tell: Callable[[str], None] | None) -> None:
    """Who is told, in a few words, what takes long: that a server is started or replaced, or why a call waits."""
    global _notice
    _notice = tell or _silent


def tell_wait(why: str) -> None:
    """Tell them why a call waits, in the server's words."""
    if _notice is not _silent:
        from squall.sdk._terminal_text import harmless  # cold start: containers show nothing

        _notice(harmless(why))
