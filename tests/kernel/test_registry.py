"""Bases from a registry for real: Debian's docker-registry on loopback, asked through the settings an operator has."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from squall.agent.image.bases.debian import BaseUnavailable
from squall.agent.image.bases.ensure import ensure_base
from squall.agent.image.builder import ImageBuilder
from squall.agent.image.layer.store import Layer, LayerStore
from squall.agent.image.machine.settings import AptSettings, AptSource, MachineSettings, read_machine_settings
from squall.agent.image.oci import pull as pull_module
from squall.main.config import read_config
from squall.main.doctor import check_python_images
from squall.protocol import image, image_steps
from squall.protocol.image import BuildEvent, ImageSpec, ImageStep
from squall.runtime.client import SpawnerRuntime
from squall.runtime.contract import Runtime
from squall.runtime.network.pool import NetworkPool
from squall.runtime.removal import remove_tree
from squall.runtime.spec import IdRange
from tests.kernel import registries
from tests.kernel.registries import Registry, gate, silent_place, stock

SETTINGS = read_machine_settings(os.environ)
# A mirror for mmdebstrap to fail at: then it shows who was asked, and in which order.
NO_MIRROR = AptSettings((AptSource("file:///nonexistent", "bookworm", ("main",)),))


@pytest.fixture(autouse=True)
def _skip_aloud(rootfs: str) -> None:
    if registries.missing():
        pytest.skip(registries.missing())


@pytest.fixture(scope="module")
def stocked(rootfs: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The folder of a registry, stopped, that has images: one as the official ones are, and bad ones."""
    if registries.missing():
        pytest.skip(registries.missing())
    folder = tmp_path_factory.mktemp("registry")
    registry = Registry(folder)
    registry.start()
    try:
        stock(registry, rootfs, folder)
        (folder / "port").write_text(str(registry.port))
    finally:
        registry.stop()
    yield folder
    # Larger than what pytest should keep of its last runs.
    remove_tree(str(folder))


@pytest.fixture
def registry(stocked: Path) -> Iterator[Registry]:
    """That registry, running."""
    with Registry(stocked) as running:
        yield running


def settings_for(registry: Registry, pattern: str, **more: str) -> MachineSettings:
    """The machine's, with this registry's images and no Debian mirror."""
    variables = {"HOME": str(registry.home), **more}
    return replace(SETTINGS, python_image=pattern, registry_env=variables, apt=AptSettings())


def make(data_dir: Path, settings: MachineSettings, python_version: str = "3.11") -> Layer:
    """The base, with nothing left over whatever happens."""
    store = LayerStore(data_dir)
    try:
        return ensure_base(store, settings, python_version, lambda line: None)
    finally:
        assert os.listdir(data_dir / "layers/.scratch") == []


def refusal(data_dir: Path, settings: MachineSettings, python_version: str = "3.11") -> str:
    """Why there is no base; nothing half-made is in the store."""
    with pytest.raises(BaseUnavailable) as caught:
        make(data_dir, settings, python_version)
    assert LayerStore(data_dir).list() == ()
    return str(caught.value)


@asynccontextmanager
async def open_runtime(data_dir: Path) -> AsyncIterator[SpawnerRuntime]:
    async with await SpawnerRuntime.open(str(data_dir / "spawner"), data_dir.name, idle_s=5) as runtime:
        try:
            yield runtime
        finally:
            await runtime.shutdown()


@asynccontextmanager
async def open_builder(runtime: Runtime, settings: MachineSettings, data_dir: Path) -> AsyncIterator[ImageBuilder]:
    async with (
        NetworkPool.open(str(data_dir / "network"), data_dir.name, 1) as network,
        ImageBuilder(
            runtime=runtime,
            network=network,
            store=LayerStore(data_dir),
            settings=settings,
            data_dir=data_dir,
            id_ranges=(IdRange(0x7000_0000),),
            mount_path=str,
            uv_path=str(Path(sys.executable).parent / "uv"),
        ) as builder,
    ):
        yield builder


