"""Arguments and results: inline, or in the blob store when they are large.

The blob store is reached through the SDK's client, which is loaded when the first large value comes.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from squall.exception import InvalidError, SerializationError
from squall.guest.inbox import Input
from squall.protocol.frames import INLINE_BYTES_MAX
from squall.sdk import _container
from squall.sdk._pieces import checked_size
from squall.sdk._serialization import deserialize, serialize_pieces


class Values:
    """Unpickles arguments and pickles results; the only place in the guest that does."""

    def __init__(self, get_blob: Callable[[str], list[bytes]], put_blob: Callable[[list[bytes]], str]) -> None:
        self._get_blob = get_blob
        self._put_blob = put_blob

    def arguments(self, item: Input) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """Positional and keyword arguments of an input."""
        args, kwargs = deserialize(self._get_blob(item.blob_sha256) if item.blob_sha256 else item.value)
        return args, kwargs

    def result(self, value: Any) -> tuple[bytes, str]:
        """The value as bytes, or empty bytes and the blob that holds it.

        Raises:
            SerializationError: it cannot be pickled.
            InvalidError: it is too large, or a generator, of a function that is not known to be one.
        """
        try:
            pieces = serialize_pieces(value, value if type(value) is tuple else (value,))
        except SerializationError as error:
            if hasattr(value, "__next__") or hasattr(value, "__anext__"):
                raise InvalidError(
                    "the function returned a generator, which cannot travel as a value: decorate it with "
                    "@app.function(is_generator=True) and call .remote_gen(), or return a list"
                ) from error
            state = _container.current()
            where = f"function {state.boot.function_name}: a" if state is not None else "a"
            from squall.sdk._traceback import has_user_frames  # cold start: only when something failed

            # Tracebacks of pickle's would hide the one line that counts; that of the user's __reduce__ is the line.
            cause = error.__cause__
            is_users = cause is not None and has_user_frames(cause)
            raise SerializationError(
                f"{where} result of type {type(value).__name__} cannot be pickled: {cause or error}; "
                "return plain data, such as numbers, text, lists and dicts"
            ) from (cause if is_users else None)
        if checked_size(pieces, "the function's result") <= INLINE_BYTES_MAX:
            return b"".join(pieces), ""
        return b"", self._put_blob(pieces)
