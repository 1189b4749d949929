"""Frames come out as they went in, however the bytes are cut, and nobody can make us allocate what is not there."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from squall.protocol.frames import (
    BODY_BYTES_MAX,
    HEADER_BYTES_MAX,
    Frame,
    FrameDecoder,
    FrameError,
    encode,
    encode_into,
)

FRAMES = st.lists(st.builds(Frame, st.binary(max_size=40), st.binary(max_size=200)), max_size=8)


@pytest.mark.long
@given(FRAMES, st.data())
def test_any_split_of_the_bytes_gives_the_same_frames(frames: list[Frame], data: st.DataObject) -> None:
    stream = b"".join(map(encode, frames))
    decoder = FrameDecoder()

    got: list[Frame] = []
    offset = 0
    while offset < len(stream):
        size = data.draw(st.integers(1, max(1, len(stream) - offset)))
        got += decoder.feed(stream[offset : offset + size])
        offset += size

    assert got == frames


@given(FRAMES)
def test_byte_by_byte_gives_each_frame_with_its_last_byte(frames: list[Frame]) -> None:
    decoder = FrameDecoder()

    for frame in frames:
        data = encode(frame)
        for index in range(len(data) - 1):
            assert decoder.feed(data[index : index + 1]) == []
        assert decoder.feed(data[-1:]) == [frame]


@given(FRAMES)
def test_both_encoders_write_the_same_bytes(frames: list[Frame]) -> None:
    chunks: list[bytes] = []

    sizes = [encode_into(frame, chunks) for frame in frames]

    assert b"".join(chunks) == b"".join(map(encode, frames))
    assert sizes == [len(encode(frame)) for frame in frames]


def test_layout_is_two_lengths_header_body() -> None:
    assert encode(Frame(b'{"k":"ev"}', b"\x00\x01")) == bytes.fromhex("0a00000002000000") + b'{"k":"ev"}\x00\x01'


@pytest.mark.parametrize(
    ("header_bytes", "body_bytes"), [(HEADER_BYTES_MAX + 1, 0), (0, BODY_BYTES_MAX + 1), (2**32 - 1, 2**32 - 1)]
)
def test_announcing_too_much_ends_the_stream(header_bytes: int, body_bytes: int) -> None:
    with pytest.raises(FrameError, match="over the limit"):
        FrameDecoder().feed(struct.pack("<II", header_bytes, body_bytes))


def test_frames_before_a_bad_one_in_the_same_bytes_do_not_hide_it() -> None:
    data = encode(Frame(b"{}", b"")) + struct.pack("<II", 0, BODY_BYTES_MAX + 1)

    with pytest.raises(FrameError):
        FrameDecoder().feed(data)


def test_largest_frame_is_taken() -> None:
    frame = Frame(b"h" * 10, bytes(BODY_BYTES_MAX))
    data = encode(frame)
    decoder = FrameDecoder()

    assert decoder.feed(data[: 2**20]) == []
    assert decoder.feed(data[2**20 :]) == [frame]


@pytest.mark.parametrize("step", [1_000, 65_536, 300_001, 2**20, 2**22])
def test_large_frames_are_whole_however_their_bytes_arrive(step: int) -> None:
    bodies = [bytes([number]) * size for number, size in enumerate((700_000, 0, 300_000, 5, 2**20, 262_145))]
    frames = [Frame(b"h" * (10 + 200_000 * (number % 2)), body) for number, body in enumerate(bodies)]
    data = b"".join(map(encode, frames))
    decoder = FrameDecoder()

    got = [frame for at in range(0, len(data), step) for frame in decoder.feed(data[at : at + step])]

    assert got == frames
    assert decoder.held_bytes == 0
