"""What steps printed is kept with their layers, bounded, without secrets, and of failed steps for a while."""

from __future__ import annotations

import os
import time
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest

from squall.agent.image import step_logs
from squall.agent.image.making import BuildFailed
from squall.agent.image.step_logs import StepLog, StepLogs
from squall.protocol import image_steps
from squall.protocol.image import ImageStep, image_id
from squall.protocol.log import STDOUT, SYSTEM, LogEntry
from squall.runtime.fake import FakeProcess
from squall.runtime.spec import ContainerSpec
from tests.agent.image.shop import RUN, Shop, make_spec, open_shop

OTHER = image_steps.run_commands(("make another",))


@pytest.fixture
async def shop(tmp_path: Path) -> AsyncIterator[Shop]:
    async with open_shop(tmp_path) as opened:
        yield opened


def read(shop: Shop, *steps: ImageStep, layers: int = 0, tail: int = -1) -> list[str]:
    found = StepLogs(shop.data_dir, time.time).read(image_id(make_spec(*steps)), layers, tail)
    assert found is not None
    return [entry.text for entry in found]


async def test_output_of_steps_is_read_later_also_when_they_come_from_the_cache(shop: Shop) -> None:
    await shop.build(RUN, OTHER)
    await shop.build(RUN, OTHER)

    everything = read(shop, RUN, OTHER)

    assert [text for text in everything if not text.startswith("done in ")] == [
        *("step 2 of 3: run_commands make it", "line of 1"),
        *("step 3 of 3: run_commands make another", "line of 2"),
    ]
    assert read(shop, RUN, OTHER, layers=1) == everything[3:]
    assert read(shop, RUN, OTHER, tail=2) == everything[-2:]
    assert read(shop, RUN, OTHER, tail=0) == []
    assert StepLogs(shop.data_dir, time.time).read("im-123456789") is None
    assert StepLogs(shop.data_dir, time.time).read("../../etc/passwd") is None


async def test_images_that_begin_alike_share_the_logs_of_their_steps(shop: Shop) -> None:
    await shop.build(RUN)
    await shop.build(RUN, OTHER)

    assert read(shop, RUN, OTHER)[:3] == read(shop, RUN)


async def test_failed_step_leaves_its_log_with_the_reason(shop: Shop) -> None:
    async def fail(spec: ContainerSpec) -> int:
        return 3

    shop.step = fail
    with pytest.raises(BuildFailed):
        await shop.build(RUN)

    lines = read(shop, RUN)

    assert lines[:2] == ["step 2 of 2: run_commands make it", "line of 1"]
    assert "failed after" in lines[2]
    assert "exit status 3" in lines[2]
    assert "squall shell" not in lines[2]
    assert len(lines) == 3


async def test_values_of_secrets_are_not_in_the_log(shop: Shop) -> None:
    say = shop.machine.programs["sh"]

    async def tell_all(process: FakeProcess) -> int:
        await process.write(f"the word is {process.env['TOKEN']}\n".encode())
        return await say(process)

    shop.machine.programs["sh"] = tell_all
    step = replace(RUN, secrets=("mine",))

    await shop.build(step, secrets={"mine": {"TOKEN": "open sesame"}})

    assert "the word is ***" in read(shop, step)
    for path in (shop.data_dir / "image-logs").iterdir():
        assert "sesame" not in path.read_text()


async def test_log_goes_with_its_layer_and_after_a_while_without_one(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    built = await shop.build(RUN)
    logs = StepLogs(shop.data_dir, time.time)

    logs.tidy(lambda key: shop.store.find(key) is not None)
    kept = read(shop, RUN)
    shop.store.remove(built.config.layers[-1])
    logs.tidy(lambda key: shop.store.find(key) is not None)
    for_a_while = read(shop, RUN)
    later = StepLogs(shop.data_dir, lambda: time.time() + step_logs.LAYERLESS_S + 60.0)
    later.tidy(lambda key: shop.store.find(key) is not None)

    assert kept == for_a_while != []
    assert logs.read(built.image_id) is None
    assert os.listdir(shop.data_dir / "image-logs") == []


async def test_only_so_many_logs_without_a_layer_are_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(step_logs, "LAYERLESS_MAX", 2)
    top = tmp_path / "image-logs"
    top.mkdir()
    for number in range(4):
        (top / f"{number:064}.log").write_text("")
        os.utime(top / f"{number:064}.log", (time.time() - 10 * number,) * 2)

    StepLogs(tmp_path, time.time).tidy(lambda key: key.endswith("3"))

    assert sorted(path.stem[-1] for path in top.iterdir()) == ["0", "1", "3"]


def test_of_much_output_the_beginning_and_the_end_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(step_logs, "FIRST_BYTES_MAX", 20)
    monkeypatch.setattr(step_logs, "LAST_BYTES_MAX", 20)
    log = StepLog(lambda: 5.0)

    for number in range(100):
        log.add(f"line {number:05}")

    texts = [entry.text for entry in log.entries]
    assert texts == ["line 00000", "line 00001", "... 96 lines are not kept", "line 00098", "line 00099"]
    assert log.entries[0] == LogEntry(5.0, STDOUT, "line 00000")
    assert log.entries[2].source == SYSTEM
