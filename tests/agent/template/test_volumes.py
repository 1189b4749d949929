"""Volumes of what is forked: places that are made ahead, versions that come when a container begins."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path
from typing import Any

import pytest

from squall.agent.image.progress import BuiltImage
from squall.agent.template.key import TemplateKeys, of_image
from squall.agent.template.way import obstacle
from squall.protocol.errors import UNAVAILABLE, PlatformError
from squall.protocol.function import GVISOR
from squall.protocol.guest import LIBRARY_DIR
from squall.protocol.image import ImageConfig
from squall.protocol.node import ContainerStart, ContainerStarted
from squall.protocol.records import replace
from squall.protocol.request import Request
from squall.protocol.template import FUNCTION, IMAGE
from squall.protocol.volume import (
    VolumeChange,
    VolumeCommit,
    VolumeCommitted,
    VolumeMount,
    VolumeStart,
    VolumeTree,
    VolumeVersion,
)
from squall.runtime.errors import RuntimeFailure
from squall.runtime.spec import ContainerSpec, Volume
from tests.agent.nodes import filled, node, snapshot, specs, started, template_of
from tests.agent.parts import ServerEnd, until
from tests.agent.world import World

pytestmark = [pytest.mark.long, pytest.mark.timeout(60), pytest.mark.usefixtures("impatient")]

EMPTY = (VolumeStart(VolumeMount("vo-1", "/data")),)
START = ContainerStart("ct-0000000001", "ap-1", "fu-1", "im-1", volumes=EMPTY)
BUILT = BuiltImage("im-1", ("/layers/1",), ImageConfig(python_path="/usr/bin/python3"))


class VolumeServer(ServerEnd):
    """A server with one volume, each version of which has what the commits before it put."""

    def __init__(self) -> None:
        super().__init__()
        self.commits: list[VolumeCommit] = []
        self.trees_asked: list[int] = []
        self.is_refusing = False

    async def answer(self, request: Request) -> tuple[Any, bytes] | None:
        if request.method == "VolumeCommit":
            if self.is_refusing:
                raise PlatformError(UNAVAILABLE, "no commits now")
            self.commits.append(request.record(VolumeCommit))
            return VolumeCommitted(self.version(len(self.commits))), b""
        if request.method == "VolumeVersionGet":
            return self.version(len(self.commits)), b""
        if request.method == "VolumeTreeGet":
            self.trees_asked.append(len(self.commits))
            changes = [change for commit in self.commits for change in commit.changes]
            return VolumeTree(tuple({one.path: one for one in changes}.values())), b""
        return await super().answer(request)

    @staticmethod
    def version(number: int) -> VolumeVersion:
        return VolumeVersion(number, root=f"{number:064x}" if number else "")

    def starts(self, number: int) -> tuple[VolumeStart, ...]:
        return (replace(EMPTY[0], version=number, root=self.version(number).root),)


@pytest.fixture
def world(world: World) -> World:
    world.server = VolumeServer()
    return world


def written(world: World) -> set[str]:
    """Whose volumes are written down."""
    return {path.parent.name for path in (world.data_dir / "volumes" / "written").glob("*/record.json")}


def nothing_is_left(world: World) -> bool:
    """Neither of containers, nor of what was made ahead."""
    return not world.left() and not list((world.data_dir / "volumes" / "written").iterdir())


def write_in(volume: Volume, name: str, first_id: int) -> None:
    """As somebody in a container would: a directory, which has no content to be put."""
    path = Path(volume.writable) / "upper" / name
    path.mkdir(parents=True, exist_ok=True)
    os.chown(path, first_id, first_id)


async def test_what_is_made_ahead_has_places_and_what_begins_has_versions(world: World) -> None:
    async with node(world) as agent:
        _, first = await snapshot(world, volumes=EMPTY)
        await filled(world)
        ahead = list(world.machine.prepared.values())
        assert ahead
        assert {(one.volumes[0].target, one.volumes[0].image) for one in ahead} == {("/data", "")}
        assert not written(world) & {one.container_id for one in ahead}, "nothing of the volume is theirs yet"

        _, second = await snapshot(world, volumes=EMPTY)

        assert (first.path, second.path) == ("fork", "parked")
        clones = specs(world, "ce-")
        assert len(clones) == 2
        assert len({one.volumes[0].writable for one in (*clones, *specs(world, "tp-"))}) == 3
        assert all(one.volumes[0].image for one in clones)
        assert written(world) == {template_of(world).template_id, *(one.container_id for one in clones)}
        await agent.end_all(0.0)
        assert not written(world)
    assert nothing_is_left(world)


async def test_a_cell_is_for_the_volumes_that_it_was_made_with(world: World) -> None:
    async with node(world, start_path="fork"):
        await started(world, volumes=EMPTY)
        await until(lambda: template_of(world).cells)
        old = set(world.machine.prepared)
        other = (VolumeStart(VolumeMount("vo-2", "/other")),)

        _, answer = await started(world, volumes=other)

        assert answer.path == "fork"
        assert "failed_fork" not in answer.phase_ms
        (clone,) = [one for one in specs(world, "ce-") if one.volumes[0].target == "/other"]
        assert clone.container_id not in old


async def snapshot_of_one_that_writes(world: World) -> tuple[ContainerSpec, ContainerStarted]:
    """A template that has written to its volume by the time that it is ready, and how the start went that asked for
    it."""
    world.may_report.clear()
    starting = asyncio.ensure_future(snapshot(world, volumes=EMPTY))
    await until(lambda: specs(world, "tp-"))
    (template,) = specs(world, "tp-")
    write_in(template.volumes[0], "downloaded", template.id_range.start)
    world.may_report.set()
    _, answer = await starting
    return template, answer


async def test_what_a_template_writes_is_committed_before_it_is_forked_and_its_forks_begin_with_it(
    world: World,
) -> None:
    server = world.server
    assert isinstance(server, VolumeServer)
    async with node(world) as agent:
        template, answer = await snapshot_of_one_that_writes(world)

        assert answer.path == "fork"
        assert [(one.created_by, one.changes[0].path) for one in server.commits] == [
            (template.container_id, "downloaded")
        ]
        (clone,) = specs(world, "ce-")
        assert Path(clone.volumes[0].image).stem == server.version(1).root, "not the version it was asked with"
        # A later version is not given up for it.
        server.commits.append(VolumeCommit("vo-1", "rq-2", (VolumeChange("later", kind="directory"),)))
        await snapshot(world, volumes=server.starts(2))
        assert Path(specs(world, "ce-")[1].volumes[0].image).stem == server.version(2).root
        await agent.end_all(0.0)
    assert nothing_is_left(world)
    assert len(server.commits) == 2


async def test_what_a_template_writes_on_volumes_is_watched(world: World) -> None:
    async with node(world) as agent:
        await snapshot(world, volumes=EMPTY)
        template_id = template_of(world).template_id

        watched = {one.key: one.folders for one in agent.templates.writers()}

    written_to = str(world.data_dir / "volumes" / "written" / template_id)
    assert watched[template_id, "volumes"] == (written_to,)
    assert watched[template_id, ""] != (written_to,)


async def test_a_template_whose_writes_cannot_be_committed_is_not_forked(world: World) -> None:
    server = world.server
    assert isinstance(server, VolumeServer)
    server.is_refusing = True
    async with node(world) as agent:
        _, answer = await snapshot_of_one_that_writes(world)

        assert answer.path == "plain"
        assert "no commits now" in answer.cause
        server.is_refusing = False
        await until(lambda: server.commits)
        assert [one.changes[0].path for one in server.commits] == ["downloaded"], "and what it wrote is not lost"
        await agent.end_all(0.0)
    assert nothing_is_left(world)


async def test_a_version_that_is_here_is_not_asked_for_again(world: World) -> None:
    server = world.server
    assert isinstance(server, VolumeServer)
    server.commits.append(VolumeCommit("vo-1", "rq-1", (VolumeChange("a", kind="directory"),)))
    async with node(world):
        for _ in range(3):
            await snapshot(world, volumes=server.starts(1))
    assert len(server.trees_asked) == 1


async def test_a_start_whose_fork_does_not_begin_has_its_volumes_plainly(world: World) -> None:
    async with node(world) as agent:
        await snapshot(world, volumes=EMPTY)
        world.machine.begin_failures += [RuntimeFailure("cannot mount volume /data: for a test")] * 3

        container_id, answer = await snapshot(world, volumes=EMPTY)

        assert answer.path == "plain"
        assert container_id in written(world)
        await until(lambda: len(written(world)) == 3)
        await agent.end_all(0.0)
    assert nothing_is_left(world)


async def test_volumes_of_templates_and_clones_are_taken_over_and_committed_once(world: World) -> None:
    server = world.server
    assert isinstance(server, VolumeServer)
    async with node(world):
        container_id, _ = await snapshot(world, volumes=EMPTY)
        await filled(world)
        (clone,) = specs(world, "ce-")
        (template,) = specs(world, "tp-")
    write_in(clone.volumes[0], "mine", clone.id_range.start)

    async with node(world) as agent:
        assert agent.containers.is_running(container_id)
        _, answer = await snapshot(world, volumes=EMPTY)
        assert answer.path in ("fork", "parked")
        assert {clone.container_id, template.container_id} <= written(world)
        await world.end(container_id)
        await until(lambda: clone.container_id not in written(world))
        assert [one.changes[0].path for one in server.commits] == ["mine"]
        await agent.end_all(0.0)
    assert nothing_is_left(world)
    assert len(server.commits) == 1


async def test_an_image_template_has_no_volumes_and_its_forks_have(world: World) -> None:
    async with node(world, start_path="fork") as agent:
        _, with_one = await started(world, volumes=EMPTY)
        _, without = await started(world, function_id="fu-00000002")

        assert (with_one.path, without.path) == ("fork", "fork")
        (template,) = specs(world, "tp-")
        assert not template.volumes
        assert [len(one.volumes) for one in specs(world, "ce-")] == [1, 0]
        await agent.end_all(0.0)
    assert nothing_is_left(world)


async def test_a_volume_that_python_may_load_from_before_user_code_is_there_before_python_is(world: World) -> None:
    async with node(world, start_path="fork"):
        _, plain = await started(world, volumes=EMPTY, env={"PYTHONPATH": "/opt:/data/lib"})
        _, of_function = await snapshot(world, volumes=EMPTY, env={"PYTHONPATH": "/opt:/data/lib"})
        _, beside = await started(world, volumes=EMPTY, env={"PYTHONPATH": "/opt:/data2"})

    assert (plain.path, of_function.path, beside.path) == ("plain", "fork", "fork")
    assert "its volume at /data" in plain.cause


def key(data_dir: Path, kind: str, **changes: Any) -> str:
    keys = TemplateKeys(data_dir, "/entry")
    keys.prepare()
    return keys.key(kind, replace(START, **changes), BUILT, "/l")


@pytest.mark.parametrize(
    ("change", "is_another"),
    [
        ({"volume_id": "vo-2"}, True),
        ({"target": "/other"}, True),
        ({"sub_path": "in"}, True),
        ({"is_read_only": True}, True),
        ({"version": 3}, True),
        ({"name": "renamed"}, False),
    ],
)
def test_how_a_volume_is_mounted_makes_a_template_another_one(
    tmp_path: Path, change: dict[str, Any], is_another: bool
) -> None:
    volumes = (VolumeStart(replace(EMPTY[0].mount, **change)),)
    assert (key(tmp_path, FUNCTION, volumes=volumes) != key(tmp_path, FUNCTION)) == is_another
    assert key(tmp_path, IMAGE, volumes=volumes) == key(tmp_path, IMAGE)


def test_which_version_is_the_newest_makes_no_template_another_one(tmp_path: Path) -> None:
    newer = (replace(EMPTY[0], version=7, root="7"),)
    assert key(tmp_path, FUNCTION, volumes=newer) == key(tmp_path, FUNCTION)
    assert not of_image(START, has_files=True).volumes


@pytest.mark.parametrize(
    ("targets", "isolation", "why"),
    [
        (("/data",), "namespaces", ""),
        (("/data", "/data2"), "namespaces", ""),
        (("/data", "/data/in"), "namespaces", "would cover /data/in"),
        (("/data/in", "/data/"), "namespaces", "would cover /data/in"),
        ((os.path.dirname(LIBRARY_DIR),), "namespaces", f"would cover {os.path.dirname(LIBRARY_DIR)}/"),
        (("/data",), GVISOR, "restored without them"),
    ],
)
def test_volumes_that_forks_cannot_have_are_told(targets: tuple[str, ...], isolation: str, why: str) -> None:
    volumes = tuple(VolumeStart(VolumeMount(f"vo-{number}", one)) for number, one in enumerate(targets))
    request = replace(START, volumes=volumes, isolation=isolation, is_snapshot_enabled=True)

    found = obstacle(request, BUILT, is_restored=False)

    assert (why in found) if why else not found
