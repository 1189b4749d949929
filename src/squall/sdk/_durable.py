"""Durable calls: on disk before their id is known, found again from anywhere."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

from squall.exception import TimeoutError  # noqa: A004 - ours, not the builtin
from squall.protocol.call import (
    SPAWN,
    CallCancel,
    CallGet,
    CallInfo,
    CallInfoGet,
    CallOpen,
    CallSpawn,
    CallSpawned,
    InputBatch,
)
from squall.protocol.empty import Empty
from squall.protocol.ids import new_id
from squall.sdk import _container, _invoke, _map
from squall.sdk._calls import Payload, outputs_of
from squall.sdk._client import Client
from squall.sdk._pending import Pending

POLL_S = 50.0
"""How long one question for an output waits on the server."""
SPAWN_MAP_INPUTS = 256


async def spawn(
    client: Client, function_id: str, args: tuple[Any, ...], kwargs: dict[str, Any], method: str = ""
) -> str:
    """Start a call of one input; returns its id when it is on disk."""
    parent_id = _invoke.parent_input_id()
    return await _spawn(client, function_id, parent_id, [await _invoke.pack(client, args, kwargs)], method)


async def spawn_map(
    client: Client, function_id: str, iterables: tuple[Any, ...], kwargs: dict[str, Any], method: str = ""
) -> None:
    """Start calls for all inputs of a map."""
    parent_id = _invoke.parent_input_id()
    feed = _map.Feed(iterables, is_star=False)
    payloads: list[Payload] = []
    while True:
        args = await feed.pull_async()
        if args is not None:
            payloads.append(await _invoke.pack(client, args, kwargs))
        if payloads and (args is None or len(payloads) == SPAWN_MAP_INPUTS or _bytes(payloads) > _map.BATCH_BYTES):
            await _spawn(client, function_id, parent_id, payloads, method)
            payloads = []
        if args is None:
            return


def _bytes(payloads: list[Payload]) -> int:
    return sum(len(payload.value) for payload in payloads)


async def _spawn(client: Client, function_id: str, parent_id: str, payloads: list[Payload], method: str) -> str:
    call_id = new_id("fc")
    inputs = InputBatch(
        call_id,
        tuple(range(len(payloads))),
        tuple(-1 if payload.blob_sha256 else len(payload.value) for payload in payloads),
        blobs={str(index): payload.blob_sha256 for index, payload in enumerate(payloads) if payload.blob_sha256},
    )
    record = CallSpawn(CallOpen(call_id, function_id, SPAWN, parent_id, method), inputs)
    body = b"".join([payload.value for payload in payloads])
    return (await client.request("CallSpawn", record, CallSpawned, body)).call_id


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


async def gather(calls: Sequence[tuple[Client, str]]) -> list[Any]:
    """Results of several calls, in the order given; raises the first failure there is, whichever call it is of."""
    results: dict[int, Any] = {}
    asked: dict[int, Pending[Any]] = {}
    parent = _container.current_input_id() or ""
    while len(results) < len(calls):
        signal: Pending[None] = Pending(calls[0][0].connection)
        for number, (client, call_id) in enumerate(calls):
            if number not in results and number not in asked:
                asked[number] = client.ask("CallGet", CallGet(call_id, 0, POLL_S, parent))
        for pending in asked.values():
            pending.add_callback(lambda signal=signal: signal.set(None))  # type: ignore[misc]
        await signal
        for number in [number for number, pending in asked.items() if pending.is_done]:
            params, body = asked.pop(number).result()
            outputs = outputs_of({"sizes": (), "statuses": (), "indexes": (), **params}, body)
            if outputs:
                results[number] = await _invoke.unpack(calls[number][0], outputs[0])
    return [results[number] for number in range(len(calls))]
