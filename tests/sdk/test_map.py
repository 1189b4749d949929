"""What a map holds at most, whoever is slow: an input, the iterator of inputs, or who takes the results."""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Iterator

import pytest

import squall
from squall.protocol.call import OUTSTANDING_MAX
from squall.sdk import _map
from tests.sdk.double import ServerDouble

app = squall.App("invoke", include_source=False)


@app.function()
def double_of(x: bytes | int) -> bytes | int:
    return x * 2


def unevenly_slow(x: int) -> int:
    time.sleep(0.001 * (x % 3))
    return x * 2


class Numbers:
    """Numbers without end; `release` is called once when nobody has pulled one for a while."""

    def __init__(self, release: threading.Event, size_bytes: int = 0) -> None:
        self.pulled_count = 0
        self.paused_at = 0
        self._size_bytes = size_bytes
        self._release = release
        self._watch = threading.Thread(target=self._await_pause, daemon=True)

    def __iter__(self) -> Iterator[bytes | int]:
        self._watch.start()
        for number in itertools.count():
            self.pulled_count += 1
            yield bytes(self._size_bytes) if self._size_bytes else number

    def _await_pause(self) -> None:
        seen = -1
        while seen != self.pulled_count:
            seen = self.pulled_count
            time.sleep(0.5)
        self.paused_at = seen
        self._release.set()


@pytest.mark.long
def test_iterator_rests_while_many_results_wait_for_one(server: ServerDouble, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_map, "HELD_MAX", 2_000)
    release = threading.Event()
    numbers = Numbers(release)
    server.callables["double_of"] = lambda x: x * 2 if x or release.wait(60) else None

    with app.run():
        results = list(itertools.islice(double_of.map(numbers), 10_000))

    assert results == [2 * x for x in range(10_000)]
    assert 2_000 <= numbers.paused_at <= 2_000 + OUTSTANDING_MAX


@pytest.mark.long
def test_iterator_rests_while_results_that_wait_are_large(
    server: ServerDouble, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_map, "MAP_BYTES_MAX", 2_000_000)
    release = threading.Event()
    numbers = Numbers(release)
    server.callables["double_of"] = lambda x: bytes(10_000) if x or release.wait(60) else None

    with app.run():
        results = list(itertools.islice(double_of.map(numbers), 3_000))

    assert len(results) == 3_000
    # The first are sent before anybody knows how large results are.
    assert numbers.paused_at <= OUTSTANDING_MAX


@pytest.mark.long
def test_iterator_rests_while_inputs_without_a_result_are_large(
    server: ServerDouble, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_map, "MAP_BYTES_MAX", 4_000_000)
    release = threading.Event()
    numbers = Numbers(release, size_bytes=100_000)
    server.callables["double_of"] = lambda x: len(x) if release.wait(60) else 0

    with app.run():
        results = list(itertools.islice(double_of.map(numbers), 200))

    assert results == [100_000] * 200
    assert 40 <= numbers.paused_at <= 40 + 2 * _map.BATCH_BYTES // 100_000


@pytest.mark.parametrize("is_ordered", [True, False])
def test_map_ends_however_little_may_be_held(
    server: ServerDouble, monkeypatch: pytest.MonkeyPatch, is_ordered: bool
) -> None:
    monkeypatch.setattr(_map, "MAP_BYTES_MAX", 1)
    monkeypatch.setattr(_map, "HELD_MAX", 1)
    server.callables["double_of"] = unevenly_slow

    with app.run():
        results = list(double_of.map(range(1_500), order_outputs=is_ordered))

    assert sorted(results) == [2 * x for x in range(1_500)]
