"""Bytes in pieces: what is large is pickled, sent, received and unpickled without ever being joined.

A pickler writes a large `bytes` as the object that it is, and an unpickler reads one into the object that it becomes;
each join in between would be another copy, of memory that must be had first.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from squall.protocol.frames import INLINE_BYTES_MAX

VALUE_BYTES_MAX = 8 * 2**30
"""The input or the result of a call: whoever gets it has it in memory, as whoever sends it has."""

_SIZED = frozenset({bytes, bytearray, str})


def is_large(value: object) -> bool:
    """Whether the pickle of a value is known to be too large for a frame, at one glance."""
    kind = type(value)
    if kind is int:
        return False  # most values are
    if kind in _SIZED:
        return len(value) > INLINE_BYTES_MAX  # type: ignore[arg-type]
    # Arrays. Of the class, so that no value's own `__getattr__` runs.
    return hasattr(kind, "nbytes") and bool(value.nbytes > INLINE_BYTES_MAX)  # type: ignore[attr-defined]


def size_of(pieces: Iterable[bytes | memoryview]) -> int:
    """How many bytes they are together."""
    return sum(map(len, pieces))


def cut(pieces: Iterable[bytes | memoryview], chunk_bytes: int) -> Iterator[bytes | memoryview]:
    """The same bytes as chunks of that size, the last one smaller; one empty chunk if there are none.

    Only chunks across the border of two pieces are copied.
    """
    begun: list[memoryview] = []
    wanted = chunk_bytes
    is_empty = True
    for piece in pieces:
        view = memoryview(piece)
        while len(view):
            part, view = view[:wanted], view[wanted:]
            begun.append(part)
            wanted -= len(part)
            if not wanted:
                yield begun[0] if len(begun) == 1 else b"".join(begun)
                begun, wanted, is_empty = [], chunk_bytes, False
    if begun or is_empty:
        yield begun[0] if len(begun) == 1 else b"".join(begun)


class PieceWriter:
    """A file to pickle into: keeps what it is given."""

    def __init__(self) -> None:
        self.pieces: list[bytes] = []

    def write(self, piece: bytes | bytearray) -> int:
        """Take a piece. One that its owner may change is copied."""
        self.pieces.append(piece if type(piece) is bytes else bytes(piece))
        return len(piece)


class PieceReader:
    """A file to unpickle from. It takes the pieces out of their list as it goes: read, they need no memory."""

    def __init__(self, pieces: list[bytes]) -> None:
        self._left = pieces
        pieces.reverse()
        self._piece = memoryview(b"")

    def readinto(self, target: bytearray | memoryview) -> int:
        """Fill the target as far as there are bytes."""
        view = memoryview(target)
        done = 0
        while done < len(view) and self._has_more():
            part = self._piece[: len(view) - done]
            view[done : done + len(part)] = part
            self._piece = self._piece[len(part) :]
            done += len(part)
        return done

    def read(self, count: int = -1) -> bytes:
        """So many bytes, or all there are."""
        parts = []
        wanted = count
        while wanted and self._has_more():
            part = self._piece if wanted < 0 else self._piece[:wanted]
            self._piece = self._piece[len(part) :]
            parts.append(part)
            wanted -= len(part) if wanted > 0 else 0
        return bytes(parts[0]) if len(parts) == 1 else b"".join(parts)

    def readline(self) -> bytes:
        """Up to the end of a line; the oldest opcodes end with one."""
        line = bytearray()
        while not line.endswith(b"\n") and self._has_more():
            line += self.read(1)
        return bytes(line)

    def _has_more(self) -> bool:
        while not len(self._piece):
            if not self._left:
                return False
            self._piece = memoryview(self._left.pop())
        return True


def checked_size(pieces: Sequence[bytes | memoryview], what: str) -> int:
    """How many bytes they are, of arguments or a result.

    Raises:
        InvalidError: more than a value may have; the message begins with `what`.
    """
    size_bytes = size_of(pieces)
    if size_bytes > VALUE_BYTES_MAX:
        from squall.exception import InvalidError  # cold start: only when something is wrong

        has = f"{what} has {size_bytes / 2**30:.1f} GiB, and a value may have {VALUE_BYTES_MAX / 2**30:g} GiB"
        raise InvalidError(f"{has}; send it in parts, yield it, or put it where both sides can read it")
    return size_bytes
