"""Tracebacks as users read them: their own frames and remote ones, none of Squall or of what it is made of."""

from __future__ import annotations

import os
import sys
import traceback
import types
from collections.abc import Callable, Iterable

from squall.exception import Error

_OURS = os.path.dirname(os.path.dirname(os.path.abspath(__file__))) + os.sep
_STDLIB = os.path.dirname(os.path.abspath(os.__file__)) + os.sep
# Between a call of ours and user code: the ways of our calls.
_PLUMBING_STDLIB = ("asyncio", "concurrent", "contextlib.py", "importlib", "pickle.py", "runpy.py", "threading.py")
_PLUMBING_PACKAGES = ("/site-packages/click/", "/cloudpickle/cloudpickle.py")


REMOTE_FILE = "<ct-"
"""Names of files of remote frames begin with their container's id."""
FRAMES_KEPT = 100
"""Of a longer traceback: so many at its beginning, and so many at its end."""
CAUSES_MAX = 100
"""Of one error, those of its causes counted."""


def is_ours(file_name: str) -> bool:
    """Whether a frame of this file is one of Squall's own."""
    return file_name.startswith(_OURS)


def _is_plumbing(file_name: str) -> bool:
    if file_name.startswith("<frozen "):
        return True
    if file_name.startswith(_STDLIB):
        return file_name[len(_STDLIB) :].startswith(_PLUMBING_STDLIB)
    return any(part in file_name for part in _PLUMBING_PACKAGES)


def user_frames(frames: Iterable[traceback.FrameSummary]) -> list[traceback.FrameSummary]:
    """Without our frames, wherever they are, and what they call to get to user code."""
    kept = []
    is_below_ours = True
    for frame in frames:
        if is_ours(frame.filename):
            is_below_ours = True
        elif not (is_below_ours and _is_plumbing(frame.filename)):
            is_below_ours = False
            kept.append(frame)
    return kept


def has_user_frames(error: BaseException) -> bool:
    """Whether user code was under way when it was raised."""
    shorten(error)
    return bool(user_frames(traceback.extract_tb(error.__traceback__)))


def is_remote(error: BaseException) -> bool:
    """Whether it was raised in a container, and again here."""
    return any(frame.f_code.co_filename.startswith(REMOTE_FILE) for frame, _ in traceback.walk_tb(error.__traceback__))


def for_user_code(error: BaseException) -> BaseException:
    """The error, to be raised to user code without the frames of ours that are in its traceback.

    Of what was raised in a container, is an error of ours or a Ctrl-C: with anything else the frames may say what is
    wrong here. All stay with SQUALL_TRACEBACK.
    """
    if os.environ.get("SQUALL_TRACEBACK") or not (isinstance(error, (Error, KeyboardInterrupt)) or is_remote(error)):
        return error
    entries: list[types.TracebackType] = []
    trace, is_below_ours = error.__traceback__, True
    while trace is not None:
        file_name = trace.tb_frame.f_code.co_filename
        if is_ours(file_name):
            is_below_ours = True
        elif not (is_below_ours and _is_plumbing(file_name)):
            is_below_ours = False
            entries.append(trace)
        trace = trace.tb_next
    chain: types.TracebackType | None = None
    for entry in reversed(entries):
        chain = types.TracebackType(chain, entry.tb_frame, entry.tb_lasti, entry.tb_lineno)
    return error.with_traceback(chain)


def shorten(error: BaseException) -> None:
    """Leave the first and the last frames of tracebacks without end, and as many causes, with a line for the others.

    A recursion may be a million frames deep: reading them takes minutes, and nobody does.
    """
    seen: set[int] = set()
    left: list[BaseException | None] = [error]
    while left:
        one = left.pop()
        if one is None or id(one) in seen:
            continue
        seen.add(id(one))
        if one.__traceback__ is not None:
            one.__traceback__ = _shortened(one.__traceback__)
        if len(seen) >= CAUSES_MAX:
            one.__cause__ = one.__context__ = None
            continue
        left += (one.__cause__, one.__context__, *(getattr(one, "exceptions", None) or ()))


