"""What a person sees of a run: build steps, log lines, progress. Nothing, unless `enable_output()` is on.

`Output` is the interface; `PlainOutput` writes lines. The command puts a richer one in its place by `use`.
"""

from __future__ import annotations

import sys
import threading
import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from typing import IO, TYPE_CHECKING

from squall.exception import Error
from squall.sdk import _client, _shown
from squall.sdk._build_view import BuildView
from squall.sdk._client import ConnectionLost
from squall.sdk._last_row import LastRow, write
from squall.sdk._map_view import MapState, MapView
from squall.sdk._pending import run
from squall.sdk._terminal_text import for_stream, is_terminal
from squall.sdk._turn import join

if TYPE_CHECKING:
    from squall.protocol.image import BuildEvent
    from squall.protocol.log import LogEntry
    from squall.sdk._client import Client

DRAIN_S = 5.0
"""How long the end of a run waits for the last log lines."""
PROGRESS_S = 0.2
TICK_S = 1.0
RECENT_LINES = 200
"""What was shown before those has left the screen, or will have been forgotten."""


class Output:
    """Told what happens. Every method may be called from another thread, and must neither raise nor block for long."""

    is_live = False
    """Whether `unfinished` is to be called."""

    def notice(self, text: str) -> None:
        """Something takes long: a server is being started."""

    def app_created(self, app_id: str, name: str, url: str) -> None:
        """The app is there; its image and files come next."""

    def build_event(self, image_id: str, event: BuildEvent) -> None:
        """A step of an image begins, says something, or ends."""

    def build_failed(self, image_id: str) -> None:
        """An image will not be there; the error says why."""

    def mount_created(self, text: str) -> None:
        """Files are on the server; the text says which."""

    def function_created(self, name: str, function_id: str) -> None:
        """The function can be called."""

    def web_created(self, what: str, name: str, url: str) -> None:
        """A web function, or a server, answers requests there."""

    def web_left(self, app_id: str) -> None:
        """There are more of those than were told."""

    def schedules_rest(self, names: list[str]) -> None:
        """These functions have a schedule, and the app is none that is followed."""

    def log(self, entry: LogEntry) -> None:
        """A container, or Squall about one, said a line."""

    def unfinished(self, entry: LogEntry) -> None:
        """What is there of a line that goes on or is written over. The whole line comes by `log`, in the end."""

    def has_shown(self, container_id: str, lines: list[str]) -> bool:
        """Whether these lines of a container's errors, in this order, are among the last that were shown."""
        return False

    def map_progress(self, state: MapState) -> None:
        """A map got on. Called at most a few times a second, and at its end, however that comes."""

    def app_stopped(self, app_id: str, is_aborted: bool, was_stopped: bool) -> None:
        """The run is over, perhaps because somebody stopped the app; no line comes after this."""

    def app_detached(self, app_id: str) -> None:
        """The run goes on without this program; no line comes after this."""


