"""Images for real: a base from this machine's mirror, steps in containers, and what is in the layers afterwards.

The base is made once and shared by the tests through a store they each extend.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import stat
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from squall.agent.disk import DiskWatch, space_of
from squall.agent.image import layer_maker
from squall.agent.image.bases.debian import known_bases
from squall.agent.image.builder import ImageBuilder
from squall.agent.image.inherit import CACHE_DIR
from squall.agent.image.layer import chain
from squall.agent.image.layer.store import LayerStore
from squall.agent.image.machine.settings import read_machine_settings
from squall.agent.image.making import BuildFailed
from squall.agent.image.progress import BuiltImage
from squall.agent.image.step_container import Network
from squall.agent.labels import BUILD_KIND, KIND_LABEL
from squall.erofs.unpack import unpack
from squall.protocol import image, image_steps
from squall.protocol.errors import UNAVAILABLE
from squall.protocol.image import BuildEvent, ImageSpec, ImageStep
from squall.runtime.client import SpawnerRuntime
from squall.runtime.contract import Runtime
from squall.runtime.network.pool import NetworkPool
from squall.runtime.spec import ContainerSpec, IdRange, NetworkSlot
from tests.conftest import remove_data_dir
from tests.kernel.rootfs import missing as containers_missing

SETTINGS = read_machine_settings(os.environ)
# Debian's packages are in question here, whether or not a registry answers on this machine.
ENVIRON = {**os.environ, "PYTHONPATH": "src", "SQUALL_PYTHON_IMAGE": "none"}
BUILD_RANGES = (IdRange(0x7000_0000), IdRange(0x7001_0000))


def missing() -> str:
    """What this machine lacks to build images, or nothing."""
    if containers_missing():
        return containers_missing()
    if shutil.which("mmdebstrap", path="/usr/bin:/bin") is None:
        return "missing program: mmdebstrap"
    return "" if known_bases(SETTINGS) else "no Debian or Ubuntu mirror in the apt sources of this machine"


@pytest.fixture(autouse=True)
def _skip_aloud() -> None:
    if missing():
        pytest.skip(missing())


@pytest.fixture(scope="module")
def store_dir(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A data directory whose store has the base, made by the same command that set-up runs."""
    if missing():
        pytest.skip(missing())
    path = tmp_path_factory.mktemp("images")
    command = [
        sys.executable,
        "-m",
        "squall.agent.image.bases.bootstrap",
        "--data-dir",
        str(path),
        "--python",
        python_version(),
    ]
    subprocess.run(command, check=True, timeout=110, env=ENVIRON)
    yield path
    assert not remove_data_dir(path)


def python_version() -> str:
    return known_bases(SETTINGS)[0].python_version


class Builds:
    """A builder with what it needs, and the events of its builds."""

    def __init__(self, builder: ImageBuilder, store_dir: Path, runtime: Runtime) -> None:
        self.builder = builder
        self.store_dir = store_dir
        self.runtime = runtime
        self.events: list[BuildEvent] = []
        self.spec = ImageSpec(())
        """Of the last build."""

    async def build(self, *steps: ImageStep) -> BuiltImage:
        self.events.clear()
        self.spec = ImageSpec((image_steps.debian_slim(python_version()), *steps))
        return await asyncio.wait_for(self.builder.build(self.spec, self.events.append), 100)

    def lines(self) -> list[str]:
        return [event.text for event in self.events if event.kind == "line"]

    def scratch(self) -> list[str]:
        return os.listdir(self.store_dir / "layers/.scratch")


@asynccontextmanager
async def open_runtime(data_dir: Path) -> AsyncIterator[SpawnerRuntime]:
    async with await SpawnerRuntime.open(str(data_dir / "spawner"), data_dir.name, idle_s=5) as runtime:
        try:
            yield runtime
        finally:
            await runtime.shutdown()


@asynccontextmanager
async def open_builds(
    store_dir: Path, data_dir: Path, mount: Path | None = None, *, network: Network | None = None, **limits: Any
) -> AsyncIterator[Builds]:
    async with (
        open_runtime(data_dir) as runtime,
        NetworkPool.open(str(data_dir / "network"), data_dir.name, 1) as pool,
        ImageBuilder(
            runtime=runtime,
            network=network or pool,
            store=LayerStore(store_dir, is_packed=True),
            settings=SETTINGS,
            data_dir=store_dir,
            id_ranges=BUILD_RANGES,
            mount_path=lambda mount_id: str(mount),
            uv_path=str(Path(sys.executable).parent / "uv"),
            **limits,
        ) as builder,
    ):
        watch = DiskWatch(builder.writers, builder.over_disk, lambda: space_of(store_dir))
        watching = asyncio.ensure_future(watch.run())
        yield Builds(builder, store_dir, runtime)
        watching.cancel()
        await asyncio.gather(watching, return_exceptions=True)


