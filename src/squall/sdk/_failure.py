"""Failures as exceptions: the user's own with its remote frames, or the one of ours that says what happened.

Remote frames are printable where the source is not: each gets a code object of its name and place, under the file
name `<ct-…>:file`, and its source line goes into `linecache`.
"""

from __future__ import annotations

import linecache
import types
from collections.abc import Sequence

from squall.exception import (
    ConflictError,
    DeserializationError,
    Error,
    ExecutionError,
    FunctionTimeoutError,
    ImageBuildError,
    InternalFailure,
    InvalidError,
    NotFoundError,
    RemoteError,
    ResourceExhaustedError,
    SerializationError,
    ServiceError,
)
from squall.protocol.call import Failure, TraceFrame, decode_failure
from squall.sdk._refusals import in_words
from squall.sdk._serialization import read_exception
from squall.sdk._traceback import frame_of

_KINDS: dict[str, type[Error]] = {
    "import": ExecutionError,
    "unserializable": SerializationError,
    "timed_out": FunctionTimeoutError,
    "startup_timed_out": FunctionTimeoutError,
    "cancelled": RemoteError,
    "crashed": RemoteError,
    "oom": RemoteError,
    "disk": RemoteError,
    "lost": InternalFailure,
    "exhausted": ResourceExhaustedError,
    "stopped": ConflictError,
    "image": ImageBuildError,
    "invalid": InvalidError,
    "not_found": NotFoundError,
    "unavailable": ServiceError,
}
_LINE_MAX = 100_000


def is_unknown(value: bytes) -> bool:
    """Whether a failed output says that there is no such function; what the function itself did not find is another
    kind."""
    try:
        return decode_failure(value)[0].kind == "not_found"
    except ValueError:
        return False


def to_exception(value: bytes) -> BaseException:
    """The exception that a failed output stands for, with the remote frames in its traceback."""
    try:
        failure, pickled = decode_failure(value)
    except ValueError as error:
        return RemoteError(f"the input failed, and its failure cannot be read: {error}")
    if failure.kind in ("user", "unserializable") and pickled:
        found = _loaded(failure, pickled)
    elif failure.kind == "user":
        found = RemoteError(_described(failure, "it could not be pickled"))
    else:
        found = _KINDS.get(failure.kind, RemoteError)(_message(failure))
    return found.with_traceback(_traceback(failure.frames, failure.container_id))


def _loaded(failure: Failure, pickled: bytes) -> BaseException:
    try:
        found = read_exception(pickled)
    except DeserializationError as error:
        return ExecutionError(_described(failure, str(error)))
    if isinstance(found, ModuleNotFoundError):
        from squall.sdk._own_module import note_own  # cold start: only where a module is missing

        note_own(found)
    return found


def _described(failure: Failure, why: str) -> str:
    text = f"{failure.type_name}: {failure.message}"
    remote = f"\n\nTraceback in the container:\n{failure.traceback}" if failure.traceback else ""
    return f"{text} (not raised as {failure.type_name} itself: {why}){remote}"


def _message(failure: Failure) -> str:
    where = f" (container {failure.container_id})" if failure.container_id else ""
    # Its frames are in the traceback of the exception; the text is for what has none, such as a syntax error.
    is_shown = failure.frames or failure.traceback in failure.message
    remote = "" if is_shown else f"\n\n{failure.traceback}"
    message = failure.message
    if failure.kind == "import" and failure.type_name == "ModuleNotFoundError":
        from squall.sdk._own_module import with_own_advice  # cold start: only where a module is missing

        message = with_own_advice(message)
    return f"{in_words(message) or failure.kind}{where}{remote}"


def _traceback(frames: Sequence[TraceFrame], container_id: str) -> types.TracebackType | None:
    chain: types.TracebackType | None = None
    for frame in reversed(frames):
        name = f"<{container_id or 'container'}>:{frame.file}"
        _remember_line(name, frame.line, frame.text)
        # An instruction index of -1: there are no columns to point at, so none are printed.
        chain = types.TracebackType(chain, frame_of(name, frame.name, max(1, frame.line)), -1, max(1, frame.line))
    return chain


def _remember_line(file_name: str, line: int, text: str) -> None:
    if not text or not 0 < line < _LINE_MAX:
        return
    entry = linecache.cache.get(file_name)
    lines = list(entry[2]) if entry is not None and len(entry) == 4 else []
    lines += ["\n"] * (line - len(lines))
    lines[line - 1] = text.rstrip("\n") + "\n"
    # No modification time: `checkcache` then leaves the entry alone.
    linecache.cache[file_name] = (len(lines), None, lines, file_name)
