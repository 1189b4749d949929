"""Reads what containers print, cuts it into lines and sends them on in batches, within bounds.

A pipe is always read, so user code never waits for its own output. What is bounded instead is what is kept: each
pipe may send `RATE_BYTES_S` sustained and `BURST_BYTES` at once, and all together wait in at most `PENDING_BYTES_MAX`
for a server that is slow or gone. What is over that is a flood (`flood.py`), whose end comes when it is over or within
its rate again, after a line of source `system` that says how many lines are left out. While a pipe is over its rate it
is emptied at a bounded pace, so that an endless loop of prints costs its own processor and not the agent's. What a
flood on one pipe takes is nothing of the other's: the traceback after it is there whole.

What a container printed before it says something to the server goes to the server before that: `add` returns how to
catch up with its pipes. Within bounds, too: with a flood it is caught up every `FLOOD_S` at most.
"""

from __future__ import annotations

import asyncio
import collections
import contextlib
import fcntl
import functools
import os
import select
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from squall.agent.flood import END_BYTES_MAX, END_LINES_MAX, Flood
from squall.agent.unfinished import STANDING_S, Unfinished
from squall.protocol.log import (
    LINE_BYTES_MAX,
    MARK,
    PASSING,
    SEPARATOR,
    STANDING,
    STDERR,
    STDOUT,
    SYSTEM,
    LogBatch,
    LogEntry,
    input_of,
    read_mark,
    split_mark,
    unmarked_bytes,
    visible,
)
from squall.protocol.log_batches import BATCH_LINES, next_batch

RATE_BYTES_S = 2 * 2**20
BURST_BYTES = 8 * 2**20
PENDING_BYTES_MAX = 32 * 2**20
ENDS_BYTES_MAX = 8 * 2**20
"""Beside these: the ends of floods of containers that are gone."""
LINE_COST_BYTES = 32
"""What a line counts beside its text: very short ones are not free."""
BATCH_S = 0.02
OVER_S = 1.0
"""How long a flood that goes on is left out before a stretch of it is kept again: better to read than every tenth."""
FLOOD_S = 0.1
"""A flood is over when nothing has come for so long."""
PASSING_S = 0.1
"""How often it is told, at most, what is there of a line that goes on."""
PASSING_BYTES = 1_000
"""Of its end: more than a row of a terminal."""
READ_BYTES = 64 * 1024
PIPE_BYTES = 256 * 1024
_PAUSE_S = 0.004
_DRAIN_BYTES_MAX = 4 * 2**20
_CATCH_UP_READS = PIPE_BYTES // READ_BYTES


@dataclass(slots=True)
class _Pipe:
    """One output of a container."""

    descriptor: int
    source: str
    budget_bytes: float
    budget_at: float
    partial: bytes = b""
    continued_id: str | None = None
    """The input whose over-long line is being cut; None at the beginning of a line."""
    is_open: bool = True
    pause: asyncio.TimerHandle | None = None
    is_over: bool = False
    """Over its rate: nothing is kept until there is room for a while."""
    flood: Flood | None = None
    look: asyncio.TimerHandle | None = None
    """While there is a flood: looks whether it is over."""
    caught_up_at: float = 0.0
    """When a flood was last read to its end for what comes after it."""
    unfinished: Unfinished = field(default_factory=Unfinished)
    telling: asyncio.TimerHandle | None = None


@dataclass(slots=True)
class _Source:
    """One container."""

    container_id: str
    app_id: str
    function_id: str
    pipes: list[_Pipe]
    poll: select.poll = field(default_factory=select.poll)
    """Of its open pipes: says in one call of the kernel that there is nothing to read."""
    has_news: bool = False
    """Lines were added since it was last caught up with."""


