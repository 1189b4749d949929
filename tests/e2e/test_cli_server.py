"""`squall server`: started, asked, read and stopped by hand."""

from __future__ import annotations

import json

from tests.e2e import flows
from tests.e2e.installation import Installation


def test_server_is_started_asked_and_stopped_by_hand(fresh_squall: Installation) -> None:
    before = fresh_squall.command("server", "status")
    started = fresh_squall.command("server", "start")
    again = fresh_squall.command("server", "start")
    status = json.loads(fresh_squall.command("server", "status", "--json").out)
    shown = fresh_squall.command("server", "status").out
    logs = fresh_squall.command("server", "logs", "-n", "5")
    stopped = fresh_squall.command("server", "stop")
    after = fresh_squall.command("server", "status", "--json")

    assert (before.code, before.out) == (3, "The server does not run.\n")
    assert started.code == again.code == 0
    assert "already" in again.out
    assert (status["state"], status["data_dir"]) == ("running", str(fresh_squall.data_dir))
    assert str(status["pid"]) in shown
    assert logs.code == 0
    assert (stopped.code, after.code) == (0, 3)
    assert json.loads(after.out) == {"state": "stopped"}


def test_server_with_a_running_app_stops_by_force_only(fresh_squall: Installation) -> None:
    client = fresh_squall.start("run", str(flows.FLOWS / "entries.py::tick"), "--seconds", "60")
    client.wait_said("tick", 60)

    refused = fresh_squall.command("server", "stop")

    assert refused.code == 1
    assert "--force" in refused.out + refused.err
    client.close()
    assert fresh_squall.command("server", "stop", "--force").code == 0
    fresh_squall.wait_no_processes(10)