async def test_image_of_a_registry_runs_and_takes_packages(registry: Registry, data_dir: Path) -> None:
    settings = replace(settings_for(registry, f"{registry.place}/python:{{series}}-slim"), apt=SETTINGS.apt)
    spec = ImageSpec(
        (
            image_steps.debian_slim("3.11"),
            image_steps.run_commands(
                ('python -c "import sys; print(sys.executable)"', 'echo "$GREETING in $PWD as $(id -u)"')
            ),
            image_steps.apt_install(("hello",)),
            image_steps.pip_install(("six",)),
            image_steps.run_commands(("hello", "python -c 'import six; print(six.__name__)'")),
        )
    )
    events: list[BuildEvent] = []

    async with open_runtime(data_dir) as runtime, open_builder(runtime, settings, data_dir) as builder:
        built = await builder.build(spec, events.append)

    lines = [event.text for event in events if event.kind == "line"]
    assert "/usr/local/bin/python" in lines
    assert "hello there in /srv/app as 0" in lines
    assert "Hello, world!" in lines
    assert "six" in lines
    assert not [line for line in lines if "mirror.invalid" in line]
    assert built.config.python_path == "/usr/local/bin/python3"
    assert built.config.python_version.startswith("3.11.")
    assert built.config.workdir == "/srv/app"
    assert built.config.env["GREETING"] == "hello there"
    base = Path(built.layers[0])
    assert ((base / "etc/issue.net").stat().st_uid, (base / "etc/issue.net").read_text()) == (33, "from above")
    assert not (base / "etc/issue").exists()
    made = LayerStore(data_dir).find(image.cache_key("", image_steps.debian_slim("3.11")))
    assert made is not None
    assert made.facts["image"] == f"{registry.place}/python:3.11-slim"


async def test_images_of_one_run_share_a_forced_base_and_its_steps(registry: Registry, data_dir: Path) -> None:
    settings = settings_for(registry, f"{registry.place}/python:{{series}}-slim")
    base, dice = image_steps.debian_slim("3.11"), image_steps.run_commands(("head -c 8 /dev/urandom > /x",))
    env = image_steps.env({"A": "b"})

    async with open_runtime(data_dir) as runtime, open_builder(runtime, settings, data_dir) as builder:

        async def build(run_id: str, *steps: ImageStep) -> tuple[str, ...]:
            built = await builder.build(ImageSpec(steps), lambda event: None, run_id=run_id)
            return built.layers

        def dice_in(layers: tuple[str, ...]) -> bytes:
            return (Path(layers[1]) / "x").read_bytes()

        forced = replace(base, force_build=True)
        cached = await build("", base, dice)
        first, other = await asyncio.gather(build("run", forced, dice), build("run", forced, dice, env))
        stays = await build("", base, dice)
        second = await build("next run", forced, dice)
        beside = replace(base, env={"SQUALL_IGNORE_CACHE": "1"})
        apart = await build("", beside, dice)
        plain = await build("", base, dice)

    assert first == other, "made once for both"
    assert stays == first, "what a forced build makes takes the place of what was there"
    assert plain == second, "and what is built beside the cache does not"
    assert len({layers[0] for layers in (cached, first, second, apart)}) == 4
    assert len({dice_in(layers) for layers in (cached, first, second, apart)}) == 4


def test_registry_is_asked_before_debian_and_a_store_before_both(registry: Registry, data_dir: Path) -> None:
    settings = replace(settings_for(registry, f"{registry.place}/python:{{series}}-slim"), apt=NO_MIRROR)

    made = make(data_dir, settings)
    registry.stop()

    assert made.facts["suite"] == "bookworm"
    assert make(data_dir, settings) == made


def test_missing_tag_lists_what_can_be_had(registry: Registry, data_dir: Path) -> None:
    settings = replace(settings_for(registry, f"{registry.place}/python:{{series}}-slim"), apt=NO_MIRROR)

    message = refusal(data_dir, settings, "3.12")

    assert "manifest unknown" in message
    assert "the registry has 3.11;" in message
    assert "the mirrors of this machine have 3.11 (bookworm)" in message
    assert "SQUALL_PYTHON_IMAGE" in message


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("bad", "'../../escaped' leads out of the image"),
        ("nothing", "has no python3 on its PATH"),
        ("fake", "cannot be used"),
    ],
)
def test_image_that_cannot_be_used_is_refused(registry: Registry, data_dir: Path, name: str, reason: str) -> None:
    message = refusal(data_dir, settings_for(registry, f"{registry.place}/{name}:{{series}}"))

    assert f"{registry.place}/{name}:3.11" in message
    assert reason in message
    assert not list(data_dir.rglob("escaped"))


def test_python_that_is_asked_for_its_version_can_do_nothing(stocked: Path, data_dir: Path) -> None:
    # The one port its program knows.
    registry = Registry(stocked, port=int((stocked / "port").read_text()))
    registry.start()
    try:
        made = make(data_dir, settings_for(registry, f"{registry.place}/spy:{{series}}"))
    finally:
        registry.stop()

    assert made.facts["python_version"] == "3.11.0+1999999999"


def test_layers_in_zstd_are_read(registry: Registry, data_dir: Path) -> None:
    command = ["skopeo", "inspect", "--raw", f"docker://{registry.place}/nothing:3.11"]
    raw = subprocess.run(
        command, capture_output=True, env={**os.environ, "HOME": str(registry.home)}, check=True
    ).stdout

    assert b"+zstd" in raw
    # Found out by looking into it.
    assert "no python3" in refusal(data_dir, settings_for(registry, f"{registry.place}/nothing:{{series}}"))


