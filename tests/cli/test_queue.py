"""`squall queue`, with a real server."""

from __future__ import annotations

import json
import sys
from typing import Any

import pytest
from click.testing import CliRunner, Result

import squall
from squall.cli import main, server_calls
from squall.exception import NotFoundError
from tests.cli.test_dict import server
from tests.sdk.real_server import RealServer

__all__ = ["server"]


@pytest.fixture
def jobs(server: RealServer) -> squall.Queue:
    return squall.Queue.from_name("jobs", create_if_missing=True)


def invoke(*arguments: str, typed: str | None = None) -> Result:
    return CliRunner().invoke(main.squall, ["queue", *arguments], input=typed)


def test_queues_are_made_listed_with_their_sizes_and_deleted(jobs: squall.Queue) -> None:
    jobs.put_many([1, 2])
    jobs.put(3, partition="p")
    made = invoke("create", "other")
    assert (made.exit_code, "squall.Queue.from_name('other')" in made.stdout) == (0, True)

    rows = json.loads(invoke("list", "--json").stdout)
    assert [(row["name"], row["partitions"], row["total_size"]) for row in rows] == [("other", 0, 0), ("jobs", 2, 3)]
    assert invoke("delete", "jobs", "--yes").exit_code == 0
    assert isinstance(invoke("delete", "jobs", "--yes").exception, NotFoundError)
    assert invoke("delete", "jobs", "--yes", "--allow-missing").exit_code == 0


def test_however_many_queues_are_listed_they_are_counted_at_once(
    jobs: squall.Queue, monkeypatch: pytest.MonkeyPatch
) -> None:
    jobs.put(1)
    for number in range(3):
        squall.Queue.objects.create(f"other-{number}")
    asked: list[str] = []

    def counting(method: str, *record_and_reply: Any) -> Any:
        asked.append(method)
        return server_calls.ask(method, *record_and_reply)

    monkeypatch.setattr("squall.cli.queue.ask", counting)
    rows = json.loads(invoke("list", "--json").stdout)

    assert [row["total_size"] for row in rows] == [0, 0, 0, 1]
    assert asked == ["QueueTotalsGet"]
    monkeypatch.setattr("squall.cli.queue.TOTALS_MAX", 3)
    assert json.loads(invoke("list", "--json").stdout) == rows


def test_items_are_shown_and_stay(jobs: squall.Queue) -> None:
    jobs.put_many([f"item-{number}" for number in range(150)])
    jobs.put("there", partition="p")

    assert invoke("peek", "jobs").stdout == "item-0\n"
    assert invoke("peek", "jobs", "120").stdout.split() == [f"item-{number}" for number in range(120)]
    assert len(invoke("peek", "jobs", "500").stdout.split()) == 150
    assert invoke("peek", "jobs", "--partition", "p").stdout == "there\n"
    assert invoke("peek", "jobs", "--partition", "q").stdout == ""
    assert jobs.len(total=True) == 151


def test_items_are_counted_and_removed(jobs: squall.Queue) -> None:
    jobs.put_many([1, 2])
    jobs.put(3, partition="p")

    lengths = [invoke("len", "jobs", *more).stdout for more in ((), ("-p", "p"), ("--total",))]
    assert lengths == ["2\n", "1\n", "3\n"]
    assert invoke("len", "jobs", "-t", "-p", "p").exit_code == 2
    assert invoke("clear", "jobs", typed="n\n").exit_code == 1
    assert invoke("clear", "jobs", "--yes").exit_code == 0
    assert jobs.len(total=True) == 1
    assert invoke("clear", "jobs", "--all", "-p", "p", "--yes").exit_code == 2
    assert invoke("clear", "jobs", "--all", typed="y\n").exit_code == 0
    assert jobs.len(total=True) == 0


class Vanishing:
    """A class that whoever reads does not have."""


def test_what_cannot_be_read_here_is_shown_as_that(jobs: squall.Queue, monkeypatch: pytest.MonkeyPatch) -> None:
    jobs.put_many(["first", Vanishing(), "last"])
    monkeypatch.delattr(sys.modules[__name__], "Vanishing")

    first, bad, last = invoke("peek", "jobs", "3").stdout.splitlines()

    assert (first, last) == ("first", "last")
    assert bad.startswith("<queue jobs, an item: cannot read a value")
