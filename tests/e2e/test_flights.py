"""What became of a call can be seen, and a failed one run again: in a container, and in the debugger."""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.installation import PROGRAMS, Installation
from tests.e2e.terminal import Terminal

PROGRAM = str(PROGRAMS / "flights.py")
EXAMPLE = str(Path(__file__).parent.parent.parent / "examples" / "calls" / "replay.py")


def listed(squall: Installation, *options: str) -> list[dict[str, Any]]:
    ended = squall.command("call", "list", "--limit", "1000", "--json", *options)
    assert ended.code == 0, ended
    found: list[dict[str, Any]] = json.loads(ended.out)
    assert all("took_ms" in one for one in found)
    return found


@pytest.fixture(scope="module")
def failed(session_installation: Installation) -> dict[str, str]:
    """Calls of a program that failed, and ended: by function."""
    known = {one["call_id"] for one in listed(session_installation)}
    ended = session_installation.command("run", f"{PROGRAM}::main", timeout_s=120)
    assert ended.code == 1, ended
    return {one["function"]: one["call_id"] for one in listed(session_installation) if one["call_id"] not in known}


@pytest.mark.timeout(240)
def test_show_says_who_called_where_time_went_and_why_it_failed(
    session_installation: Installation, failed: dict[str, str]
) -> None:
    inner = session_installation.command("call", "show", failed["charge"])
    outer = session_installation.command("call", "show", failed["checkout"])

    assert inner.code == outer.code == 0, inner
    assert f"{failed['checkout'][3:]}:0 (checkout)" in inner.out
    assert "ValueError: negative: -14" in inner.out
    assert ", in charge" in inner.out
    assert "put off by 1.0 s, as retries= of the function say" in inner.out
    assert inner.out.count("failed: queue") == 2, inner
    assert f"{failed['charge']}  charge  failed" in outer.out
    flight = json.loads(session_installation.command("call", "show", failed["charge"], "--json").out)
    attempts = flight["inputs"][0]["attempts"]
    assert [one["status"] for one in attempts] == ["failed", "failed"]
    assert attempts[0]["retry_delay_ms"] == 1_000
    container_id = attempts[0]["container_id"]
    shown = session_installation.command("container", "show", container_id)
    # A fork has its file system made ahead.
    phases = ("sandbox", "process", "first input", *(("rootfs",) if "path       plain" in shown.out else ()))
    assert all(name in shown.out for name in (*phases, "2 failed")), shown
    assert "its app was stopped" in shown.out


@pytest.mark.timeout(240)
def test_list_finds_failed_calls_by_app_and_function(
    session_installation: Installation, failed: dict[str, str]
) -> None:
    names = {one["function"] for one in listed(session_installation, "--failed")}
    assert {"charge", "checkout"} <= names
    for options in (
        ("flights/charge",),
        ("flights.charge",),
        ("charge", "--app", "flights"),
        ("flights.charge", "--app", "flights"),
    ):
        found = listed(session_installation, "--function", *options)
        assert {one["function"] for one in found} == {"charge"}, options
        assert failed["charge"] in {one["call_id"] for one in found}, options
    wrong = session_installation.command("call", "list", "--app", "no-such-app")
    assert wrong.code == 1
    assert "no app is called 'no-such-app'" in wrong.err
    other = session_installation.command("call", "list", "--function", "no-such-app.charge")
    assert (other.code, "no-such-app" in other.err) == (1, True), other


@pytest.mark.timeout(240)
def test_failed_call_is_shown_and_replayed_after_a_restart_of_the_server(
    session_installation: Installation, failed: dict[str, str]
) -> None:
    assert session_installation.command("server", "stop", "--force").code == 0
    assert session_installation.command("server", "start").code == 0

    shown = session_installation.command("call", "show", failed["charge"])
    replayed = session_installation.command("call", "replay", failed["charge"], timeout_s=120)

    assert "ValueError: negative: -14" in shown.out
    assert "Not all is known" in shown.out
    assert replayed.code == 1, replayed
    assert replayed.out.count("charging -7") == 2, "the lines of both attempts"
    assert "negative: -14" in replayed.err
    apps = json.loads(session_installation.command("app", "list", "--json").out)
    assert {one["state"] for one in apps if one["description"] == "replay of flights"} == {"stopped"}


@pytest.mark.timeout(240)
def test_replay_of_large_arguments_which_are_in_a_blob(
    session_installation: Installation, failed: dict[str, str]
) -> None:
    known = {one["call_id"] for one in listed(session_installation)}
    session_installation.command("run", f"{PROGRAM}::main", "--padding", str(3 * 2**20), timeout_s=120)
    call_id = next(one["call_id"] for one in listed(session_installation, "--failed") if one["call_id"] not in known)

    replayed = session_installation.command("call", "replay", call_id, timeout_s=120)
    of_all_runs = listed(session_installation, "--app", "flights", "--failed")
    of_function = session_installation.command("function", "calls", "flights/charge")

    assert "charging -7" in replayed.out, replayed
    assert {failed["charge"], call_id} <= {one["call_id"] for one in of_all_runs}
    assert len({one["app_id"] for one in of_all_runs}) > 1
    assert "App ID" in of_function.out
    assert failed["charge"] in of_function.out