def test_wrong_password_is_told_and_the_right_one_works(stocked: Path, data_dir: Path) -> None:
    registry = Registry(stocked, has_password=True)
    registry.start()
    try:
        pattern = f"{registry.place}/python:{{series}}-slim"
        wrong = settings_for(registry, pattern, REGISTRY_AUTH_FILE=registry.log_in("wrong"))
        message = refusal(data_dir, wrong)
        right = settings_for(registry, pattern, REGISTRY_AUTH_FILE=registry.log_in(registries.PASSWORD))
        made = make(data_dir, right)
    finally:
        registry.stop()

    assert "unauthorized" in message or "invalid username/password" in message
    assert made.facts["python_path"] == "/usr/local/bin/python3"


def test_registry_that_dies_half_way_leaves_nothing(registry: Registry, data_dir: Path) -> None:
    with gate(registry, "kill") as place:
        message = refusal(data_dir, settings_for(registry, f"{place.place}/python:{{series}}-slim"))

        assert place.has_torn.is_set()
    assert "no registry served" in message


def test_download_that_stalls_is_given_up(registry: Registry, data_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pull_module, "_STALL_S", 1.5)

    with gate(registry, "stall") as place:
        message = refusal(data_dir, settings_for(registry, f"{place.place}/python:{{series}}-slim"))

    assert "no progress for 1.5 s" in message


def test_nobody_waits_for_a_download_that_is_cancelled(registry: Registry, data_dir: Path) -> None:
    cancelled = threading.Event()
    with gate(registry, "stall") as place:
        settings = settings_for(registry, f"{place.place}/python:{{series}}-slim")
        thread = threading.Timer(1.0, cancelled.set)
        thread.start()
        started = time.monotonic()
        with pytest.raises(BaseUnavailable, match="cancelled"):
            ensure_base(LayerStore(data_dir), settings, "3.11", lambda line: None, is_cancelled=cancelled.is_set)
        thread.join()

    assert time.monotonic() - started < 5
    assert os.listdir(data_dir / "layers/.scratch") == []


def test_blob_that_was_changed_is_refused(stocked: Path, registry: Registry, data_dir: Path) -> None:
    largest = max(stocked.glob("store/docker/registry/v2/blobs/*/*/*/data"), key=lambda path: path.stat().st_size)
    content = largest.read_bytes()
    try:
        for damaged in (content[: len(content) // 2], content[:-100] + bytes(100)):
            largest.write_bytes(damaged)
            assert "no registry served" in refusal(
                data_dir, settings_for(registry, f"{registry.place}/python:{{series}}-slim")
            )
    finally:
        largest.write_bytes(content)


def test_silent_registry_costs_seconds_once(stocked: Path, data_dir: Path) -> None:
    with silent_place(Registry(stocked)) as silent:
        settings = replace(settings_for(Registry(stocked), f"{silent.place}/python:{{series}}-slim"), apt=NO_MIRROR)
        first = refusal(data_dir, settings)
        asked = silent.count()
        second = refusal(data_dir, settings)
        assert silent.count() == asked > 0

    assert "no answer within 5 s" in first
    assert "nobody answered" in second
    assert "mmdebstrap failed" in first


def test_killed_pull_leaves_nothing_that_is_used(registry: Registry, data_dir: Path) -> None:
    with gate(registry, "stall") as place:
        environ = {
            **os.environ,
            "PYTHONPATH": "src",
            "HOME": str(registry.home),
            "SQUALL_PYTHON_IMAGE": f"{place.place}/python:{{series}}-slim",
        }
        command = [
            sys.executable,
            "-m",
            "squall.agent.image.bases.bootstrap",
            "--data-dir",
            str(data_dir),
            "--python",
            "3.11",
        ]
        with subprocess.Popen(command, env=environ) as process:
            assert place.has_torn.wait(30)
            process.send_signal(signal.SIGKILL)

        store = LayerStore(data_dir)
        wait_until(lambda: store.sweep() >= 0 and not os.listdir(data_dir / "layers/.scratch"))

    assert store.list() == ()


def wait_until(is_so: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 30
    while not is_so():
        assert time.monotonic() < deadline
        time.sleep(0.1)


def test_doctor_asks_the_registry_that_builds_ask(registry: Registry) -> None:
    series = f"{sys.version_info.major}.{sys.version_info.minor}"

    good, bad, off = (
        check_python_images(read_config({"SQUALL_PYTHON_IMAGE": image}), {"HOME": str(registry.home)})
        for image in (f"{registry.place}/python:{{series}}-slim", f"{registry.place}/none:{{series}}", "none")
    )

    assert (good.status, bad.status, off.status) == ("ok" if series == "3.11" else "warn", "warn", "ok")
    assert f"{registry.place}/none:{series}" in bad.finding
    assert bad.fix