class PlainOutput(Output):
    """Lines: logs as they are, the rest dim where a terminal can."""

    def __init__(self, out: IO[str] | None = None, err: IO[str] | None = None, *, has_timestamps: bool = False) -> None:
        self._out = out or sys.stdout
        self._err = err or sys.stderr
        self._has_timestamps = has_timestamps
        self._is_terminal = is_terminal(self._err)
        self.is_live = is_terminal(self._out) or is_terminal(self._err)
        self._lock = threading.Lock()
        self._last_row = LastRow()
        self._builds = BuildView()
        self._maps = MapView()
        self._ticker: threading.Thread | None = None
        self._recent: deque[LogEntry] = deque(maxlen=RECENT_LINES)

    def notice(self, text: str) -> None:
        """See `Output`."""
        self._say(f"{text} …")

    def app_created(self, app_id: str, name: str, url: str) -> None:
        """See `Output`."""
        self._say(f"App {name or app_id} ({app_id})" + (f": {url}" if url else ""))

    def build_event(self, image_id: str, event: BuildEvent) -> None:
        """See `Output`."""
        with self._lock:
            for line in self._builds.lines(image_id, event, time.monotonic()):
                self._last_row.clear()
                self._write_dim(for_stream(self._err, line))
            is_running = self._show_builds()
            if is_running and self._is_terminal and self._ticker is None:
                self._ticker = threading.Thread(target=self._tick, name="squall-builds", daemon=True)
                self._ticker.start()

    def build_failed(self, image_id: str) -> None:
        """See `Output`."""
        with self._lock:
            self._builds.forget(image_id)
            self._last_row.clear()

    def _show_builds(self) -> bool:
        """On a terminal, for how long the steps have run that do; False when none does. Needs the lock."""
        status = self._builds.status(time.monotonic())
        if self._is_terminal and status:
            self._last_row.draw_dim(self._err, status)
        return bool(status)

    def _tick(self) -> None:
        """Count the seconds while a step runs that says nothing."""
        while True:
            time.sleep(TICK_S)
            with self._lock:
                if not self._show_builds():
                    self._ticker = None
                    return

    def web_created(self, what: str, name: str, url: str) -> None:
        """See `Output`."""
        self._say(f"{what} {name}: {url}")

    def web_left(self, app_id: str) -> None:
        """See `Output`."""
        self._say(f"There are more web functions: squall app info {app_id}")

    def schedules_rest(self, names: list[str]) -> None:
        """See `Output`."""
        self._say(f"The schedule of {', '.join(names)} rests: only that of a deployed app is followed (squall deploy)")

    def log(self, entry: LogEntry) -> None:
        """See `Output`."""
        stream = self._out if entry.source == "stdout" else self._err
        stamp = time.strftime("%H:%M:%S ", time.localtime(entry.at)) if self._has_timestamps else ""
        text = f"[squall] {entry.text}" if entry.source == "system" else entry.text
        with self._lock:
            if entry.stage == "standing" and is_terminal(stream):
                return  # has been seen as it passed
            self._recent.append(entry)
            self._last_row.clear()
            write(stream, f"{stamp}{for_stream(stream, text)}\n")

    def unfinished(self, entry: LogEntry) -> None:
        """See `Output`."""
        stream = self._out if entry.source == "stdout" else self._err
        if not is_terminal(stream):
            return
        with self._lock:
            self._last_row.draw_end(stream, entry.text)

    def has_shown(self, container_id: str, lines: list[str]) -> bool:
        """See `Output`."""
        with self._lock:
            recent = [entry for entry in self._recent if entry.container_id == container_id]
        shown = iter([entry.text for entry in recent if entry.source == "stderr"])
        return all(line in shown for line in lines)

    def map_progress(self, state: MapState) -> None:
        """See `Output`."""
        with self._lock:
            if not self._is_terminal:
                line = self._maps.line(state, time.monotonic())
                if line:
                    self._write_dim(line)
                return
            status = self._maps.status(state)
            self._last_row.draw_dim(self._err, status)

    def app_stopped(self, app_id: str, is_aborted: bool, was_stopped: bool) -> None:
        """See `Output`."""
        self._say("App aborted." if is_aborted else "App stopped." if was_stopped else "App completed.")

    def app_detached(self, app_id: str) -> None:
        """See `Output`."""
        self._say(f"App {app_id} goes on. Its lines: squall app logs -f {app_id}; its end: squall app stop {app_id}")

    def _say(self, text: str) -> None:
        with self._lock:
            self._last_row.clear()
            self._write_dim(text)

    def _write_dim(self, text: str) -> None:
        write(self._err, f"\x1b[2m{text}\x1b[0m\n" if self._is_terminal else f"{text}\n")


_SILENT = Output()
_current: Output | None = None


def current() -> Output:
    """Where to say things; silent unless output is enabled."""
    return _current or _SILENT


def is_enabled() -> bool:
    """Whether anybody looks."""
    return _current is not None


@contextmanager
def use(output: Output | None) -> Iterator[None]:
    """Say things there while the block runs; None for silence."""
    global _current
    before, _current = _current, output
    _client.set_notice(current().notice)
    try:
        yield
    finally:
        _current = before
        _client.set_notice(current().notice)


