"""Arguments and results: inline, or in the blob store when they are large.

The blob store is reached through the SDK's client, which is loaded when the first large value comes.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from squall.guest.inbox import Input
from squall.protocol.frames import INLINE_BYTES_MAX
from squall.sdk._serialization import deserialize, serialize


class Values:
    """Unpickles arguments and pickles results; the only place in the guest that does."""

    def __init__(self, get_blob: Callable[[str], bytes], put_blob: Callable[[bytes], str]) -> None:
        self._get_blob = get_blob
        self._put_blob = put_blob

    def arguments(self, item: Input) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """Positional and keyword arguments of an input."""
        data = self._get_blob(item.blob_sha256) if item.blob_sha256 else item.value
        args, kwargs = deserialize(data)
        return args, kwargs

    def result(self, value: Any) -> tuple[bytes, str]:
        """The value as bytes, or empty bytes and the blob that holds it.

        Raises:
            SerializationError: it cannot be pickled.
        """
        data = serialize(value)
        if len(data) <= INLINE_BYTES_MAX:
            return data, ""
        return b"", self._put_blob(data)
