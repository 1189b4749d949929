"""`squall schedule`, as far as it needs no server."""

from __future__ import annotations

from typing import Any

import pytest
from click.testing import CliRunner

from squall.cli import main, schedule
from squall.protocol.function import CRON, PERIOD, Schedule
from squall.protocol.schedule import RUNNING, ScheduleInfo, ScheduleListing


@pytest.mark.parametrize("text", ["nightly", "/nightly", "reports/", ""])
def test_what_names_no_function_is_wrong_usage(text: str) -> None:
    ended = CliRunner().invoke(main.squall, ["schedule", "run", text])

    assert ended.exit_code == 2, ended.output
    assert "write APP/FUNCTION" in ended.output


NIGHTLY = ScheduleInfo(
    "ap-1",
    "reports",
    "fu-1",
    "nightly",
    Schedule(CRON, cron="0 9 * * *", timezone="Europe/Berlin"),
    next_at=1_800_000_000.0,
    last_at=1_799_913_600.0,
    last_call_id="fc-1",
    last_outcome="failed",
)
HOURLY = ScheduleInfo("ap-1", "reports", "fu-2", "hourly", Schedule(PERIOD, seconds=3_600.0), last_outcome=RUNNING)


def listed(monkeypatch: pytest.MonkeyPatch, *arguments: str, passed_over: int = 0) -> str:
    passing = ScheduleListing((NIGHTLY, ScheduleInfo(**{**vars(HOURLY), "skipped_count": passed_over})))

    def ask_pages(method: str, record: Any, reply: Any) -> list[ScheduleListing]:
        return [passing]

    monkeypatch.setattr(schedule, "ask_pages", ask_pages)
    monkeypatch.setattr(schedule, "is_list_empty", lambda: False)
    ended = CliRunner().invoke(main.squall, ["schedule", "list", *arguments])
    assert ended.exit_code == 0, ended.output
    return ended.output


def test_people_see_what_is_passed_over_only_where_something_is(monkeypatch: pytest.MonkeyPatch) -> None:
    assert "Passed over" not in listed(monkeypatch)
    text = listed(monkeypatch, passed_over=3)
    assert "Passed over" in text
    assert "every 1 hour" in text
    assert "0 9 * * * Europe/Berlin" in text


def test_programs_see_all(monkeypatch: pytest.MonkeyPatch) -> None:
    import json

    nightly, hourly = json.loads(listed(monkeypatch, "--json"))

    assert nightly["last_call"] == "fc-1"
    assert (nightly["result"], hourly["result"]) == ("failed", "running")
    assert hourly["next_run"] is None
    assert hourly["passed_over"] == 0
