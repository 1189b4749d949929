"""Which packages may be shared between images."""

from __future__ import annotations

import asyncio
import os
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest

from squall.agent.image.inherit import CACHE_DIR
from squall.agent.image.package.cache import PackageCache, fetch_words, take_view
from squall.protocol import image_steps
from squall.protocol.image import ImageStep

SIX = image_steps.pip_install(("six",))


def test_packages_by_name_are_fetched_from_where_the_step_says() -> None:
    step = image_steps.pip_install(
        ("numpy[extra]>=2", 'six; python_version < "4"'),
        index_url="https://index.example/simple",
        extra_index_url="https://more.example",
        find_links="https://wheels.example",
        pre=True,
        extra_options="--no-deps",
    )

    options = fetch_words(step, {"PATH": "/bin", "PYTHON_PIP_VERSION": "1"})

    assert options == (
        *("--no-deps", "--default-index", "https://index.example/simple"),
        *("--extra-index-url", "https://more.example", "--find-links", "https://wheels.example"),
        *("--prerelease", "allow", "--", "numpy[extra]>=2", 'six; python_version < "4"'),
    )


@pytest.mark.parametrize(
    "step",
    [
        image_steps.run_commands(("pip install six",)),
        image_steps.pip_install(("six", "mine @ https://example.com/mine.whl")),
        image_steps.pip_install(("git+https://example.com/mine",)),
        image_steps.pip_install(("./mine",)),
        image_steps.pip_install((".",)),
        image_steps.pip_install(("sub/mine",)),
        image_steps.pip_install(("six",), extra_options="--index-url https://other.example"),
        image_steps.pip_install(("six",), extra_options="--no-deps --build"),
        image_steps.pip_install(("six",), index_url="https://me:secret@index.example/simple"),
        image_steps.pip_install(("six",), extra_index_url="file:///opt/index"),
        image_steps.pip_install(("six",), find_links="/opt/wheels"),
        replace(SIX, env={"UV_DEFAULT_INDEX": "https://other.example"}),
        replace(SIX, env={"NETRC": "/opt/netrc"}),
    ],
)
def test_what_depends_on_the_user_or_the_image_is_not_shared(step: ImageStep) -> None:
    assert fetch_words(step, {}) is None


@pytest.mark.parametrize("name", ["https_proxy", "ALL_PROXY", "SSL_CERT_FILE", "PIP_INDEX_URL", "UV_INSECURE_HOST"])
def test_image_that_says_whom_to_believe_does_not_share(name: str) -> None:
    assert fetch_words(SIX, {name: "x"}) is None
    assert fetch_words(SIX, {}) is not None


def test_fetch_is_good_for_an_hour_and_not_remembered_for_ever(tmp_path: Path) -> None:
    packages = PackageCache(tmp_path, 2**30)

    packages.note_fetched("six", 100.0, tmp_path)
    assert packages.is_fetched("six", 3_699.0)
    assert not packages.is_fetched("six", 3_701.0)

    for number in range(1_000):
        packages.note_fetched(str(number), 100.0, tmp_path)
    assert not packages.is_fetched("six", 101.0)


def test_cache_is_closed_to_other_accounts(tmp_path: Path) -> None:
    packages = PackageCache(tmp_path / "data", 2**30)

    packages.ensure()
    packages.ensure()

    assert (tmp_path / "data/cache").stat().st_mode & 0o777 == 0o700
    assert packages.bind.source == packages.layer + CACHE_DIR
    assert Path(packages.bind.source).is_dir()


@pytest.mark.parametrize("made", ["tree", "link", "file", "nothing"])
def test_view_is_taken_out_whatever_a_step_made_of_it(tmp_path: Path, made: str) -> None:
    upper, outside = tmp_path / "upper", tmp_path / "outside"
    (outside / "kept").mkdir(parents=True)
    upper.mkdir()
    place = Path(f"{upper}{CACHE_DIR}")
    if made == "tree":
        (place / "archive-v0/numpy").mkdir(parents=True)
    elif made == "link":
        place.symlink_to(outside)
    elif made == "file":
        place.touch()

    view = Path(take_view(str(upper), str(tmp_path)))

    assert list(upper.iterdir()) == []
    assert (outside / "kept").is_dir()
    assert [path.name for path in view.rglob("*")] == (["archive-v0", "numpy"] if made == "tree" else [])
    assert not view.is_symlink()
    assert view.is_dir() == (made == "tree")


async def test_nothing_goes_while_a_build_looks_at_it(tmp_path: Path) -> None:
    packages = PackageCache(tmp_path, 10_000)
    packages.ensure()
    old = Path(packages.bind.source, "archive-v0", "Old")
    old.mkdir(parents=True)
    (old / "code.py").write_bytes(bytes(50_000))
    packages.note_fetched("old", 100.0, tmp_path)
    with ThreadPoolExecutor(1) as threads:
        async with packages.in_use():
            assert not await packages.keep_room(threads)
            assert old.exists()
            assert packages.is_fetched("old", 101.0)

        assert await packages.keep_room(threads)

    assert not old.exists()
    # It has to be fetched again.
    assert not packages.is_fetched("old", 101.0)
    assert os.listdir(tmp_path / "cache") == ["packages"]


async def test_a_build_that_begins_waits_until_what_goes_is_out_of_the_way(tmp_path: Path) -> None:
    packages = PackageCache(tmp_path, 10)
    packages.ensure()
    with ThreadPoolExecutor(1) as threads:
        may_go_on = threading.Event()
        keeping = asyncio.ensure_future(packages.keep_room(threads))
        await asyncio.sleep(0)
        threads.submit(may_go_on.wait, 10)
        while not packages._entering.locked():  # noqa: ASYNC110 - nobody else can tell that it has begun
            await asyncio.sleep(0.001)
        entering = asyncio.ensure_future(_enter(packages))
        await asyncio.sleep(0.01)
        assert not entering.done()

        may_go_on.set()

        assert await keeping
        await entering


async def _enter(packages: PackageCache) -> None:
    async with packages.in_use():
        return


async def test_the_cache_that_steps_once_wrote_to_is_removed(tmp_path: Path) -> None:
    packages = PackageCache(tmp_path, 2**30)
    packages.ensure()
    (tmp_path / "cache/uv/archive-v0").mkdir(parents=True)
    (tmp_path / "cache/silent-registry").touch()

    with ThreadPoolExecutor(1) as threads:
        assert await packages.keep_room(threads)

    assert sorted(os.listdir(tmp_path / "cache")) == ["packages", "silent-registry"]
