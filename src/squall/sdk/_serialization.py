"""Values as bytes and back. Only a user's own processes do this: clients and the guests of their containers.

Plain pickle first: it is quick and does not load cloudpickle. What it refuses (lambdas, closures) and what it would
name wrongly (anything of `__main__`) goes through cloudpickle.

A script run as `python script.py` is the module `__main__` here and the module `script` in its containers. Its classes
and functions travel by that name (`ship_main_as`), so that `isinstance` holds on both sides.
"""

from __future__ import annotations

import importlib
import io
import pickle
import sys
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from squall.exception import DeserializationError, SerializationError
from squall.protocol.frames import INLINE_BYTES_MAX
from squall.sdk._pieces import PieceReader, PieceWriter, is_large

if TYPE_CHECKING:
    from squall.protocol.call import TraceFrame

PROTOCOL = 5
REPR_CHARS_MAX = 100_000
EXCEPTION_BYTES_MAX = 16 * 2**20
"""Of a pickled exception; one that is larger is told by its name, its text and its frames."""
LINE_CHARS_MAX = 1_000

_main_name = ""


def ship_main_as(module_name: str) -> None:
    """The script this process runs is known to its containers as this module."""
    global _main_name
    _main_name = module_name


def serialize(value: Any) -> bytes:
    """Pickle a value.

    Raises:
        SerializationError: it cannot be pickled; the message says what and why.
    """
    try:
        data = pickle.dumps(value, PROTOCOL)
    except (pickle.PicklingError, AttributeError, TypeError):
        return _serialize_anything(value)
    except Exception as error:
        raise SerializationError(_refusal(value, error)) from error
    return _serialize_anything(value) if b"__main__" in data else data


def serialize_pieces(value: Any, parts: Iterable[Any]) -> list[bytes]:
    """As `serialize`, but in pieces: those of its `parts` that are large are not copied.

    Raises:
        SerializationError: as there.
    """
    if not any(map(is_large, parts)):
        return [serialize(value)]
    writer = PieceWriter()
    try:
        pickle.Pickler(writer, PROTOCOL).dump(value)
    except (pickle.PicklingError, AttributeError, TypeError):
        return [_serialize_anything(value)]
    except Exception as error:
        raise SerializationError(_refusal(value, error)) from error
    # Names are in the small pieces; the large ones are a value's own bytes.
    if any(b"__main__" in piece for piece in writer.pieces if len(piece) <= INLINE_BYTES_MAX):
        return [_serialize_anything(value)]
    return writer.pieces


def _serialize_anything(value: Any) -> bytes:
    import cloudpickle  # cold start: plain values do not need it

    class Pickler(cloudpickle.Pickler):  # type: ignore[misc]
        def reducer_override(self, found: Any) -> Any:
            name = _name_in_main(found)
            if name:
                return _from_module, (_main_name, name)
            return super().reducer_override(found)

    buffer = io.BytesIO()
    try:
        Pickler(buffer, protocol=PROTOCOL).dump(value)
    except Exception as error:
        raise SerializationError(_refusal(value, error)) from error
    return buffer.getvalue()


def _name_in_main(found: Any) -> str:
    """How a class or function of the script is called there, or empty: not of the script, or not at its top level."""
    if not _main_name or getattr(found, "__module__", None) != "__main__":
        return ""
    if not isinstance(found, type) and not hasattr(found, "__code__"):
        return ""
    name = getattr(found, "__qualname__", "")
    return name if name and _lookup(sys.modules["__main__"], name) is found else ""


def _lookup(module: Any, qualname: str) -> Any:
    found = module
    for part in qualname.split("."):
        found = getattr(found, part, None)
    return getattr(found, "raw_f", found)


def _from_module(module_name: str, qualname: str) -> Any:
    """Called by unpickling: the class or function of that name."""
    if module_name == _main_name:
        return _lookup(sys.modules["__main__"], qualname)
    return _lookup(importlib.import_module(module_name), qualname)


def _refusal(value: Any, error: Exception) -> str:
    kind = type(value).__name__
    if isinstance(value, tuple) and len(value) == 2 and isinstance(value[1], dict):
        kind = "arguments (" + ", ".join(type(one).__name__ for one in (*value[0], *value[1].values())) + ")"
    return f"cannot pickle {kind}: {error}; pass plain data, and open files, sockets and locks inside the function"


class _Unpickler(pickle.Unpickler):
    """Finds what containers name as the script's module in `__main__`, where it is here."""

    def find_class(self, module_name: str, name: str) -> Any:
        if module_name == _main_name:
            module_name = "__main__"
        return super().find_class(module_name, name)


def deserialize(data: bytes | bytearray | memoryview | list[bytes]) -> Any:
    """The value that was pickled, whole or in pieces; their list is empty afterwards.

    Raises:
        DeserializationError: it cannot be read here; the message says which module is missing, if that is it.
    """
    try:
        if isinstance(data, list):
            return (_Unpickler if _main_name else pickle.Unpickler)(PieceReader(data)).load()
        if _main_name:
            return _Unpickler(io.BytesIO(data)).load()
        return pickle.loads(data)
    except (KeyboardInterrupt, SystemExit):
        raise
    except ModuleNotFoundError as error:
        raise DeserializationError(
            f"cannot read a value: it needs the module {error.name!r}, which is not installed here ({_here()}, "
            f"{sys.executable}): install it here too, or pass plain values, such as float(x)"
        ) from error
    except Exception as error:
        raise DeserializationError(
            f"cannot read a value: {type(error).__name__}: {error} ({_here()}); "
            "both sides need the same classes, and for serialized functions the same Python series"
        ) from error


