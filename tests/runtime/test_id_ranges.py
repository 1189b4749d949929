"""Which user namespaces stay open, and which are closed when there are many."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from squall.runtime import id_ranges
from squall.runtime.id_ranges import UserNamespaces
from squall.runtime.spec import IdRange


@pytest.fixture
def namespaces(monkeypatch: pytest.MonkeyPatch) -> Iterator[UserNamespaces]:
    """Of three ranges at most, and nothing but descriptors of a file."""

    def make(*_: object) -> int:
        return os.open("/dev/null", os.O_RDONLY | os.O_CLOEXEC)

    monkeypatch.setattr(id_ranges, "KEPT_MAX", 3)
    monkeypatch.setattr(id_ranges, "make_user_namespace", make)
    monkeypatch.setattr(id_ranges, "make_nested_namespace", make)
    made = UserNamespaces()
    yield made
    made.close()


def ranges(count: int, first: int = 1) -> list[IdRange]:
    return [IdRange(65_536 * (first + number)) for number in range(count)]


def is_open(descriptor: int) -> bool:
    return os.path.exists(f"/proc/self/fd/{descriptor}")


def test_namespaces_of_a_range_with_containers_stay_however_many_there_are(namespaces: UserNamespaces) -> None:
    (held,) = ranges(1)
    pair = namespaces.get(held), namespaces.get_nested(held, 0)
    namespaces.hold("tp-1", held)
    namespaces.hold("ce-1", held)
    namespaces.let_go("ce-1")
    namespaces.let_go("ce-1")

    for other in ranges(20, first=2):
        namespaces.get_nested(other, 0)

    assert (namespaces.get(held), namespaces.get_nested(held, 0)) == pair
    assert all(map(is_open, pair))


def test_many_ranges_with_containers_do_not_push_out_the_one_that_is_used(namespaces: UserNamespaces) -> None:
    for number, held in enumerate(ranges(20)):
        namespaces.get(held)
        namespaces.hold(f"ct-{number}", held)

    (other,) = ranges(1, first=50)
    outer = namespaces.get(other)

    assert is_open(outer)
    assert is_open(namespaces.get_nested(other, 0))
    assert namespaces.get(other) == outer


def test_both_namespaces_of_a_range_go_together(namespaces: UserNamespaces) -> None:
    first, *others = ranges(5)
    pair = namespaces.get(first), namespaces.get_nested(first, 0)
    namespaces.hold("ct-1", first)
    namespaces.let_go("ct-1")
    before = len(os.listdir("/proc/self/fd"))

    for other in others:
        namespaces.get(other)

    # Those of the last three are open, and of the two before none.
    assert len(os.listdir("/proc/self/fd")) == before - len(pair) + 3
