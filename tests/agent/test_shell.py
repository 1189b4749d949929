"""Shells in images on the fake runtime: what they see, how they end, and that nothing is left."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from squall.agent import shell as agent_shell
from squall.agent.image import inherit
from squall.agent.image.block.store import BlockStore, open_store
from squall.agent.image.block.stored import StoredImages
from squall.agent.image.layer.holds import LayerHolds
from squall.agent.image.layer.store import LayerStore
from squall.agent.image.making import BuildFailed
from squall.agent.image.progress import BuiltImage
from squall.agent.known_images import KnownImages
from squall.agent.mounts import Mounts
from squall.agent.ranges import IdRanges
from squall.agent.shell import Shells
from squall.protocol import image, image_steps
from squall.protocol.channel.memory import MemoryChannel
from squall.protocol.container import TerminalInput, TerminalOutput
from squall.protocol.errors import EXHAUSTED, INVALID, NOT_FOUND, UNAVAILABLE, PlatformError
from squall.protocol.image import ImageSpec, ImageStep, image_id
from squall.protocol.image_shell import ImageShell
from squall.protocol.peer import Peer
from squall.protocol.request import Request
from squall.protocol.stream import Stream
from squall.runtime.fake import FakeProcess, FakeRuntime
from squall.runtime.spec import ContainerSpec
from tests.agent.image.block.stores import HASTY, store_in
from tests.agent.image.shop import NOTHING, RUN, Shop, make_spec, open_shop
from tests.agent.parts import CODEC, Files, until

pytestmark = pytest.mark.long

FAIL = image_steps.run_commands(("make it", "fail now"), env={"OF": "the step"}, secrets=("0",))


class Counter:
    """A node whose shells are asked for; images of its shop have a shell from their first step on."""

    def __init__(
        self, shop: Shop, runtime: FakeRuntime, threads: ThreadPoolExecutor, stored: StoredImages | None = None
    ) -> None:
        self.shop = shop
        self.files = Files()
        self.known = KnownImages(shop.data_dir, shop.builder, stored)
        self.known.prepare()
        self.holds = LayerHolds(shop.store)
        self.mounts = Mounts(shop.data_dir, self.files, threads, 2**30)
        self.mounts.prepare()
        self.ranges = IdRanges(shop.data_dir)
        self.shells = Shells(
            runtime, self.known, shop.builder.shells, self.holds, self.mounts, self.ranges
        )  # fmt: skip
        self.waiting: list[ContainerSpec] = []
        self.typed: list[FakeProcess] = []
        self.shop.step = self.step
        for name in ("sh", "bash"):
            shop.machine.programs[name] = self.run
        ours, theirs = MemoryChannel.pair()
        self.client, self._peer = Peer(ours, CODEC), Peer(theirs, CODEC, self)
        self.client.start()
        self._peer.start()

    async def step(self, spec: ContainerSpec) -> int:
        await self.shop.write_a_file(spec)
        for name in ("sh", "bash"):
            program = Path(spec.state_dir, "rw/upper/bin", name)
            program.parent.mkdir(exist_ok=True)
            program.touch(0o755)
        return 1 if "fail now" in " ".join(spec.argv) else 0

    async def run(self, process: FakeProcess) -> int:
        """A shell: that of a step, one that only waits, or one of a person."""
        first = [one.spec for one in self.shop.machine.containers.values() if one.first.process is process]
        if first and "kill -STOP" in process.argv[-1]:
            self.waiting += first
            await asyncio.Event().wait()
        if first:
            self.shop.specs.append(first[0])
            return await self.step(first[0])
        self.typed.append(process)
        while data := await process.read():
            await process.write(data)
        return 7

    async def answer(self, request: Request) -> tuple[Any, bytes] | None:
        await self.shells.serve(request)
        return None

    def event(self, method: str, params: Any, body: bytes) -> None:
        raise AssertionError(method)

    def closed(self, reason: str) -> None:
        pass

    async def close(self) -> None:
        await self.client.close()
        await self._peer.close()
        await self.shells.close()

    async def fail(self, *steps: ImageStep) -> str:
        """Build an image whose last step ends badly; returns its id."""
        spec = make_spec(*steps) if steps[0].kind != image.FROM_IMAGE else ImageSpec(steps)
        with pytest.raises(BuildFailed) as failed:
            await self.known.build(spec, lambda _: None, {"0": {"TOKEN": "the-value"}})
        assert failed.value.message.endswith(
            f"\nto try it by hand: squall shell --image-step {image_id(spec)}/{len(spec.steps)}"
        )
        return image_id(spec)

    def open(self, wanted: str, step: int = 0, **how: Any) -> Stream:
        return self.client.stream("NodeImageShell", ImageShell(wanted, step, **how))

    async def refused(self, wanted: str, step: int = 0) -> PlatformError:
        with pytest.raises(PlatformError) as refused:
            await asyncio.wait_for(self.open(wanted, step).next(TerminalOutput), 10)
        return refused.value

    async def is_clean(self) -> None:
        await until(lambda: self.shop.leftovers() == NOTHING)
        layers = self.shop.store.list()
        await until(lambda: not any(self.holds.users(layer.layer_id) for layer in layers))


@contextlib.asynccontextmanager
async def open_counter(data_dir: Path, stored: StoredImages | None = None, **of_shop: Any) -> AsyncIterator[Counter]:
    with ThreadPoolExecutor(2) as threads:
        async with open_shop(data_dir, **of_shop) as shop, FakeRuntime(shop.machine) as runtime:
            opened = Counter(shop, runtime, threads, stored)
            yield opened
            await opened.close()
            await opened.is_clean()


@contextlib.asynccontextmanager
async def storing_counter(data_dir: Path, store: BlockStore) -> AsyncIterator[tuple[Counter, StoredImages]]:
    """One that puts its images into a store, and takes those of others from it."""
    data_dir.mkdir(exist_ok=True)
    async with StoredImages(store, LayerHolds(LayerStore(data_dir, is_packed=True)), data_dir) as stored:
        async with open_counter(data_dir, stored, is_packed=True, fetched=stored.find_here) as counter:
            yield counter, stored


@pytest.fixture
async def counter(tmp_path: Path) -> AsyncIterator[Counter]:
    async with open_counter(tmp_path) as opened:
        yield opened


async def test_shell_before_a_step_has_all_that_the_step_has_but_its_secrets(counter: Counter) -> None:
    failed = await counter.fail(RUN, image_steps.env({"A": "b"}), image_steps.workdir("/new"), FAIL)
    of_step = counter.shop.specs[-1]

    stream = counter.open(failed, 5)
    first = await stream.next(TerminalOutput)
    await until(lambda: counter.typed)

    assert first is not None
    lines = first[1].decode().splitlines()
    assert lines[0].startswith("before step 5 of 5: run_commands make it")
    assert lines[1:4] == ["what the step runs:", "  make it", "  fail now"]
    assert lines[4] == "the step's secrets are not kept, and not set here: TOKEN"
    (spec,) = counter.waiting
    same = ("layers", "cwd", "user", "limits", "hostname", "labels")
    assert [getattr(spec, name) for name in same] == [getattr(of_step, name) for name in same]
    assert [bind.target for bind in spec.binds] == [bind.target for bind in of_step.binds]
    assert {**spec.env, "TOKEN": "the-value"} == of_step.env
    assert spec.network is not None
    assert counter.typed[0].env == spec.env
    assert "the-value" not in first[1].decode()
    assert spec.id_range != of_step.id_range  # builds are not kept from running
    stream.cancel()


async def test_what_is_typed_is_answered_and_the_code_comes_back(counter: Counter) -> None:
    failed = await counter.fail(RUN, FAIL)

    stream = counter.open(failed, 3)
    stream.send(TerminalInput(), b"ls\n")
    stream.send(TerminalInput(is_end=True))
    items = [item async for item in stream.items(TerminalOutput)]

    assert b"".join(body for item, body in items if item.source == "stdout") == b"ls\n"
    assert items[-1][0].exit_code == 7
    assert counter.typed[0].argv == ("/bin/bash",)


async def test_command_is_one_line_for_the_images_own_shell_and_is_not_introduced(counter: Counter) -> None:
    failed = await counter.fail(RUN, image_steps.shell(("/bin/sh", "-eu", "-c")), FAIL)

    stream = counter.open(failed, 4, command="ls | sort")
    first = await stream.next(TerminalOutput)
    await until(lambda: counter.typed)

    assert counter.typed[0].argv == ("/bin/sh", "-eu", "-c", "ls | sort")
    assert first is not None
    assert first[1].decode() == "the step's secrets are not kept, and not set here: TOKEN\n"
    stream.cancel()


async def test_step_sees_its_files_and_they_stay_as_long(counter: Counter) -> None:
    mount_id = counter.files.add({"requirements.txt": b"six\n"})
    (counter.shop.data_dir / "mounts" / mount_id).mkdir()
    failed = await counter.fail(RUN, image_steps.run_commands(("fail now",), mount_id=mount_id))

    stream = counter.open(failed, 3)
    await stream.next(TerminalOutput)

    assert [bind.source for bind in counter.waiting[0].binds if bind.target == image.BUILD_FILES]
    assert [known.users for known in counter.mounts._sets.values()] == [1]
    stream.cancel()
    await until(lambda: [known.users for known in counter.mounts._sets.values()] == [0])


async def test_shell_of_a_built_image_has_its_layers_and_nothing_of_this_machine(counter: Counter) -> None:
    built = await counter.known.build(make_spec(RUN, image_steps.env({"A": "b"})), lambda _: None)

    stream = counter.open(built.image_id)
    await stream.next(TerminalOutput)

    (spec,) = counter.waiting
    assert tuple(spec.layers) == built.layers
    assert spec.binds == ()
    assert spec.env["A"] == "b"
    assert "APT_CONFIG" not in spec.env
    assert spec.limits.pids_max == 16_384
    users = {user for layer in built.config.layers for user in counter.holds.users(layer)}
    assert users == {f"shell in {built.image_id}"}
    stream.cancel()


async def test_shell_ends_with_its_stream(counter: Counter) -> None:
    failed = await counter.fail(RUN, FAIL)
    stream = counter.open(failed, 3)
    await until(lambda: counter.typed)

    stream.cancel()

    await counter.is_clean()


async def test_shell_that_is_given_up_while_it_starts_leaves_nothing(counter: Counter) -> None:
    failed = await counter.fail(RUN, FAIL)
    for turns in range(0, 60, 3):
        stream = counter.open(failed, 3)
        for _ in range(turns):
            await asyncio.sleep(0)

        stream.cancel()

        await counter.is_clean()


async def test_look_for_layers_that_is_given_up_holds_none(counter: Counter, monkeypatch: pytest.MonkeyPatch) -> None:
    failed = await counter.fail(RUN, FAIL)
    looks, may_look = threading.Event(), threading.Event()
    reached = counter.shop.builder.reached

    def look_late(*arguments: Any) -> Any:
        looks.set()
        may_look.wait(10)
        return reached(*arguments)

    monkeypatch.setattr(counter.shop.builder.shells, "_reached", look_late)
    stream = counter.open(failed, 3)
    await until(looks.is_set)

    stream.cancel()
    await asyncio.sleep(0.05)
    may_look.set()

    await until(lambda: not counter.shells._open)
    await asyncio.sleep(0.05)
    assert not any(counter.holds.users(layer.layer_id) for layer in counter.shop.store.list())


async def test_settings_that_are_still_written_when_it_is_given_up_are_removed(
    counter: Counter, monkeypatch: pytest.MonkeyPatch
) -> None:
    failed = await counter.fail(RUN, FAIL)
    writes, may_write = threading.Event(), threading.Event()
    write = inherit._apt

    def write_late(*arguments: Any) -> Any:
        writes.set()
        may_write.wait(10)
        return write(*arguments)

    monkeypatch.setattr(inherit, "_apt", write_late)
    stream = counter.open(failed, 3)
    await until(writes.is_set)

    stream.cancel()
    await asyncio.sleep(0.1)
    may_write.set()

    await until(lambda: not counter.shells._open)
    await asyncio.sleep(0.1)
    assert counter.shop.leftovers() == NOTHING


async def test_end_of_the_connection_and_of_the_agent_ends_shells_and_removes_them(counter: Counter) -> None:
    failed = await counter.fail(RUN, FAIL)
    counter.open(failed, 3)
    await until(lambda: counter.typed)

    await counter.close()

    assert counter.shop.leftovers() == NOTHING


async def test_shell_that_writes_too_much_is_ended(counter: Counter) -> None:
    failed = await counter.fail(RUN, FAIL)
    stream = counter.open(failed, 3)
    await stream.next(TerminalOutput)
    (writer,) = counter.shop.builder.writers()

    counter.shop.builder.over_disk(writer.container_id, "it has 9 GiB; give it more")

    with pytest.raises(PlatformError, match="before step 3 was ended: it has 9 GiB; give it more") as ended:
        await asyncio.wait_for(stream.next(TerminalOutput), 10)
    assert ended.value.code == INVALID


async def test_shell_is_ended_after_a_day(counter: Counter, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("squall.agent.image.shell_container.SHELL_TIMEOUT_S", 0.2)
    failed = await counter.fail(RUN, FAIL)
    stream = counter.open(failed, 3)
    await stream.next(TerminalOutput)

    with pytest.raises(PlatformError, match="was ended: it was open for"):
        await asyncio.wait_for(stream.next(TerminalOutput), 10)


async def test_image_without_a_shell_says_so(counter: Counter) -> None:
    async def write(spec: ContainerSpec) -> int:
        return 1

    counter.step = write  # type: ignore[method-assign]
    failed = await counter.fail(FAIL)

    refused = await counter.refused(failed, 2)

    assert refused.code == INVALID
    assert "it has none; it has neither /bin/bash nor /bin/sh" in refused.message


async def test_what_is_not_there_is_named(counter: Counter) -> None:
    failed = await counter.fail(RUN, FAIL)
    unknown = "im-" + "0" * 32

    first, beyond = await counter.refused(failed, 1), await counter.refused(failed, 4)
    unbuilt, never, no_id = (
        await counter.refused(failed),
        await counter.refused(unknown, 2),
        await counter.refused("im-/../x"),
    )

    assert "nothing is there before step 1" in first.message
    assert "it has 3 steps" in beyond.message
    assert "not whole on this node; build it again, or look at it before the step that failed" in unbuilt.message
    assert unbuilt.message.endswith(f"squall shell --image-step {failed}/3")
    assert "nobody has built it here" in never.message
    assert "nobody has built it here" in no_id.message
    assert [one.code for one in (unbuilt, never, no_id)] == [NOT_FOUND] * 3


async def test_layers_that_are_gone_are_told(counter: Counter) -> None:
    failed = await counter.fail(RUN, FAIL)
    for layer in counter.shop.store.list():
        counter.shop.store.remove(layer.layer_id)

    refused = await counter.refused(failed, 3)

    assert refused.code == NOT_FOUND
    assert "layers below it are not on this node (any more); build it again" in refused.message


OTHER, THIRD = image_steps.run_commands(("more",)), image_steps.run_commands(("the last",))


def forced(step: ImageStep) -> ImageStep:
    return replace(step, force_build=True)


@pytest.mark.parametrize(("step", "layers"), [(3, 2), (5, 3)])
async def test_built_image_is_shown_on_its_own_layers_though_a_step_was_built_anew_for_another(
    counter: Counter, step: int, layers: int
) -> None:
    spec = make_spec(RUN, OTHER, image_steps.env({"A": "b"}), THIRD)
    built = await counter.known.build(spec, lambda _: None)
    await counter.known.build(make_spec(forced(RUN)), lambda _: None)
    # Built again, it is found whole.
    assert await counter.known.build(spec, lambda _: None) == built

    stream = counter.open(built.image_id, step)

    assert (await first_words(stream)).startswith(f"before step {step} of 5: ")
    assert tuple(counter.waiting[0].layers[:-1]) == built.layers[:layers]
    stream.cancel()


async def test_image_is_shown_on_the_layers_of_the_one_that_it_began_with(counter: Counter) -> None:
    below = await counter.known.build(make_spec(RUN, image_steps.env({"A": "b"})), lambda _: None)
    spec = ImageSpec((image_steps.from_image(below.image_id), OTHER, THIRD))
    built = await counter.known.build(spec, lambda _: None)
    anew = await counter.known.build(make_spec(forced(RUN), image_steps.env({"A": "b"})), lambda _: None)
    assert (anew.image_id, anew.layers != below.layers) == (below.image_id, True)

    stream = counter.open(built.image_id, 3)

    assert (await first_words(stream)).startswith("before step 3 of 3: ")
    assert tuple(counter.waiting[0].layers[:-1]) == built.layers[:3]
    assert counter.waiting[0].env["A"] == "b"
    stream.cancel()


async def test_forced_build_that_failed_is_shown_with_what_it_made_also_by_the_next_agent(tmp_path: Path) -> None:
    spec = make_spec(RUN, OTHER)
    async with open_counter(tmp_path) as counter:
        built = await counter.known.build(spec, lambda _: None)
        write = counter.step

        async def fail_at_the_other(spec: ContainerSpec) -> int:
            return await write(spec) or int("more" in " ".join(spec.argv))

        counter.step = fail_at_the_other  # type: ignore[method-assign]
        with pytest.raises(BuildFailed):
            await counter.known.build(make_spec(forced(RUN), OTHER), lambda _: None)
    async with open_counter(tmp_path) as counter:
        stream = counter.open(built.image_id, 3)
        await first_words(stream)
        after_failing = tuple(counter.waiting.pop().layers[:-1])
        stream.cancel()
        await counter.is_clean()
        assert await counter.known.build(spec, lambda _: None) == built
        stream = counter.open(built.image_id, 3)
        await first_words(stream)
        after_building = tuple(counter.waiting.pop().layers[:-1])
        stream.cancel()

    assert (after_failing[0], after_failing[1] != built.layers[1]) == (built.layers[0], True)
    assert after_building == built.layers[:2]


async def test_image_that_is_only_in_the_store_any_more_is_brought(tmp_path: Path) -> None:
    async with storing_counter(tmp_path / "node", store_in(tmp_path / "store")) as (node, stored):
        below = await node.known.build(make_spec(RUN), lambda _: None)
        spec = ImageSpec((image_steps.from_image(below.image_id), OTHER, THIRD))
        built = await node.known.build(spec, lambda _: None)
        await until(lambda: stored.was_put(below.image_id) and stored.was_put(built.image_id), 20)
        for layer in node.shop.store.list():
            node.shop.store.remove(layer.layer_id)

        stream = node.open(built.image_id, 3)

        assert (await first_words(stream)).startswith("before step 3 of 3: ")
        here = stored.find_here(built.image_id)
        assert here is not None
        assert tuple(node.waiting[0].layers[:-1]) == here.layers[:3]
        stream.cancel()


async def first_words(stream: Stream) -> str:
    """What a shell says first, or why there is none."""
    try:
        first = await asyncio.wait_for(stream.next(TerminalOutput), 10)
    except PlatformError as error:
        return error.message
    return first[1].decode() if first is not None else ""


async def build_and_put(data_dir: Path, store: BlockStore, *steps: ImageStep) -> BuiltImage:
    """On a node that nobody sees again."""
    async with storing_counter(data_dir, store) as (node, stored):
        built = await node.known.build(make_spec(*steps), lambda _: None)
        await until(lambda: stored.was_put(built.image_id), 20)
        return built


@pytest.mark.parametrize("is_copied_from", [False, True])
async def test_image_below_comes_from_the_store_as_for_a_build(tmp_path: Path, is_copied_from: bool) -> None:
    store = store_in(tmp_path / "store")
    below = await build_and_put(tmp_path / "first", store, RUN)
    async with storing_counter(tmp_path / "second", store) as (second, stored):
        begins = (image_steps.from_image(below.image_id),)
        copied = (RUN, image_steps.copy_from(below.image_id, ("/bin",), "/srv"))
        failed = await second.fail(*(copied if is_copied_from else begins), FAIL)
        there = stored.find_here(below.image_id)
        assert there is not None
        for layer_id in there.config.layers:
            second.shop.store.remove(layer_id)

        stream = second.open(failed, 4 if is_copied_from else 2)
        said = await first_words(stream)

        assert said.startswith("before step ")
        assert stored.find_here(below.image_id) == there
        assert all(second.holds.users(layer_id) for layer_id in there.config.layers)
        stream.cancel()


async def test_store_that_cannot_be_reached_is_told(tmp_path: Path) -> None:
    store = store_in(tmp_path / "store")
    below = await build_and_put(tmp_path / "first", store, RUN)
    async with storing_counter(tmp_path / "second", store) as (second, _):
        failed = await second.fail(image_steps.from_image(below.image_id), FAIL)
    async with storing_counter(tmp_path / "second", open_store("http://127.0.0.1:1", HASTY)) as (second, _):
        for layer in second.shop.store.list():
            second.shop.store.remove(layer.layer_id)

        refused = await second.refused(failed, 2)

    assert refused.code == UNAVAILABLE
    assert f"cannot use image {failed}: " in refused.message


async def test_no_more_shells_than_a_limit(counter: Counter, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(agent_shell, "SHELLS_MAX", 1)
    failed = await counter.fail(RUN, FAIL)
    stream = counter.open(failed, 3)
    await stream.next(TerminalOutput)

    assert (await counter.refused(failed, 3)).code == EXHAUSTED

    stream.cancel()
    await counter.is_clean()
    again = counter.open(failed, 3)
    assert await again.next(TerminalOutput) is not None
    again.cancel()


@pytest.mark.parametrize("make", [lambda: image_steps.user("nobody-here"), lambda: image_steps.workdir("/new")])
async def test_step_without_a_container_has_no_shell_to_offer(counter: Counter, make: Callable[[], ImageStep]) -> None:
    steps = (RUN, make(), image_steps.copy("md-" + "0" * 32, "/x"))

    with pytest.raises(BuildFailed) as failed:
        await counter.known.build(make_spec(*steps), lambda _: None)

    assert "squall shell" not in failed.value.message
