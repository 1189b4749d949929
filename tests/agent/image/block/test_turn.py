"""Whose turn it is: images are put, or garbage is removed."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from squall.agent.image.block import turn as turns
from squall.agent.image.block.store import BUSY, BlockStore
from squall.agent.image.block.turn import DEAD_S, PUT, SWEEP, VALID_S, WAIT_S, NotNow, Turn
from tests.agent.image.block.stores import store_in
from tests.agent.parts import until


@pytest.fixture
def store(tmp_path: Path) -> BlockStore:
    return store_in(tmp_path)


def marks(store: BlockStore) -> list[str]:
    return [found.key for found in store.list(BUSY)]


def test_many_put_at_once_and_leave_no_marks(store: BlockStore) -> None:
    with Turn(store, PUT) as first, Turn(store, PUT) as second:
        assert sorted(marks(store)) == sorted([first.key, second.key])
    assert marks(store) == []


@pytest.mark.parametrize("kind", [PUT, SWEEP])
def test_while_garbage_is_removed_nobody_else_has_a_turn(store: BlockStore, kind: str) -> None:
    with Turn(store, SWEEP) as first:
        with pytest.raises(NotNow, match=r"garbage is being removed from file://.* \(busy/sweep-.*\); try again"):
            Turn(store, kind).__enter__()
        assert marks(store) == [first.key]


def test_removal_that_waits_too_long_says_for_what(store: BlockStore) -> None:
    elapsed = [0.0]

    def wait(seconds: float) -> None:
        elapsed[0] += WAIT_S

    with Turn(store, PUT) as first:
        with pytest.raises(NotNow, match=rf"an image is being put into file://.* \({first.key}\); try again later"):
            Turn(store, SWEEP, elapsed=lambda: elapsed[0], wait=wait).__enter__()
        assert marks(store) == [first.key]


def test_on_a_file_server_removal_looks_when_others_have_seen_its_mark(store: BlockStore) -> None:
    store.settle_s = 130.0
    elapsed = [0.0]

    def wait(seconds: float) -> None:
        if not elapsed[0]:
            assert seconds == 130.0
            # By somebody who does not see the mark of the removal yet.
            store.put_mark("busy/put-unseeing")
        elapsed[0] += WAIT_S

    with pytest.raises(NotNow, match=r"an image is being put into file://.* \(busy/put-unseeing\)"):
        Turn(store, SWEEP, elapsed=lambda: elapsed[0], wait=wait).__enter__()


def test_mark_of_somebody_who_was_killed_counts_for_nothing_after_a_while(store: BlockStore, tmp_path: Path) -> None:
    killed = "busy/sweep-killed"
    store.put_mark(killed)
    put_at = time.time() - DEAD_S
    os.utime(tmp_path / killed, (put_at + 60, put_at + 60))

    with pytest.raises(NotNow):
        Turn(store, SWEEP).__enter__()
    os.utime(tmp_path / killed, (put_at, put_at))
    with Turn(store, SWEEP):
        assert killed in marks(store)


async def test_mark_is_put_anew_meanwhile(store: BlockStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(turns, "RENEW_S", 0.01)

    with Turn(store, SWEEP) as turn:
        os.utime(tmp_path / turn.key, (1, 1))
        await until(lambda: (tmp_path / turn.key).stat().st_mtime > 1, 20)


async def test_turn_that_was_lost_stays_lost(store: BlockStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """Others may have had theirs since."""
    monkeypatch.setattr(turns, "RENEW_S", 0.01)
    elapsed = [0.0]

    with Turn(store, SWEEP, elapsed=lambda: elapsed[0]) as turn:
        elapsed[0] = VALID_S - 1
        await until(lambda: turn._renewed_s == VALID_S - 1, 20)
        turn.check()
        elapsed[0] += VALID_S
        turn._thread.join(20)
        assert not turn._thread.is_alive()
        with pytest.raises(NotNow, match="was lost"):
            turn.check()


def test_others_wait_far_longer_than_a_turn_lasts() -> None:
    assert DEAD_S >= 5 * VALID_S
