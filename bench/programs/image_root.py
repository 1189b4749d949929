"""Starts containers of one and of ten layers on a spawner of its own, in turns; prints how long their roots took."""

from __future__ import annotations

import asyncio
import json
import os
import statistics
import sys
import tempfile
from pathlib import Path

from squall.agent.image.layer.store import LayerStore
from squall.agent.spread import make_apart, spread_apart
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


async def measure(data_dir: Path, count: int, place: Path) -> dict[int, list[float]]:
    """The milliseconds of each start's root, by how many layers it has."""
    times_ms: dict[int, list[float]] = {1: [], LAYERS: []}
    paths = layers(data_dir, place)
    async with await SpawnerRuntime.open(str(place / "spawner"), place.name, idle_s=5) as runtime:
        for number in range(2 * (count + 1)):
            depth = LAYERS if number % 2 else 1
            state_dir = place / f"ct-{number}"
            make_apart(state_dir)
            # They go on running: the kernel takes apart the namespaces of one that ends later, under locks that the
            # next one needs for its mounts.
            spec = ContainerSpec(
                f"ct-{number}", paths[:depth], str(state_dir), IdRange(0x6000_0000), ["/bin/sleep", "300"], {}
            )
            started = await runtime.start(spec)
            os.close(started.stdout_fd)
            os.close(started.stderr_fd)
            times_ms[depth].append(started.phase_ms["rootfs"])
        await runtime.shutdown()
    return times_ms


def main() -> None:
    """Print the numbers as one line of JSON."""
    place = Path(tempfile.mkdtemp(prefix="sq-", dir="/tmp"))
    # As the agent has the directory of its containers.
    spread_apart(place)
    try:
        times_ms = asyncio.run(measure(Path(sys.argv[1]), int(sys.argv[2]), place))
    finally:
        remove_tree(str(place))
    (first_ms, *deep_ms), (_, *flat_ms) = times_ms[LAYERS], times_ms[1]
    found = {"p50_ms": statistics.median(deep_ms), "first_ms": first_ms, "one_layer_ms": statistics.median(flat_ms)}
    print(json.dumps({**found, "min_ms": min(deep_ms)}))


main()
