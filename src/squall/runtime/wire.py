"""Frames between agent and spawner: a length, JSON, and the descriptors that belong to it.

Descriptors travel with the first byte of their frame over the unix socket, so they are never later than their frame;
the frame says how many are its own. A process at its limit of open files is given fewer than were sent, or none.
"""

from __future__ import annotations

import json
import os
import struct
from collections import deque
from collections.abc import Mapping, Sequence
from typing import Any

from squall.runtime.errors import (
    ContainerExists,
    ContainerMissing,
    FeatureMissing,
    JoinFailure,
    ProgramMissing,
    ProgramRefused,
    RuntimeFailure,
    SlotUnfit,
    SubPathMissing,
    TemplateUnfit,
    VolumeBusy,
)

# Raised whenever an older agent or spawner would misunderstand the other. A spawner outlives its agent: the next one of
# another version refuses it by name, and leaves its containers alone.
PROTOCOL_VERSION = 6

FRAME_BYTES_MAX = 16 * 2**20
RECEIVE_BYTES = 256 * 1024
# The kernel's own maximum of descriptors in one message (SCM_MAX_FD).
DESCRIPTORS_MAX = 253

# How the process ends that starts a spawner, besides 0 (it listens) and 1 (it cannot, and the reason is said): another
# process has the lock of the directory; the spawner has ended without a word.
EXIT_HELD = 75
EXIT_DIED = 76

_LENGTH = struct.Struct(">I")
_ERRORS = {
    kind.__name__: kind
    for kind in (
        RuntimeFailure,
        ContainerExists,
        ContainerMissing,
        FeatureMissing,
        JoinFailure,
        ProgramMissing,
        ProgramRefused,
        SlotUnfit,
        SubPathMissing,
        TemplateUnfit,
        VolumeBusy,
    )
}


def encode_frame(message: Mapping[str, Any], descriptor_count: int = 0) -> bytes:
    """One frame; the caller sends its descriptors with the first byte."""
    body = json.dumps({**message, "fds": descriptor_count} if descriptor_count else message).encode()
    if len(body) > FRAME_BYTES_MAX:
        raise RuntimeFailure(f"cannot send a message of {len(body)} bytes to the spawner: more than {FRAME_BYTES_MAX}")
    return _LENGTH.pack(len(body)) + body


class FrameReader:
    """Cuts a stream into frames and hands each its descriptors."""

    def __init__(self) -> None:
        self._buffer = bytearray()
        # As they came: the kernel ends a receive with the bytes that descriptors belong to, so that those of two frames
        # never come at once, and what one frame lacks is not taken from the next.
        self._groups: deque[list[int]] = deque()

    def feed(
        self, data: bytes, descriptors: Sequence[int] = (), *, is_cut: bool = False
    ) -> list[tuple[dict[str, Any], list[int] | None]]:
        """The frames completed by what was received; their descriptors are the caller's then.

        Args:
            is_cut: the kernel has dropped descriptors that came with this, perhaps all of them (MSG_CTRUNC).

        Returns:
            None in place of descriptors that are not all there; the others are closed.

        Raises:
            RuntimeFailure: the other end does not speak this protocol.
        """
        self._buffer += data
        if descriptors or is_cut:
            self._groups.append(list(descriptors))
        frames: list[tuple[dict[str, Any], list[int] | None]] = []
        try:
            while (message := self._next()) is not None:
                frames.append((message, self._take(message.pop("fds", 0))))
        except BaseException:
            for _, given in frames:
                _close(given or ())
            raise
        return frames

    def _next(self) -> dict[str, Any] | None:
        if len(self._buffer) < _LENGTH.size:
            return None
        (length,) = _LENGTH.unpack_from(self._buffer)
        if length > FRAME_BYTES_MAX:
            raise RuntimeFailure(f"cannot read a frame of {length} bytes: more than {FRAME_BYTES_MAX}")
        if len(self._buffer) < _LENGTH.size + length:
            return None
        try:
            message = json.loads(self._buffer[_LENGTH.size : _LENGTH.size + length])
        except (ValueError, RecursionError) as error:
            raise RuntimeFailure(f"cannot read a frame of {length} bytes: it is no JSON ({error})") from error
        if not isinstance(message, dict):
            raise RuntimeFailure(f"cannot read a frame of {length} bytes: it is no object")
        del self._buffer[: _LENGTH.size + length]
        return message

    def close(self) -> None:
        """Close descriptors whose frame never came."""
        while self._groups:
            _close(self._groups.popleft())

    def _take(self, count: int) -> list[int] | None:
        if not count:
            return []
        group = self._groups.popleft() if self._groups else []
        if len(group) == count:
            return group
        _close(group)
        return None


def _close(descriptors: Sequence[int]) -> None:
    for descriptor in descriptors:
        os.close(descriptor)


def failure_to_json(failure: RuntimeFailure) -> dict[str, str]:
    """A failure as JSON values."""
    return {"kind": type(failure).__name__, "message": failure.message}


def failure_from_json(values: Mapping[str, str]) -> RuntimeFailure:
    """Undo `failure_to_json`."""
    return _ERRORS.get(values["kind"], RuntimeFailure)(values["message"])
