"""Runs a program of this machine that makes part of an image: its output by line, and an end in any case."""

from __future__ import annotations

import collections
import errno
import os
import resource
import select
import signal
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from squall.agent.image.hidden import Hidden
from squall.agent.image.lines import Lines
from squall.agent.image.machine.write_limit import WriteLimit

PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
"""The system's own tools: some start others by name, and those of a version manager may come first elsewhere."""
WITH_PARENT = ("setpriv", "--pdeathsig=KILL")
"""In front of a command, it ends with the process that started it."""
_TAIL_LINES = 40
_LINE_CHARS_MAX = 500
_POLL_S = 0.2
_CHUNK_BYTES = 65_536
_TOO_LARGE = os.strerror(errno.EFBIG).lower()


@dataclass(frozen=True, slots=True)
class Output:
    """Where lines go, and word of whether anybody still wants them."""

    on_line: Callable[[str], None] = lambda line: None
    is_cancelled: Callable[[], bool] = lambda: False
    hidden: Hidden = field(default_factory=Hidden)
    """Left out of every line, and of the last ones in an error."""


@dataclass(frozen=True, slots=True)
class Watch:
    """How long a program may take, and to say nothing, before it is stopped."""

    timeout_s: float | None
    """None: whoever wants the result says when it has taken too long (`Output.is_cancelled`)."""
    first_line_s: float | None = None
    """None: it may be silent for as long as it runs."""
    stall_s: float | None = None
    """After the first line. None: for as long as it runs."""
    progress: Callable[[], int] = lambda: 0
    """Grows while it works without a word, such as the size of what it writes."""
    counts_io: bool = False
    """Whatever it reads or writes, a network included, is progress as well."""
    limit: WriteLimit | None = None
    """None: it may write what it likes."""


@dataclass(slots=True)
class ToolFailed(Exception):
    """A program ended badly or was stopped."""

    reason: str
    """Why it was stopped; empty when it ended by itself."""
    tail: str
    """Its last lines."""
    is_silent: bool = field(default=False)
    """It was stopped before its first line."""

    def __str__(self) -> str:
        return "\n".join(filter(None, (self.reason, self.tail)))


def run_tool(
    argv: Sequence[str], environ: Mapping[str, str], output: Output, watch: Watch, keep_fds: Sequence[int] = ()
) -> None:
    """Run a program to its end and pass on what it prints. Blocks.

    Raises:
        ToolFailed: it did not end well, took too long, or nobody wants it any more. It has ended then.
        WroteTooMuch: so it did; the same.
    """
    process = subprocess.Popen(
        argv,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        env=dict(environ),
        pass_fds=tuple(keep_fds),
    )
    assert process.stdout is not None
    lines = _Lines(output)
    try:
        if watch.limit is not None:
            # From outside: what is done between fork and exec of a process with threads is not safe.
            resource.prlimit(process.pid, resource.RLIMIT_FSIZE, (watch.limit.bytes_max,) * 2)
        reason = _follow(process, lines, output, watch)
        is_well = not reason and process.wait() == 0
        if watch.limit is not None:
            # It may have been quicker than a look, and may have removed what the kernel let it write.
            is_refused = process.returncode == -signal.SIGXFSZ or _TOO_LARGE in lines.tail().lower()
            watch.limit.check(is_refused=is_refused and not is_well)
        if is_well:
            return
        raise ToolFailed(reason, lines.tail(), bool(reason) and not lines.count)
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


def _follow(process: subprocess.Popen[bytes], lines: _Lines, output: Output, watch: Watch) -> str:
    """Read until the end; why it has to be stopped before, or an empty text."""
    assert process.stdout is not None
    descriptor = process.stdout.fileno()
    started = alive = checked = time.monotonic()
    size = 0
    while True:
        is_readable = bool(select.select([descriptor], [], [], _POLL_S)[0])
        if is_readable:
            chunk = os.read(descriptor, _CHUNK_BYTES)
            lines.feed(chunk)
            if not chunk:
                return ""
        now = time.monotonic()
        grown = watch.progress() + (_io_bytes(process.pid) if watch.counts_io else 0)
        if is_readable or grown != size:
            alive, size = now, grown
        if watch.limit is not None and now - checked >= _POLL_S:
            watch.limit.check()
            checked = now
        if output.is_cancelled():
            return "cancelled"
        if watch.timeout_s is not None and now - started > watch.timeout_s:
            return f"stopped after {watch.timeout_s:.0f} s"
        if not lines.count and watch.first_line_s is not None and now - started > watch.first_line_s:
            return f"no answer within {watch.first_line_s:g} s"
        if lines.count and watch.stall_s is not None and now - alive > watch.stall_s:
            return f"no progress for {watch.stall_s:g} s"


def _io_bytes(pid: int) -> int:
    """What a process has read and written so far, by whatever descriptors."""
    try:
        with open(f"/proc/{pid}/io") as file:
            counts = dict(line.split(": ") for line in file.read().splitlines())
    except OSError:
        # It has just ended.
        return 0
    return int(counts["rchar"]) + int(counts["wchar"])


class _Lines:
    """Passes lines on and keeps the last ones."""

    def __init__(self, output: Output) -> None:
        self._output = output
        self._lines = Lines(self._add, _LINE_CHARS_MAX, output.hidden)
        self._tail: collections.deque[str] = collections.deque(maxlen=_TAIL_LINES)
        self.count = 0

    def feed(self, chunk: bytes) -> None:
        if chunk:
            self._lines.feed(chunk)
        else:
            self._lines.end()

    def _add(self, line: str) -> None:
        self.count += 1
        self._tail.append(line.rstrip())
        self._output.on_line(self._tail[-1])

    def tail(self) -> str:
        return "\n".join(self._tail)