def _shortened(trace: types.TracebackType) -> types.TracebackType:
    entries: list[types.TracebackType] = []
    last: types.TracebackType | None = trace
    while last is not None:
        entries.append(last)
        last = last.tb_next
    left_out = len(entries) - 2 * FRAMES_KEPT
    # Of one that is shortened already, the line for the others is not one of them.
    if left_out <= 1:
        return trace
    gap = frame_of("<left out>", f"<{left_out} frames left out>", 1)
    chain = types.TracebackType(entries[-FRAMES_KEPT], gap, -1, 1)
    for entry in reversed(entries[:FRAMES_KEPT]):
        chain = types.TracebackType(chain, entry.tb_frame, entry.tb_lasti, entry.tb_lineno)
    return chain


def frame_of(file_name: str, function_name: str, line: int) -> types.FrameType:
    """A frame to be shown, of code that is not here."""
    code = compile("raise LookupError", file_name, "exec").replace(co_name=function_name, co_firstlineno=line)
    try:
        exec(code, {"__name__": "remote", "__builtins__": __builtins__})
    except LookupError as error:
        trace = error.__traceback__
        while trace is not None and trace.tb_next is not None:
            trace = trace.tb_next
        assert trace is not None
        return trace.tb_frame
    raise AssertionError("the code raises")


def format_for_user(error: BaseException, has_shown: Callable[[str, list[str]], bool] | None = None) -> str:
    """The error, and what it came from, as Python prints them, with the frames of user code.

    Args:
        has_shown: whether lines of a container, others between them, are before the reader's eyes already; then one
            line stands for the frames of the container where the error was raised.
    """
    shorten(error)
    shown = traceback.TracebackException(type(error), error, error.__traceback__)
    _reduce(shown)
    stands_for = _leave_out_shown(error, shown, has_shown) if has_shown is not None else ("", "")
    text = "".join(shown.format()).replace(*stands_for) if stands_for[0] else "".join(shown.format())
    if sys.version_info < (3, 11):
        text += "".join(f"{note}\n" for note in getattr(error, "__notes__", ()))
    return text


def _reduce(shown: traceback.TracebackException) -> None:
    """Take our frames out of it and of its causes; a cause that happened in our code alone goes with them."""
    frames = user_frames(shown.stack)
    # None: then there is no heading either.
    shown.stack = traceback.StackSummary.from_list(frames) if frames else None  # type: ignore[assignment]
    if shown.__cause__ is not None and _is_internal(shown.__cause__):
        shown.__cause__, shown.__suppress_context__ = None, True
    if shown.__context__ is not None and _is_internal(shown.__context__):
        shown.__context__ = None
    for other in (shown.__cause__, shown.__context__, *(getattr(shown, "exceptions", None) or ())):
        if other is not None and other.stack is not None:
            _reduce(other)


def _leave_out_shown(
    error: BaseException, shown: traceback.TracebackException, has_shown: Callable[[str, list[str]], bool]
) -> tuple[str, str]:
    """Replace the frames of a container by one, if they have been shown; how that is printed, and what is to be."""
    frames = list(shown.stack or ())
    remote = [frame for frame in frames if frame.filename.startswith(REMOTE_FILE)]
    if not remote or frames[-len(remote) :] != remote:
        return "", ""
    container_id = remote[-1].filename[1:].partition(">:")[0]
    lines = [f'  File "{frame.filename.partition(">:")[2]}", line {frame.lineno}, in {frame.name}' for frame in remote]
    if not isinstance(error, Error):  # whose text stands for the one that the container raised
        lines += "".join(shown.format_exception_only()).splitlines()
    if not has_shown(container_id, lines):
        return "", ""
    frame = traceback.FrameSummary("<shown>", 1, container_id, line="")
    shown.stack = traceback.StackSummary.from_list([*frames[: -len(remote)], frame])
    return f'  File "<shown>", line 1, in {container_id}\n', f"  … in container {container_id}, shown above\n"


def _is_internal(shown: traceback.TracebackException) -> bool:
    # One without any frames came over the wire as a user's cause.
    return bool(shown.stack) and not user_frames(shown.stack)