@contextmanager
def enable_output() -> Iterator[None]:
    """Show what runs do while the block runs: image builds, log lines of containers, progress of maps."""
    with use(_current or PlainOutput()):
        yield


class ShownLines:
    """Tells lines that come again after a reconnect, which are of the last moment shown, from new ones."""

    def __init__(self) -> None:
        self.is_repeating = False
        """There was a reconnect: read on from `last_at`."""
        self.last_at: float | None = None
        self._of_last_moment: set[str] = set()

    def is_new(self, entry: LogEntry) -> bool:
        """Whether the line is to be shown; it counts as shown then."""
        if self.last_at is None or entry.at > self.last_at:
            self.last_at, self._of_last_moment = entry.at, set()
        elif entry.at < self.last_at:
            return True  # by another clock; reading on from the last moment does not bring it again
        key = f"{entry.container_id} {entry.text}"
        if self.is_repeating and key in self._of_last_moment:
            return False
        self._of_last_moment.add(key)
        return True


class LogFollower:
    """Shows the log lines of an app, from its first to its last, in a thread of its own."""

    def __init__(self, client: Client, app_id: str, output: Output, since: float | None = None) -> None:
        """`since`: from lines of that time on, seconds since 1970; None for all."""
        self._client = client
        self._app_id = app_id
        self._output = output
        self._since = since
        self._is_stopping = False
        self._is_server_there = True
        self._is_silent = False
        self._display = _shown.Display()
        _shown.displays.append(self._display)
        self._thread = threading.Thread(target=self._follow, name="squall-logs", daemon=True)
        self._thread.start()

    def finish(self, drain_s: float = DRAIN_S, *, is_server_there: bool = True) -> None:
        """Show what is left, but wait for it only so long; nothing is shown after this.

        A connection that breaks meanwhile is made again, unless no server is there: none is started for last lines.
        """
        self._is_stopping, self._is_server_there = True, is_server_there
        join(self._thread, drain_s)
        self._is_silent = True
        self._display.end()

    def _follow(self) -> None:
        try:
            run(self._read_all(), is_background=True)
        except Error as error:
            if not self._is_stopping:
                self._output.notice(f"log lines are not shown any more: {error}")
        finally:
            self._display.end()
            _shown.displays.remove(self._display)

    async def _read_all(self) -> None:
        from squall.protocol.log import PASSING, LogBatch, LogRead  # cold start: only where output is shown

        shown = ShownLines()
        shown.last_at = self._since
        while True:
            await self._client.connect()
            request = LogRead(
                app=self._app_id, is_following=True, tail=-1, since=shown.last_at, has_passing=self._output.is_live
            )
            stream = self._client.stream("LogRead", request)
            self._display.begin(stream)
            try:
                async for batch, _ in stream.items(LogBatch):
                    for entry in batch.entries:
                        if entry.stage == PASSING:
                            if not self._is_silent:
                                self._output.unfinished(entry)
                            continue
                        if not shown.is_new(entry):
                            continue
                        if self._is_silent:
                            return
                        self._output.log(entry)
                    self._display.has_shown()
                return
            except ConnectionLost:
                if not self._is_server_there:
                    return
                shown.is_repeating = True


class MapProgress:
    """Tells the output of a map's progress, a few times a second at most."""

    def __init__(self, function_name: str) -> None:
        self._output = current()
        now = time.monotonic()
        self._state = MapState(function_name, now)
        self._said_at = now

    def __call__(self, done: int, failed: int, total: int, is_total_known: bool) -> None:
        """The map got on."""
        if self._output is _SILENT:
            return
        now = time.monotonic()
        if now - self._said_at >= PROGRESS_S:
            self._said_at = now
            self._state.got_on(now, done, failed, total, is_total_known)
            self._output.map_progress(self._state)

    def end(self, done: int, failed: int, total: int, is_total_known: bool) -> None:
        """It is over, or was given up."""
        if self._output is not _SILENT:
            self._state.got_on(time.monotonic(), done, failed, total, is_total_known)
            self._state.is_over = True
            self._output.map_progress(self._state)
