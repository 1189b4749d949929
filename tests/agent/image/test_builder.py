"""Builds on the fake runtime: caching, sharing, failing and stopping. What steps really do is in tests/kernel."""

from __future__ import annotations

import asyncio
import gzip
import os
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest

from squall.agent.grave import Grave
from squall.agent.image.builder import STEP_BYTES_MAX, ImageBuilder
from squall.agent.image.inherit import CACHE_DIR
from squall.agent.image.layer.store import LayerStore
from squall.agent.image.machine.settings import MachineSettings
from squall.agent.image.making import BuildFailed
from squall.agent.labels import BUILD_KIND, KIND_LABEL
from squall.protocol import image, image_steps
from squall.protocol.errors import INTERNAL, INVALID, TIMED_OUT, UNAVAILABLE, UNSUPPORTED
from squall.protocol.image import BuildEvent, ImageInvalid, ImageSpec, StepMount
from squall.runtime.errors import ProgramMissing, RuntimeFailure, SubPathMissing
from squall.runtime.fake import FakeMachine, FakeRuntime
from squall.runtime.spec import ContainerSpec, IdRange
from tests.agent.image.archives import archive, entry, symlink
from tests.agent.image.shop import NOTHING, RUN, CountingNetwork, Shop, make_mount, make_spec, open_shop
from tests.agent.parts import until

pytestmark = pytest.mark.long


@pytest.fixture
async def shop(tmp_path: Path) -> AsyncIterator[Shop]:
    async with open_shop(tmp_path) as opened:
        yield opened


async def test_each_step_that_writes_makes_a_layer_on_those_below(shop: Shop) -> None:
    events: list[BuildEvent] = []

    built = await shop.build(image_steps.env({"A": "b"}), RUN, image_steps.workdir("/new"), events=events)

    assert [Path(layer).name for layer in built.layers] == ["fs"] * 3
    assert os.listdir(built.layers[1]) == ["file-1"]
    assert os.listdir(built.layers[2]) == ["new"]
    assert [list(spec.layers[:1]) for spec in shop.specs] == [list(built.layers[:1])]
    assert built.config.workdir == "/new"
    assert built.config.env == {"A": "b"}
    assert built.config.python_version == "3.11.2"
    assert len(built.config.layers) == 3
    assert [(event.kind, event.step, event.steps) for event in events] == [
        *(("cached", 1, 4), ("cached", 2, 4)),
        *(("step", 3, 4), ("line", 3, 4), ("done", 3, 4), ("step", 4, 4), ("done", 4, 4)),
    ]
    assert shop.leftovers() == NOTHING


async def test_base_says_how_programs_start_and_later_steps_overrule_it(tmp_path: Path) -> None:
    facts = {"env": '{"PATH": "/opt/bin:/bin", "A": "base"}', "workdir": "/srv"}

    async with open_shop(tmp_path, more_facts=facts) as shop:
        built = await shop.build(image_steps.env({"A": "own"}), RUN, image_steps.workdir("inner"))

    assert built.config.env == {"PATH": "/opt/bin:/bin", "A": "own"}
    assert built.config.workdir == "/srv/inner"
    assert shop.specs[0].env["PATH"] == "/opt/bin:/bin"
    assert shop.specs[0].cwd == "/srv"


async def test_build_container_is_confined_and_its_upper_is_fit_for_a_layer(shop: Shop) -> None:
    await shop.build(image_steps.workdir("/srv"), replace(RUN, env={"ONCE": "o"}))

    (spec,) = shop.specs
    assert spec.is_upper_idmapped
    assert spec.id_range.start >= 65_536
    assert spec.network is not None
    assert spec.cwd == "/srv"
    assert spec.env["ONCE"] == "o"
    assert spec.labels[KIND_LABEL] == BUILD_KIND


