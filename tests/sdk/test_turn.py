"""A turn is one thread's or nobody's, and a bell is heard once."""

from __future__ import annotations

import threading
import time

from squall.sdk._turn import Bell, Turn


def in_another_thread(turn: Turn) -> bool:
    found: list[bool] = []
    thread = threading.Thread(target=lambda: found.append(turn.take()))
    thread.start()
    thread.join()
    return found[0]


def test_turn_is_one_threads() -> None:
    turn = Turn()

    assert turn.take()
    assert turn.is_mine
    assert not in_another_thread(turn)


def test_turn_left_twice_is_nobodys() -> None:
    turn = Turn()
    turn.take()

    turn.leave()
    turn.leave()

    assert not turn.is_taken
    assert in_another_thread(turn)


def test_nobody_leaves_the_turn_of_another_thread() -> None:
    turn = Turn()
    in_another_thread(turn)

    if not turn.is_mine:  # the number of a thread that has ended may be given again
        turn.leave()

    assert turn.is_taken


def test_bell_rung_before_anybody_listens_is_heard_once() -> None:
    bell = Bell()

    bell.ring()
    bell.ring()

    assert bell.wait(0.0)
    assert not bell.wait(0.0)


def test_bell_wakes_who_waits() -> None:
    bell = Bell()
    threading.Timer(0.05, bell.ring).start()
    started = time.monotonic()

    assert bell.wait(10.0)
    assert time.monotonic() - started < 5.0
