"""A cancellation reaches user code in the main thread, also where its signal is lost at first."""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator

import pytest

from squall.exception import InputCancellation
from squall.guest import cancellation
from squall.guest.cancellation import SIGNAL, Interrupter


@pytest.fixture
def interrupter(monkeypatch: pytest.MonkeyPatch) -> Iterator[Interrupter]:
    before = signal.getsignal(SIGNAL)
    made = Interrupter()
    made.install()
    monkeypatch.setattr(cancellation, "INSIST_S", 0.02)
    yield made
    made.end()
    time.sleep(0.05)
    signal.signal(SIGNAL, before)


def cancel_and_sleep(interrupter: Interrupter) -> None:
    interrupter.cancel("fc-1", 0)
    time.sleep(10)


def test_what_runs_is_interrupted(interrupter: Interrupter) -> None:
    interrupter.begin((("fc-1", 0),))

    with pytest.raises(InputCancellation):
        cancel_and_sleep(interrupter)


def test_another_input_is_left_alone(interrupter: Interrupter) -> None:
    interrupter.begin((("fc-1", 0),))

    interrupter.cancel("fc-1", 1)
    time.sleep(0.1)

    interrupter.end()


def test_signal_that_is_lost_is_sent_again(interrupter: Interrupter, monkeypatch: pytest.MonkeyPatch) -> None:
    sent: list[int] = []
    send = signal.pthread_kill

    def lose_the_first(thread: int, number: int) -> None:
        sent.append(number)
        if len(sent) > 2:
            send(thread, number)

    monkeypatch.setattr(signal, "pthread_kill", lose_the_first)
    interrupter.begin((("fc-1", 0),))

    with pytest.raises(InputCancellation):
        cancel_and_sleep(interrupter)

    time.sleep(0.1)
    assert len(sent) == 3


def test_nothing_is_sent_once_it_has_ended(interrupter: Interrupter, monkeypatch: pytest.MonkeyPatch) -> None:
    sent: list[int] = []
    monkeypatch.setattr(signal, "pthread_kill", lambda thread, number: sent.append(number))
    interrupter.begin((("fc-1", 0),))

    interrupter.cancel("fc-1", 0)
    interrupter.end()
    time.sleep(0.2)

    assert len(sent) == 1
