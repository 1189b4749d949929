"""Does one job in several processes, where one interpreter would leave processors idle."""

from __future__ import annotations

import contextlib
import errno
import os
import signal
import sys
from collections.abc import Iterator, Sequence

from squall.erofs.errors import BadImage, PackError

_ANSWER_BYTES_MAX = 64 * 1024


def run_parts(parts: Sequence[Iterator[None]]) -> None:
    """Exhaust all iterators, the first here and each other in a fork of this process; return when all are done.

    For a program of one thread. A fork that finds its parent gone, between two items, ends too.

    Raises:
        PackError, BadImage, OSError: what one of them raised; the others are stopped.
        ChildProcessError: one was killed.
    """
    forks: dict[int, int] = {}
    """Process ids, and where each writes what failed."""
    try:
        for part in parts[1:]:
            pid, answer = _fork(part)
            forks[pid] = answer
        for _ in parts[0]:
            pass
        while forks:
            _finish(*forks.popitem())
    finally:
        for pid, answer in forks.items():
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
            os.close(answer)


def _fork(part: Iterator[None]) -> tuple[int, int]:
    answer, say = os.pipe()
    parent = os.getpid()
    pid = os.fork()
    if pid:
        os.close(say)
        return pid, answer
    try:
        for _ in part:
            if os.getppid() != parent:
                os._exit(1)
        os._exit(0)
    except (PackError, BadImage) as error:
        _say(say, type(error).__name__, str(error))
    except OSError as error:
        place = "" if error.filename is None else os.fsdecode(error.filename)
        _say(say, "OSError", error.strerror or str(error), error.errno or errno.EIO, place)
    except BaseException:  # noqa: BLE001 - a mistake of ours is told as one, and its status says the rest
        sys.excepthook(*sys.exc_info())
    finally:
        # Nothing of the parent's is run to its end here.
        os._exit(1)


def _say(say: int, kind: str, text: str, number: int = 0, place: str = "") -> None:
    os.write(say, "\0".join((kind, str(number), place, text)).encode(errors="surrogateescape")[:_ANSWER_BYTES_MAX])


def _finish(pid: int, answer: int) -> None:
    """Wait for a fork, and raise what it raised."""
    with contextlib.closing(os.fdopen(answer, "rb")) as said:
        kind, *rest = said.read().decode(errors="surrogateescape").split("\0", 3)
    _, status = os.waitpid(pid, 0)
    code = os.waitstatus_to_exitcode(status)
    if rest:
        number, place, text = rest
        if kind == "OSError":
            raise OSError(int(number), text, place or None)
        raise (BadImage if kind == "BadImage" else PackError)(text)
    if code:
        raise ChildProcessError(f"a process of it ended with {f'signal {-code}' if code < 0 else f'status {code}'}")
