"""The life of a template: it goes part of the way to being a container, and is forked from there.

    spawner                            template
      ◀──────── ready, unfit or failed   once; what is not ready ends
      fork, the clone's socket ────────▶ forks (see `clone`), as often as it is told to
      save, a socket ──────────────────▶ forks a copy of itself, which is saved on disk

A template of a guest has loaded what any guest loads. One of a function has also asked the server for its Boot, loaded
the function, or made the instance of its class, and run the hooks with `snap=True`. It runs no input, and no exit hook:
it has served nobody. It ends when the spawner closes the socket.
"""

from __future__ import annotations

import contextlib
import functools
import gc
import json
import os
import select
import socket
import stat
import sys
import time
from array import array
from typing import TYPE_CHECKING, Any, Protocol

from squall.exception import InputCancellation
from squall.guest import file_pages, fork_safety, huge_pages, libc, renewal, thread_counts
from squall.guest.clone import WAY_BYTES_MAX, Clone, Kit, begin_fork, receive
from squall.guest.inbox import Stopping
from squall.guest.link import Link, LinkLost, NothingToLoad, receive_boot
from squall.guest.loading import EnterFailed, LoadFailed, Served, load_served
from squall.guest.main import ready_of
from squall.guest.preload import preload
from squall.guest.rehearsal import rehearse
from squall.protocol.guest import (
    ENV_CONTAINER_ID,
    ENV_TEMPLATE,
    ENV_TEMPLATE_FD,
    ENV_TOKEN,
    ROLE_TEMPLATE,
    TEMPLATE_FUNCTION,
    Boot,
    Ready,
)
from squall.sdk import _container

if TYPE_CHECKING:
    from squall.guest.main import Guest

SAVE = b'{"save": 1}'
SOCKET_PLACEHOLDER = "/dev/full"
SOCKET_PAUSE_S = 0.005
REAP_S = 0.02
"""How often forks are looked at that have not ended."""
IDLE_S = 0.01
"""After so long without a request it has time for its memory."""
CAUSE_CHARS_MAX = 8_000


class Unfit(Exception):
    """It cannot be forked; the message says why, to the user whose code it is."""


class Failed(Exception):
    """It could not get ready this time; the message says why, to the same."""


class Begun(Protocol):
    """A container that a template has become."""

    served: Served | None
    """What it has loaded."""
    started: float
    """When it was told who it is."""
    ready: Ready | None
    """What it is ready for already."""
    waiting: socket.socket | None
    """A connection that it has made before."""

    def end(self, code: int) -> None:
        """It is about to end with this code."""


