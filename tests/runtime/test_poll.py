"""The poll loop calls back, in time, and survives a callback's mistake."""

from __future__ import annotations

import os

import pytest

from squall.runtime.poll import Poller


def stop(poller: Poller) -> None:
    poller.is_stopped = True


def test_ready_descriptor_and_timers_call_back_in_order() -> None:
    poller, said = Poller(), list[str]()
    read_end, write_end = os.pipe()
    poller.watch(read_end, lambda _: said.append(os.read(read_end, 1).decode()))
    os.write(write_end, b"r")

    poller.call_later(0.02, lambda: stop(poller))
    poller.call_later(0.01, lambda: said.append("late"))
    poller.call_later(0.0, lambda: said.append("soon"))
    poller.run()

    assert said == ["r", "soon", "late"]
    poller.unwatch(read_end)
    os.close(read_end)
    os.close(write_end)


def test_failing_callback_is_logged_and_watched_no_more(capsys: pytest.CaptureFixture[str]) -> None:
    poller, calls = Poller(), list[int]()
    read_end, write_end = os.pipe()
    os.write(write_end, b"x")

    def fail(events: int) -> None:
        calls.append(events)
        raise ValueError("a mistake of ours")

    poller.watch(read_end, fail)
    poller.call_later(0.02, lambda: stop(poller))
    poller.run()

    assert len(calls) == 1
    assert "a mistake of ours" in capsys.readouterr().err
    os.close(read_end)
    os.close(write_end)