async def test_slot_knows_the_proxy_better_than_the_machine_and_the_user_better_than_both(shop: Shop) -> None:
    await shop.build(RUN, image_steps.env({"http_proxy": "http://user:1"}), image_steps.run_commands(("again",)))

    assert [spec.env["http_proxy"] for spec in shop.specs] == ["http://slot:1", "http://user:1"]


async def test_copy_needs_no_container(shop: Shop) -> None:
    make_mount(shop, "mo-0123456789", "sub/file")

    built = await shop.build(image_steps.copy("mo-0123456789", "/srv/it"))

    assert Path(built.layers[1], "srv/it/sub/file").read_text() == "sub/file"
    assert not shop.specs


async def test_step_sees_the_files_of_its_mount(shop: Shop) -> None:
    await shop.build(image_steps.run_commands(("make it",), mount_id="mo-0123456789"))

    files = [bind for bind in shop.specs[0].binds if bind.source.endswith("mo-0123456789")]
    assert [(bind.target, bind.is_read_only, bind.is_idmapped) for bind in files] == [(image.BUILD_FILES, True, True)]


async def test_users_shells_and_commands_go_into_the_configuration(shop: Shop) -> None:
    built = await shop.build(
        image_steps.user("7:8"),
        image_steps.shell(("/bin/bash", "-ec")),
        image_steps.entrypoint(("/enter", "--fast")),
        image_steps.cmd(("serve",)),
        RUN,
        image_steps.apt_install(("git",)),
    )

    config = built.config
    assert (config.user, config.uid, config.gid) == ("7:8", 7, 8)
    assert (config.shell, config.entrypoint, config.cmd) == (("/bin/bash", "-ec"), ("/enter", "--fast"), ("serve",))
    run, fetch, apt = shop.specs
    assert (run.user, run.argv) == ((7, 8), ("/bin/bash", "-ec", "make it"))
    assert fetch.user == apt.user == (0, 0), "packages are for everybody"


async def test_unknown_user_is_told_with_the_step(shop: Shop) -> None:
    with pytest.raises(
        BuildFailed, match=r"step 2 of 2 \(user nobody-here\) failed: the image has no user 'nobody-here'"
    ):
        await shop.build(image_steps.user("nobody-here"))


async def test_unknown_user_of_a_step_that_is_made_is_told_as_well(shop: Shop) -> None:
    with pytest.raises(BuildFailed, match=r"\(user nobody-here\) failed: the image has no user 'nobody-here'"):
        await shop.build(replace(RUN, force_build=True), image_steps.user("nobody-here"))


async def test_base_that_names_a_user_it_does_not_have_is_told(tmp_path: Path) -> None:
    async with open_shop(tmp_path, more_facts={"user": "nobody-here"}) as shop:
        with pytest.raises(BuildFailed, match="the image has no user 'nobody-here'"):
            await shop.build(RUN)


async def test_mistake_in_one_build_ends_neither_others_nor_the_builder(shop: Shop) -> None:
    def mistaken(event: BuildEvent) -> None:
        raise ValueError("a mistake")

    begun = asyncio.Event()

    async def wait(spec: ContainerSpec) -> int:
        begun.set()
        await asyncio.sleep(0.2)
        return await shop.write_a_file(spec)

    shop.step = wait
    other = asyncio.ensure_future(shop.build(image_steps.run_commands(("another",))))
    await begun.wait()

    with pytest.raises(BuildFailed, match=r"cannot build im-\w+: ValueError; the log of the node says more"):
        await asyncio.wait_for(shop.builder.build(make_spec(image_steps.env({"A": "b"}), RUN), mistaken), 20)

    assert len((await other).layers) == 2
    assert len((await shop.build(RUN)).layers) == 2