class Logs:
    """All containers' outputs. `run` must be awaited by its owner.

    Args:
        now: seconds since 1970.
    """

    def __init__(self, now: Callable[[], float]) -> None:
        self._now = now
        self._sources: dict[str, _Source] = {}
        self._pending: collections.deque[LogEntry] = collections.deque()
        self._pending_bytes = 0
        self._has_pending = asyncio.Event()

    def add(
        self, container_id: str, app_id: str, function_id: str, stdout_fd: int, stderr_fd: int
    ) -> Callable[[], bool]:
        """Read these non-blocking pipes from now on; they are closed at the end, also where that fails.

        Returns:
            What reads all that was printed until now, never waiting; True if there are lines since it was last called.

        Raises:
            OSError: this process, or the machine, can watch no more of them.
        """
        now = time.monotonic()
        pipes = [_Pipe(stdout_fd, STDOUT, BURST_BYTES, now), _Pipe(stderr_fd, STDERR, BURST_BYTES, now)]
        source = _Source(container_id, app_id, function_id, pipes)
        for pipe in pipes:
            # A larger pipe means fewer turns; refused on machines that limit it, which is fine.
            with contextlib.suppress(OSError):
                fcntl.fcntl(pipe.descriptor, fcntl.F_SETPIPE_SZ, PIPE_BYTES)
            source.poll.register(pipe.descriptor, select.POLLIN)
        try:
            for pipe in pipes:
                self._watch(source, pipe)
        except OSError:
            for pipe in pipes:
                self._close(source, pipe)
            raise
        self._sources[container_id] = source
        return functools.partial(self._catch_up, source)

    def say(self, container_id: str, app_id: str, function_id: str, text: str, dropped: int = 0) -> None:
        """Add a line of our own to a container's output, which may stand for some that are left out."""
        self._append(LogEntry(self._now(), SYSTEM, text, container_id, "", app_id, function_id, dropped=dropped))

    def finish(self, container_id: str) -> None:
        """Take what is left in the pipes of a container whose processes are gone, and close them."""
        source = self._sources.pop(container_id, None)
        if source is None:
            return
        for pipe in source.pipes:
            left = _DRAIN_BYTES_MAX
            while pipe.is_open and left > 0 and (count := self._read(source, pipe)) > 0:
                left -= count
            self._end(source, pipe)

    def close(self) -> None:
        """Stop reading. What is in the pipes stays there for the next agent."""
        for source in self._sources.values():
            for pipe in source.pipes:
                self._end_flood(source, pipe)
                self._close(source, pipe)
        self._sources.clear()

    def take(self) -> LogBatch | None:
        """The next lines to send, or None. Never waits."""
        entries = next_batch(self._pending.popleft() for _ in range(len(self._pending)))
        self._pending_bytes -= sum(map(_cost, entries))
        if not self._pending:
            self._has_pending.clear()
        return LogBatch(entries) if entries else None

    async def wait(self) -> None:
        """Return when there is something to take: soon after the first line, at once when there are many."""
        await self._has_pending.wait()
        if len(self._pending) < BATCH_LINES:
            await asyncio.sleep(BATCH_S)

    # Reading

    def _watch(self, source: _Source, pipe: _Pipe) -> None:
        pipe.pause = None
        if pipe.is_open:
            asyncio.get_running_loop().add_reader(pipe.descriptor, self._readable, source, pipe)

    def _readable(self, source: _Source, pipe: _Pipe) -> None:
        count = self._read(source, pipe)
        if not count:
            self._end(source, pipe)
        elif pipe.is_over and pipe.is_open:
            for _ in range(PIPE_BYTES // READ_BYTES - 1):
                if self._read(source, pipe) <= 0:
                    break
            loop = asyncio.get_running_loop()
            loop.remove_reader(pipe.descriptor)
            pipe.pause = loop.call_later(_PAUSE_S, self._watch, source, pipe)

    def _catch_up(self, source: _Source) -> bool:
        has_unread = bool(source.poll.poll(0))
        for pipe in source.pipes:
            if pipe.is_over:
                now = time.monotonic()
                if now - pipe.caught_up_at < FLOOD_S:
                    continue
                pipe.caught_up_at = now
            if has_unread:
                self._read_all(source, pipe)
            if pipe.flood is not None and self._has_room_for_end():
                self._end_flood(source, pipe)
        has_news, source.has_news = source.has_news, False
        return has_news

    def _read_all(self, source: _Source, pipe: _Pipe) -> None:
        for _ in range(_CATCH_UP_READS):
            if not pipe.is_open or (count := self._read(source, pipe)) < 0:
                return
            if count == 0:
                self._end(source, pipe)

    def _read(self, source: _Source, pipe: _Pipe) -> int:
        """Read once: how many bytes, 0 at the end, -1 when there are none now."""
        try:
            chunk = os.read(pipe.descriptor, READ_BYTES)
        except BlockingIOError:
            return -1
        except OSError:
            return 0
        if chunk:
            self._feed(source, pipe, chunk)
        return len(chunk)

    def _feed(self, source: _Source, pipe: _Pipe, chunk: bytes) -> None:
        if self._may_keep(pipe, chunk):
            self._end_flood(source, pipe)
            self._cut(source, pipe, chunk)
            return
        # Not even cut into lines: counting is thirty times cheaper.
        if pipe.flood is None:
            pipe.flood, pipe.partial = Flood(pipe.partial), b""
            pipe.look = asyncio.get_running_loop().call_later(FLOOD_S, self._look_at_flood, source, pipe)
        pipe.flood.add(chunk)

    def _cut(self, source: _Source, pipe: _Pipe, chunk: bytes) -> None:
        *lines, rest = (pipe.partial + chunk).split(b"\n")
        at = self._now()
        for line in lines:
            self._add_line(source, pipe, line, at)
            pipe.continued_id = None
        pipe.partial = self._add_full_pieces(source, pipe, rest, at)

    def _add_line(self, source: _Source, pipe: _Pipe, line: bytes, at: float) -> None:
        unfinished = unmarked_bytes(line) if not pipe.continued_id else 0
        if unfinished:
            # A child process left its last line without an end, and the guest's next one came right behind it.
            last = self._add_full_pieces(source, pipe, line[:unfinished], at)
            self._add_piece(source, pipe, last, at)
            pipe.continued_id, line = None, line[unfinished:]
        mark = read_mark(line) if pipe.continued_id is None else None
        if mark is not None:
            label, goes_on, text = mark
            if goes_on:
                self._add_to_unfinished(source, pipe, label, text, at)
                return
            if pipe.unfinished or b"\r" in text:
                line = MARK + label + SEPARATOR + visible(pipe.unfinished.end(label) + text)
        elif b"\r" in line:
            line = visible(line)
        last = self._add_full_pieces(source, pipe, line, at)
        self._add_piece(source, pipe, last, at)

    def _add_to_unfinished(self, source: _Source, pipe: _Pipe, label: bytes, piece: bytes, at: float) -> None:
        """Of a line that goes on: told in a moment, as it is then."""
        pipe.budget_bytes -= len(piece) + LINE_COST_BYTES
        for ended, text in pipe.unfinished.add(label, piece, time.monotonic()):
            self._add_whole(source, pipe, ended, text, at)
        if pipe.telling is None:
            pipe.telling = asyncio.get_running_loop().call_later(PASSING_S, self._tell_unfinished, source, pipe)

    def _tell_unfinished(self, source: _Source, pipe: _Pipe) -> None:
        pipe.telling = None
        now, due_s = time.monotonic(), STANDING_S
        for label, line in pipe.unfinished:
            text = visible(line.text)
            if not line.is_shown:
                line.is_shown = True
                if self._may_keep(pipe, text[-PASSING_BYTES:]):
                    self._add_entry(source, pipe, input_of(label), text[-PASSING_BYTES:], self._now(), PASSING)
            if not line.is_said and now - line.said_at >= STANDING_S:
                line.is_said, line.said_at = True, now
                if text.strip():
                    self._add_entry(source, pipe, input_of(label), text, self._now(), STANDING)
            if not line.is_said:
                due_s = min(due_s, max(PASSING_S, line.said_at + STANDING_S - now))
        if any(not line.is_said for _, line in pipe.unfinished):
            pipe.telling = asyncio.get_running_loop().call_later(due_s, self._tell_unfinished, source, pipe)

    def _end_unfinished(self, source: _Source, pipe: _Pipe) -> None:
        """No more of these lines will come, or some of it is lost."""
        for label, _ in pipe.unfinished:
            self._add_whole(source, pipe, label, pipe.unfinished.end(label), self._now())

    def _add_whole(self, source: _Source, pipe: _Pipe, label: bytes, text: bytes, at: float) -> None:
        if shown := visible(text):
            self._add_entry(source, pipe, input_of(label), shown, at)

    def _add_full_pieces(self, source: _Source, pipe: _Pipe, line: bytes, at: float) -> bytes:
        """Add what is over the length of one line, in pieces; returns the rest."""
        while len(line) > LINE_BYTES_MAX:
            pipe.continued_id = self._add_piece(source, pipe, line[:LINE_BYTES_MAX], at)
            line = line[LINE_BYTES_MAX:]
        return line

    def _add_piece(self, source: _Source, pipe: _Pipe, piece: bytes, at: float) -> str:
        """Add a line, or the next piece of one; returns the input it belongs to."""
        input_id, text = split_mark(piece) if pipe.continued_id is None else (pipe.continued_id, piece)
        self._add_entry(source, pipe, input_id, text, at)
        return input_id

    def _add_entry(self, source: _Source, pipe: _Pipe, input_id: str, text: bytes, at: float, stage: str = "") -> None:
        shown = text.decode("utf-8", "replace")
        ids = (source.container_id, input_id, source.app_id, source.function_id)
        pipe.budget_bytes -= len(text) + LINE_COST_BYTES
        source.has_news = True
        self._append(LogEntry(at, pipe.source, shown, *ids, stage))

    def _may_keep(self, pipe: _Pipe, chunk: bytes) -> bool:
        """Whether the pipe is within its rate and there is room; fills its budget up for the time that has passed."""
        now = time.monotonic()
        pipe.budget_bytes = min(BURST_BYTES, pipe.budget_bytes + (now - pipe.budget_at) * RATE_BYTES_S)
        pipe.budget_at = now
        room = PENDING_BYTES_MAX - self._pending_bytes
        cost = len(chunk) + (chunk.count(b"\n") + 1) * LINE_COST_BYTES
        if pipe.is_over:
            pipe.is_over = pipe.budget_bytes <= OVER_S * RATE_BYTES_S or room < PENDING_BYTES_MAX / 2
        else:
            pipe.is_over = pipe.budget_bytes <= 0 or room < cost
        return not pipe.is_over

    def _look_at_flood(self, source: _Source, pipe: _Pipe) -> None:
        flood = pipe.flood
        assert flood is not None
        is_over = flood.is_quiet() or flood.is_whole
        if is_over and self._has_room_for_end():
            self._end_flood(source, pipe)
        else:
            pipe.look = asyncio.get_running_loop().call_later(FLOOD_S, self._look_at_flood, source, pipe)

    def _has_room_for_end(self) -> bool:
        return self._pending_bytes + END_BYTES_MAX + END_LINES_MAX * LINE_COST_BYTES <= PENDING_BYTES_MAX

    def _end_flood(self, source: _Source, pipe: _Pipe) -> None:
        flood, pipe.flood = pipe.flood, None
        if flood is None:
            return
        if pipe.look is not None:
            pipe.look.cancel()
            pipe.look = None
        left_out, end = flood.end()
        if self._pending_bytes > PENDING_BYTES_MAX + ENDS_BYTES_MAX:
            left_out, end = left_out + end.count(b"\n") + (end[-1:] not in (b"", b"\n")), b""
        if left_out:
            pipe.continued_id = None
            self._end_unfinished(source, pipe)
            why = f"output came faster than {RATE_BYTES_S // 2**20} MiB a second, or than the server took it"
            text = f"dropped {left_out} line{'s' if left_out > 1 else ''} of {pipe.source} here: {why}"
            self.say(source.container_id, source.app_id, source.function_id, text, left_out)
            source.has_news = True
        self._cut(source, pipe, end)

    def _append(self, entry: LogEntry) -> None:
        self._pending.append(entry)
        self._pending_bytes += _cost(entry)
        self._has_pending.set()

    def _end(self, source: _Source, pipe: _Pipe) -> None:
        self._end_flood(source, pipe)
        if pipe.is_open and (pipe.partial or pipe.continued_id is not None):
            self._add_line(source, pipe, pipe.partial, self._now())
        self._end_unfinished(source, pipe)
        self._close(source, pipe)

    def _close(self, source: _Source, pipe: _Pipe) -> None:
        if pipe.pause is not None:
            pipe.pause.cancel()
        if pipe.telling is not None:
            pipe.telling.cancel()
            pipe.telling = None
        if pipe.is_open:
            pipe.is_open = False
            source.poll.unregister(pipe.descriptor)
            asyncio.get_running_loop().remove_reader(pipe.descriptor)
            os.close(pipe.descriptor)


def _cost(entry: LogEntry) -> int:
    return len(entry.text) + LINE_COST_BYTES
