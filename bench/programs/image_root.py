"""Starts containers of one ten-layer image on a spawner of its own and prints how long their roots took."""

from __future__ import annotations

import asyncio
import json
import os
import statistics
import sys
import tempfile
from pathlib import Path

from squall.agent.image.layer.store import LayerStore
from squall.erofs.writer import pack
from squall.runtime.client import SpawnerRuntime
from squall.runtime.removal import remove_tree
from squall.runtime.spec import ContainerSpec, IdRange

LAYERS = 10


def layers(data_dir: Path, place: Path) -> list[str]:
    """The largest layer of the store, which is a base, and small ones on it."""
    base = max(LayerStore(data_dir, is_packed=True).list(), key=lambda layer: layer.size_bytes)
    found = [base.path]
    for number in range(1, LAYERS):
        tree = place / str(number)
        (tree / "opt" / str(number)).mkdir(parents=True)
        (tree / "opt" / str(number) / "file").write_text("x" * 10_000)
        pack(str(tree), place / f"{number}.erofs")
        found.append(str(place / f"{number}.erofs"))
    return found


async def measure(data_dir: Path, count: int, place: Path) -> list[float]:
    """The milliseconds of each start's root."""
    times_ms: list[float] = []
    paths = layers(data_dir, place)
    async with await SpawnerRuntime.open(str(place / "spawner"), place.name, idle_s=5) as runtime:
        for number in range(count + 1):
            state_dir = place / f"ct-{number}"
            state_dir.mkdir()
            spec = ContainerSpec(f"ct-{number}", paths, str(state_dir), IdRange(0x6000_0000), ["/bin/true"], {})
            started = await runtime.start(spec)
            os.close(started.stdout_fd)
            os.close(started.stderr_fd)
            times_ms.append(started.phase_ms["rootfs"])
            await runtime.remove(spec.container_id)
        await runtime.shutdown()
    return times_ms


def main() -> None:
    """Print the numbers as one line of JSON."""
    place = Path(tempfile.mkdtemp(prefix="sq-", dir="/tmp"))
    try:
        first_ms, *times_ms = asyncio.run(measure(Path(sys.argv[1]), int(sys.argv[2]), place))
    finally:
        remove_tree(str(place))
    print(json.dumps({"p50_ms": statistics.median(times_ms), "first_ms": first_ms}))


main()