async def test_damaged_layer_is_no_image_and_no_mistake(shop: Shop) -> None:
    built = await shop.keep(RUN, image_steps.env({"PATH": "/usr/bin"}))
    layer = Path(built.layers[1])
    layer.rename(layer.parent / "aside")
    layer.write_bytes(b"no image" * 1_000)

    assert shop.builder.find(make_spec(RUN, image_steps.env({"PATH": "/usr/bin"}))) is None
    with pytest.raises(BuildFailed, match="cannot build im-"):
        await shop.build(RUN, image_steps.env({"PATH": "/usr/bin"}))


async def test_image_that_files_are_taken_from_stays_while_they_are(shop: Shop) -> None:
    first = await shop.keep(RUN)
    users: list[tuple[str, ...]] = []

    def look(event: BuildEvent) -> None:
        if event.kind == "step":
            users.append(shop.holds.users(first.config.layers[1]))

    taken = image_steps.copy_from(first.image_id, ("/file-1",), "/taken")
    await asyncio.wait_for(shop.builder.build(make_spec(taken, image_steps.run_commands(("x",))), look), 20)

    assert users[0] == ()
    assert len(users[1]) == 1, "held from the copy to the end of the build"


async def test_template_takes_variables_of_the_image(shop: Shop) -> None:
    built = await shop.build(
        image_steps.env({"APP": "/srv/app", "PATH": "/usr/bin"}),
        image_steps.env({"PATH": "${APP}/bin:${PATH}", "COST": "$$5", "NONE": "${MISSING:-else}"}, is_template=True),
        image_steps.workdir("${APP}", is_template=True),
        image_steps.env({"PLAIN": "${APP}"}),
    )

    env = built.config.env
    assert (env["PATH"], env["COST"], env["NONE"], env["PLAIN"]) == ("/srv/app/bin:/usr/bin", "$5", "else", "${APP}")
    assert built.config.workdir == "/srv/app"


async def test_debian_packages_are_fetched_on_the_base_alone_for_everybody(shop: Shop) -> None:
    await shop.build(image_steps.env({"APT_CONFIG": "/evil"}), RUN, image_steps.apt_install(("git",)))

    run, fetch, install = shop.specs
    assert list(fetch.layers) == list(run.layers[:1])
    assert "/evil" not in fetch.env.values()
    assert "--download-only" in fetch.argv[2]
    (cache,) = [bind for bind in fetch.binds if bind.target == CACHE_DIR]
    assert cache.source == install.layers[-1] + CACHE_DIR
    assert CACHE_DIR not in {bind.target for bind in install.binds}


async def test_image_begins_with_another_and_takes_files_from_one(shop: Shop) -> None:
    first = await shop.keep(RUN, image_steps.env({"A": "b"}))

    begun = await shop.builder.build(
        ImageSpec((image_steps.from_image(first.image_id), image_steps.run_commands(("more",)))), lambda event: None
    )
    copied = await shop.build(image_steps.copy_from(first.image_id, ("/file-1",), "/srv/taken"))

    assert begun.layers[:2] == first.layers
    assert begun.config.env["A"] == "b"
    assert Path(copied.layers[1], "srv/taken").read_text() == "x"


async def test_image_that_is_not_here_is_told(shop: Shop) -> None:
    with pytest.raises(BuildFailed, match=r"needs image im-0123456789abcdef, which is not on this node"):
        await shop.build(image_steps.copy_from("im-0123456789abcdef", ("/x",), "/y"))


async def test_image_of_nothing_holds_what_is_copied_into_it(shop: Shop) -> None:
    make_mount(shop, "mo-0123456789", "bin/tool")

    built = await shop.builder.build(
        ImageSpec((image_steps.from_scratch(), image_steps.copy("mo-0123456789", "/"))), lambda event: None
    )

    assert [os.listdir(layer) for layer in built.layers] == [["bin"]]
    assert built.config.python_path == ""


async def test_one_file_of_a_mount_goes_into_a_directory_that_is_there(shop: Shop) -> None:
    make_mount(shop, "mo-0123456789", "tool[1]", mode=0o755)
    step = image_steps.copy("mo-0123456789", "/srv", sources=("tool[[]1]",))

    built = await shop.build(step, replace(step, path="/srv/other"))

    assert Path(built.layers[1], "srv/tool[1]").read_text() == "tool[1]"
    assert Path(built.layers[2], "srv/other").is_file()


