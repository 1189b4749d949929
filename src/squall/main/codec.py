"""The fast codec that server and agent are given: the bytes of `protocol.codec.JsonCodec`, by msgspec.

It decodes straight into records and is strict where the standard library's is lenient: a wrong type is an error that
names its place. Guests and clients in images use the other; tests/main/test_codec.py holds the two interchangeable.
"""

from __future__ import annotations

from typing import Any, TypeVar

import msgspec

from squall.protocol.codec import Envelope

R = TypeVar("R")


_NULL = msgspec.Raw(b"null")


class _Header(msgspec.Struct, omit_defaults=True, gc=False):
    """An envelope with its parameters still in bytes."""

    k: str
    i: int = 0
    m: str = ""
    n: int = 0
    p: msgspec.Raw = _NULL


class MsgspecCodec:
    """See `protocol.codec.Codec`."""

    def __init__(self) -> None:
        self._encoder = msgspec.json.Encoder()
        self._headers = msgspec.json.Decoder(_Header)
        self._decoders: dict[type[Any], msgspec.json.Decoder[Any]] = {}

    def encode(self, kind: str, number: int, method: str, params: Any, count: int = 0) -> bytes:
        """See `Codec`."""
        raw = _NULL if params is None else msgspec.Raw(self._encoder.encode(params))
        return self._encoder.encode(_Header(kind, number, method, count, raw))

    def decode(self, header: bytes) -> Envelope:
        """See `Codec`."""
        try:
            head = self._headers.decode(header)
        except RecursionError as error:
            raise ValueError(f"frame header is no envelope: {error}") from error
        # Raw is a view into the header: parameters are decoded once, when their type is known. None, as with the other
        # codec, when there are none.
        return Envelope(head.k, head.i, head.m, head.n, None if head.p == _NULL else head.p)

    def record(self, cls: type[R], params: Any) -> R:
        """See `Codec`."""
        if params is None:
            params = b"{}"
        decoder = self._decoders.get(cls)
        if decoder is None:
            decoder = self._decoders[cls] = msgspec.json.Decoder(cls)
        try:
            record: R = decoder.decode(params)
        except RecursionError as error:
            raise ValueError(f"{cls.__name__}: {error}") from error
        return record
