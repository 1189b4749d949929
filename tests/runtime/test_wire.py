"""Frames and their descriptors survive any way the stream is cut."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from squall.runtime.errors import ContainerMissing, JoinFailure, RuntimeFailure
from squall.runtime.wire import FRAME_BYTES_MAX, FrameReader, encode_frame, failure_from_json, failure_to_json


@pytest.mark.long
@given(st.lists(st.dictionaries(st.text(max_size=5), st.integers(), max_size=3), max_size=5), st.integers(1, 9))
def test_frames_arrive_whole_in_order(messages: list[dict[str, int]], step: int) -> None:
    messages = [{name: value for name, value in message.items() if name != "fds"} for message in messages]
    stream = b"".join(encode_frame(message) for message in messages)
    reader = FrameReader()

    got = [frame for at in range(0, len(stream), step) for frame in reader.feed(stream[at : at + step], [])]

    assert got == [(message, []) for message in messages]


def test_descriptors_go_to_the_frame_they_were_sent_with() -> None:
    reader = FrameReader()

    frames = reader.feed(encode_frame({"a": 1}) + encode_frame({"b": 2}, 2), [7, 8])
    frames += reader.feed(encode_frame({"c": 3}, 1), [9])

    assert frames == [({"a": 1}, []), ({"b": 2}, [7, 8]), ({"c": 3}, [9])]


@pytest.mark.parametrize("arrived", [0, 1])
def test_descriptors_that_the_kernel_drops_are_not_taken_from_the_next_frame(arrived: int) -> None:
    came = [os.open(os.devnull, os.O_RDONLY) for _ in range(arrived)]
    reader, begun = FrameReader(), encode_frame({"b": 2}, 2)

    frames = reader.feed(encode_frame({"a": 1}) + begun[:6], came, is_cut=True)
    frames += reader.feed(begun[6:] + encode_frame({"c": 3}, 1), [9])

    assert frames == [({"a": 1}, []), ({"b": 2}, None), ({"c": 3}, [9])]
    for descriptor in came:
        with pytest.raises(OSError, match="Bad file descriptor"):
            os.fstat(descriptor)


def test_a_frame_that_brings_fewer_than_it_says_has_none() -> None:
    assert FrameReader().feed(encode_frame({"a": 1}, 1)) == [({"a": 1}, None)]


def test_descriptors_without_a_frame_are_closed(tmp_path: Path) -> None:
    descriptor = os.open(tmp_path, os.O_RDONLY)
    reader = FrameReader()
    reader.feed(encode_frame({"a": 1}, 1)[:5], [descriptor])

    reader.close()

    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(descriptor)


def test_oversized_frames_are_refused_on_both_ends() -> None:
    with pytest.raises(RuntimeFailure, match="more than"):
        encode_frame({"a": "x" * FRAME_BYTES_MAX})
    with pytest.raises(RuntimeFailure, match="more than"):
        FrameReader().feed(b"\xff\xff\xff\xff", [])


@pytest.mark.parametrize("body", [b"[1]", b"7", b"null", b"{", b"\xff", b"[" * 100_000])
def test_what_is_no_object_is_refused_and_keeps_nothing_open(body: bytes, tmp_path: Path) -> None:
    descriptor = os.open(tmp_path, os.O_RDONLY)
    frames = encode_frame({"a": 1}, 1) + len(body).to_bytes(4, "big") + body

    with pytest.raises(RuntimeFailure, match="cannot read a frame"):
        FrameReader().feed(frames, [descriptor])

    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(descriptor)


def test_failures_keep_their_kind() -> None:
    failure = failure_from_json(failure_to_json(ContainerMissing("no container ct-1")))

    assert type(failure) is ContainerMissing
    assert failure.message == "no container ct-1"
    assert type(failure_from_json(failure_to_json(JoinFailure("no power over it")))) is JoinFailure
    assert type(failure_from_json({"kind": "OfTheFuture", "message": "x"})) is RuntimeFailure
