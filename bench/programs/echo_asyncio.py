"""Two processes, asyncio with uvloop, frames of 100 bytes over a unix socket: the wire without Squall."""

from __future__ import annotations

import asyncio
import json
import multiprocessing
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import cast

import uvloop

BODY = b"x" * 100
CHUNK = 500


class Frames(asyncio.Protocol):
    """Splits what arrives into frames and hands each on; frames sent in answer leave in one write."""

    def __init__(self, take: Callable[[bytes], bytes | None]) -> None:
        self._take = take
        self._rest = b""
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's own class, no subclass of it

    def data_received(self, data: bytes) -> None:
        data, at, answers = self._rest + data, 0, []
        while len(data) - at >= 4:
            end = at + 4 + int.from_bytes(data[at : at + 4], "little")
            if end > len(data):
                break
            if (answer := self._take(data[at:end])) is not None:
                answers.append(answer)
            at = end
        self._rest = data[at:]
        if answers and self._transport is not None:
            self._transport.write(b"".join(answers))


def serve(path: str) -> None:
    """Answer every frame with itself, until killed."""

    async def run() -> None:
        server = await asyncio.get_running_loop().create_unix_server(lambda: Frames(lambda frame: frame), path)
        await server.serve_forever()

    uvloop.run(run())


async def measure(path: str, round_trips: int) -> dict[str, float]:
    """Round trips one at a time, then as many frames at once."""
    loop = asyncio.get_running_loop()
    waiting: Callable[[bytes], None] = lambda frame: None  # noqa: E731

    def take(frame: bytes) -> None:
        waiting(frame)

    transport, _ = await loop.create_unix_connection(lambda: Frames(take), path)
    write = transport.write
    frame = len(BODY).to_bytes(4, "little") + BODY
    times_us = []
    for _ in range(round_trips):
        answered: asyncio.Future[bytes] = loop.create_future()
        waiting = answered.set_result
        started = time.perf_counter()
        write(frame)
        await answered
        times_us.append((time.perf_counter() - started) * 1e6)

    count = round_trips * 20 // CHUNK * CHUNK
    left, all_answered = count, loop.create_future()

    def count_down(frame: bytes) -> None:
        nonlocal left
        left -= 1
        if left == 0:
            all_answered.set_result(None)

    waiting = count_down
    started = time.perf_counter()
    for _ in range(count // CHUNK):
        write(frame * CHUNK)
        await asyncio.sleep(0)
    await all_answered
    rate = count / (time.perf_counter() - started)
    times_us.sort()
    return {"p50_us": times_us[len(times_us) // 2], "p99_us": times_us[len(times_us) * 99 // 100], "frames_per_s": rate}


def main() -> None:
    """Start the other process, measure, end it."""
    with tempfile.TemporaryDirectory(prefix="sq-echo-") as folder:
        path = str(Path(folder) / "s")
        server = multiprocessing.get_context("spawn").Process(target=serve, args=(path,), daemon=True)
        server.start()
        deadline = time.monotonic() + 10
        while not Path(path).exists() and time.monotonic() < deadline:
            time.sleep(0.01)
        try:
            print(json.dumps(uvloop.run(measure(path, int(sys.argv[1])))))
        finally:
            server.kill()
            server.join()


if __name__ == "__main__":
    main()