def _here() -> str:
    return f"Python {sys.version_info[0]}.{sys.version_info[1]}"


# Exceptions


def encode_exception(error: BaseException, container_id: str = "", skip_until: str = "") -> bytes:
    """What user code raised, as the value of an output: a `Failure` and, if possible and not too large, the exception
    itself."""
    from squall.protocol.call import Failure, encode_failure  # cold start: only when something failed
    from squall.sdk._traceback import format_for_user  # cold start: as above

    frames = trace_frames(error, skip_until)
    failure = Failure(
        kind="unserializable" if isinstance(error, (SerializationError, DeserializationError)) else "user",
        message=_text(error),
        type_name=type(error).__name__,
        traceback=trimmed(format_for_user(error)),
        frames=frames,
        container_id=container_id,
    )
    pickled = _pickled_exception(error)
    return encode_failure(failure, pickled if len(pickled) <= EXCEPTION_BYTES_MAX else b"")


def trace_frames(error: BaseException, skip_until: str = "") -> tuple[TraceFrame, ...]:
    """The frames of the error's traceback from user code on, without ours, which are nobody's business.

    With `skip_until`, user code is what lies below that directory; if nothing does, all frames that are not ours.
    """
    import traceback  # cold start: only when something failed

    from squall.protocol.call import TraceFrame  # cold start: as above
    from squall.sdk._traceback import is_ours, shorten, user_frames  # cold start: as above

    shorten(error)
    found = list(traceback.extract_tb(error.__traceback__))
    below = [number for number, frame in enumerate(found) if skip_until and frame.filename.startswith(skip_until)]
    # From the first frame below that directory on nothing but ours is left out.
    found = [frame for frame in found[below[0] :] if not is_ours(frame.filename)] if below else user_frames(found)
    return tuple(
        TraceFrame(frame.filename, frame.lineno or 0, frame.name, (frame.line or "")[:LINE_CHARS_MAX])
        for frame in found
    )


def _text(error: BaseException) -> str:
    try:
        return trimmed(str(error))
    except Exception as broken:  # noqa: BLE001 - a user's __str__ may do anything
        return f"<its __str__ raised {type(broken).__name__}>"


def trimmed(text: str) -> str:
    """The beginning and the end of a text that is too long to be sent with a failure."""
    if len(text) <= REPR_CHARS_MAX:
        return text
    half = REPR_CHARS_MAX // 2
    return f"{text[:half]}\n… {len(text) - REPR_CHARS_MAX} characters left out …\n{text[-half:]}"


def _pickled_exception(error: BaseException) -> bytes:
    """The exception and, each pickled apart, what caused it; empty if the exception itself cannot be read again.

    Apart, because a cause is often of a package that only the image has: the exception itself must not be lost with it.
    """
    data = _readable_pickle(error)
    if not data:
        return b""
    chain = [b"" if one is None else _readable_pickle(one) for one in (error.__cause__, error.__context__)]
    return serialize((data, *chain, error.__suppress_context__))


def _readable_pickle(error: BaseException) -> bytes:
    """The exception in the first form that can be read again; empty if there is none."""
    # Many classes of exceptions pickle but do not unpickle, because their __init__ wants other arguments.
    for form in (error, _Rebuilt(error)):
        try:
            data = serialize(form)
            if type(deserialize(data)).__name__ == type(error).__name__:
                return data
        except Exception:  # noqa: BLE001 - then the next form, and in the end the failure's text alone
            continue
    return b""


def read_exception(data: bytes) -> BaseException:
    """The exception in the value of a failed output, with what caused it.

    Raises:
        DeserializationError: its class is not here.
    """
    pickled, cause, context, is_context_hidden = deserialize(data)
    error = deserialize(pickled)
    if not isinstance(error, BaseException):
        raise DeserializationError("its class could not be read here")
    error.__cause__, error.__context__ = _read_cause(cause), _read_cause(context)
    error.__suppress_context__ = is_context_hidden
    return error


def _read_cause(data: bytes) -> BaseException | None:
    if not data:
        return None
    try:
        found = deserialize(data)
    except DeserializationError as error:
        return error  # says which module is missing
    return found if isinstance(found, BaseException) else None


class _Rebuilt:
    """Pickles an exception without calling its `__init__` on the other side."""

    def __init__(self, error: BaseException) -> None:
        self._error = error

    def __reduce__(self) -> Any:
        error = self._error
        return _rebuild, (type(error), error.args, dict(error.__dict__))


def _rebuild(kind: type[BaseException], args: tuple[Any, ...], attributes: dict[str, Any]) -> BaseException:
    error = kind.__new__(kind, *args)
    error.args = args
    error.__dict__.update(attributes)
    return error


def failure_as_value(value: bytes) -> BaseException:
    """What a failed output says, for who wants it in the place of a result: SystemExit, too, ends nothing here."""
    from squall.sdk._failure import to_exception  # cold start: only when something failed

    return to_exception(value)


def raise_failure(value: bytes) -> None:
    """Raise what a failed output says. Does not return.

    Raises:
        BaseException: the user's exception, or the one of `squall.exception` that the kind of failure stands for.
    """
    from squall.sdk._failure import to_exception  # cold start: only when something failed
    from squall.sdk._pending import StopRaised  # cold start: as above

    error = to_exception(value)
    if isinstance(error, StopIteration):
        raise StopRaised(error)
    raise error
