"""Reads what containers print, cuts it into lines and sends them on in batches, within bounds.

A pipe is always read, so user code never waits for its own output. What is bounded instead is what is kept: each
container may send `RATE_BYTES_S` sustained and `BURST_BYTES` at once, and all together wait in at most
`PENDING_BYTES_MAX` for a server that is slow or gone. The rest is dropped, and once a second a line of source `system`
says how many lines that were. While a container is over its rate its pipe is emptied at a bounded pace, so that an
endless loop of prints costs its own processor and not the agent's.

What a container printed before it says something to the server goes to the server before that: `add` returns how to
catch up with its pipes. Within bounds, too: who prints over its rate is not caught up with.
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

from squall.protocol.log import LINE_BYTES_MAX, STDERR, STDOUT, SYSTEM, LogBatch, LogEntry, split_mark, unmarked_bytes

RATE_BYTES_S = 2 * 2**20
BURST_BYTES = 8 * 2**20
PENDING_BYTES_MAX = 32 * 2**20
LINE_COST_BYTES = 32
"""What a line counts beside its text: very short ones are not free."""
BATCH_LINES = 500
BATCH_BYTES = 2**20
BATCH_S = 0.02
DROP_REPORT_S = 1.0
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
    partial: bytes = b""
    continued_id: str | None = None
    """The input whose over-long line is being cut; None at the beginning of a line."""
    is_open: bool = True
    pause: asyncio.TimerHandle | None = None


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
    budget_bytes: float = BURST_BYTES
    budget_at: float = 0.0
    is_over: bool = False
    """Over its rate: nothing is kept until there is room for a while."""
    dropped: int = 0
    """Lines, not yet reported."""
    report: asyncio.TimerHandle | None = None


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
        """Read these non-blocking pipes from now on; they are closed at the end.

        Returns:
            What reads all that was printed until now, never waiting; True if there are lines since it was last called.
        """
        pipes = [_Pipe(stdout_fd, STDOUT), _Pipe(stderr_fd, STDERR)]
        source = _Source(container_id, app_id, function_id, pipes, budget_at=time.monotonic())
        self._sources[container_id] = source
        for pipe in pipes:
            # A larger pipe means fewer turns; refused on machines that limit it, which is fine.
            with contextlib.suppress(OSError):
                fcntl.fcntl(pipe.descriptor, fcntl.F_SETPIPE_SZ, PIPE_BYTES)
            source.poll.register(pipe.descriptor, select.POLLIN)
            self._watch(source, pipe)
        return functools.partial(self._catch_up, source)

    def say(self, container_id: str, app_id: str, function_id: str, text: str) -> None:
        """Add a line of our own to a container's output."""
        self._append(LogEntry(self._now(), SYSTEM, text, container_id, "", app_id, function_id))

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
        self._report_dropped(source)

    def close(self) -> None:
        """Stop reading. What is in the pipes stays there for the next agent."""
        for source in self._sources.values():
            for pipe in source.pipes:
                self._close(source, pipe)
            self._report_dropped(source)
        self._sources.clear()

    def take(self) -> LogBatch | None:
        """The next lines to send, or None. Never waits."""
        entries: list[LogEntry] = []
        size = 0
        while self._pending and len(entries) < BATCH_LINES and size < BATCH_BYTES:
            entry = self._pending.popleft()
            size += _cost(entry)
            entries.append(entry)
        self._pending_bytes -= size
        if not self._pending:
            self._has_pending.clear()
        return LogBatch(tuple(entries)) if entries else None

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
        elif source.is_over and pipe.is_open:
            for _ in range(PIPE_BYTES // READ_BYTES - 1):
                if self._read(source, pipe) <= 0:
                    break
            loop = asyncio.get_running_loop()
            loop.remove_reader(pipe.descriptor)
            pipe.pause = loop.call_later(_PAUSE_S, self._watch, source, pipe)

    def _catch_up(self, source: _Source) -> bool:
        if source.poll.poll(0) and not source.is_over:
            for pipe in source.pipes:
                for _ in range(_CATCH_UP_READS):
                    if not pipe.is_open or (count := self._read(source, pipe)) < 0:
                        break
                    if count == 0:
                        self._end(source, pipe)
        has_news, source.has_news = source.has_news, False
        return has_news

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
        if not self._may_keep(source, len(chunk)):
            # Not even cut into lines: counting is thirty times cheaper.
            count = chunk.count(b"\n")
            tail = chunk[chunk.rfind(b"\n") + 1 :] if count else b""
            pipe.partial, pipe.continued_id = tail[:LINE_BYTES_MAX], (None if count else pipe.continued_id)
            self._drop(source, count)
            return
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
        last = self._add_full_pieces(source, pipe, line, at)
        self._add_piece(source, pipe, last.removesuffix(b"\r"), at)

    def _add_full_pieces(self, source: _Source, pipe: _Pipe, line: bytes, at: float) -> bytes:
        """Add what is over the length of one line, in pieces; returns the rest."""
        while len(line) > LINE_BYTES_MAX:
            pipe.continued_id = self._add_piece(source, pipe, line[:LINE_BYTES_MAX], at)
            line = line[LINE_BYTES_MAX:]
        return line

    def _add_piece(self, source: _Source, pipe: _Pipe, piece: bytes, at: float) -> str:
        """Add a line, or the next piece of one; returns the input it belongs to."""
        input_id, text = split_mark(piece) if pipe.continued_id is None else (pipe.continued_id, piece)
        shown = text.decode("utf-8", "replace")
        entry = LogEntry(at, pipe.source, shown, source.container_id, input_id, source.app_id, source.function_id)
        source.budget_bytes -= len(piece) + LINE_COST_BYTES
        source.has_news = True
        if not self._append(entry):
            self._drop(source, 1)
        return input_id

    def _may_keep(self, source: _Source, count: int) -> bool:
        """Whether the container is within its rate; fills its budget up for the time that has passed."""
        now = time.monotonic()
        source.budget_bytes = min(BURST_BYTES, source.budget_bytes + (now - source.budget_at) * RATE_BYTES_S)
        source.budget_at = now
        # Having dropped, go on only when there is room for a while: a stretch of lines reads better than every tenth.
        source.is_over = source.budget_bytes <= (RATE_BYTES_S / 4 if source.is_over else 0)
        return not source.is_over

    def _append(self, entry: LogEntry) -> bool:
        cost = _cost(entry)
        if self._pending_bytes + cost > PENDING_BYTES_MAX and entry.source != SYSTEM:
            return False
        self._pending.append(entry)
        self._pending_bytes += cost
        self._has_pending.set()
        return True

    def _drop(self, source: _Source, count: int) -> None:
        source.dropped += count
        if source.report is None and count:
            source.report = asyncio.get_running_loop().call_later(DROP_REPORT_S, self._report_dropped, source)

    def _report_dropped(self, source: _Source) -> None:
        if source.report is not None:
            source.report.cancel()
            source.report = None
        if source.dropped:
            rate = f"{RATE_BYTES_S // 2**20} MiB a second"
            text = f"dropped {source.dropped} lines: output came faster than {rate}, or than the server took it"
            source.dropped = 0
            self.say(source.container_id, source.app_id, source.function_id, text)

    def _end(self, source: _Source, pipe: _Pipe) -> None:
        if pipe.is_open and (pipe.partial or pipe.continued_id is not None):
            self._add_line(source, pipe, pipe.partial, self._now())
        self._close(source, pipe)

    def _close(self, source: _Source, pipe: _Pipe) -> None:
        if pipe.pause is not None:
            pipe.pause.cancel()
        if pipe.is_open:
            pipe.is_open = False
            source.poll.unregister(pipe.descriptor)
            asyncio.get_running_loop().remove_reader(pipe.descriptor)
            os.close(pipe.descriptor)


def _cost(entry: LogEntry) -> int:
    return len(entry.text) + LINE_COST_BYTES
