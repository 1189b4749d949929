"""Volumes and buckets of steps, on the fake runtime."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

import pytest

from squall.agent.disk import NO_LIMIT
from squall.agent.image.making import BuildFailed
from squall.protocol import image, image_steps
from squall.protocol.bucket import BucketMount
from squall.protocol.errors import INVALID, NOT_FOUND, PlatformError
from squall.protocol.image import BuildEvent
from squall.protocol.volume import VolumeMount
from squall.runtime.errors import RuntimeFailure
from squall.runtime.spec import ContainerSpec, IdRange, Volume
from tests.agent.image.shop import NOTHING, RUN, Shop, make_spec, open_shop


@pytest.fixture
async def shop(tmp_path: Path) -> AsyncIterator[Shop]:
    async with open_shop(tmp_path) as opened:
        yield opened


class Volumes:
    """Those of a node: what steps have open, and have had."""

    def __init__(self) -> None:
        self.open: dict[str, tuple[tuple[VolumeMount, ...], str]] = {}
        self.closed: list[str] = []
        self.refusal = ""
        self.is_committed = True

    async def open_now(
        self, runtime_id: str, mounts: Sequence[VolumeMount], id_range: IdRange, writer: str
    ) -> tuple[Volume, ...]:
        if self.refusal:
            raise PlatformError(NOT_FOUND, self.refusal)
        self.open[runtime_id] = (tuple(mounts), writer)
        return tuple(Volume(mount.volume_id, mount.target, "/tree", "/contents", "/upper") for mount in mounts)

    async def close_now(self, runtime_id: str) -> bool:
        if self.open.pop(runtime_id, None) is not None:
            self.closed.append(runtime_id)
        return self.is_committed


MOUNT = VolumeMount("vo-1", "/srv/deep/data")
KEEPING = image_steps.run_commands(("keep it",), volumes=(MOUNT,))


async def test_step_has_its_volumes_and_its_layer_no_mount_point(shop: Shop) -> None:
    volumes = Volumes()
    shop.builder.use_volumes(volumes)

    async def step(spec: ContainerSpec) -> int:
        assert [(one.name, one.target) for one in spec.volumes] == [("vo-1", MOUNT.target)]
        assert volumes.open[spec.container_id] == ((MOUNT,), image.image_id(make_spec(KEEPING, RUN)))
        own, on_volumes = shop.builder.writers()
        assert (on_volumes.folders, on_volumes.limit) == (("/upper",), NO_LIMIT)
        assert own.limit != NO_LIMIT
        code = await shop.write_a_file(spec)
        # As the runtime makes it.
        Path(spec.state_dir, "rw/upper/srv/deep/data").mkdir(parents=True)
        return code

    async def plain(spec: ContainerSpec) -> int:
        assert not spec.volumes
        return await shop.write_a_file(spec)

    async def first_or_second(spec: ContainerSpec) -> int:
        return await (plain if len(shop.specs) > 1 else step)(spec)

    shop.step = first_or_second
    built = await shop.build(KEEPING, RUN)

    assert os.listdir(built.layers[1]) == ["file-1"]
    assert volumes.closed == [shop.specs[0].container_id]
    assert not volumes.open
    assert shop.leftovers() == NOTHING


IN_BUCKET = image_steps.run_commands(("read it",), buckets=(BucketMount("bucket", "/srv/deep/bucket", secret_id="0"),))


async def test_step_has_its_buckets_with_keys_of_theirs_and_its_layer_no_mount_point(shop: Shop) -> None:
    seen: list[tuple[tuple[str, ...], str]] = []
    secrets = {"0": {"AWS_ACCESS_KEY_ID": "a", "AWS_SECRET_ACCESS_KEY": "b", "OTHER": "c"}}

    async def step(spec: ContainerSpec) -> int:
        (bucket,) = spec.buckets
        assert (bucket.bucket, bucket.target) == ("bucket", "/srv/deep/bucket")
        assert bucket.env == {"AWS_ACCESS_KEY_ID": "a", "AWS_SECRET_ACCESS_KEY": "b"}
        assert not {"OTHER", *bucket.env} & spec.env.keys()
        seen.extend((one.folders, one.place) for one in shop.builder.writers())
        code = await shop.write_a_file(spec)
        # As the runtime makes it.
        Path(spec.state_dir, "rw/upper/srv/deep/bucket").mkdir(parents=True)
        return code

    shop.step = step
    built = await shop.build(IN_BUCKET, secrets=secrets)

    assert ((f"{shop.specs[0].state_dir}/buckets/0/files",), "bucket 0") in seen
    assert os.listdir(built.layers[1]) == ["file-1"]


async def test_step_whose_bucket_has_no_keys_is_named(shop: Shop) -> None:
    with pytest.raises(BuildFailed, match="cannot mount bucket bucket: its secret has no AWS_ACCESS_KEY_ID") as failed:
        await shop.build(IN_BUCKET, secrets={"0": {"OTHER": "planted"}})

    assert failed.value.code == INVALID
    assert not shop.specs


async def test_volumes_of_a_failed_step_are_closed_as_those_of_others(shop: Shop) -> None:
    volumes = Volumes()
    shop.builder.use_volumes(volumes)

    async def fail(spec: ContainerSpec) -> int:
        return 3

    shop.step = fail
    with pytest.raises(BuildFailed, match="exit status 3"):
        await shop.build(KEEPING)
    shop.machine.start_failures.append(RuntimeFailure("cannot start container: no memory"))
    with pytest.raises(BuildFailed, match="no memory"):
        await shop.build(KEEPING)

    assert len(volumes.closed) == 2
    assert not volumes.open


async def test_step_whose_volume_is_gone_is_named_and_what_is_not_committed_is_said(shop: Shop) -> None:
    volumes = Volumes()
    shop.builder.use_volumes(volumes)
    volumes.refusal = "there is no volume vo-1"
    with pytest.raises(BuildFailed) as failed:
        await shop.build(KEEPING)
    assert failed.value.code == NOT_FOUND
    message = "step 2 of 2 (run_commands keep it) cannot mount its volumes: there is no volume vo-1"
    assert message in failed.value.message

    volumes.refusal, volumes.is_committed = "", False
    events: list[BuildEvent] = []
    await shop.build(KEEPING, events=events)
    assert "is not committed yet" in [event.text for event in events if event.kind == "line"][-1]
    assert shop.leftovers() == NOTHING