async def test_copied_links_and_directories_are_in_the_layer(shop: Shop) -> None:
    make_mount(shop, "mo-0123456789", "file")
    # More than the argument of a program can be.
    links = {f"link-{number}": "/" + "x" * 200 for number in range(1000)}

    built = await shop.build(image_steps.copy("mo-0123456789", "/new", links=links, directories=("empty",)))

    assert len(os.listdir(Path(built.layers[1], "new"))) == 1002
    assert os.readlink(Path(built.layers[1], "new/link-7")) == links["link-7"]


async def test_archives_are_unpacked_over_the_image(shop: Shop) -> None:
    make_mount(shop, "mo-0123456789", "000000")
    mount = shop.data_dir / "mounts/mo-0123456789"
    first = archive(entry("bin/tool", b"old", mode=0o755), symlink("link", "bin/tool"))
    (mount / "000000").write_bytes(gzip.compress(first))
    (mount / "000001").write_bytes(archive(entry("bin/tool", b"new", mode=0o750, uid=7)))

    built = await shop.build(image_steps.copy("mo-0123456789", "/srv/x", is_archive=True))

    made = Path(built.layers[1], "srv/x")
    assert sorted(os.listdir(made)) == ["bin", "link"]
    assert (made / "bin/tool").read_text() == "new"
    assert (made / "bin/tool").stat().st_mode & 0o777 == 0o750
    assert (made / "bin/tool").stat().st_uid == (7 if os.geteuid() == 0 else os.geteuid())
    assert os.readlink(made / "link") == "bin/tool"


@pytest.mark.parametrize("content", [b"no archive" * 100, b"\x1f\x8b no gzip", archive(entry("../out", b"x"))])
async def test_what_cannot_be_unpacked_is_told(shop: Shop, content: bytes) -> None:
    make_mount(shop, "mo-0123456789", "000000")
    (shop.data_dir / "mounts/mo-0123456789/000000").write_bytes(content)

    with pytest.raises(BuildFailed, match=r"failed; correct the step and build again; its last lines"):
        await shop.build(image_steps.copy("mo-0123456789", "/srv/x", is_archive=True))

    assert shop.leftovers() == NOTHING


async def test_archive_that_becomes_too_much_is_told_with_the_step_and_nothing_is_left(tmp_path: Path) -> None:
    async with open_shop(tmp_path, step_bytes_max=2**20) as shop:
        make_mount(shop, "mo-0123456789", "000000")
        (shop.data_dir / "mounts/mo-0123456789/000000").write_bytes(gzip.compress(bytes(9 * 2**20)))
        step = image_steps.copy("mo-0123456789", "/srv/x", is_archive=True, title="ADD big.tar.gz /srv/x")

        with pytest.raises(
            BuildFailed,
            match=r"step 2 of 2 \(ADD big\.tar\.gz /srv/x\) was ended: decompressing archive 1 of 1 takes 1 MiB or more"
            r", and one step may have 1 MiB on the disk; give the steps of this node more with SQUALL_STEP_BYTES_MAX",
        ):
            await shop.build(step)

        assert shop.leftovers() == NOTHING


async def test_step_sees_files_and_room_at_paths_of_its_own(shop: Shop) -> None:
    make_mount(shop, "mo-0123456789", "src/file")
    mounts = (StepMount("/cache"), StepMount("src", "src"))

    built = await shop.build(
        image_steps.workdir("/srv"), image_steps.run_commands(("make it",), mount_id="mo-0123456789", mounts=mounts)
    )

    room, source = shop.specs[0].binds[-3:-1] if shop.specs[0].binds[-1].target == image.BUILD_FILES else []
    assert (room.target, room.is_read_only) == ("/cache", False)
    assert (source.target, source.is_read_only) == ("/srv/src", True)
    assert source.source.endswith("mo-0123456789/src")
    assert not Path(room.source).exists()
    assert [os.listdir(layer) for layer in built.layers[1:]] == [["file-1"]]


