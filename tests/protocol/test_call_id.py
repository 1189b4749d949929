"""Calls are their clients', by the ends of their ids."""

from __future__ import annotations

from squall.protocol.call_id import is_marked, may_open, owner_mark
from squall.protocol.ids import input_id, is_id, new_id, parse_input_id


def test_marked_call_may_be_opened_by_its_client_only() -> None:
    own, other = new_id("cl"), new_id("cl")
    call_id = new_id("fc") + owner_mark(own)

    assert may_open(call_id, owner_mark(own))
    assert not may_open(call_id, owner_mark(other))
    assert not may_open(call_id[:-1], owner_mark(own))


def test_marked_id_is_an_id_like_others() -> None:
    call_id = new_id("fc") + owner_mark(new_id("cl"))

    assert is_marked(call_id)
    assert is_id(call_id, "fc")
    assert parse_input_id(input_id(call_id, 7)) == (call_id, 7)


def test_id_without_a_mark_may_be_opened_by_anybody() -> None:
    call_id = new_id("fc")

    assert not is_marked(call_id)
    assert may_open(call_id, owner_mark(new_id("cl")))
