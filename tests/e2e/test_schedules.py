"""Schedules, with the real command, server and containers."""

from __future__ import annotations

import json
import os
import re
import signal
import time
from pathlib import Path
from typing import Any

from tests.e2e.installation import Installation, wait_until

EXAMPLE = Path(__file__).parent.parent.parent / "examples" / "calls" / "schedules.py"


def ok(squall: Installation, *arguments: str) -> str:
    ended = squall.command(*arguments, timeout_s=240)
    assert ended.code == 0, ended
    return ended.out


def listed(squall: Installation) -> dict[str, dict[str, Any]]:
    return {one["function"]: one for one in json.loads(ok(squall, "schedule", "list", "--json"))}


def beats(squall: Installation) -> int:
    return ok(squall, "app", "logs", "reports").count("alive")


def test_schedules_of_the_example_are_followed_and_survive_the_server(fresh_squall: Installation) -> None:
    squall = fresh_squall
    ok(squall, "deploy", str(EXAMPLE))
    wait_until(lambda: listed(squall)["heartbeat"]["result"] == "succeeded", "the period is over", 40)
    assert listed(squall)["nightly"]["last_run"] is None

    call_id = ok(squall, "schedule", "run", "reports/nightly").strip()
    assert re.match(r"fc-\w{22}\Z", call_id)
    wait_until(lambda: listed(squall)["nightly"]["result"] == "succeeded", "what was asked for is run", 40)
    assert listed(squall)["nightly"]["last_call"] == call_id
    assert "writing the report of the night" in ok(squall, "app", "logs", "reports")
    due_at = listed(squall)["nightly"]["next_run"]

    before = beats(squall)
    os.kill(squall.server_pid(), signal.SIGKILL)
    time.sleep(7)
    ok(squall, "server", "start")
    wait_until(lambda: beats(squall) > before, "what was missed is caught up with", 20)
    # Three were missed: one is run for them, and then one every two seconds.
    assert beats(squall) <= before + 2
    wait_until(lambda: beats(squall) >= before + 4, "it goes on", 20)
    assert listed(squall)["nightly"]["next_run"] == due_at
    assert listed(squall)["nightly"]["last_call"] == call_id

    ok(squall, "app", "stop", "reports", "--yes")
    assert listed(squall) == {}


def test_run_of_an_app_says_that_its_schedules_rest(squall: Installation) -> None:
    ended = squall.command("run", f"{EXAMPLE}::nightly", timeout_s=120)

    assert ended.code == 0, ended
    assert ended.err.count("The schedule of nightly, heartbeat rests") == 1
    assert ended.out.splitlines()[-1] == "report.pdf"


def test_wrong_words_are_told(squall: Installation) -> None:
    ended = squall.command("schedule", "run", "nowhere/nightly")

    assert ended.code == 1
    assert "no app is called 'nowhere'" in ended.err