@pytest.mark.timeout(240)
def test_replay_takes_the_only_input_that_failed_and_asks_which_of_several(session_installation: Installation) -> None:
    def ran(*prices: int) -> str:
        known = {one["call_id"] for one in listed(session_installation)}
        options = [text for price in prices for text in ("--prices", str(price))]
        assert session_installation.command("run", f"{PROGRAM}::several", *options, timeout_s=120).code == 0
        (made,) = [one["call_id"] for one in listed(session_installation) if one["call_id"] not in known]
        return str(made)

    local = ("--local", "--file", PROGRAM)
    one = session_installation.command("call", "replay", ran(1, 2, -3, 4), *local)
    call_id = ran(1, -2, 3, -4)
    two = session_installation.command("call", "replay", call_id, *local)
    named = session_installation.command("call", "replay", call_id, "--index", "3", *local)

    assert "charging -3" in one.out, one
    assert "Input 2 is the one of 4 that failed" in one.err
    assert (two.code, two.out) == (2, ""), two
    assert f"2 inputs of call {call_id} failed; name one, as in --index 1: 1, 3." in two.err
    assert "charging -4" in named.out, named


@pytest.mark.timeout(240)
def test_local_replay_opens_the_debugger_where_it_failed(
    session_installation: Installation, failed: dict[str, str]
) -> None:
    with Terminal(session_installation, "call", "replay", failed["charge"], "--local", "--file", PROGRAM) as terminal:
        terminal.wait_said("(Pdb)", 60)
        assert "negative: -14" in terminal.said
        terminal.type("p order.price, secret_sum\n")
        terminal.wait_said("(-7, -14)")
        terminal.type("q\n")
        assert terminal.wait() == 1


@pytest.mark.timeout(240)
def test_local_replay_of_what_is_mended_prints_its_result(
    session_installation: Installation, failed: dict[str, str]
) -> None:
    arguments = ("call", "replay", failed["charge"], "--local", "--file", PROGRAM)

    ended = session_installation.command(*arguments, environ={"FLIGHTS_FIXED": "1"})

    assert (ended.code, ended.out.splitlines()) == (0, ["charging -7", "-7"]), ended


@pytest.mark.timeout(240)
def test_local_replay_says_where_it_looked_for_the_module(
    session_installation: Installation, failed: dict[str, str], tmp_path: Path
) -> None:
    ended = session_installation.command("call", "replay", failed["charge"], "--local", cwd=tmp_path)

    assert ended.code == 1
    assert "no module flights here" in ended.err


@pytest.mark.timeout(240)
def test_generators_and_batches_are_replayed_in_a_container_and_here(session_installation: Installation) -> None:
    known = {one["call_id"] for one in listed(session_installation)}
    session_installation.command("run", f"{PROGRAM}::kinds", timeout_s=120)
    made = {one["function"]: one["call_id"] for one in listed(session_installation) if one["call_id"] not in known}
    here = ("--local", "--file", PROGRAM)

    def replayed(name: str, *options: str) -> tuple[list[str], str]:
        ended = session_installation.command(
            "call", "replay", made[name], *options, environ={"FLIGHTS_FIXED": "1"}, timeout_s=120
        )
        return ended.out.split(), ended.err

    assert replayed("count_up", *here)[0] == ["0", "1"]
    for options in ((), here):
        out, err = replayed("drip", *options)
        assert (out, "ValueError: no 3" in err) == (["0", "1", "2"], True), err
        out, err = replayed("Meter.ticks", *options)
        assert (out, "ValueError: no 4" in err) == (["0", "1", "2", "3"], True), err
    assert replayed("halves", *here)[0] == ["4"]
    assert "ValueError: no [8]" in replayed("halves")[1]


@pytest.mark.timeout(240)
def test_example(session_installation: Installation) -> None:
    known = {one["call_id"] for one in listed(session_installation)}
    ended = session_installation.command("run", EXAMPLE, timeout_s=120)

    assert "[30.0, 2.5], and input 2 failed: division by zero" in ended.out, ended
    (call,) = [one for one in listed(session_installation, "--failed") if one["call_id"] not in known]
    again = session_installation.command(
        "call", "replay", call["call_id"], "--index", "2", "--local", "--file", EXAMPLE
    )
    assert "ZeroDivisionError" in again.err


@pytest.mark.timeout(240)
def test_program_asks_about_its_calls_and_a_method_is_replayed(session_installation: Installation) -> None:
    known = {one["call_id"] for one in listed(session_installation)}
    ended = session_installation.command("run", f"{PROGRAM}::ask", timeout_s=120)

    assert [line for line in ended.out.splitlines() if line not in ("charging 3", "charging 4")] == [
        "2.0",
        "3",
        "checkout SUCCESS [('charge', 'SUCCESS')]",
        "2 True 1",
        "EPHEMERAL True 1",
        "charging 4 stdout ['charging 3', 'charging 4']",
        "['charging 4'] ['charging 4']",
    ], ended
    (call,) = [one for one in listed(session_installation, "--failed") if one["call_id"] not in known]
    assert call["function"] == "Till(rate=5).change"
    again = session_installation.command("call", "replay", call["call_id"], timeout_s=120)
    here = session_installation.command("call", "replay", call["call_id"], "--local", "--file", PROGRAM)
    assert again.code == here.code == 1, again
    assert "ZeroDivisionError" in again.err
    assert "ZeroDivisionError" in here.err