@pytest.fixture
async def builds(store_dir: Path, data_dir: Path) -> AsyncIterator[Builds]:
    async with open_builds(store_dir, data_dir) as opened:
        yield opened


def tree_of(layer: str) -> Path:
    """What is in a layer, as a directory beside its image."""
    root = Path(layer).with_name("tree")
    if not root.exists():
        root.mkdir()
        unpack(Path(layer), str(root))
    return root


def files_in(layer: str) -> set[str]:
    """Everything in a layer but directories, by its path inside."""
    root = tree_of(layer)
    return {str(path.relative_to(root)) for path in root.rglob("*") if path.is_symlink() or not path.is_dir()}


async def test_debian_package_is_installed_into_a_layer_of_its_own(builds: Builds) -> None:
    built = await builds.build(image_steps.apt_install(("hello",)), image_steps.run_commands(("hello",)))

    assert "usr/bin/hello" in files_in(built.layers[1])
    assert "Hello, world!" in builds.lines()
    assert not {name for name in files_in(built.layers[1]) if name.startswith(("var/log", "var/lib/apt/lists"))}


async def test_python_package_is_installed_with_its_bytecode(builds: Builds) -> None:
    built = await builds.build(
        image_steps.pip_install(("six",)), image_steps.run_commands(("python -c 'import six; print(six.__name__)'",))
    )

    added = files_in(built.layers[1])
    assert any(name.endswith("dist-packages/six.py") for name in added)
    assert any("__pycache__/six." in name for name in added)
    assert not {name for name in added if not name.startswith("usr/local/")}
    # Files, and no links to the shared cache, which later steps see and functions do not.
    assert not {name for name in added if (tree_of(built.layers[1]) / name).is_symlink()}
    assert "six" in builds.lines()
    assert built.config.python_path == "/usr/bin/python3"
    assert built.config.python_version.startswith(python_version() + ".")


async def test_packages_of_one_image_are_out_of_reach_of_another_images_steps(builds: Builds) -> None:
    cache = builds.store_dir / "cache/packages/.squall-cache"
    await builds.build(image_steps.pip_install(("iniconfig",)))
    find = f"find {CACHE_DIR} -path '*/iniconfig/__init__.py'"

    await builds.build(
        # As root of the image, by the name the next install will read, and by every other way in.
        image_steps.run_commands(
            (
                f'test -n "$({find})"',
                f"for file in $({find}); do echo 'raise SystemExit(\"poisoned\")' > $file; chmod 777 $file; done",
                f"mkdir {CACHE_DIR}/planted; grep -r poisoned $({find})",
            )
        ),
        # What the step wrote is gone even for the next step of the same image.
        image_steps.run_commands((f"! grep -rq poisoned {CACHE_DIR} && test ! -e {CACHE_DIR}/planted",)),
    )
    installed = await builds.build(
        image_steps.env({"OTHER": "image"}),
        image_steps.run_commands(("true",)),
        image_steps.pip_install(("iniconfig",)),
        image_steps.run_commands(("python3 -c 'import iniconfig; print(iniconfig.IniConfig)'",)),
    )

    assert "<class 'iniconfig.IniConfig'>" in builds.lines()
    assert not (cache / "planted").exists()
    assert not {name for layer in installed.layers for name in files_in(layer) if CACHE_DIR[1:] in name}
    owners = {(path.lstat().st_uid, path.lstat().st_gid) for path in cache.rglob("*")}
    assert owners == {(0, 0)}


async def test_packages_that_another_image_has_are_not_prepared_again(builds: Builds) -> None:
    await builds.build(image_steps.pip_install(("numpy",)))

    started_s = time.monotonic()
    await builds.build(image_steps.run_commands(("true",)), image_steps.pip_install(("numpy",)))

    lines = builds.lines()
    assert any(line.startswith("Installed 1 package") for line in lines)
    # What uv says when it has to download or to unpack.
    assert not [line for line in lines if line.startswith("Prepared") or "ownload" in line]
    assert time.monotonic() - started_s < 20