class Template:
    """This process, until it is forked or ends."""

    def __init__(self, guest: Guest, started: float) -> None:
        self._guest = guest
        self._started = started
        self._token = _take_token()
        self._environment = _first_environment()
        self._began_in = os.getcwd()
        self._has_function = os.environ.pop(ENV_TEMPLATE) == TEMPLATE_FUNCTION
        self._connect()
        self._children: set[int] = set()
        self._boot: Boot | None = None
        self._renewals = renewal.Renewals()
        self._report: dict[str, Any] = {}
        self._file_pages = array("Q")
        self._pages = huge_pages.collapse()
        self._has_pages = True

    def _connect(self) -> None:
        self._given = dict(self._environment)
        self._environment.update(thread_counts.use_one())
        descriptor = int(os.environ.pop(ENV_TEMPLATE_FD))
        self._control = socket.socket(fileno=descriptor)
        os.set_inheritable(descriptor, False)

    def live(self) -> Begun | None:
        """Be a template. Returns in each fork, when that is to go on as a container; None in the template, at its end.

        Whatever ends a fork before that ends it here.
        """
        try:
            try:
                found, served = self._get_ready()
            except Exception as error:  # noqa: BLE001 - objects of anybody's are looked at
                self._tell(_why_not(error))
                return None
            return self._go_on(found, served)
        except (Stopping, InputCancellation, KeyboardInterrupt):
            return None

    def _get_ready(self) -> tuple[fork_safety.Found, Served | None]:
        """Raises:
        Unfit: it cannot be forked, nor could another one of the same code.
        Failed: it has not come so far; another one may.
        """
        token, self._token = self._token, ""
        watch = fork_safety.ThreadWatch()
        with watch:
            served = self._load(token) if self._has_function else None
        untouched = preload(self._boot)
        with contextlib.suppress(Exception):  # what is wrong with it is wrong with its forks as well, or with none
            rehearse(self._guest, self._boot, served, is_parked=False)
        for stream in self._guest.streams:
            stream.end()
        fork_safety.quiet()
        gc.collect()
        found = self._look(watch)
        if found.cause:
            raise Unfit(found.cause)
        # No code of the user's has drawn anything of what only we have loaded.
        self._renewals.find(untouched, has_user_code=served is not None)
        self._file_pages = file_pages.mapped()
        # What is there now is never looked at again: a collection in a fork would copy every page it is on.
        gc.collect()
        gc.freeze()
        import_ms, enter_ms = (served.import_ms, served.enter_ms) if served is not None else (0.0, 0.0)
        import_ms = import_ms or (time.monotonic() - self._started) * 1000
        self._report = {"ready": {"memory_bytes": _resident_bytes(), "import_ms": import_ms, "enter_ms": enter_ms}}
        self._tell(self._report)
        return found, served

    def _look(self, watch: fork_safety.ThreadWatch) -> fork_safety.Found:
        found = fork_safety.look(watch, self._control.fileno())
        if found.cause:
            return found
        changed = {name: value for name, value in os.environ.items() if self._environment.get(name) != value}
        self._thread_counts = thread_counts.prepare({**self._given, **changed})
        # Threads of a library that has not ended them after all are seen.
        return fork_safety.look(watch, self._control.fileno())

    def _go_on(self, found: fork_safety.Found, served: Served | None) -> Begun | None:
        kit = Kit(
            control=self._control,
            forks=self._guest.interrupter.forks,
            environment=self._environment,
            directory="" if os.getcwd() == self._began_in else os.getcwd(),
            files=found.files,
            outputs=found.outputs,
            pages=self._file_pages,
            renewals=self._renewals,
            thread_counts=self._thread_counts,
            rehearse=functools.partial(rehearse, self._guest, self._boot, served, is_parked=True),
            served=served,
            ready=self._ready(served),
            socket_path=self._guest.socket_path,
            template=self,
        )
        return self._be_forked(kit)

    def _ready(self, served: Served | None) -> Ready | None:
        if served is None or not served.is_settled or self._boot is None or self._boot.is_interactive:
            return None
        return ready_of(served._replace(import_ms=0.0, enter_ms=0.0))

    def _load(self, token: str) -> Served:
        link = Link(self._guest.socket_path, token, os.environ.get(ENV_CONTAINER_ID, ""), ROLE_TEMPLATE)
        try:
            link.connect()
            boot = receive_boot(link)
        except NothingToLoad as error:
            raise Unfit(str(error)) from error
        except LinkLost as error:
            raise Failed(str(error)) from error
        finally:
            link.disconnect()
        self._boot = boot
        state = _container.enter(boot, self._guest.socket_path, token)
        try:
            return load_served(boot, self._started)
        except LoadFailed as error:
            # Code that is wrong fails each start; but one download that has timed out is not to cost the snapshot.
            raise Failed(_in_words(error)) from error
        finally:
            # Forks connect for themselves, as who they are, and what is saved on the disk as nobody.
            state.token = ""
            client = sys.modules.get("squall.sdk._client")
            if client is not None:
                client.close()

    def _be_forked(self, kit: Kit) -> Clone | None:
        poll = select.poll()
        poll.register(self._control, select.POLLIN)
        while True:
            # Which signal of SIGCHLD is whose is user code's to say: they are counted instead.
            if not poll.poll(self._pause_ms()):
                self._reap()
                if not self._children:
                    self._has_pages = next(self._pages, False) is None
                continue
            try:
                message, descriptors = receive(self._control, WAY_BYTES_MAX)
            except libc.CallFailed:
                continue  # more than anybody asks for
            if not message:
                return None
            try:
                if message == SAVE:
                    self._be_copied(descriptors)
                    continue
                clone = self._fork(descriptors, kit)
            finally:
                for descriptor in descriptors:
                    os.close(descriptor)
            if clone is not None:
                return clone
            self._reap()

    def _pause_ms(self) -> float | None:
        if self._children:
            return REAP_S * 1000
        return IDLE_S * 1000 if self._has_pages else None

    def _fork(self, descriptors: list[int], kit: Kit) -> Clone | None:
        if len(descriptors) != 1:
            return None
        # Our own number of it is closed by the caller, in the fork, too.
        channel = socket.socket(fileno=os.dup(descriptors[0]))
        try:
            pid = libc.fork()
        except libc.CallFailed as error:
            with contextlib.suppress(OSError):
                channel.send(json.dumps({"error": str(error)}).encode())
            pid = -1
        if pid == 0:
            return begin_fork(channel, kit)
        channel.close()
        if pid > 0:
            self._children.add(pid)
        return None

    def _be_copied(self, descriptors: list[int]) -> None:
        """Fork a copy to be saved. It comes back as the same template, in another container and maybe another year."""
        if len(descriptors) != 1:
            return
        channel = socket.socket(fileno=os.dup(descriptors[0]))
        with channel:
            try:
                copy = libc.fork()
            except libc.CallFailed as error:
                with contextlib.suppress(OSError):
                    channel.send(json.dumps({"error": str(error)}).encode())
                return
            if copy > 0:
                self._children.add(copy)
                return
            os.setsid()
            self._children.clear()
            # A socket whose other end is somebody else cannot be saved. Where it was is a file that nothing else has
            # open, and whoever brings the copy back puts the new socket there.
            placeholder = os.open(SOCKET_PLACEHOLDER, os.O_RDWR | os.O_CLOEXEC)
            os.dup2(placeholder, self._control.fileno(), inheritable=False)
            os.close(placeholder)
            try:
                channel.send(json.dumps({"copied": 1}).encode())
            except OSError:
                os._exit(0)  # nobody waits for a copy any more
        os.close(descriptors.pop())
        while not stat.S_ISSOCK(os.fstat(self._control.fileno()).st_mode):
            time.sleep(SOCKET_PAUSE_S)
        self._tell(self._report)

    def _reap(self) -> None:
        for pid in list(self._children):
            try:
                ended, _ = os.waitpid(pid, os.WNOHANG)
            except ChildProcessError:
                ended = pid
            if ended:
                self._children.discard(pid)

    def _tell(self, said: dict[str, Any]) -> None:
        with contextlib.suppress(OSError):  # the spawner has gone: the loop sees that, too
            self._control.send(json.dumps(said).encode())


