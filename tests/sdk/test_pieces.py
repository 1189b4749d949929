"""Large values travel in pieces: nothing is copied on the way out, and nothing is lost."""

from __future__ import annotations

import pickle
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from squall.protocol.frames import INLINE_BYTES_MAX
from squall.sdk._pieces import PieceReader, PieceWriter, cut, is_large, size_of
from squall.sdk._serialization import deserialize, serialize, serialize_pieces

LARGE = b"x" * (INLINE_BYTES_MAX + 1)


class Array:
    """As much of an array as counts here."""

    def __init__(self, nbytes: int) -> None:
        self.nbytes = nbytes


class Stubborn:
    """Answers every question for an attribute with an exception of its own."""

    def __getattr__(self, name: str) -> Any:
        raise RuntimeError(name)


@given(st.lists(st.binary(max_size=20), max_size=6), st.integers(1, 9))
def test_chunks_are_the_same_bytes_in_equal_parts(pieces: list[bytes], chunk_bytes: int) -> None:
    chunks = [bytes(chunk) for chunk in cut(pieces, chunk_bytes)]

    assert b"".join(chunks) == b"".join(pieces)
    assert {len(chunk) for chunk in chunks[:-1]} <= {chunk_bytes}
    assert len(chunks) == max(1, -(-size_of(pieces) // chunk_bytes))


@given(st.lists(st.binary(max_size=20), max_size=6), st.lists(st.integers(0, 15), max_size=8))
def test_reader_gives_all_bytes_however_they_are_asked_for(pieces: list[bytes], counts: list[int]) -> None:
    whole = b"".join(pieces)
    reader = PieceReader(list(pieces))
    read = bytearray()

    for number, count in enumerate(counts):
        if number % 2:
            target = bytearray(count)
            read += target[: reader.readinto(target)]
        else:
            read += reader.read(count)
    read += reader.read()

    assert read == whole


@pytest.mark.long
@pytest.mark.parametrize("protocol", range(6))
@pytest.mark.parametrize("value", [{"a": [1, 2.5, None], "text": "ä" * 100}, b"y" * 200_000, list(range(30_000))])
def test_any_pickle_in_any_pieces_is_read(value: object, protocol: int) -> None:
    pickled = pickle.dumps(value, protocol)

    for size in (1_000, 65_536, len(pickled)):
        pieces = [pickled[at : at + size] for at in range(0, len(pickled), size)]
        assert deserialize(pieces) == value
        assert pieces == []


def test_large_bytes_are_not_copied() -> None:
    pieces = serialize_pieces(((LARGE, 7), {}), (LARGE, 7))

    assert any(piece is LARGE for piece in pieces)
    assert b"".join(pieces) == serialize(((LARGE, 7), {}))
    assert deserialize(pieces) == ((LARGE, 7), {})


def test_what_its_owner_may_change_is_copied() -> None:
    changing = bytearray(LARGE)

    pieces = serialize_pieces(changing, (changing,))
    changing[:] = b"y" * len(changing)

    assert deserialize(pieces) == LARGE


def test_small_values_are_one_piece() -> None:
    assert serialize_pieces((1, "a"), (1, "a")) == [serialize((1, "a"))]


def test_large_value_with_a_lambda_travels_too() -> None:
    value = (LARGE, lambda x: x + 1)

    data, add = deserialize(serialize_pieces(value, value))

    assert data == LARGE
    assert add(1) == 2


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (5, False),
        ("a", False),
        ("a" * len(LARGE), True),
        (LARGE, True),
        (bytearray(LARGE), True),
        (None, False),
        (Array(10), False),
        (Stubborn(), False),
    ],
    ids=lambda value: type(value).__name__,
)
def test_large_values_are_known_at_a_glance(value: object, expected: bool) -> None:
    assert is_large(value) is expected


def test_writer_says_how_much_it_took() -> None:
    writer = PieceWriter()

    assert writer.write(b"abc") == 3
    assert writer.pieces == [b"abc"]