async def test_env_workdir_and_step_variables_apply_where_they_should(builds: Builds) -> None:
    built = await builds.build(
        image_steps.env({"KEPT": "k"}),
        image_steps.workdir("/srv/app"),
        image_steps.workdir("inner"),
        image_steps.run_commands(('echo "$KEPT $ONCE $PWD"',), env={"ONCE": "o"}),
        image_steps.run_commands(('echo "again $KEPT $ONCE $PWD"',)),
    )

    assert "k o /srv/app/inner" in builds.lines()
    assert "again k  /srv/app/inner" in builds.lines()
    assert built.config.env == {"KEPT": "k"}
    assert built.config.workdir == "/srv/app/inner"


async def test_copied_files_belong_to_the_image_and_keep_their_modes(store_dir: Path, data_dir: Path) -> None:
    mount = data_dir / "mount"
    (mount / "sub").mkdir(parents=True)
    (mount / "sub/private").write_text("content")
    (mount / "sub/private").chmod(0o640)
    (mount / "run.sh").write_text("#!/bin/sh\necho ran\n")
    (mount / "run.sh").chmod(0o755)

    async with open_builds(store_dir, data_dir, mount) as builds:
        built = await builds.build(
            image_steps.copy("mo-0123456789", "/opt/it"), image_steps.run_commands(("/opt/it/run.sh",))
        )

    assert files_in(built.layers[1]) == {"opt/it/run.sh", "opt/it/sub/private"}
    status = os.stat(tree_of(built.layers[1]) / "opt/it/sub/private")
    assert (stat.S_IMODE(status.st_mode), status.st_uid, status.st_gid) == (0o640, 0, 0)
    assert "ran" in builds.lines()


async def test_removed_file_is_gone_in_later_steps(builds: Builds) -> None:
    built = await builds.build(
        image_steps.run_commands(("mkdir /data && echo one > /data/a && echo two > /data/b",)),
        image_steps.run_commands(("rm /data/a && rm -r --one-file-system /etc/dpkg && mkdir /etc/dpkg",)),
        image_steps.run_commands(("ls /data; ls /etc/dpkg | wc -l",)),
    )

    assert builds.lines()[-2:] == ["b", "0"]
    assert stat.S_ISCHR(os.lstat(tree_of(built.layers[2]) / "data/a").st_mode)


