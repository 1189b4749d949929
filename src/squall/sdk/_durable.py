"""Durable calls, found again from anywhere: their outputs, waited for one by one, in order or together."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import AsyncGenerator, Sequence
from typing import Any

from squall.exception import TimeoutError  # noqa: A004 - ours, not the builtin
from squall.protocol.call import CallCancel, CallGet, CallInfo, CallInfoGet, CallRead
from squall.protocol.empty import Empty
from squall.sdk import _container, _invoke
from squall.sdk._calls import outputs_of
from squall.sdk._client import Client
from squall.sdk._pending import Pending

POLL_S = 50.0
"""How long one question for an output waits on the server."""
READ_OUTPUTS = 1_000
"""Of a call's outputs in one answer, or as many as have a few megabytes."""
GATHER_MAX = 1_000
"""Questions of one `gather` that wait on the server."""


async def get(client: Client, call_id: str, index: int, timeout_s: float | None) -> Any:
    """Wait for an output.

    Raises:
        TimeoutError: it is not there in time.
        NotFoundError: there never was such a call.
        OutputExpiredError: its output is not kept any more.
    """
    deadline = None if timeout_s is None else time.monotonic() + timeout_s
    while True:
        left_s = POLL_S if deadline is None else max(0.0, min(POLL_S, deadline - time.monotonic()))
        params, body = await client.ask("CallGet", CallGet(call_id, index, left_s, _container.current_input_id() or ""))
        outputs = outputs_of({"sizes": (), "statuses": (), "indexes": (), **params}, body)
        if outputs:
            return await _invoke.unpack(client, outputs[0])
        if deadline is not None and time.monotonic() >= deadline:
            raise TimeoutError(f"call {call_id}: no result within {timeout_s:g} s; the call goes on")


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
    parent = _container.current_input_id() or ""
    while following < end:
        asked = CallRead(call_id, following, min(READ_OUTPUTS, end - following), POLL_S, parent)
        params, body = await client.ask("CallRead", asked)
        for output in outputs_of({"sizes": (), "statuses": (), "indexes": (), **params}, body):
            following = output.number + 1
            yield await _invoke.unpack(client, output)


async def gather(calls: Sequence[tuple[Client, str]]) -> list[Any]:
    """Results of several calls, in the order given; raises the first failure there is, whichever of the calls that are
    asked about it is of: some thousand at a time."""
    results: list[Any] = [None] * len(calls)
    parent = _container.current_input_id() or ""
    waiting = deque(range(len(calls)))
    asked: dict[int, Pending[Any]] = {}
    answered: deque[int] = deque()
    signal: list[Pending[None]] = []
    while waiting or asked:
        signal[:] = [Pending(calls[0][0].connection)]
        while waiting and len(asked) < GATHER_MAX:
            number = waiting.popleft()
            client, call_id = calls[number]
            asked[number] = client.ask("CallGet", CallGet(call_id, 0, POLL_S, parent))

            def note(number: int = number) -> None:
                answered.append(number)
                signal[0].set(None)

            asked[number].add_callback(note)
        if not answered:
            await signal[0]
        while answered:
            number = answered.popleft()
            params, body = asked.pop(number).result()
            outputs = outputs_of({"sizes": (), "statuses": (), "indexes": (), **params}, body)
            if outputs:
                results[number] = await _invoke.unpack(calls[number][0], outputs[0])
            else:
                waiting.append(number)
    return results
