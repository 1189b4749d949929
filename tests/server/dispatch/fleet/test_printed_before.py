"""A container's events wait for the lines it printed before them, and not for ever."""

from __future__ import annotations

from typing import Any

from squall.server.dispatch.clock import ManualClock
from squall.server.dispatch.fleet.node import Node
from squall.server.dispatch.fleet.printed_before import HELD_BYTES_MAX, HOLD_S, Gate


class Incoming:
    """One connection: what is handed out, in order."""

    def __init__(self) -> None:
        self.clock = ManualClock()
        self.node = Node("nd-1")
        self.handled: list[str] = []
        self.gate = Gate(self.clock, self.handle)

    def handle(self, method: str, params: Any, body: bytes) -> None:
        if method == "PrintedBefore":
            self.gate.close_until(self.node, params)
        else:
            self.handled.append(method)

    def event(self, method: str, params: Any = None, body: bytes = b"") -> None:
        if self.gate.is_closed:
            self.gate.hold(method, params, body)
        else:
            self.handle(method, params, body)


def test_events_pass_when_the_lines_are_here() -> None:
    incoming = Incoming()
    incoming.node.lines_came(3)

    incoming.event("PrintedBefore", 3)
    incoming.event("Outputs")

    assert incoming.handled == ["Outputs"]


def test_events_wait_for_the_lines_they_came_after() -> None:
    incoming = Incoming()
    incoming.event("PrintedBefore", 3)
    incoming.event("Items")
    incoming.event("PrintedBefore", 4)
    incoming.event("Outputs")

    held = list(incoming.handled)
    incoming.node.lines_came(2)
    too_few = list(incoming.handled)
    incoming.node.lines_came(1)
    first = list(incoming.handled)
    incoming.node.lines_came(1)

    assert (held, too_few, first) == ([], [], ["Items"])
    assert incoming.handled == ["Items", "Outputs"]
    assert not incoming.node.gates


def test_lines_that_never_come_cost_a_moment() -> None:
    incoming = Incoming()
    incoming.event("PrintedBefore", 10**9)
    incoming.event("Outputs")

    incoming.clock.advance(HOLD_S / 2)
    held = list(incoming.handled)
    incoming.clock.advance(HOLD_S)

    assert held == []
    assert incoming.handled == ["Outputs"]
    assert not incoming.node.gates


def test_what_is_held_is_bounded() -> None:
    incoming = Incoming()
    incoming.event("PrintedBefore", 1)

    incoming.event("Outputs", body=b"x" * HELD_BYTES_MAX)

    assert incoming.handled == ["Outputs"]


def test_nothing_held_is_lost_with_the_connection() -> None:
    incoming = Incoming()
    incoming.event("PrintedBefore", 1)
    incoming.event("Outputs")
    incoming.event("PrintedBefore", 2)
    incoming.event("GivenBack")

    incoming.gate.end()

    assert incoming.handled == ["Outputs", "GivenBack"]
    assert not incoming.node.gates


def test_an_event_that_fails_does_not_stop_the_others() -> None:
    incoming = Incoming()
    gate = Gate(incoming.clock, lambda method, params, body: incoming.handled.append(params["name"]))
    gate.close_until(incoming.node, 1)
    gate.hold("Outputs", {}, b"")
    gate.hold("Outputs", {"name": "second"}, b"")

    incoming.node.lines_came(1)

    assert incoming.handled == ["second"]
