"""Templates on disk: when they are put there, when they come back, and when there are none."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import itertools
import json
import os
import threading
import time
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from squall.agent.agent import Agent
from squall.agent.disk import Space
from squall.agent.outfit import Outfit
from squall.agent.template import saved, saver
from squall.agent.template.order import OrderedTimes
from squall.agent.template.saved import SavedTemplate, SavedTemplates
from squall.protocol.image_catalog import NodeGc, NodeImageGc
from squall.protocol.template import NodeTemplate, NodeTemplateDrop, NodeTemplateDropped, NodeTemplatesFree
from squall.runtime.contract import Started, TemplateReport
from squall.runtime.errors import RuntimeFailure, TemplateUnfit
from squall.runtime.fake import FakeMachine, FakeRuntime
from squall.runtime.spec import ContainerSpec
from tests.agent.nodes import node, snapshot, specs, template_of, told
from tests.agent.parts import until
from tests.agent.world import World

pytestmark = [pytest.mark.long, pytest.mark.timeout(60), pytest.mark.usefixtures("impatient", "no_pools")]

MIB = 2**20
SLOW = TemplateReport(is_ready=True, memory_bytes=20 * MIB, import_ms=2_000.0)
MACHINE = {"CRIU": "4.1", "kernel": "6.1", "processor": "some", "Squall": "0.4"}


@pytest.fixture(autouse=True)
def here(monkeypatch: pytest.MonkeyPatch, world: World) -> None:
    """Where templates can be saved, and are at once; they are slow to load."""
    monkeypatch.setattr(saved, "machine_facts", lambda: MACHINE)
    monkeypatch.setattr(saver, "SAVE_AFTER_S", 0.0)
    monkeypatch.setattr(saver, "AGAIN_S", (0.0, 0.0))
    world.report = SLOW


def saving(world: World, **changes: Any) -> contextlib.AbstractAsyncContextManager[Agent]:
    return node(world, template_disk_mib=100, **changes)


async def reboot(world: World) -> None:
    """Nothing lives any more; the disk is as it was."""
    await world.machine.close()
    world.machine = FakeMachine({"python3": world.guest})
    world.templates.clear()


def on_disk(world: World) -> list[Path]:
    top = world.data_dir / "saved"
    return sorted(one for one in top.glob("*") if (one / "template").exists()) if top.exists() else []


async def kept(world: World) -> Path:
    """Wait until the one template is on the disk; returns where."""
    await until(lambda: [one for one in on_disk(world) if not one.name.startswith(".")])
    await until(lambda: any(one.disk_mib for one in world.agent.templates.told()))
    (found,) = on_disk(world)
    return found


@contextlib.asynccontextmanager
async def with_one_saved(world: World, **changes: Any) -> AsyncIterator[tuple[Path, NodeTemplate]]:
    """A node with a template on its disk, up to its reboot."""
    async with saving(world) as agent:
        await snapshot(world, **changes)
        place = await kept(world)
        (listed,) = await told(world)
        yield place, listed
        await agent.end_all(0.0)
    await reboot(world)


async def test_a_template_that_was_slow_to_load_is_saved_and_back_after_a_reboot(world: World) -> None:
    async with with_one_saved(world) as (place, before):
        # The template itself, and its copy that was brought back as a check, which is gone.
        assert len(world.templates) == 2
        assert [one.restore_from for one in specs(world, "tp-")] == [""]
        assert before.disk_mib >= 1
        assert (before.state, before.disk_cause, before.is_brought_back) == ("ready", "", False)
        assert os.stat(place).st_mode & 0o777 == 0o700
        assert os.stat(place.parent).st_mode & 0o777 == 0o700

    async with saving(world) as agent:
        await until(lambda: agent.templates.told())
        (listed,) = await told(world)
        assert (listed.template_id, listed.state, listed.memory_mib) == (before.template_id, "saved", 0)

        _, answer = await snapshot(world)

        assert (answer.path, answer.cause) == ("fork", "")
        assert "from_disk" in answer.phase_ms
        assert [one.restore_from for one in specs(world, "tp-")] == [str(place / "template")]
        (listed,) = await told(world)
        assert (listed.state, listed.is_brought_back, listed.disk_mib) == ("ready", True, before.disk_mib)
        await asyncio.sleep(0.1)
        assert len(world.templates) == 1, "it is not saved again"
        # Of the next one it is known from where it came.
        _, answer = await snapshot(world)
        assert "from_disk" not in answer.phase_ms
        await agent.end_all(0.0)
    assert not world.left()


@pytest.mark.parametrize(
    ("report", "changes", "disk_mib"),
    [
        (replace(SLOW, import_ms=200.0), {}, 100),
        (SLOW, {"env": {"PASSWORD": "hunter2"}}, 100),
        (SLOW, {"secrets": {"PASSWORD": "hunter2"}, "secrets_mark": "st-1:1"}, 100),
        (SLOW, {}, 0),
        (SLOW, {"isolation": "gvisor"}, 100),
    ],
)
async def test_what_is_quick_to_load_or_may_hold_secrets_is_not_saved(
    world: World, report: TemplateReport, changes: dict[str, Any], disk_mib: int
) -> None:
    world.report = report
    async with node(world, template_disk_mib=disk_mib):
        await snapshot(world, **changes)
        await asyncio.sleep(0.1)

        assert not on_disk(world)
        assert len(world.templates) == 1


@pytest.mark.parametrize("kind", ["env", "secrets"])
async def test_secrets_are_remembered_by_the_next_agent(
    world: World, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(saver, "SAVE_AFTER_S", 3_600.0)
    async with saving(world):
        await snapshot(world, **{kind: {"PASSWORD": "hunter2"}})
        template = template_of(world)
        assert "hunter2" not in (template.outfit.directory / "template.json").read_text()
    monkeypatch.setattr(saver, "SAVE_AFTER_S", 0.0)
    async with saving(world):
        assert template_of(world).is_ready
        assert not template_of(world).request.env
        assert not template_of(world).request.secrets
        await asyncio.sleep(0.1)

        assert not on_disk(world)


async def test_a_template_is_not_saved_where_the_machine_s_proxy_has_a_password(world: World) -> None:
    world.slots.env = {"HTTPS_PROXY": "http://me:hunter2@proxy:3128"}
    async with saving(world):
        await snapshot(world)
        await asyncio.sleep(0.1)

        assert not on_disk(world)


async def test_nothing_is_saved_without_criu(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(saved, "machine_facts", lambda: None)
    async with saving(world):
        await snapshot(world)
        await asyncio.sleep(0.1)

        assert not (world.data_dir / "saved").exists()
        assert (await told(world))[0].disk_cause == ""


# What fails


async def test_what_does_not_come_back_is_made_anew_and_given_up_after_three_times(world: World) -> None:
    async with with_one_saved(world) as (place, _):
        pass
    for attempt in range(1, 4):
        (place / "template" / "images").rmdir()
        async with saving(world) as agent:
            _, answer = await snapshot(world)

            assert answer.path == "fork"
            assert "its template was made anew: it could not be brought back: " in answer.cause
            assert [one.restore_from for one in specs(world, "tp-")] == [""]
            (listed,) = [one for one in await told(world) if one.state == "ready"]
            if attempt < 3:
                # It has been saved again.
                await kept(world)
            else:
                assert "none was saved there whole; given up after 3 attempts" in listed.disk_cause
                assert listed.disk_mib == 0
                await asyncio.sleep(0.1)
                assert not on_disk(world)
            await agent.end_all(0.0)
        await reboot(world)
    async with saving(world) as agent:
        _, answer = await snapshot(world)
        await asyncio.sleep(0.1)
        assert (answer.path, answer.cause) == ("fork", "")
        assert not on_disk(world), "given up, also by the next agent"
        (listed,) = await told(world)
        assert "given up" in listed.disk_cause

        drop = NodeTemplateDrop((listed.template_id,))
        await world.server.peer.request("NodeTemplateDrop", drop, NodeTemplateDropped)
        await snapshot(world)
        await kept(world)
        await agent.end_all(0.0)


async def test_what_comes_back_and_says_that_it_is_unfit_is_made_anew(world: World) -> None:
    async with with_one_saved(world):
        pass
    world.report = TemplateReport(is_ready=False, cause="it has lost its memory")
    world.may_report.clear()
    async with saving(world) as agent:
        starting = asyncio.ensure_future(snapshot(world))
        await until(lambda: len(world.templates) == 1)
        # Lets the one report that waits, and not the next.
        world.may_report.set()
        world.may_report.clear()
        await until(lambda: len(world.templates) == 2)
        world.report = SLOW
        world.may_report.set()

        _, answer = await starting

        assert answer.path == "fork"
        assert "it has lost its memory" in answer.cause
        assert len(world.templates) >= 2
        await agent.end_all(0.0)
    assert not world.left()


async def test_what_is_of_no_use_when_it_is_back_does_not_come_back_again(world: World) -> None:
    async with with_one_saved(world):
        pass
    async with saving(world) as agent:
        await snapshot(world)
        agent.templates._roster.unfit(template_of(world), "2 containers forked from it ended at once")
        await until(lambda: list((world.data_dir / "saved").glob("*/about.json")) and not on_disk(world))

        (about,) = (json.loads(one.read_text()) for one in (world.data_dir / "saved").glob("*/about.json"))
        assert about["failure_count"] == 1
        assert "brought back, it was unfit: 2 containers" in about["cause"]


async def test_what_cannot_be_saved_is_tried_three_times_and_that_is_said(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    world.machine.save_failures = [TemplateUnfit(f"a lock on a file, number {number}") for number in range(9)]
    async with saving(world):
        await snapshot(world)
        await until(lambda: "given up" in world.agent.templates.told()[0].disk_cause)
        await asyncio.sleep(0.1)  # It would be tried again meanwhile.

        assert len(world.machine.save_failures) == 6
        (listed,) = await told(world)
        assert listed.state == "ready"
        assert listed.disk_cause == "it could not be saved: a lock on a file, number 2; given up after 3 attempts"
        assert listed.disk_cause in caplog.text
        assert not on_disk(world)


async def test_what_does_not_come_back_when_it_is_checked_is_saved_again(world: World) -> None:
    async with saving(world) as agent:
        await snapshot(world)
        world.machine.start_failures = [RuntimeFailure("no place in memory")]
        place = await kept(world)

        assert not world.machine.start_failures
        assert json.loads((place / "about.json").read_text())["failure_count"] == 1, "the second attempt was good"
        await agent.end_all(0.0)
    await reboot(world)
    async with saving(world):
        _, answer = await snapshot(world)
        assert "from_disk" in answer.phase_ms
        assert "failure_count" not in json.loads((place / "about.json").read_text())


async def test_what_is_larger_than_all_may_be_is_said_to_be(world: World) -> None:
    async with node(world, template_disk_mib=10):
        await snapshot(world)
        await until(lambda: template_of(world).is_ready and (world.data_dir / "saved").exists())
        await until(lambda: world.agent.templates.told()[0].disk_cause)

        (listed,) = await told(world)
        assert "it takes 20 MiB" in listed.disk_cause
        assert "SQUALL_TEMPLATE_DISK_MIB" in listed.disk_cause


async def test_where_disk_or_memory_is_short_that_is_told_and_it_is_saved_when_there_is_room(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def waits(cause: str) -> None:
        await until(lambda: world.agent.templates.told()[0].disk_cause.startswith(f"not yet: {cause}"))
        assert not on_disk(world)

    async with saving(world, template_memory_mib=30):
        await snapshot(world)
        await waits("to check it, templates would have to occupy more memory")
    spaces = [Space(30 * MIB, 10_000, 20 * MIB, 10)]
    monkeypatch.setattr(saver, "space_of", lambda _: spaces[-1])
    monkeypatch.setattr(saver, "STILL_S", 0.05)
    async with saving(world) as agent:
        await waits("it needs 41 MiB of a disk that is nearly full")
        spaces.append(Space(300 * MIB, 10_000, 20 * MIB, 10))

        assert "failure_count" not in json.loads((await kept(world) / "about.json").read_text())
        assert agent.templates.told()[0].disk_cause == ""
        await agent.end_all(0.0)


async def test_a_disk_that_gets_full_while_a_template_is_saved_is_no_failure_of_it(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    plenty, full = Space(300 * MIB, 10_000, 20 * MIB, 10), Space(1 * MIB, 10_000, 20 * MIB, 10)
    spaces = [plenty, full]
    monkeypatch.setattr(saver, "space_of", lambda _: spaces.pop(0) if spaces else plenty)
    world.machine.save_failures = [RuntimeFailure("CRIU: Error (criu/page-xfer.c): No space left on device")]
    causes: list[str] = []
    note = SavedTemplates.waits

    def waits(store: SavedTemplates, one: SavedTemplate, cause: str) -> None:
        causes.append(cause)
        note(store, one, cause)

    monkeypatch.setattr(SavedTemplates, "waits", waits)
    async with saving(world) as agent:
        await snapshot(world)

        assert "failure_count" not in json.loads((await kept(world) / "about.json").read_text())
        assert causes == ["not yet: there was no room left: CRIU: Error (criu/page-xfer.c): No space left on device"]
        await agent.end_all(0.0)


async def test_one_that_ends_while_it_comes_back_is_told_with_how_it_did(world: World) -> None:
    async with with_one_saved(world):
        pass
    world.report = None
    world.may_report.clear()
    async with saving(world) as agent:
        starting = asyncio.ensure_future(snapshot(world))
        await until(lambda: len(world.templates) == 1)
        # Lets the one end that waits, and not the next, which is made anew at once.
        world.may_report.set()
        world.may_report.clear()
        await until(lambda: len(world.templates) == 2)
        world.report = SLOW
        world.may_report.set()

        _, answer = await starting

        assert "it could not be brought back: it ended before it was ready (exit code 1)" in answer.cause
        await agent.end_all(0.0)


# What goes


async def test_it_stays_where_memory_is_wanted(world: World) -> None:
    async with saving(world) as agent:
        container_id, _ = await snapshot(world)
        place = await kept(world)
        await world.end(container_id)

        freed = await world.server.peer.request("NodeTemplatesFree", NodeTemplatesFree(1), NodeTemplateDropped)

        assert len(freed.template_ids) == 1
        await until(lambda: not agent.templates._roster.there)
        assert on_disk(world) == [place]
        assert (await snapshot(world))[1].phase_ms.keys() >= {"from_disk"}


@pytest.mark.parametrize("how", ["id", "app", "function", "image", "version", "without"])
async def test_it_goes_with_its_function_its_code_and_its_image_and_when_it_is_asked_for(
    world: World, how: str
) -> None:
    async with with_one_saved(world) as (_, before):
        pass
    async with saving(world) as agent:
        await until(lambda: agent.templates.told())
        if how == "id":
            drop = NodeTemplateDrop((before.template_id,))
            dropped = await world.server.peer.request("NodeTemplateDrop", drop, NodeTemplateDropped)
            assert dropped.template_ids == (before.template_id,)
        elif how == "app":
            agent.templates.drop_of(before.app_id)
        elif how == "function":
            agent.templates.drop_of(before.app_id, before.function_id)
        elif how == "image":
            await world.server.peer.request("NodeImageGc", NodeImageGc(0.0, False), NodeGc)
        elif how == "version":
            await snapshot(world, version=2)
        else:
            await world.ask()

        await until(lambda: not [one for one in on_disk(world) if f'"{before.template_id}"' in _about(one)])
        await agent.end_all(0.0)


@pytest.mark.parametrize(("version", "stays"), [(1, True), (2, False)])
async def test_a_deploy_takes_what_is_of_versions_before_off_the_disk(world: World, version: int, stays: bool) -> None:
    async with with_one_saved(world, follows_id="fu-00000001", version=1) as (_, before):
        pass
    async with saving(world) as agent:
        assert [one.template_id for one in await told(world)] == [before.template_id], "known before anybody asks"
        agent.templates.drop_of(before.app_id, functions={before.function_id: version})

        assert bool(await told(world)) == stays
        await until(lambda: bool(on_disk(world)) == stays)
        await agent.end_all(0.0)


async def test_what_is_dropped_while_it_is_put_on_the_disk_is_not_kept(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    is_put, may_go_on = threading.Event(), threading.Event()

    def put(place: Path, target: Path) -> None:
        os.rename(place, target)
        is_put.set()
        may_go_on.wait(10)

    monkeypatch.setattr(saved, "_put", put)
    async with saving(world) as agent:
        await snapshot(world, follows_id="fu-00000001", version=1)
        await until(is_put.is_set)
        agent.templates.drop_of("ap-00000001", functions={"fu-00000001": 2})
        may_go_on.set()

        await until(lambda: not on_disk(world))
        assert not list(agent.templates._saved.known())
        await agent.end_all(0.0)


def _about(place: Path) -> str:
    return (place / "about.json").read_text()


@pytest.mark.parametrize("fact", MACHINE)
async def test_what_was_saved_with_another_kernel_or_processor_is_dropped(
    world: World, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, fact: str
) -> None:
    caplog.set_level("INFO", "squall.agent")
    async with with_one_saved(world):
        pass
    monkeypatch.setattr(saved, "machine_facts", lambda: {**MACHINE, fact: "another"})
    async with saving(world) as agent:
        _, answer = await snapshot(world)

        assert answer.path == "fork"
        assert "from_disk" not in answer.phase_ms
        assert f"it was saved with another {fact}" in caplog.text
        assert "brought back" not in _about(await kept(world))
        await agent.end_all(0.0)


async def test_whatever_lies_there_is_cleared_away(world: World, tmp_path: Path) -> None:
    async with with_one_saved(world) as (place, _):
        pass
    top = place.parent
    others = tmp_path / "others"
    others.mkdir()
    (others / "about.json").write_text(_about(place))
    (top / ".new-0123").mkdir()
    (top / "f").write_text("x")
    (top / ("0" * 40)).symlink_to(others)
    for number, text in enumerate(("", "[" * 60_000, "{}", _about(place))):
        strange = top / f"{number + 1:040}"
        strange.mkdir()
        (strange / "about.json").write_text(text)
    (top / ("a" * 40)).mkdir()
    os.mkfifo(top / ("a" * 40) / "about.json.new")

    async with saving(world) as agent:
        await until(lambda: os.listdir(top) == [place.name])
        assert (others / "about.json").exists()
        _, answer = await snapshot(world)
        assert "from_disk" in answer.phase_ms
        await agent.end_all(0.0)


async def test_an_agent_that_ends_in_the_middle_leaves_nothing(world: World) -> None:
    async with saving(world) as agent:
        began = asyncio.Event()

        class Slow(FakeRuntime):
            async def save(self, template_id: str, directory: str, file_bytes_max: int = 0) -> None:
                began.set()
                await asyncio.sleep(60)

        agent.templates._saver._services = replace(agent.templates._saver._services, runtime=Slow(world.machine))
        await snapshot(world)
        await began.wait()
        await agent.end_all(0.0)
        assert not os.listdir(world.data_dir / "saved")
    assert not world.left()


async def test_one_that_was_being_checked_when_the_agent_was_killed_does_not_take_the_templates_place(
    world: World,
) -> None:
    async with saving(world) as agent:

        class Holding(FakeRuntime):
            async def save(self, template_id: str, directory: str, file_bytes_max: int = 0) -> None:
                await super().save(template_id, directory, file_bytes_max)
                world.may_report.clear()

        agent.templates._saver._services = replace(agent.templates._saver._services, runtime=Holding(world.machine))
        container_id, _ = await snapshot(world)
        before = template_of(world).template_id
        await until(lambda: len(world.templates) == 2)
        # Killed: nothing is cleared away.
        agent.templates._outfits.give_back = _nothing  # type: ignore[method-assign]
    world.may_report.set()

    async with saving(world) as agent:
        assert template_of(world).template_id == before
        await until(lambda: [one.container_id for one in specs(world, "tp-")] == [before])
        assert agent.containers.is_running(container_id)
        assert (await snapshot(world))[1].path == "fork"
        await agent.end_all(0.0)
    assert not world.left()


async def _nothing(outfit: Outfit, failure: BaseException | None = None) -> bool:
    return False


async def test_what_is_taken_off_the_disk_while_it_comes_back_has_not_failed(world: World) -> None:
    async with with_one_saved(world) as (place, _):
        pass
    async with saving(world) as agent:

        class Taken(FakeRuntime):
            async def start(self, spec: ContainerSpec) -> Started:
                if spec.restore_from == str(place / "template"):
                    agent.templates._saved.forget([place.name])
                    raise RuntimeFailure("its pages are not there")
                return await super().start(spec)

        agent.templates._making._services = replace(agent.templates._making._services, runtime=Taken(world.machine))
        _, answer = await snapshot(world)

        assert answer.path == "fork"
        assert answer.cause == "its template was made anew: what was saved of it was dropped meanwhile"
        assert "failure_count" not in json.loads((await kept(world) / "about.json").read_text())
        await agent.end_all(0.0)


# Alone


def about(key: str, **fields: Any) -> SavedTemplate:
    known = SavedTemplate(key * 40, f"tp-{key}", "ap-1", "fu-1", "im-1", 1.0, {}, size_bytes=40 * MIB)
    return replace(known, **fields)


@pytest.fixture
async def store(tmp_path: Path) -> SavedTemplates:
    made = SavedTemplates(tmp_path, 100 * MIB, lambda place: None, time.time)  # tidy: a clock of files
    assert await made.open()
    return made


async def keep(store: SavedTemplates, one: SavedTemplate) -> None:
    place = store.begin()
    (store.template_in(place) / "pages").write_bytes(b"x")
    await store.keep(place, one)


async def test_those_used_longest_ago_go_when_all_are_too_much(store: SavedTemplates) -> None:
    for key in "abc":
        await keep(store, about(key, function_id=f"fu-{key}"))
        if key == "b":
            store.place("a" * 40)
    assert [one.key[0] for one in store.known()] == ["a", "c"]

    # The order of use is known after a restart, too.
    store.place("a" * 40)
    again = SavedTemplates(store.top.parent, 100 * MIB, lambda place: None, time.time)  # tidy: a clock of files
    await again.open()
    assert [one.key[0] for one in again.known() if one.key[0] != "b"] == ["c", "a"]


async def test_what_goes_has_another_name_at_once_and_what_cannot_be_written_leaves_nothing(tmp_path: Path) -> None:
    discarded: list[Path] = []
    store = SavedTemplates(tmp_path, 100 * MIB, discarded.append, time.time)  # tidy: a clock of files
    await store.open()
    await keep(store, about("a"))

    store.forget(["a" * 40])
    assert [one.name for one in discarded] != ["a" * 40]
    await keep(store, about("a"))
    assert set(store.top.iterdir()) == {discarded[0], store.top / ("a" * 40)}

    (store.top / ("b" * 40) / "in the way").mkdir(parents=True)
    await store.failed(about("b"), "it has not come back")
    assert set(store.top.iterdir()) - set(discarded) == {store.top / ("a" * 40), store.top / ("b" * 40)}


async def test_what_is_known_of_none_goes_before_what_is_there(
    store: SavedTemplates, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(saved, "SAVED_MAX", 2)
    await keep(store, about("a"))
    store.waits(about("b", size_bytes=0), "there is no room")
    await store.failed(about("c"), "it has not come back")
    assert [one.key[0] for one in store.known()] == ["a", "b", "c"]

    await keep(store, about("d"))

    assert [one.key[0] for one in store.known()] == ["a", "d"]


async def test_what_a_function_had_saved_before_goes_and_what_others_have_stays(store: SavedTemplates) -> None:
    for key, function_id in zip("abcd", ("fu-1", "fu-1", "fu-2", "fu-1"), strict=True):
        await keep(store, about(key, function_id=function_id, size_bytes=MIB))
    await store.failed(about("e", function_id="fu-1"), "it has not come back")
    store.place("b" * 40)
    store.forget(["d" * 40])

    again = SavedTemplates(store.top.parent, 100 * MIB, lambda place: None, time.time)  # tidy: a clock of files
    await again.open()
    for known in (store, again):
        known.supersede("fu-1", "b" * 40)
        assert sorted(one.key[0] for one in known.known()) == ["b", "c"]
        known.supersede("fu-1", "")
        known.supersede("fu-3", "")
        assert [one.key[0] for one in known.known()] == ["c"]
        known.supersede("fu-2", "")
        assert not list(known.known())
        assert not known._keys_of


async def test_one_goes_at_a_time_where_the_disk_is_nearly_full(store: SavedTemplates) -> None:
    for key in "ab":
        await keep(store, about(key, function_id=f"fu-{key}"))

    store.keep_within(Space(10, 10_000, 20, 10))
    assert [one.key[0] for one in store.known()] == ["b"]
    store.keep_within(Space(30, 10_000, 20, 10))
    assert [one.key[0] for one in store.known()] == ["b"]


async def test_a_boot_with_a_clock_in_the_future_takes_nothing_and_the_order_of_use_stays(tmp_path: Path) -> None:
    async def booted(year: int) -> SavedTemplates:
        clock = itertools.count((year - 1970) * 366 * 24 * 3_600.0)
        store = SavedTemplates(tmp_path, 200 * MIB, lambda place: None, OrderedTimes(lambda: next(clock)))
        await store.open()
        store.keep_within()
        return store

    store = await booted(2026)
    for key in "abc":
        await keep(store, about(key))
    ahead = await booted(2036)
    assert ahead.place("b" * 40)
    assert ahead.place("a" * 40)

    right = await booted(2027)
    assert [one.key[0] for one in right.known()] == ["c", "b", "a"]
    assert right.place("c" * 40)

    assert [one.key[0] for one in (await booted(2028)).known()] == ["b", "a", "c"]


async def test_a_node_that_cannot_read_what_is_on_its_disk_has_templates_all_the_same(
    world: World, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def unreadable() -> dict[str, str]:
        raise OSError(errno.EMFILE, "too many open files")

    monkeypatch.setattr(saved, "machine_facts", unreadable)
    async with saving(world) as agent:
        _, answer = await snapshot(world)

        assert answer.path == "fork"
        await until(lambda: "cannot read which templates are on the disk: [Errno 24]" in caplog.text)
        assert agent.templates.ready_count == 1


async def test_it_is_saved_when_what_is_on_the_disk_can_be_read_again(
    world: World, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    is_readable = threading.Event()

    def facts() -> dict[str, str]:
        if not is_readable.is_set():
            raise OSError(errno.EMFILE, "too many open files")
        return MACHINE

    monkeypatch.setattr(saved, "machine_facts", facts)
    monkeypatch.setattr(saver, "STILL_S", 0.05)
    async with saving(world) as agent:
        await snapshot(world)
        await until(lambda: caplog.text.count("cannot read which templates are on the disk") > 3)
        is_readable.set()

        with contextlib.suppress(TimeoutError):
            await until(lambda: [one for one in on_disk(world) if not one.name.startswith(".")])
        assert on_disk(world)
        await agent.end_all(0.0)
