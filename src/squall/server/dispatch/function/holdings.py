"""What guests that came back say they run, so that nobody else is given it.

After a restart three accounts of an input come together in any order: its client's, who sends it again, the store's,
if it is durable, and its container's, who runs it. An input is *bound* to the container that runs it. Whatever a guest
names that cannot be bound is *unknown*: it takes up the container until the guest has answered it, and is bound when
its client sends it.

A generator is not gone on with, because items may have been lost with the connection: it is cancelled in the container
and begins again.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from squall.protocol.call import InputRefs, OutputBatch, cut
from squall.protocol.guest import Holding
from squall.server.dispatch.fleet.container import FROM_BEFORE, Container
from squall.server.dispatch.function.input import Call, Input
from squall.server.model.definition import is_generator

if TYPE_CHECKING:
    from squall.server.dispatch.function.dispatcher import Dispatcher
    from squall.server.model.clock import Timer

RETURN_S = 3.0
"""How long a new server hands nothing out for the sake of guests that may run it. They look for it every second."""
RUNNING_S_MAX = 1e9

Key = tuple[str, int]


@dataclass(frozen=True, slots=True)
class Held:
    """One input that a guest has begun."""

    container: Container
    attempt: int
    began_at: float


class Holdings:
    """Those of one function."""

    def __init__(self, dispatcher: Dispatcher) -> None:
        self._dispatcher = dispatcher
        self._unknown: dict[Key, Held] = {}
        """Those to bind once they are sent. The containers know these, and those that were given up."""
        self.absent: dict[Container, Timer] = {}
        """Adopted containers that have not said what they run: while there are any, nothing is handed out."""

    # Waiting for guests

    def expect(self, container: Container) -> None:
        """A container was adopted: its guest will say what it runs."""
        clock = self._dispatcher.clock
        self.absent[container] = clock.call_later(RETURN_S, lambda: self.arrived(container))

    def arrived(self, container: Container) -> None:
        """The guest has said it, or is no longer waited for."""
        timer = self.absent.pop(container, None)
        if timer is not None:
            timer.cancel()
            self._dispatcher.schedule()

    # Binding

    def named(self, container: Container, record: Holding) -> None:
        """The guest runs these.

        Raises:
            ValueError: the columns do not fit together.
        """
        dispatcher = self._dispatcher
        call = dispatcher.calls.get(record.call_id)
        if call is not None and call.dispatcher is not dispatcher:
            raise ValueError(f"inputs of {record.call_id}, which is a call of another function")
        now = dispatcher.clock.monotonic()
        superfluous: list[Key] = []
        for index, attempt, running_s in zip(record.indexes, record.attempts, record.running_s, strict=True):
            key = (record.call_id, index)
            one = call.inputs.get(index) if call is not None else None
            if one is not None and one.container is container and one.attempt == attempt:
                # The connection broke, and not the server. A request to stop may have been lost with it.
                if one.trouble is not None and one.trouble.cut_short_by:
                    container.tell("CancelInputs", InputRefs(record.call_id, (index,)))
                continue
            if self._is_named_again(container, key, attempt):
                continue
            # A guest that names more than it can run at once is not to fill our memory.
            if attempt < 0 or len(container.unknown) >= 2 * dispatcher.max_inputs:
                break
            began_at = now - min(max(0.0, running_s), RUNNING_S_MAX) if math.isfinite(running_s) else now
            held = Held(container, attempt, began_at)
            if self._is_superfluous(container, call, one, key, attempt, record.method):
                superfluous.append(key)
            elif one is not None:
                self._bind(one, held)
                continue
            else:
                self._unknown[key] = held
            container.unknown[key] = held
        if superfluous:
            self._stop(container, superfluous)
        dispatcher.refresh(container)

    def _is_named_again(self, container: Container, key: Key, attempt: int) -> bool:
        """Whether this is known from the container's last connection, or from the same one; what is given up is told so
        again."""
        held = container.unknown.get(key)
        if held is None:
            return False
        is_given_up = self._unknown.get(key) is not held
        if held.attempt != attempt:
            # One at a time: what it named before has ended.
            del container.unknown[key]
            if not is_given_up:
                del self._unknown[key]
            return False
        if is_given_up:
            container.tell("CancelInputs", InputRefs(key[0], (key[1],)))
        return True

    def _is_superfluous(
        self, container: Container, call: Call | None, one: Input | None, key: Key, attempt: int, method: str
    ) -> bool:
        """Whether nobody will take the output of this attempt."""
        definition = self._dispatcher.spec.definition
        if is_generator(definition, method) or (call is not None and call.is_closed):
            return True
        if one is None:
            # All that other containers run is known: its call has ended, and the guest did not hear of it.
            is_cancelled = key[0] in self._dispatcher.calls.cancelled
            return not container.is_adopted or is_cancelled or key in self._unknown
        # The attempts of the server before this one are not known here: those of its containers are believed.
        is_known = attempt >= one.attempt if container.is_adopted else attempt == one.attempt
        return not is_known or not one.is_queued or len(container.held) >= 2 * self._dispatcher.max_inputs

    def _bind(self, one: Input, held: Held) -> None:
        """The queue's input is the container's."""
        self._dispatcher.unqueue(one)
        self._give(one, held)

    def _give(self, one: Input, held: Held) -> None:
        one.container = held.container
        one.began_at = held.began_at
        self._dispatcher.attempts.believe(one, held.attempt)
        held.container.held[one] = None
        if one.trouble is not None and one.trouble.is_suspect:
            self._dispatcher.quarantine.is_held(one, held.container)
        if self._dispatcher.batches is not None:
            held.container.took_of_batch(one, FROM_BEFORE)
        held.container.has_served = True

    def claim(self, call: Call, inputs: list[Input]) -> list[Input]:
        """Inputs that have come: binds those that a container runs, returns the others."""
        left = []
        for one in inputs:
            held = self._unknown.pop((call.call_id, one.index), None)
            if held is None:
                left.append(one)
                continue
            del held.container.unknown[call.call_id, one.index]
            one.is_queued = False
            self._give(one, held)
            self._dispatcher.refresh(held.container)
        return left

    @property
    def has_unknown(self) -> bool:
        """Whether inputs that come may run already."""
        return bool(self._unknown)

    def room(self, container: Container, window: int) -> int:
        """What unknown inputs leave of a container's window. One that is cancelled may be the next to be handed out:
        not to its own container, where the two would not be told apart."""
        is_stopping = any(self._unknown.get(key) is not held for key, held in container.unknown.items())
        return 0 if is_stopping else max(0, window - len(container.unknown))

    # Ends

    def give_up(self, call_id: str) -> None:
        """Nobody waits for this call any more: stop what runs of it, in guests that come back later, too."""
        self._dispatcher.calls.remember_cancelled(call_id)
        found = [(key, held) for key, held in self._unknown.items() if key[0] == call_id]
        for key, held in found:
            del self._unknown[key]
            self._stop(held.container, [key])
            self._dispatcher.refresh(held.container)

    def _stop(self, container: Container, keys: list[Key]) -> None:
        """Cancel what runs for nobody; a container that goes on with it is ended."""
        for call_id, index in keys:
            container.tell("CancelInputs", InputRefs(call_id, (index,)))
        dispatcher = self._dispatcher
        container.timers.append(
            dispatcher.clock.call_later(dispatcher.config.cancel_grace_s, lambda: self._kill_if_stuck(container, keys))
        )

    def _kill_if_stuck(self, container: Container, keys: list[Key]) -> None:
        if any(key in container.unknown for key in keys):
            self._dispatcher.fleet.kill(container, "an input did not stop when it was told to")

    def answered(self, container: Container, record: OutputBatch, body: bytes) -> tuple[OutputBatch, bytes]:
        """Outputs of unknown inputs, too, have come; returns those that may be wanted."""
        given_up: set[int] = set()
        for index in record.indexes:
            key = (record.call_id, index)
            held = container.unknown.pop(key, None)
            if held is not None and self._unknown.get(key) is held:
                del self._unknown[key]
            elif held is not None:
                given_up.add(index)
        return without(record, body, given_up) if given_up else (record, body)

    def forget(self, container: Container) -> None:
        """The guest has nothing any more, or is gone."""
        for key, held in container.unknown.items():
            if self._unknown.get(key) is held:
                del self._unknown[key]
        container.unknown.clear()


def without(record: OutputBatch, body: bytes, indexes: set[int]) -> tuple[OutputBatch, bytes]:
    """The batch without the outputs of these inputs."""
    places = [place for place, index in enumerate(record.indexes) if index not in indexes]
    values = list(cut(body, record.sizes))

    def kept(column: tuple[int, ...]) -> tuple[int, ...]:
        return tuple([column[place] for place in places]) if column else ()

    left = OutputBatch(
        record.call_id,
        kept(record.indexes),
        kept(record.statuses),
        kept(record.sizes),
        kept(record.attempts),
        kept(record.run_us),
        {index: sha256 for index, sha256 in record.blobs.items() if index not in {str(one) for one in indexes}},
    )
    return left, b"".join([values[place] for place in places])
