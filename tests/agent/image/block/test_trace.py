"""Traces: what a first start wanted, in its order, and nothing that cannot be."""

from __future__ import annotations

import pytest

from squall.agent.image.block.errors import BlockError
from squall.agent.image.block.trace import Recorder, parse_trace

LAYERS = ("a" * 64, "b" * 64)


def test_what_was_wanted_is_kept_in_order_and_once() -> None:
    recorder = Recorder(LAYERS)
    for digest, first, end in ((LAYERS[1], 7, 9), (LAYERS[0], 0, 1), (LAYERS[1], 9, 10), (LAYERS[1], 8, 11)):
        recorder.note(digest, first, end)
    recorder.note("c" * 64, 0, 1)

    assert parse_trace(recorder.to_bytes(), LAYERS) == [(1, 7, 9), (0, 0, 1), (1, 9, 11)]
    assert parse_trace(recorder.to_bytes(), LAYERS[::-1]) == []


def test_a_start_that_read_nothing_leaves_no_trace() -> None:
    assert Recorder(LAYERS).to_bytes() == b""


@pytest.mark.parametrize("wanted", ["[[2,0,1]]", "[[0,5,5]]", "[[0,-1,1]]", "[[0]]", '"x"', "7"])
def test_a_trace_that_cannot_be_is_refused(wanted: str) -> None:
    data = f'{{"layers":["{LAYERS[0]}","{LAYERS[1]}"],"wanted":{wanted}}}'

    with pytest.raises(BlockError):
        parse_trace(data.encode(), LAYERS)