async def test_nothing_is_mounted_over_the_whole_image(shop: Shop) -> None:
    with pytest.raises(BuildFailed, match=r"mounts over the whole image; name a directory"):
        await shop.build(image_steps.run_commands(("make it",), mounts=(StepMount("."),)))


async def test_first_python_on_the_path_of_an_image_runs_its_functions(shop: Shop) -> None:
    make_mount(shop, "mo-0123456789", "bin/python3", mode=0o755)

    built = await shop.build(
        image_steps.copy("mo-0123456789", "/venv"), image_steps.env({"PATH": "/nowhere:/venv/bin:/usr/bin"})
    )

    assert (built.config.python_path, built.config.python_version) == ("/venv/bin/python3", "")


async def test_only_a_fetch_on_the_base_alone_may_write_to_the_shared_packages(shop: Shop) -> None:
    await shop.build(
        image_steps.env({"LD_PRELOAD": "/evil"}), RUN, replace(image_steps.pip_install(("six",)), env={"X": "x"})
    )

    run, fetch, install = shop.specs
    assert list(fetch.layers) == list(run.layers[:1])
    assert not {"LD_PRELOAD", "X"} & set(fetch.env)
    assert "--no-build" in fetch.argv[2]
    (cache,) = [bind for bind in fetch.binds if bind.target == CACHE_DIR]
    for step in (run, install):
        assert CACHE_DIR not in {bind.target for bind in step.binds}
        assert cache.source == step.layers[-1] + CACHE_DIR
    assert (install.env["LD_PRELOAD"], install.env["X"]) == ("/evil", "x")


async def test_what_a_step_writes_into_its_view_of_the_packages_is_no_part_of_the_layer(shop: Shop) -> None:
    async def write_a_file(spec: ContainerSpec) -> int:
        upper = Path(spec.state_dir, "rw/upper")
        upper.mkdir(parents=True, exist_ok=True)
        (upper / "kept").touch()
        Path(spec.state_dir, "rw/upper" + CACHE_DIR, "wheels").mkdir(parents=True)
        return 0

    shop.step = write_a_file
    built = await shop.build(RUN)

    assert os.listdir(built.layers[1]) == ["kept"]


async def test_same_packages_on_another_image_are_not_fetched_again(shop: Shop) -> None:
    six = image_steps.pip_install(("six",))

    await shop.build(six)
    await shop.build(RUN, six)
    await shop.build(RUN, image_steps.pip_install(("six", "attrs")))

    assert ["--no-build" in spec.argv[2] for spec in shop.specs] == [True, False, False, False, True, False]


async def test_fetch_that_fails_is_no_failure_of_the_step(shop: Shop) -> None:
    async def step(spec: ContainerSpec) -> int:
        return 1 if "--no-build" in spec.argv[2] else await shop.write_a_file(spec)

    shop.step = step
    events: list[BuildEvent] = []

    built = await shop.build(image_steps.pip_install(("docopt",)), events=events)

    assert os.listdir(built.layers[1]) == ["file-2"]
    assert [event.text for event in events if event.kind == "line"] == ["line of 2"]
    assert shop.leftovers() == NOTHING


async def test_directory_of_workdir_is_made_only_where_it_is_missing(shop: Shop) -> None:
    there = await shop.build(image_steps.workdir("/srv"))
    missing = await shop.build(image_steps.workdir("/srv"), image_steps.workdir("app"))

    assert len(there.layers) == 1
    assert len(missing.layers) == 2
    assert missing.config.workdir == "/srv/app"


