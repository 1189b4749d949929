"""What goes from the cache of packages: on a tree laid out as uv does it."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from squall.agent.image.inherit import CACHE_DIR
from squall.agent.image.package.room import cache_bytes, delete_aside, mark_used, packages_of, set_aside
from squall.runtime.removal import remove_tree

KIB = 1_024


class Cache:
    """A cache of uv, and how long ago each of its packages was wanted."""

    def __init__(self, tmp_path: Path) -> None:
        self.path = tmp_path / "packages"
        self.path.mkdir()
        (self.path / "CACHEDIR.TAG").write_text("Signature")
        self.now = 1_000_000

    def add(self, name: str, kib: int, ago_s: int) -> None:
        archive, about = self.path / "archive-v0" / name, self.path / "wheels-v8/pypi" / name
        archive.mkdir(parents=True)
        about.mkdir(parents=True)
        (archive / "code.py").write_bytes(os.urandom(kib * KIB))
        (about / "1.0-py3-none-any").symlink_to(f"../../../archive-v0/{name}")
        for ending in (".http", ".msgpack"):
            (about / f"1.0-py3-none-any{ending}").write_text("about it")
            os.utime(about / f"1.0-py3-none-any{ending}", (0, 0))
        os.utime(archive, (self.now - ago_s, self.now - ago_s))

    def names(self) -> list[str]:
        return sorted(os.listdir(self.path / "archive-v0"))


@pytest.fixture
def cache(tmp_path: Path) -> Cache:
    return Cache(tmp_path)


def test_what_was_wanted_longest_ago_goes_first_with_all_that_speaks_of_it(cache: Cache) -> None:
    cache.add("newest", 100, 10)
    cache.add("oldest", 100, 30)
    cache.add("middle", 100, 20)

    freed_bytes = set_aside(cache.path, 350 * KIB)

    assert cache.names() == ["middle", "newest"]
    assert freed_bytes > 100 * KIB
    assert not any((cache.path / "wheels-v8/pypi/oldest").iterdir())
    assert len(list((cache.path / "wheels-v8/pypi/middle").iterdir())) == 3
    assert cache_bytes(cache.path) < 350 * KIB


def test_a_package_that_a_build_wants_is_as_new_as_one_just_fetched(cache: Cache) -> None:
    cache.add("wanted", 100, 30)
    cache.add("other", 100, 20)
    fetched = cache.path.parent / "fetched"
    (fetched / "wanted-1.0.dist-info").mkdir(parents=True)
    (fetched / "wanted-1.0.dist-info/METADATA").symlink_to(f"{CACHE_DIR}/archive-v0/wanted/METADATA")
    (fetched / "strange-1.0.dist-info").mkdir()
    (fetched / "strange-1.0.dist-info/METADATA").symlink_to(f"{CACHE_DIR}/archive-v0/../../../etc/METADATA")

    packages = packages_of(fetched)
    mark_used(cache.path, packages | {"archive-v0/gone"})
    set_aside(cache.path, 200 * KIB)

    assert packages == {"archive-v0/wanted"}
    assert cache.names() == ["wanted"]


def test_what_a_killed_fetch_left_goes_in_any_case(cache: Cache) -> None:
    cache.add("wanted", 100, 30)
    (cache.path / ".tmpA1b2C3").mkdir()
    (cache.path / ".tmpA1b2C3/half").write_bytes(bytes(10 * KIB))

    set_aside(cache.path, 2**30)

    assert sorted(os.listdir(cache.path)) == ["CACHEDIR.TAG", "archive-v0", "wheels-v8"]
    assert cache.names() == ["wanted"]


def test_what_was_set_aside_is_deleted_also_after_a_kill(cache: Cache) -> None:
    cache.add("old", 100, 30)
    set_aside(cache.path, 10)
    assert len(os.listdir(cache.path.parent)) == 2

    delete_aside(cache.path.parent)

    assert os.listdir(cache.path.parent) == ["packages"]
    assert not cache.names()


def test_nothing_leads_to_a_package_that_is_gone(cache: Cache) -> None:
    cache.add("kept", 100, 10)
    cache.add("lost", 100, 30)
    remove_tree(str(cache.path / "archive-v0/lost"))

    set_aside(cache.path, 200 * KIB)

    assert not any((cache.path / "wheels-v8/pypi/lost").iterdir())
    assert len(list((cache.path / "wheels-v8/pypi/kept").iterdir())) == 3
