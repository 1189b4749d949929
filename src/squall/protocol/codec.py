"""Envelopes: what a frame's header says. Short keys, because there is one per frame.

    k  kind: req, rep, err, item, end, cancel, credit, up, ev
    i  id of the request it belongs to (absent for ev)
    m  method (req, ev)
    n  number of items (credit)
    p  the record

`req` asks and gets one `rep` or `err`; a streaming method answers with any number of `item` and then `end` or `err`.
`up` sends more to a running request (a terminal's input); `cancel` gives it up. `credit` allows that many more items.
`ev` expects no answer.
"""

from __future__ import annotations

import json
from typing import Any, NamedTuple, Protocol, TypeVar

from squall.protocol.records import from_wire, to_wire

R = TypeVar("R")

REQUEST = "req"
REPLY = "rep"
ERROR = "err"
ITEM = "item"
END = "end"
CANCEL = "cancel"
CREDIT = "credit"
UP = "up"
EVENT = "ev"

STREAM_WINDOW = 64
"""Items of a stream that may be sent before one of them has been read."""


class Envelope(NamedTuple):
    """A decoded header; `params` stays undecoded until the method tells its type."""

    kind: str
    number: int
    method: str
    amount: int
    params: Any


class Codec(Protocol):
    """Encodes and decodes headers. One is in this file; a faster one is given to server and agent by `main`."""

    def encode(self, kind: str, number: int, method: str, params: Any, count: int = 0) -> bytes:
        """A header; `params` is a record or None."""

    def decode(self, header: bytes) -> Envelope:
        """Raises ValueError when the bytes are no envelope."""

    def record(self, cls: type[R], params: Any) -> R:
        """Raises ValueError when the parameters do not fit."""


class JsonCodec:
    """The codec of the standard library."""

    def __init__(self) -> None:
        # One encoder, made once: json.dumps builds a new one for every call with non-default separators.
        self._dump = json.JSONEncoder(separators=(",", ":"), ensure_ascii=False).encode
        self._load = json.JSONDecoder().decode

    def encode(self, kind: str, number: int, method: str, params: Any, count: int = 0) -> bytes:
        """See `Codec`."""
        header: dict[str, Any] = {"k": kind}
        if number:
            header["i"] = number
        if method:
            header["m"] = method
        if count:
            header["n"] = count
        if params is not None:
            header["p"] = to_wire(params)
        return self._dump(header).encode()

    def decode(self, header: bytes) -> Envelope:
        """See `Codec`."""
        try:
            value = self._load(header.decode())
        except RecursionError as error:
            raise ValueError(f"frame header is no envelope: {error}") from error
        if not isinstance(value, dict) or not isinstance(value.get("k"), str):
            raise ValueError("frame header is no envelope")
        return Envelope(value["k"], value.get("i", 0), value.get("m", ""), value.get("n", 0), value.get("p"))

    def record(self, cls: type[R], params: Any) -> R:
        """See `Codec`."""
        return from_wire(cls, {} if params is None else params)