def _why_not(error: Exception) -> dict[str, str]:
    """What one says of itself that has not got ready, and with the key, whether the same code would fail again."""
    if isinstance(error, (Unfit, Failed)):
        cause = str(error)
    else:
        cause = f"it cannot be made ready to be copied: {type(error).__name__}: {error}"
    # What the machine refuses it may grant the next time.
    may_be_over = isinstance(error, (Failed, OSError, MemoryError))
    return {"failed" if may_be_over else "unfit": cause[:CAUSE_CHARS_MAX]}


def _in_words(error: LoadFailed) -> str:
    failure = error.failure
    if not isinstance(error, EnterFailed):
        return failure.message
    return f"a hook with @squall.enter(snap=True) has raised {failure.type_name}: {failure.message}"


def _take_token() -> str:
    """The template's own, which the kernel would show of each of its forks for as long as that lives."""
    token = os.environ.get(ENV_TOKEN, "")
    libc.erase_variable(ENV_TOKEN)
    os.environ.pop(ENV_TOKEN, None)
    return token


def _first_environment() -> dict[str, str]:
    """What the process was started with, before code that runs with the interpreter could change it."""
    with open("/proc/self/environ", "rb") as file:
        pairs = (os.fsdecode(one).partition("=") for one in file.read().split(b"\0") if one)
    return {name: value for name, _, value in pairs}


def _resident_bytes() -> int:
    with open("/proc/self/statm", "rb") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
