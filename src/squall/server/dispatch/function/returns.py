"""Inputs that come back from a container unbegun: taken back for another one, or lost on their way. None is an attempt.

The guest is authoritative: only it knows what it has begun. An input is the container's until the guest gives it back.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from squall.protocol.call import InputRefs
from squall.server.dispatch.fleet.container import Container
from squall.server.dispatch.function.input import Input

if TYPE_CHECKING:
    from squall.server.dispatch.function.dispatcher import Dispatcher

TAKE_BACK_AFTER_S = 0.02
"""A container that has brought nothing for that long runs something long; what waits behind it could run elsewhere."""
TAKE_BACK_AGAIN_S = 0.5
RESYNC_S = 1.0
"""How long a guest that came back may take to say what it no longer has."""
QUIET_S = 5.0
"""A guest that says it holds nothing is believed when nothing has been on its way for that long."""


class Returns:
    """The way back of a dispatcher's inputs."""

    def __init__(self, dispatcher: Dispatcher) -> None:
        self._dispatcher = dispatcher

    def given_back(self, container: Container, refs: InputRefs) -> None:
        """The guest has not begun these and will not: they go to the head of their calls. That is no attempt."""
        call = self._dispatcher.calls.get(refs.call_id)
        if call is None:
            return
        back = [call.inputs[index] for index in refs.indexes if index in call.inputs]
        self.to_queue([one for one in back if one.container is container])
        self._after_return(container)

    def to_queue(self, inputs: list[Input]) -> None:
        """Put held inputs before all others of their calls, in order; those that were being stopped end instead."""
        for one in reversed(inputs):
            if one.container is not None:
                one.container.held.pop(one, None)
                if one.batch:
                    one.container.left_batch(one)
                one.container = None
            one.began_at = 0.0
            if one.trouble is not None and one.trouble.cut_short_by:
                self._dispatcher.attempts.end_cut_short(one)
            else:
                self._dispatcher.put_back(one)

    def lost_on_the_way(self, container: Container) -> None:
        """Nothing of what it holds has come to where it would have run."""
        self.to_queue(list(container.held))
        self._after_return(container)

    def _after_return(self, container: Container) -> None:
        if not container.is_busy:
            container.idle_since = self._dispatcher.clock.monotonic()
            if container.is_draining:
                self._dispatcher.fleet.drain(container, container.drain_reason)
        self._dispatcher.refresh(container)
        self._dispatcher.schedule()
        self._dispatcher.fleet.changed(self._dispatcher)

    def take_back(self, container: Container, inputs: Iterable[Input]) -> None:
        """Ask for inputs that have not begun; the guest knows which, and says so with GivenBack."""
        by_call: dict[str, list[int]] = {}
        for one in inputs:
            by_call.setdefault(one.call.call_id, []).append(one.index)
        for call_id, indexes in by_call.items():
            container.tell("TakeBack", InputRefs(call_id, tuple(indexes)))
        container.take_back_at = self._dispatcher.clock.monotonic()

    def resync(self, container: Container, before: list[Input]) -> None:
        """What a guest held when it came back, and has neither answered nor given back: it can run the first few of
        them, the others were lost on the way."""
        left = [one for one in before if one in container.held]
        self.to_queue(left[self._dispatcher.max_inputs :])
        self._after_return(container)

    def heartbeat(self, container: Container, held_by_guest: int) -> None:
        """A guest that holds nothing while we think it does: what was sent to it was lost, and is queued again."""
        quiet_since = max(container.last_output_at, container.handed_out_at)
        is_proxied = any(one.call.proxy is not None for one in container.held)
        if (
            held_by_guest == 0
            and container.is_busy
            and not is_proxied
            and self._dispatcher.clock.monotonic() - quiet_since > QUIET_S
        ):
            self._dispatcher.holdings.forget(container)
            self.lost_on_the_way(container)

    def sweep(self, now: float) -> None:
        """Look for inputs that wait behind long ones."""
        can_take_more = not self._dispatcher.queued and any(
            len(one.held) < self._dispatcher.max_inputs for one in self._dispatcher.free
        )
        for container in self._dispatcher.containers.values():
            ahead = len(container.held) - self._dispatcher.max_inputs
            quiet_s = now - max(container.last_output_at, container.handed_out_at)
            if ahead <= 0 or quiet_s <= TAKE_BACK_AFTER_S:
                continue
            # What was short turns out long: believe it now, not when the first of them has ended. No measure for
            # the autoscaler: on a busy machine all are quiet, and more containers would make it busier.
            self._dispatcher.expected_us = max(self._dispatcher.expected_us, quiet_s * 1e6)
            container.credit = self._dispatcher.max_inputs
            if can_take_more and now - container.take_back_at > TAKE_BACK_AGAIN_S:
                self.take_back(container, list(container.held)[self._dispatcher.max_inputs :])
