"""How many slots are kept: what was in use at once lately, less as time passes, within bounds."""

from __future__ import annotations

import asyncio

import pytest

from squall.runtime.errors import RuntimeFailure
from squall.runtime.network.peak import HALF_LIFE_S, RecentPeak
from squall.runtime.network.stock import Stock
from squall.runtime.spec import NetworkSlot


def make_stock(minimum: int = 0, free_max: int = 100, lent_count: int = 0) -> Stock:
    stock = Stock(None, False, minimum, free_max)
    for _ in range(lent_count):
        stock.lend(0.0)
    return stock


def make_slot(name: str = "16") -> NetworkSlot:
    return NetworkSlot(name, f"/pins/{name}", "10.0.0.16", "10.0.0.1", "")


def give_back(stock: Stock, count: int, now_s: float) -> None:
    for _ in range(count):
        stock.take_back(now_s)


def test_peak_falls_by_half_in_its_time_and_lower_counts_do_not_lift_it() -> None:
    peak = RecentPeak()
    peak.note(200, 0.0)
    peak.note(10, HALF_LIFE_S)

    assert peak.at(HALF_LIFE_S) == 100
    assert peak.at(2 * HALF_LIFE_S) == 50
    assert peak.at(20 * HALF_LIFE_S) == 0


def test_clock_that_is_read_late_lifts_no_peak() -> None:
    peak = RecentPeak()
    peak.note(8, HALF_LIFE_S)

    assert peak.at(0.0) == 8


def test_what_a_burst_used_is_kept_for_a_while() -> None:
    stock = make_stock(minimum=3, lent_count=60)

    assert stock.wanted(0.0) == 3
    give_back(stock, 60, 0.0)

    assert stock.wanted(0.0) == 60
    assert stock.wanted(HALF_LIFE_S) == 30
    assert stock.wanted(20 * HALF_LIFE_S) == 3


def test_what_was_used_for_hours_is_kept_as_well() -> None:
    stock = make_stock(lent_count=60)

    give_back(stock, 60, 100 * HALF_LIFE_S)

    assert stock.wanted(100 * HALF_LIFE_S) == 60


def test_no_more_than_the_bound_is_kept_or_made() -> None:
    stock = make_stock(minimum=9, free_max=5, lent_count=60)

    assert stock.missing() == 5
    give_back(stock, 60, 0.0)

    assert stock.wanted(0.0) == 5


def test_only_the_minimum_is_made_ahead() -> None:
    stock = make_stock(minimum=2, lent_count=60)
    give_back(stock, 60, 0.0)
    stock.free.append(make_slot())

    assert stock.missing() == 1
    stock.making = 1
    assert stock.missing() == 0


async def test_whoever_waits_for_one_of_a_retired_stock_is_told() -> None:
    stock = make_stock(minimum=2)
    waiting = stock.wait()

    stock.retire(RuntimeFailure("gone"))

    assert (stock.missing(), stock.wanted(0.0)) == (0, 0)
    with pytest.raises(RuntimeFailure, match="gone"):
        await waiting


def test_stock_is_over_when_nothing_is_left_to_remember() -> None:
    stock = make_stock(lent_count=4)
    assert not stock.is_over(0.0)
    give_back(stock, 4, 0.0)

    assert not stock.is_over(0.0)
    assert stock.is_over(20 * HALF_LIFE_S)
    stock.free.append(make_slot())
    assert not stock.is_over(20 * HALF_LIFE_S)


async def test_slots_and_failures_go_to_those_who_wait_in_order() -> None:
    stock = make_stock()
    gone, first, second, third = (stock.wait() for _ in range(4))
    gone.cancel()

    assert stock.missing() == 3
    assert stock.hand_over(make_slot("17"))
    stock.fail_one(RuntimeFailure("no address"))
    stock.cancel_waiters()

    assert (await first).name == "17"
    with pytest.raises(RuntimeFailure, match="no address"):
        await second
    with pytest.raises(asyncio.CancelledError):
        await third
    assert not stock.hand_over(make_slot())
