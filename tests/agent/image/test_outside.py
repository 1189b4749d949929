"""The layers that need no container, made in threads of which there may be too few."""

from __future__ import annotations

import asyncio
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from squall.agent.image.layer.store import LayerStore
from squall.agent.image.machine.settings import MachineSettings
from squall.agent.image.making import BuildFailed, Making
from squall.agent.image.outside import OutsideMaker
from squall.agent.image.progress import Progress
from squall.protocol import image, image_steps
from squall.protocol.image import BuildEvent, ImageConfig, ImageSpec
from tests.agent.image.shop import NOTHING, make_mount, open_shop

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


async def test_copy_of_a_file_that_is_too_large_is_told_with_the_step_and_nothing_is_left(tmp_path: Path) -> None:
    async with open_shop(tmp_path, step_bytes_max=2**20) as shop:
        make_mount(shop, "mo-0123456789", "big")
        (shop.data_dir / "mounts/mo-0123456789/big").write_bytes(b"x" * 2**21)

        with pytest.raises(BuildFailed, match=r"was ended: copying files takes 1 MiB or more, .*SQUALL_STEP_BYTES_MAX"):
            await shop.build(image_steps.copy("mo-0123456789", "/srv"))

        assert shop.leftovers() == NOTHING
