"""`squall server`: started, asked, read and stopped by hand."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.e2e import flows
from tests.e2e.installation import Installation, Running, wait_until


def test_server_is_started_asked_and_stopped_by_hand(fresh_squall: Installation) -> None:
    before = fresh_squall.command("server", "status")
    started = fresh_squall.command("server", "start", environ={"SQUALL_IMAGE_BUILDS": "3"})
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
    assert status["settings"]["SQUALL_IMAGE_BUILDS"] == "3"
    assert "SQUALL_IMAGE_BUILDS=3" in shown
    assert logs.code == 0
    assert (stopped.code, after.code) == (0, 3)
    assert json.loads(after.out) == {"state": "stopped"}


@pytest.mark.parametrize("noun", ["app", "container"])
def test_reading_commands_start_no_server(make_data_dir: Callable[[], Path], noun: str) -> None:
    data_dir = make_data_dir() / "none"
    installation = Installation(data_dir)

    listed = installation.command(noun, "list")
    as_json = installation.command(noun, "list", "--json")
    logs = installation.command(noun, "logs", "hello")

    assert (listed.code, listed.err) == (
        0,
        "No server runs; `squall server start` starts one, which lists what is kept.\n",
    )
    assert len(listed.out.splitlines()) == 1
    assert (as_json.code, json.loads(as_json.out)) == (0, [])
    assert logs.code == 1
    assert "no server runs" in logs.err
    assert not data_dir.exists()


def test_server_stopped_by_force_tells_a_waiting_program_why(fresh_squall: Installation) -> None:
    client = fresh_squall.start_run("sleeping.py::three")
    wait_until(lambda: client.said().count("asleep for") == 3, "three containers sleep", 60)

    stopped = fresh_squall.command("server", "stop", "--force")
    ended = client.wait(20)

    assert stopped.code == 0, stopped
    assert ended.code == 1, ended
    assert "the server was stopped" in ended.err, ended
    assert "os._exit" not in ended.err, ended
    assert not (fresh_squall.data_dir / "server.json").exists(), "the client has started another server"


def test_server_with_a_running_app_stops_by_force_only(fresh_squall: Installation) -> None:
    client = fresh_squall.start("run", str(flows.FLOWS / "entries.py::tick"), "--seconds", "60")
    client.wait_said("tick", 60)

    refused = fresh_squall.command("server", "stop")
    shown = fresh_squall.command("server", "status")
    status = fresh_squall.status()

    assert refused.code == 1
    assert refused.err.startswith("Error: cannot stop the server: an app runs: ")
    (app,) = status["apps"]
    assert f"({app['app_id']}, ephemeral); wait for the end, or use `squall server stop --force`" in refused.err
    assert f"({app['app_id']}, ephemeral)" in shown.out
    client.close()
    assert fresh_squall.command("server", "stop", "--force").code == 0
    fresh_squall.wait_no_processes(10)


def test_forced_stop_is_no_start_for_who_waits_in_a_call_of_a_deployed_app(
    fresh_squall: Installation, tmp_path: Path
) -> None:
    file = tmp_path / "napping.py"
    file.write_text(
        "import time, squall\n"
        "app = squall.App('napping')\n"
        "@app.function()\n"
        "def nap() -> None:\n"
        "    print('asleep', flush=True)\n"
        "    time.sleep(600)\n"
    )
    assert fresh_squall.command("deploy", str(file), timeout_s=120).code == 0
    asking = "import squall; squall.Function.from_name('napping', 'nap').remote()"
    client = Running([sys.executable, "-c", asking], fresh_squall.environ(), tmp_path)
    wait_until(lambda: "asleep" in fresh_squall.command("app", "logs", "napping").out, "it sleeps", 60)

    stopped = fresh_squall.command("server", "stop", "--force")
    ended = client.wait(20)

    assert stopped.code == 0, stopped
    assert "ConflictError: call of nap: the server was stopped" in ended.err, ended
    assert fresh_squall.command("server", "status").code == 3, "the client has started another server"
