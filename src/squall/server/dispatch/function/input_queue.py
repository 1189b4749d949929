"""Inputs that wait for a container of one function, in the order of their turns.

Whoever calls gets a turn after each other, whatever they have waiting: clients (and the store, for durable calls) in
rotation, and of each its calls in rotation. So a call of one input that comes while a map has thousands queued is next
but one, and two maps go on side by side. Turns are inputs, not time.

Invariants:
  * the inputs of one call leave in the order in which they were put
  * while *n* others have inputs here, at most *n* inputs of others leave between two turns of one of them
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from squall.server.dispatch.function.input import Call, Input, Sink


class _Caller:
    """One who has inputs here: its calls in the order of their turns, each with what it has waiting."""

    __slots__ = ("calls", "sink", "turns")

    def __init__(self, sink: Sink) -> None:
        self.sink = sink
        self.calls: dict[Call, deque[Input]] = {}
        self.turns: deque[Call] = deque()


class InputQueue:
    """May hold inputs that have left it (`is_queued` is False): these are passed over when their turn comes.

    Of one that has left and come back it may hold both places: it leaves once, from the first of them.
    """

    def __init__(self) -> None:
        self._callers: dict[Sink, _Caller] = {}
        self._turns: deque[_Caller] = deque()
        self._size = 0

    def __len__(self) -> int:
        """How many it holds, with those that have left it."""
        return self._size

    def queued(self) -> list[Input]:
        """What is queued, caller by caller, each input once."""
        held = (one for caller in self._turns for call in caller.turns for one in caller.calls[call])
        return list(dict.fromkeys(one for one in held if one.is_queued))

    def extend(self, call: Call, inputs: Sequence[Input]) -> None:
        """Inputs of a call come."""
        if inputs:
            self._lane(call).extend(inputs)
            self._size += len(inputs)

    def put_back(self, one: Input) -> None:
        """An input comes back: it is the first of its call, and queued again."""
        one.is_queued = True
        self._lane(one.call, is_next=True).appendleft(one)
        self._size += 1

    def _lane(self, call: Call, *, is_next: bool = False) -> deque[Input]:
        """What the call has waiting. A call that has nothing yet gets the last turn, or the next one."""
        caller = self._callers.get(call.sink)
        if caller is None:
            caller = self._callers[call.sink] = _Caller(call.sink)
            if is_next:
                self._turns.appendleft(caller)
            else:
                self._turns.append(caller)
        lane = caller.calls.get(call)
        if lane is None:
            lane = caller.calls[call] = deque()
            if is_next:
                caller.turns.appendleft(call)
            else:
                caller.turns.append(call)
        return lane

    def take(self, count: int) -> list[Input]:
        """The next `count` inputs, fewer if there are no more; they are queued no longer."""
        taken: list[Input] = []
        while len(taken) < count and self._turns:
            caller = self._turns[0]
            call = caller.turns[0]
            lane = caller.calls[call]
            if len(self._turns) == 1 and len(caller.turns) == 1:
                # Nobody else waits: no turns to take.
                while lane and len(taken) < count:
                    one = lane.popleft()
                    self._size -= 1
                    if one.is_queued:
                        one.is_queued = False
                        taken.append(one)
            else:
                one = lane.popleft()
                self._size -= 1
                if one.is_queued:
                    one.is_queued = False
                    taken.append(one)
                caller.turns.rotate(-1)
                self._turns.rotate(-1)
            if not lane:
                self._forget(caller, call)
        return taken

    def _forget(self, caller: _Caller, call: Call) -> None:
        """The call has nothing waiting any more."""
        del caller.calls[call]
        # Whose turn it was stands last.
        caller.turns.pop()
        if not caller.turns:
            del self._callers[caller.sink]
            self._turns.pop()

    def forget_gone(self) -> None:
        """Let go of inputs that have left it."""
        left = self.queued()
        self.clear()
        for one in left:
            self._lane(one.call).append(one)
        self._size = len(left)

    def clear(self) -> None:
        """Nothing waits any more."""
        self._callers.clear()
        self._turns.clear()
        self._size = 0