async def test_deep_image_stands_on_merged_layers_and_is_built_on_them(
    builds: Builds, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(chain, "DEPTH_MAX", 5)
    monkeypatch.setattr(chain, "GROUP", 3)
    change = "mkdir -p /deep/{0} && echo {0} > /deep/last && rm -fr --one-file-system /deep/{1}"
    steps = [image_steps.run_commands((change.format(number, number - 2),)) for number in range(10)]

    built = await builds.build(*steps, image_steps.run_commands(("cat /deep/last; ls /deep",)))
    said = builds.lines()
    again = await builds.build(*steps, image_steps.run_commands(("cat /deep/last; ls /deep",)))
    found = builds.builder.find(builds.spec)

    assert said[-4:] == ["9", "8", "9", "last"]
    assert len(built.config.layers) == 12
    # The base, three merged of three each, and the two last steps.
    assert len(built.layers) == 6
    assert again.layers == built.layers
    assert found is not None
    assert found.layers == built.layers
    assert {event.kind for event in builds.events} == {"cached"}


async def test_bytecode_of_packages_is_there_and_valid(builds: Builds) -> None:
    for _ in range(2):
        builds.events.clear()
        await builds.build(
            image_steps.env({"NUMBER": str(len(builds.events))}),
            image_steps.pip_install(("six",)),
            image_steps.run_commands(("python3 -v -c 'import six' 2>&1 | grep 'six.*pyc'",), force_build=True),
        )

        said = "\n".join(event.text for event in builds.events if event.kind == "line")
        assert "matches" in said
        assert "wrote" not in said
        assert "stale" not in said


async def test_debian_packages_are_downloaded_once(builds: Builds) -> None:
    packages = image_steps.apt_install(("tree",))
    await builds.build(packages)
    builds.events.clear()

    again = await builds.build(image_steps.run_commands(("touch /other",)), packages)

    said = "\n".join(event.text for event in builds.events)
    assert "Need to get 0 B" in said
    assert not [path for path in files_in(again.layers[2]) if path.startswith((".squall-cache", "var/cache/apt"))]


async def test_second_build_comes_from_the_cache_and_a_change_rebuilds_from_there(builds: Builds) -> None:
    first = await builds.build(
        image_steps.run_commands(("echo 1 > /one",)), image_steps.run_commands(("date +%N > /two",))
    )

    started = time.monotonic()
    again = await builds.build(
        image_steps.run_commands(("echo 1 > /one",)), image_steps.run_commands(("date +%N > /two",))
    )
    took_s = time.monotonic() - started
    cached = [event.kind for event in builds.events]
    changed = await builds.build(
        image_steps.run_commands(("echo 1 > /one",)), image_steps.run_commands(("echo 2 > /two",))
    )

    assert again == first
    assert cached == ["cached", "cached", "cached"]
    assert took_s < 0.5
    assert changed.layers[:2] == first.layers[:2]
    assert changed.layers[2] != first.layers[2]


async def test_failing_command_shows_its_output_and_leaves_no_layer(builds: Builds) -> None:
    before = LayerStore(builds.store_dir).list()

    with pytest.raises(BuildFailed) as failed:
        await builds.build(image_steps.run_commands(("echo begun > /half", "echo the reason >&2; exit 3")))

    assert "step 2 of 2 (run_commands echo begun" in failed.value.message
    assert "exit status 3" in failed.value.message
    assert "the reason" in failed.value.message
    assert LayerStore(builds.store_dir).list() == before
    assert builds.scratch() == []
    assert list(await builds.runtime.list()) == []


async def test_unknown_packages_are_named_in_the_error(builds: Builds) -> None:
    with pytest.raises(BuildFailed, match="Unable to locate package no-such-package"):
        await builds.build(image_steps.apt_install(("no-such-package",)))
    with pytest.raises(BuildFailed, match="no-such-package-either"):
        await builds.build(image_steps.pip_install(("no-such-package-either",)))


class Nowhere:
    """A network that has no way out, and no name server in it."""

    async def acquire(self, container_id: str) -> NetworkSlot:
        await asyncio.to_thread(subprocess.run, ["ip", "netns", "add", container_id], check=True, timeout=20)
        resolv_conf = "nameserver 192.0.2.1\noptions timeout:1 attempts:1\n"
        return NetworkSlot(container_id, f"/run/netns/{container_id}", "", "", resolv_conf)

    async def release(self, slot: NetworkSlot) -> None:
        await asyncio.to_thread(subprocess.run, ["ip", "netns", "delete", slot.name], check=True, timeout=20)


async def test_steps_without_a_network_say_so(store_dir: Path, data_dir: Path) -> None:
    async with open_builds(store_dir, data_dir, package_bytes_max=0, network=Nowhere()) as builds:
        for step in (
            # Of names that no other test has layers of.
            image_steps.apt_install(("nothing-of-this-name",)),
            replace(image_steps.pip_install(("nothing-of-this-name",)), env={"UV_HTTP_RETRIES": "0"}),
        ):
            with pytest.raises(
                BuildFailed, match=r"step 2 of 2 .*: no network: \S+ could not be reached; check DNS"
            ) as caught:
                await builds.build(step)
            assert caught.value.code == UNAVAILABLE


async def test_nothing_of_this_machine_is_in_the_layers(builds: Builds) -> None:
    built = await builds.build(
        image_steps.apt_install(("hello",)),
        image_steps.pip_install(("six",)),
        image_steps.run_commands(("pip install -q six && apt-get -qq update && env > /dev/null",)),
    )

    secrets = {source.uri.encode() for source in SETTINGS.apt.sources}
    secrets |= {
        url.encode() for name in ("index-url", "extra-index-url", "find-links") for url in SETTINGS.pip.get(name)
    }
    secrets |= {value.encode() for value in SETTINGS.proxies.values()} | {b".squall-build"}
    for layer in built.layers:
        # dpkg's own template for new machines names Debian's public mirror in every Debian.
        names = files_in(layer) - {"usr/lib/dpkg/methods/apt/setup"}
        for path in (tree_of(layer) / name for name in names):
            content = path.read_bytes() if path.is_file() and not path.is_symlink() else b""
            assert not {secret for secret in secrets if secret in content}, path
    for layer in built.layers[1:]:
        assert not {name for name in os.listdir(tree_of(layer)) if name not in ("etc", "usr", "var", "tmp", "root")}
        assert not {name for name in files_in(layer) if name in ("etc/resolv.conf", "etc/hosts", "etc/hostname")}


async def test_cancelled_build_leaves_nothing(builds: Builds) -> None:
    started = asyncio.Event()
    spec = ImageSpec(
        (image_steps.debian_slim(python_version()), image_steps.run_commands(("echo started; sleep 600",)))
    )
    building = asyncio.ensure_future(
        builds.builder.build(spec, lambda event: started.set() if event.text == "started" else None)
    )
    await asyncio.wait_for(started.wait(), 60)

    building.cancel()

    with pytest.raises(asyncio.CancelledError):
        await building
    for _ in range(200):
        if not builds.scratch() and not await builds.runtime.list():
            return
        await asyncio.sleep(0.05)
    raise AssertionError((builds.scratch(), await builds.runtime.list()))


async def test_next_builder_removes_what_a_killed_one_left(store_dir: Path, data_dir: Path) -> None:
    async with open_runtime(data_dir) as runtime:
        left = await start_and_abandon(runtime, store_dir, data_dir)
        assert [status.container_id for status in await runtime.list()] == [left.name]

        async with ImageBuilder(
            runtime=runtime,
            network=NetworkPool.open(str(data_dir / "network"), data_dir.name, 1),
            store=LayerStore(store_dir),
            settings=SETTINGS,
            data_dir=store_dir,
            id_ranges=BUILD_RANGES,
            mount_path=str,
            uv_path="/usr/bin/uv",
        ):
            assert list(await runtime.list()) == []
            assert not left.exists()


async def start_and_abandon(runtime: Runtime, store_dir: Path, data_dir: Path) -> Path:
    """A build container as a killed agent leaves it: running, its files in a scratch directory nobody locks."""
    scratch = store_dir / "layers/.scratch/ct-0123456789"
    scratch.mkdir()
    base = LayerStore(store_dir).find(image.cache_key("", image_steps.debian_slim(python_version())))
    assert base is not None
    started = await runtime.start(
        ContainerSpec(
            container_id=scratch.name,
            layers=[base.path],
            state_dir=str(scratch),
            id_range=BUILD_RANGES[0],
            argv=["/bin/sleep", "600"],
            env={},
            is_upper_idmapped=True,
            labels={KIND_LABEL: BUILD_KIND},
        )
    )
    os.close(started.stdout_fd)
    os.close(started.stderr_fd)
    return scratch


def test_killed_base_build_leaves_nothing_that_is_used(data_dir: Path) -> None:
    command = [sys.executable, "-m", "squall.agent.image.bases.bootstrap", "--data-dir", str(data_dir), "--verbose"]
    with subprocess.Popen(
        [*command, "--python", python_version()], env=ENVIRON, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        # In the middle: packages are being unpacked, with /proc and /dev mounted.
        while "extracting archives" not in process.stdout.readline():
            assert process.poll() is None
        process.send_signal(signal.SIGKILL)

    store = LayerStore(data_dir)
    deadline = time.monotonic() + 30
    while os.listdir(data_dir / "layers/.scratch") and time.monotonic() < deadline:
        store.sweep()
        time.sleep(0.1)

    assert os.listdir(data_dir / "layers/.scratch") == []
    assert store.list() == ()


@pytest.mark.parametrize(
    "command",
    [
        "head -c 100M /dev/zero > /large; sleep 60",
        "head -c 100M /dev/zero > $APT_CONFIG.large; sleep 60",
        "exec 9> /.squall-build/tmp/open; rm /.squall-build/tmp/open; head -c 100M /dev/zero >&9; sleep 60",
        "for number in $(seq 20); do head -c 5M /dev/zero > /root/$number; done; sleep 60",
    ],
)
async def test_step_that_fills_the_disk_is_ended(store_dir: Path, data_dir: Path, command: str) -> None:
    async with open_builds(store_dir, data_dir, step_bytes_max=50 * 2**20) as builds:
        fine = await builds.build(image_steps.run_commands(("head -c 20M /dev/zero > /small; sleep 1",)))

        with pytest.raises(BuildFailed, match=r"its limit is 50 MiB; .*SQUALL_STEP_BYTES_MAX") as caught:
            await builds.build(image_steps.run_commands((command,)))

        assert f"step 2 of 2 (run_commands {command[:20]}" in str(caught.value)
        assert (tree_of(fine.layers[1]) / "small").stat().st_size == 20 * 2**20
        assert not builds.scratch()
        assert not await builds.runtime.list()


async def test_packages_that_make_room_are_fetched_again(
    store_dir: Path, data_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(layer_maker, "ROOM_S", 0.2)
    archives = store_dir / f"cache/packages{CACHE_DIR}/archive-v0"
    async with open_builds(store_dir, data_dir, package_bytes_max=100 * 2**10) as builds:
        first = await builds.build(image_steps.pip_install(("six",)))
        async with asyncio.timeout(20):
            while os.listdir(archives):  # noqa: ASYNC110 - another activity's doing
                await asyncio.sleep(0.05)

        second = await builds.build(image_steps.run_commands(("true",)), image_steps.pip_install(("six", "toolz")))

    assert any(name.endswith("/six.py") for name in files_in(first.layers[1]))
    assert any(name.endswith("/six.py") for name in files_in(second.layers[2]))
