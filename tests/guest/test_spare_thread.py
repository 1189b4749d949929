"""The thread that waits for what it is to do, and the one that is started when none does."""

from __future__ import annotations

import threading

from squall.guest import spare_thread


def test_who_needs_a_thread_has_the_one_that_waits_and_the_next_one_another() -> None:
    before = set(threading.enumerate())
    ran: list[threading.Thread] = []
    spare_thread.keep_one()
    (waiting,) = set(threading.enumerate()) - before

    first = spare_thread.start(lambda: ran.append(threading.current_thread()))
    first.join(10)
    second = spare_thread.start(lambda: ran.append(threading.current_thread()))
    second.join(10)

    assert first is waiting
    assert ran == [first, second]
    assert second is not first
    assert {one.name for one in ran} == {spare_thread.NAME}
    assert first.daemon
    assert second.daemon


def test_one_that_waits_does_nothing_by_itself() -> None:
    spare_thread.keep_one()
    thread = spare_thread._spare
    assert thread is not None

    thread.join(0.05)

    assert thread.is_alive()
    spare_thread.start(lambda: None).join(10)
    assert not thread.is_alive()