async def test_built_image_is_found_again_and_an_unbuilt_one_is_not(shop: Shop) -> None:
    built = await shop.build(RUN)

    assert shop.builder.find(make_spec(RUN)) == built
    assert shop.builder.find(make_spec(RUN, RUN)) is None
    assert await shop.build(RUN) == built
    assert len(shop.specs) == 1


async def test_forced_step_and_all_after_it_are_built_again(shop: Shop) -> None:
    first = await shop.build(RUN, image_steps.run_commands(("more",)))

    forced = await shop.build(replace(RUN, force_build=True), image_steps.run_commands(("more",)))

    assert len(shop.specs) == 4
    assert forced.image_id == first.image_id
    assert forced.layers[0] == first.layers[0]
    assert not set(forced.layers[1:]) & set(first.layers[1:])
    assert Path(first.layers[1]).is_dir()
    assert shop.builder.find(make_spec(RUN, image_steps.run_commands(("more",)))) == forced


async def test_steps_after_a_forced_one_without_a_layer_are_built_again(shop: Shop) -> None:
    env = image_steps.env({"A": "b"})
    first = await shop.build(env, RUN)

    forced = await shop.build(replace(env, force_build=True), RUN)

    assert len(shop.specs) == 2
    assert forced.layers[1] != first.layers[1]


async def test_callers_of_one_image_share_its_build_and_its_log(shop: Shop) -> None:
    gate = asyncio.Event()

    async def wait(spec: ContainerSpec) -> int:
        await gate.wait()
        return await shop.write_a_file(spec)

    shop.step = wait
    early: list[BuildEvent] = []
    late: list[BuildEvent] = []
    first = asyncio.ensure_future(shop.build(RUN, events=early))
    await until(lambda: shop.specs)
    second = asyncio.ensure_future(shop.build(RUN, events=late))
    await asyncio.sleep(0)

    gate.set()

    assert await first == await second
    assert len(shop.specs) == 1
    assert early == late


async def test_images_that_begin_alike_share_the_steps_even_while_both_are_built(shop: Shop) -> None:
    one, other = await asyncio.gather(
        shop.build(RUN, image_steps.run_commands(("a",))), shop.build(RUN, image_steps.run_commands(("b",)))
    )

    assert len(shop.specs) == 3
    assert one.layers[:2] == other.layers[:2]


async def test_no_more_builds_run_than_there_are_id_ranges(tmp_path: Path) -> None:
    running: list[int] = [0, 0]

    async def count(spec: ContainerSpec) -> int:
        running[0] += 1
        running[1] = max(running)
        await until(lambda: running[1] >= 2)
        await asyncio.sleep(0.02)
        running[0] -= 1
        return 0

    async with open_shop(tmp_path, ranges=2) as shop:
        shop.step = count
        await asyncio.gather(*(shop.build(image_steps.run_commands((str(number),))) for number in range(5)))

    assert running == [0, 2]


async def test_failed_step_says_what_it_printed_and_makes_no_layer(shop: Shop) -> None:
    async def fail(spec: ContainerSpec) -> int:
        await shop.write_a_file(spec)
        return 3

    shop.step = fail
    with pytest.raises(BuildFailed, match="exit status 3") as failed:
        await shop.build(RUN)

    assert failed.value.code == INVALID
    assert "step 2 of 2 (run_commands make it)" in failed.value.message
    assert "line of 1" in failed.value.message
    assert len(shop.store.list()) == 1
    assert shop.leftovers() == NOTHING


