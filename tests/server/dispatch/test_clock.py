"""The clock that tests move."""

from __future__ import annotations

from squall.server.dispatch import ManualClock
from squall.server.dispatch.clock import StoppableClock


def test_alarms_ring_in_order_each_at_its_time() -> None:
    clock = ManualClock(1_000.0)
    rang: list[tuple[str, float]] = []
    clock.call_later(2.0, lambda: rang.append(("second", clock.monotonic())))

    def set_another() -> None:
        clock.call_later(0.5, lambda: rang.append(("first", clock.monotonic())))

    clock.call_later(1.0, set_another)
    clock.call_later(9.0, lambda: rang.append(("never", clock.monotonic())))

    clock.advance(3.0)

    assert rang == [("first", 1.5), ("second", 2.0)]
    assert clock.now() == 1_003.0


def test_cancelled_alarm_does_not_ring() -> None:
    clock = ManualClock()
    rang: list[str] = []
    timer = clock.call_later(1.0, lambda: rang.append("it did"))

    timer.cancel()
    clock.advance(2.0)

    assert not rang


def test_no_alarm_rings_after_the_end() -> None:
    manual = ManualClock()
    clock = StoppableClock(manual)
    rang: list[str] = []
    clock.call_later(1.0, lambda: rang.append("before"))
    clock.call_later(3.0, lambda: rang.append("after"))

    manual.advance(2.0)
    clock.stop()
    manual.advance(2.0)

    assert rang == ["before"]