@pytest.mark.timeout(240)
def test_numbers_of_an_ended_app_are_shown(session_installation: Installation, failed: dict[str, str]) -> None:
    shown = session_installation.command("call", "show", failed["charge"], "--json")
    app_id = json.loads(shown.out)["summary"]["app_id"]

    info = session_installation.command("app", "info", app_id)
    stats = session_installation.command("app", "stats", app_id, "--json")
    function = session_installation.command("function", "stats", f"{app_id}/charge")
    calls = session_installation.command("function", "calls", f"{app_id}/charge", "--json")
    wrong = session_installation.command("function", "info", f"{app_id}/chrage")

    lines = session_installation.command("app", "logs", app_id, "--function-call", failed["charge"])
    none = session_installation.command("function", "logs", f"{app_id}/charge", "--function-call", failed["checkout"])
    container = session_installation.command("function", "logs", f"{app_id}/charge", "--container", "ct-none")

    assert [line for line in lines.out.splitlines() if line.startswith("charging")] == ["charging -7"] * 2, lines
    assert (none.code, none.out, container.out) == (0, "", ""), none
    assert "stopped" in info.out, info
    assert json.loads(stats.out)["functions"]["charge"]["failed_inputs"] == 1, stats
    assert "1 failed" in function.out, function
    assert [one["call_id"] for one in json.loads(calls.out)] == [failed["charge"]]
    assert (wrong.code, f"did you mean {app_id}/charge?" in wrong.err) == (1, True), wrong


@pytest.mark.timeout(240)
def test_no_list_shows_what_is_in_variables_and_a_replay_has_it(session_installation: Installation) -> None:
    ran = session_installation.command("run", str(PROGRAMS / "variables.py"), timeout_s=120)
    assert ran.code == 0, ran
    (own, plain) = listed(session_installation, "--app", "variables")
    app_id = "variables"

    lists = [
        ("app", "list", "--json"),
        ("app", "info", app_id),
        ("app", "stats", app_id, "--json"),
        ("call", "list", "--json"),
        *(("call", "show", one["call_id"], "--json") for one in (own, plain)),
        ("container", "list", "--all", "--json"),
        ("function", "info", f"{app_id}/Vault"),
        ("function", "info", f"{app_id}/Vault", "--json"),
        ("function", "variants", f"{app_id}/Vault"),
        ("function", "variants", f"{app_id}/Vault", "--json"),
        ("function", "stats", f"{app_id}/Vault", "--json"),
        ("function", "calls", f"{app_id}/Vault", "--json"),
        ("schedule", "list", "--json"),
        ("environment", "list", "--json"),
        ("image", "list", "--json"),
        ("server", "status", "--json"),
    ]
    for command in lists:
        shown = session_installation.command(*command)
        assert (shown.code, "planted" in shown.out + shown.err) == (0, False), (command, shown)
    again = session_installation.command("call", "replay", plain["call_id"], timeout_s=120)
    other = session_installation.command("call", "replay", own["call_id"], timeout_s=120)

    assert "12 and 12 characters" in again.err, again
    assert "13 and 0 characters" in other.err, other


@pytest.mark.timeout(60)
@pytest.mark.parametrize("call_id", ["fc-00000000nonesuch", "nonsense", "fc-'; DROP TABLE calls; --"])
def test_unknown_calls_are_one_message(session_installation: Installation, call_id: str) -> None:
    for command in (("show",), ("replay",), ("replay", "--local")):
        ended = session_installation.command("call", command[0], call_id, *command[1:])
        assert ended.code == 1
        assert ended.err.startswith("Error: no call"), ended


@pytest.mark.timeout(240)
def test_failed_and_spawned_calls_are_known_after_the_server_was_killed(
    make_installation: Callable[[Mapping[str, str]], Installation],
) -> None:
    squall = make_installation({})
    ended = squall.command("run", f"{PROGRAM}::ask", timeout_s=120)
    assert ended.code == 1, ended
    before = {one["call_id"]: one for one in listed(squall)}
    time.sleep(2.0)  # failures are written once a second

    os.kill(squall.server_pid(), signal.SIGKILL)
    assert squall.command("server", "start", timeout_s=60).code == 0

    after = {one["call_id"]: one for one in listed(squall)}
    kept = {key for key, one in before.items() if one["status"] == "failed" or one["kind"] == "spawn"}
    assert after.keys() == kept
    assert {key: one["status"] for key, one in after.items()} == {key: before[key]["status"] for key in kept}
    (failed,) = [key for key in kept if before[key]["status"] == "failed"]
    assert "ZeroDivisionError" in squall.command("call", "show", failed).out
    assert squall.command("call", "replay", failed, timeout_s=120).code == 1
