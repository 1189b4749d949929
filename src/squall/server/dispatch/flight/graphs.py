"""The call graph: which inputs called which, as far as it is remembered, within bounds."""

from __future__ import annotations

from typing import TYPE_CHECKING

from squall.protocol.flight import CallFlight, CallGraphed, GraphInput
from squall.protocol.ids import input_id, parse_input_id
from squall.server.dispatch.flight.account import account_of
from squall.server.dispatch.flight.recorder import CallTrack

if TYPE_CHECKING:
    from squall.server.dispatch.flight.flights import Flights

INPUTS_MAX = 1_000
OF_CALL_MAX = 100
"""Of each call below the one asked for: a map in a function is no reason to leave its other calls out."""
DEPTH_MAX = 20


def graph_of(flight: CallFlight, flights: Flights) -> CallGraphed:
    """The inputs of the call, then of those that they called, level by level."""
    below: dict[str, list[CallTrack]] = {}
    for track in flights.tracks():
        if track.parent:
            below.setdefault(track.parent, []).append(track)
    found: list[GraphInput] = []
    level = [(flight, flight.parent_input_id)]
    seen = {flight.summary.call_id}
    for _ in range(DEPTH_MAX):
        deeper: list[tuple[CallFlight, str]] = []
        for call, parent in level:
            found += _inputs(call, parent, flights)
            if len(found) >= INPUTS_MAX:
                return CallGraphed(tuple(found[:INPUTS_MAX]), is_cut=True)
            for one in call.inputs:
                for track in below.get(one.input_id, ()):
                    # A call names its parent itself: one that names its own child is not followed in a circle.
                    if track.call_id not in seen and flights.is_within(track.spec.app_id, call.summary.app_id):
                        seen.add(track.call_id)
                        account = account_of(track, flights.find_container, 0, OF_CALL_MAX)
                        deeper.append((account, one.input_id))
        if not deeper:
            return CallGraphed(tuple(found))
        level = deeper
    return CallGraphed(tuple(found), is_cut=True)


def _inputs(flight: CallFlight, parent: str, flights: Flights) -> list[GraphInput]:
    summary = flight.summary
    track = flights.track(summary.call_id)
    module = track.spec.definition.module if track is not None else ""
    return [
        GraphInput(
            input_id(summary.call_id, one.index),
            summary.call_id,
            one.status,
            one.attempts[-1].container_id if one.attempts else "",
            summary.function_name,
            module,
            parent,
        )
        for one in flight.inputs
    ]


def call_of(text: str) -> str:
    """The call of an input's id; empty when it is none."""
    try:
        return parse_input_id(text)[0]
    except ValueError:
        return ""