async def test_step_whose_program_is_not_there_is_told_as_others_are(shop: Shop) -> None:
    for failure, code, remedy in (
        (ProgramMissing("cannot execute /bin/sh: No such file or directory (ENOENT)"), INVALID, "an earlier step"),
        (SubPathMissing("cannot mount volume /x: it has no directory 'b'; put something there"), INVALID, "then build"),
        (RuntimeFailure("cannot mount overlay on /x: No space left on device (ENOSPC)"), INTERNAL, "squall doctor"),
    ):
        shop.machine.start_failures.append(failure)
        with pytest.raises(BuildFailed) as failed:
            await shop.build(RUN)

        image_id = image.image_id(make_spec(RUN))
        assert failed.value.code == code
        assert f"cannot build image {image_id}: step 2 of 2 (run_commands make it) could not run: " in str(failed.value)
        assert failure.message in str(failed.value)
        assert remedy in str(failed.value)
        assert f"squall shell --image-step {image_id}/2" in str(failed.value)
    assert shop.leftovers() == NOTHING


async def test_step_that_found_no_network_is_told_so(shop: Shop) -> None:
    async def fail(spec: ContainerSpec) -> int:
        return 100

    shop.says = "W: Temporary failure resolving 'mirror.test'\nE: Unable to locate package git\n"
    shop.step = fail

    with pytest.raises(
        BuildFailed, match=r"exit status 100: no network: mirror\.test could not be .*; check DNS"
    ) as failed:
        await shop.build(image_steps.apt_install(("git",)))

    assert failed.value.code == UNAVAILABLE
    assert "correct the step" not in failed.value.message


async def test_failed_build_may_be_tried_again(shop: Shop) -> None:
    shop.machine.start_failures.append(RuntimeFailure("cannot start container: no memory"))
    with pytest.raises(BuildFailed, match="no memory"):
        await shop.build(RUN)

    assert len((await shop.build(RUN)).layers) == 2


async def test_step_that_never_ends_is_stopped(tmp_path: Path) -> None:
    async def hang(spec: ContainerSpec) -> int:
        await asyncio.sleep(60)
        return 0

    async with open_shop(tmp_path, step_timeout_s=0.05) as shop:
        shop.step = hang
        with pytest.raises(BuildFailed, match=r"did not end within 0\.05 s; .*SQUALL_STEP_TIMEOUT_S") as failed:
            await shop.build(RUN)

        assert failed.value.code == TIMED_OUT
        assert shop.leftovers() == NOTHING


async def test_files_that_are_copied_too_long_are_no_layer(tmp_path: Path) -> None:
    # No program has begun by then, let alone copied something.
    async with open_shop(tmp_path, step_timeout_s=0.001) as shop:
        make_mount(shop, "mo-0123456789", "file")
        with pytest.raises(
            BuildFailed, match=r"did not end within 0\.001 s; build again, or .*STEP_TIMEOUT_S"
        ) as failed:
            await shop.build(image_steps.copy("mo-0123456789", "/new"))

        assert failed.value.code == TIMED_OUT
        await until(lambda: shop.leftovers() == NOTHING)


async def test_build_goes_on_while_anybody_waits_and_stops_with_the_last(shop: Shop) -> None:
    gate = asyncio.Event()

    async def wait(spec: ContainerSpec) -> int:
        await gate.wait()
        return await shop.write_a_file(spec)

    shop.step = wait
    one, other = (asyncio.ensure_future(shop.build(RUN)) for _ in range(2))
    lone = asyncio.ensure_future(shop.build(image_steps.run_commands(("alone",))))
    await until(lambda: len(shop.specs) == 2)
    for waiting in (one, lone):
        waiting.cancel()
    await until(lambda: len(shop.machine.containers) == 1)

    gate.set()

    assert len((await other).layers) == 2
    assert shop.leftovers() == NOTHING


async def test_builds_keep_no_descriptor(shop: Shop) -> None:
    await shop.build(RUN)
    before = len(os.listdir("/proc/self/fd"))

    await shop.build(RUN, image_steps.run_commands(("more",)), image_steps.run_commands(("and more",)))

    assert len(os.listdir("/proc/self/fd")) == before


