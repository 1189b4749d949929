"""Which containers are given inputs, where each can run several at once."""

from __future__ import annotations

import random

import pytest

from squall.server.policy.sharing import shares


def after(held: list[int], windows: list[int], target: int, queued: int) -> list[int]:
    """What each container holds then."""
    return [before + more for before, more in zip(held, shares(held, windows, target, queued), strict=True)]


@pytest.mark.parametrize(
    ("held", "window", "target", "queued", "expected"),
    [
        # One container is filled before another one is begun.
        ([0, 0, 0], 8, 4, 1, [1, 0, 0]),
        ([0, 2, 0], 8, 4, 1, [0, 3, 0]),
        ([1, 3, 0], 8, 4, 2, [2, 4, 0]),
        ([0, 4, 0], 8, 4, 1, [1, 4, 0]),
        ([0, 0, 0], 8, 4, 9, [4, 4, 1]),
        # More than all targets: evenly.
        ([4, 4], 8, 4, 2, [5, 5]),
        ([4, 6], 8, 4, 3, [7, 6]),
        ([0, 0], 8, 4, 12, [6, 6]),
        # No packing: evenly from the start.
        ([0, 0], 8, 0, 1, [1, 0]),
        ([1, 0], 8, 0, 1, [1, 1]),
        ([3, 0], 8, 0, 4, [4, 3]),
        # No more than there is room for.
        ([0, 0], 8, 4, 99, [8, 8]),
        ([8, 8], 8, 4, 5, [8, 8]),
        ([0], 8, 8, 3, [3]),
        ([], 8, 4, 3, []),
    ],
)
def test_up_to_the_target_containers_are_packed_and_beyond_it_they_share(
    held: list[int], window: int, target: int, queued: int, expected: list[int]
) -> None:
    assert after(held, [window] * len(held), target, queued) == expected


def test_window_of_each_is_kept() -> None:
    assert after([0, 0, 0], [1, 8, 2], 4, 20) == [1, 8, 2]


def test_all_that_has_room_is_handed_out_and_nothing_twice() -> None:
    rng = random.Random(7)
    for _ in range(2_000):
        windows = [rng.randint(1, 12) for _ in range(rng.randint(0, 6))]
        held = [rng.randint(0, window) for window in windows]
        target, queued = rng.randint(0, 12), rng.randint(0, 50)

        found = after(held, windows, target, queued)

        room = sum(windows) - sum(held)
        assert sum(found) - sum(held) == min(room, queued)
        assert all(before <= now <= window for before, now, window in zip(held, found, windows, strict=True))
        is_over = any(now > max(target, before) for before, now in zip(held, found, strict=True))
        assert not is_over or all(now >= min(target, window) for now, window in zip(found, windows, strict=True))
