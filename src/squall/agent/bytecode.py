"""Runs a program by an image's own Python, in a container without network or secrets that is gone afterwards."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Sequence
from pathlib import Path

from squall.agent.labels import BYTECODE_KIND, KIND_LABEL
from squall.agent.launch import DEFAULT_PATH
from squall.agent.pipes import read_pipe
from squall.agent.ranges import IdRanges
from squall.protocol.guest import LIBRARY_DIR
from squall.protocol.ids import new_id
from squall.runtime.contract import Runtime
from squall.runtime.errors import RuntimeFailure
from squall.runtime.removal import remove_tree
from squall.runtime.spec import Bind, ContainerSpec, Limits

TIMEOUT_S = 60.0
OUTPUT_BYTES_MAX = 64 * 2**20
_MEMORY_BYTES = 512 * 2**20


async def run_python(
    runtime: Runtime,
    ranges: IdRanges,
    data_dir: Path,
    layers: Sequence[str],
    python_path: str,
    program: str,
    library_dir: str,
) -> bytes:
    """What the program printed.

    Raises:
        RuntimeFailure: it could not be started, printed too much or took too long.
    """
    container_id = new_id("ct")
    owner = f"{BYTECODE_KIND}/{container_id}"
    # Among the containers' directories: if this agent dies, the next one sweeps it there.
    state_dir = data_dir / "containers" / container_id
    state_dir.mkdir(mode=0o700, parents=True)
    spec = ContainerSpec(
        container_id=container_id,
        layers=tuple(layers),
        state_dir=str(state_dir),
        id_range=ranges.acquire(owner),
        # Isolated and without site: nothing but this program runs.
        argv=(python_path, "-I", "-S", "-c", program),
        env={"PATH": DEFAULT_PATH, "LANG": "C.UTF-8"},
        binds=(Bind(library_dir, LIBRARY_DIR),),
        limits=Limits(memory_bytes=_MEMORY_BYTES, pids_max=64),
        labels={KIND_LABEL: BYTECODE_KIND},
    )
    try:
        started = await runtime.start(spec)
        reads = [asyncio.ensure_future(_read_all(fd)) for fd in (started.stdout_fd, started.stderr_fd)]
        try:
            async with asyncio.timeout(TIMEOUT_S):
                printed, _ = await asyncio.gather(*reads)
        except TimeoutError:
            await runtime.kill(container_id, signal.SIGKILL)
            raise RuntimeFailure(f"cannot run {python_path}: no end within {TIMEOUT_S:.0f} s") from None
        finally:
            for read in reads:
                read.cancel()
            await asyncio.gather(*reads, return_exceptions=True)
        return printed
    finally:
        await runtime.remove(container_id)
        await asyncio.to_thread(remove_tree, str(state_dir))
        ranges.release(owner)


async def _read_all(descriptor: int) -> bytes:
    """What comes out of a pipe until its end; closes it."""
    printed = bytearray()

    def take(chunk: bytes) -> None:
        printed.extend(chunk)
        if len(printed) > OUTPUT_BYTES_MAX:
            raise RuntimeFailure(f"cannot run Python: it printed more than {OUTPUT_BYTES_MAX >> 20} MiB")

    try:
        await read_pipe(descriptor, take)
    finally:
        os.close(descriptor)
    return bytes(printed)
