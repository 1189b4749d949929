"""Durable calls, found again from anywhere: their outputs, waited for one by one, in order or together."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import AsyncGenerator, Callable, Sequence
from itertools import islice
from typing import Any

from squall.exception import OutputTimeoutError
from squall.protocol.call import CallCancel, CallGather, CallGet, CallInfo, CallInfoGet, CallRead
from squall.protocol.empty import Empty
from squall.sdk import _container, _invoke
from squall.sdk._calls import Output, outputs_of
from squall.sdk._client import Client
from squall.sdk._pending import Pending

POLL_S = 50.0
"""How long one question for an output waits on the server."""
READ_OUTPUTS = 1_000
"""Of a call's outputs in one answer, or as many as have a few megabytes."""
GATHER_MAX = 1_000
"""Calls that one question of `gather` is about."""


async def get(client: Client, call_id: str, index: int, timeout_s: float | None) -> Any:
    """Wait for an output.

    Raises:
        OutputTimeoutError: it is not there in time.
        NotFoundError: there never was such a call.
        OutputExpiredError: its output is not kept any more.
    """
    deadline = None if timeout_s is None else time.monotonic() + timeout_s
    while True:
        left_s = POLL_S if deadline is None else max(0.0, min(POLL_S, deadline - time.monotonic()))
        params, body = await client.ask("CallGet", CallGet(call_id, index, left_s, _container.running_input_id() or ""))
        outputs = outputs_of({"sizes": (), "statuses": (), "indexes": (), **params}, body)
        if outputs:
            return await _invoke.unpack(client, outputs[0])
        if deadline is not None and time.monotonic() >= deadline:
            raise OutputTimeoutError(f"call {call_id}: no result within {timeout_s:g} s; the call goes on")


async def info(client: Client, call_id: str) -> CallInfo:
    """About a call."""
    return await client.request("CallInfo", CallInfoGet(call_id), CallInfo)


async def cancel(client: Client, call_id: str, has_containers: bool) -> None:
    """Cancel all inputs of a call."""
    await client.request("CallCancel", CallCancel(call_id, has_containers), Empty)


async def results(client: Client, call_id: str, start: int, end: int | None) -> AsyncGenerator[Any, None]:
    """Results of a call in the order of its inputs, as they come: from `start` up to `end`, which may be those there
    are now. What a function raised is raised in its place.

    Raises:
        ValueError: the call has no such inputs.
    """
    count = (await info(client, call_id)).input_count
    end = count if end is None else end
    if not 0 <= start <= end <= count:
        has = "1 input" if count == 1 else f"{count} inputs"
        raise ValueError(f"call {call_id} has {has}: there is no range from {start} to {end}")
    following = start
    parent = _container.running_input_id() or ""
    while following < end:
        asked = CallRead(call_id, following, min(READ_OUTPUTS, end - following), POLL_S, parent)
        params, body = await client.ask("CallRead", asked)
        for output in outputs_of({"sizes": (), "statuses": (), "indexes": (), **params}, body):
            following = output.number + 1
            yield await _invoke.unpack(client, output)


class _Question:
    """What is asked of one server: the calls of a `gather` that have no result yet."""

    def __init__(self, client: Client) -> None:
        self.client = client
        self.waiting: dict[str, list[int]] = {}
        """Calls, each with its places in the results."""
        self._asked: tuple[str, ...] = ()
        self._answer: Pending[Any] | None = None

    def ask(self, note: Callable[[_Question], None]) -> None:
        """Ask about the first of them, unless that is under way; `note` hears of the answer."""
        if self._answer is not None:
            return
        self._asked = tuple(islice(self.waiting, GATHER_MAX))
        parent = _container.running_input_id() or ""
        self._answer = self.client.ask("CallGather", CallGather(self._asked, POLL_S, parent))
        self._answer.add_callback(lambda: note(self))

    def take(self) -> list[tuple[int, Output]]:
        """What the answer has, with its places in the results."""
        assert self._answer is not None
        params, body = self._answer.result()
        self._answer = None
        outputs = outputs_of({"sizes": (), "statuses": (), "indexes": (), **params}, body)
        if not outputs:
            # The next time about others, if there are more: one of them may have failed.
            for call_id in self._asked:
                self.waiting[call_id] = self.waiting.pop(call_id)
        return [(place, one) for one in outputs for place in self.waiting.pop(self._asked[one.number])]


async def gather(calls: Sequence[tuple[Client, str]]) -> list[Any]:
    """Results of several calls, in the order given; raises the first failure there is, whichever of the calls that are
    asked about it is of: some thousand at a time."""
    results: list[Any] = [None] * len(calls)
    questions: dict[Client, _Question] = {}
    for place, (client, call_id) in enumerate(calls):
        question = questions.setdefault(client, _Question(client))
        question.waiting.setdefault(call_id, []).append(place)
    answered: deque[_Question] = deque()
    signal: list[Pending[None]] = []

    def note(question: _Question) -> None:
        answered.append(question)
        signal[0].set(None)

    while left := [question for question in questions.values() if question.waiting]:
        signal[:] = [Pending(left[0].client.connection)]
        for question in left:
            question.ask(note)
        if not answered:
            await signal[0]
        while answered:
            question = answered.popleft()
            for place, output in question.take():
                results[place] = await _invoke.unpack(question.client, output)
    return results