async def test_closing_the_builder_stops_its_builds(tmp_path: Path) -> None:
    async def hang(spec: ContainerSpec) -> int:
        await asyncio.sleep(60)
        return 0

    async with open_shop(tmp_path) as shop:
        shop.step = hang
        building = asyncio.ensure_future(shop.build(RUN))
        await until(lambda: shop.specs)

    with pytest.raises(BuildFailed) as failed:
        await building
    assert failed.value.code == UNAVAILABLE
    assert shop.leftovers() == NOTHING


async def test_what_a_build_leaves_is_deleted_by_and_by(tmp_path: Path) -> None:
    grave = Grave(tmp_path)
    grave.prepare()

    async with open_shop(tmp_path, discard=grave.bury) as shop:
        await shop.build(RUN)

        assert shop.leftovers() == NOTHING
        # Nobody digs yet: that would have taken the build's time.
        assert len(os.listdir(tmp_path / "removed/0")) == 1
        digging = asyncio.create_task(grave.run())
        await grave.wait_empty(10.0)
        digging.cancel()
        assert os.listdir(tmp_path / "removed") == []


async def test_what_cannot_be_put_away_is_deleted_at_once(tmp_path: Path) -> None:
    asked: list[Path] = []

    async with open_shop(tmp_path, discard=asked.append) as shop:
        await shop.build(RUN)

        assert len(asked) == 1
        assert shop.leftovers() == NOTHING


async def test_what_a_killed_agent_left_is_removed_before_the_first_build(tmp_path: Path) -> None:
    machine = FakeMachine()
    killed = FakeRuntime(machine)
    (tmp_path / "layers/.scratch/left").mkdir(parents=True)
    for name, labels in (("ct-build", {KIND_LABEL: BUILD_KIND}), ("ct-function", {KIND_LABEL: "function"})):
        await killed.start(ContainerSpec(name, [], "/x", IdRange(1), ["sleep", "60"], {}, labels=labels))

    builder = ImageBuilder(
        runtime=FakeRuntime(machine),
        network=CountingNetwork(),
        store=LayerStore(tmp_path),
        settings=MachineSettings(),
        data_dir=tmp_path,
        id_ranges=[IdRange(65_536)],
        mount_path=str,
        uv_path="/usr/bin/uv",
    )
    async with builder:
        assert list(machine.containers) == ["ct-function"]
        assert os.listdir(tmp_path / "layers/.scratch") == []
    await machine.close()


async def test_base_that_cannot_be_had_is_unsupported_not_our_mistake(shop: Shop) -> None:
    with pytest.raises(BuildFailed, match=r"Python 3\.12") as failed:
        await shop.builder.build(ImageSpec((image_steps.debian_slim("3.12"),)), lambda event: None)

    assert failed.value.code == UNSUPPORTED


async def test_impossible_definition_is_refused_before_anything_starts(shop: Shop) -> None:
    with pytest.raises(ImageInvalid):
        await shop.build(image_steps.debian_slim("3.11"))


async def test_a_step_that_writes_too_much_is_ended_and_the_error_says_which_and_what_to_do(shop: Shop) -> None:
    async def write_for_ever(spec: ContainerSpec) -> int:
        await asyncio.sleep(60)
        return 0

    shop.step = write_for_ever
    building = asyncio.ensure_future(shop.build(RUN))
    await until(shop.builder.writers)
    (writer,) = shop.builder.writers()
    # Beside what becomes the layer, the files that last as long as the step.
    assert {Path(path).name for path in os.listdir(writer.folders[0])} == {"state", "inside"}
    assert writer.limit.space_bytes == STEP_BYTES_MAX

    shop.builder.over_disk("ct-other", "another")
    shop.builder.over_disk(writer.container_id, f"it had 9 MiB; {writer.more}")

    with pytest.raises(BuildFailed, match="SQUALL_STEP_BYTES_MAX") as caught:
        await building
    assert caught.value.code == INVALID
    assert "step 2 of 2 (run_commands make it) was ended: it had 9 MiB" in str(caught.value)
    assert not shop.builder.writers()
    assert shop.leftovers() == NOTHING
