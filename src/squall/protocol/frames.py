"""The one frame format: header length, body length (both 32 bits, little endian), JSON header, raw body.

    | header_bytes u32 | body_bytes u32 | header (JSON, UTF-8) | body (opaque) |

A peer that announces more than the limits is cut off before anything is allocated.
"""

from __future__ import annotations

import struct
from typing import NamedTuple

HEADER_BYTES_MAX = 8 * 2**20
BODY_BYTES_MAX = 64 * 2**20

INLINE_BYTES_MAX = 2**20
"""Arguments and results up to this size travel in frames; larger ones go to the blob store, by reference."""

_PREFIX = struct.Struct("<II")
_LARGE_BYTES = 2**18


class Frame(NamedTuple):
    """One unit of the wire. The header's meaning is in `envelope`; the body is nobody's business but the two ends'."""

    header: bytes
    body: bytes


class FrameError(ValueError):
    """The bytes received are no frames; the connection cannot go on."""


class FrameTooLarge(ValueError):
    """A frame would be over the limits: its receiver would end the connection, so it is not sent."""


def check_size(header_bytes: int, body_bytes: int) -> None:
    """Whether a frame of that size may be sent.

    Raises:
        FrameTooLarge: what has how much, and how much it may have.
    """
    if header_bytes > HEADER_BYTES_MAX:
        raise FrameTooLarge(f"{header_bytes / 2**20:.1f} MiB of parameters, at most {HEADER_BYTES_MAX >> 20}")
    if body_bytes > BODY_BYTES_MAX:
        raise FrameTooLarge(f"{body_bytes / 2**20:.1f} MiB of values, at most {BODY_BYTES_MAX >> 20}")


def encode(frame: Frame) -> bytes:
    """The frame as bytes."""
    return _PREFIX.pack(len(frame.header), len(frame.body)) + frame.header + frame.body


def encode_into(frame: Frame, chunks: list[bytes]) -> int:
    """Append the frame to `chunks` without copying its body; returns the number of bytes."""
    chunks.append(_PREFIX.pack(len(frame.header), len(frame.body)) + frame.header)
    if frame.body:
        chunks.append(frame.body)
    return _PREFIX.size + len(frame.header) + len(frame.body)


class FrameDecoder:
    """Cut a stream of bytes into frames, however the bytes arrive."""

    def __init__(self) -> None:
        self._pending: list[bytes] = []
        self._pending_bytes = 0
        self._wanted_bytes = _PREFIX.size
        self._body_at = 0
        """Where the body of the frame begins that is not whole yet; read only while its end is known."""

    @property
    def held_bytes(self) -> int:
        """Of a frame that is not whole yet."""
        return self._pending_bytes

    def feed(self, data: bytes) -> list[Frame]:
        """Take bytes in, give whole frames out.

        Raises:
            FrameError: a length is over the limit.
        """
        self._pending.append(data)
        self._pending_bytes += len(data)
        # Chunks are joined only when a whole frame can be there: a 64 MiB body costs one copy and not one per packet.
        if self._pending_bytes < self._wanted_bytes:
            return []
        if self._wanted_bytes > _LARGE_BYTES and len(self._pending[0]) >= self._body_at:
            return self._take_large()
        buffer = self._pending[0] if len(self._pending) == 1 else b"".join(self._pending)
        frames: list[Frame] = []
        offset = 0
        available = len(buffer)
        self._wanted_bytes = _PREFIX.size
        while available - offset >= _PREFIX.size:
            header_bytes, body_bytes = _PREFIX.unpack_from(buffer, offset)
            if header_bytes > HEADER_BYTES_MAX or body_bytes > BODY_BYTES_MAX:
                raise FrameError(f"frame of {header_bytes} + {body_bytes} bytes is over the limit")
            end = offset + _PREFIX.size + header_bytes + body_bytes
            if end > available:
                self._wanted_bytes = end - offset
                self._body_at = _PREFIX.size + header_bytes
                break
            split = offset + _PREFIX.size + header_bytes
            frames.append(Frame(buffer[offset + _PREFIX.size : split], buffer[split:end]))
            offset = end
        rest = buffer[offset:] if offset else buffer
        self._pending = [rest] if rest else []
        self._pending_bytes = len(rest)
        return frames

    def _take_large(self) -> list[Frame]:
        """The first frame, with its body joined out of the chunks and not cut out of all of them joined: one copy
        fewer."""
        first, *middle, last = self._pending
        kept = len(last) - (self._pending_bytes - self._wanted_bytes)
        body = b"".join((memoryview(first)[self._body_at :], *middle, last[:kept]))
        frame = Frame(first[_PREFIX.size : self._body_at], body)
        self._pending, self._pending_bytes, self._wanted_bytes = [], 0, _PREFIX.size
        rest = last[kept:]
        return [frame, *self.feed(rest)] if rest else [frame]
