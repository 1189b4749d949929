"""The layers that need no container, made in threads of which there may be too few."""

from __future__ import annotations

import asyncio
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from squall.agent.image.layer.store import LayerStore
from squall.agent.image.machine.settings import MachineSettings
from squall.agent.image.making import Making
from squall.agent.image.outside import OutsideMaker
from squall.agent.image.progress import Progress
from squall.protocol import image, image_steps
from squall.protocol.image import BuildEvent, ImageConfig, ImageSpec

_LIMIT_S = 0.01


async def test_layer_that_waits_for_a_thread_has_not_begun_to_take_long(tmp_path: Path) -> None:
    spec = ImageSpec((image_steps.debian_slim("3.11"),))
    making = Making(
        spec,
        Progress(ImageConfig(), []),
        spec.steps[0],
        image.step_keys(spec)[0],
        BuildEvent("step", 1, 1),
        lambda event: None,
    )
    gate = threading.Event()
    with ThreadPoolExecutor(1) as executor:
        busy = executor.submit(gate.wait)
        maker = OutsideMaker(LayerStore(tmp_path), MachineSettings(), executor, str, "uv", 1, _LIMIT_S)
        waiting = asyncio.ensure_future(maker.make_base(making))
        _, unfinished = await asyncio.wait([waiting], timeout=20 * _LIMIT_S)
        waiting.cancel()
        await asyncio.wait([waiting])
        gate.set()

    assert unfinished
    assert busy.result()
