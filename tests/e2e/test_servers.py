"""Servers of an app, deployed, served, asked and told about."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.e2e.installation import PROGRAMS, Installation, wait_until
from tests.e2e.test_http import url_of


@pytest.fixture
def web(squall: Installation) -> Iterator[str]:
    """The app is deployed; where the server is."""
    ended = squall.command("deploy", str(PROGRAMS / "serving.py"))
    assert ended.code == 0, ended
    assert "Server Open: http://serving-open.localhost:" in ended.err, ended
    assert "Server closed: http://serving-closed.localhost:" in ended.err, ended
    yield url_of(squall)
    squall.command("app", "stop", "serving", "-y")


def test_requests_reach_what_the_enter_hooks_have_started(web: str, squall: Installation) -> None:
    first = httpx.get(f"{web}/w/serving-open/a?b=c", timeout=60)
    again = httpx.get(f"{web}/x", headers={"Host": "serving-open.localhost"}, timeout=60)

    assert first.text.startswith("the open one of ct-")
    assert first.text.endswith(" at /a?b=c")
    assert again.text.endswith(" at /x")
    stats = squall.command("function", "stats", "serving/Open")
    assert stats.code == 0, stats


def test_who_has_no_token_is_sent_away(web: str) -> None:
    assert httpx.get(f"{web}/w/serving-closed/", timeout=60).status_code == 401


def test_squall_curl_has_a_token_of_its_own_while_it_runs(web: str, squall: Installation) -> None:
    by_name = f"http://serving-closed.localhost:{web.rpartition(':')[2]}/x"
    asked = squall.command("curl", "-sS", f"{web}/w/serving-closed/a?b=c", by_name)
    curls_own = squall.command("curl", "-sSf", "-X", "DELETE", by_name)
    elsewhere = squall.command("curl", "-sS", f"{web}/w/serving-closed/", "http://127.0.0.1:1/w/serving-closed/")
    nowhere = squall.command("curl", "-sS", "serving-closed")

    assert asked.code == 0, asked
    assert " at /a?b=c" in asked.out
    assert " at /x" in asked.out
    assert curls_own.code == 22, curls_own
    assert elsewhere.code == 1
    assert "is no web function of this server, and is told no token" in elsewhere.err
    assert nowhere.code == 2
    assert squall.command("workspace", "proxy-tokens", "list", "--json").out.strip() in ("", "[]")


def test_server_that_never_listens_says_so(web: str, squall: Installation) -> None:
    response = httpx.get(f"{web}/w/serving-silent/", timeout=60)

    assert response.status_code == 503
    assert "nothing listens at port 8133 1 s after Silent was started" in squall.command("app", "logs", "serving").err


def test_its_exit_hooks_run_when_the_app_stops(web: str, squall: Installation) -> None:
    assert httpx.get(f"{web}/w/serving-open/", timeout=60).status_code == 200

    assert squall.command("app", "stop", "serving", "-y").code == 0
    wait_until(lambda: "the open one leaves" in squall.command("app", "logs", "serving").out, "its hook has run", 20)


def test_program_and_commands_know_it(squall: Installation) -> None:
    ended = squall.command("run", str(PROGRAMS / "serving.py"))

    assert ended.code == 0, ended
    opened, closed, info, settings, is_apart = ended.out.splitlines()
    assert opened.endswith("/w/serving-open-dev")
    assert closed.endswith("/w/serving-closed-dev")
    assert info == "8131 True 30"
    assert settings.startswith("ServerAutoscalerSettings(target_concurrency=3,")
    assert is_apart == "True"
    refused = squall.command("run", f"{PROGRAMS / 'serving.py'}::Open")
    assert refused.code == 2
    assert "Open answers requests, and cannot be called; `squall serve" in refused.err


EDITED = """
import squall

app = squall.App("edited")


@app.function()
@squall.wsgi_app()
def site():
    def application(environ, start_response):
        start_response("200 OK", [])
        return [b"ANSWER"]

    return application
"""


def test_edits_of_what_is_served_are_seen_at_one_address_with_a_suffix_of_ones_own(
    squall: Installation, tmp_path: Path
) -> None:
    program = tmp_path / "edited.py"
    program.write_text(EDITED.replace("ANSWER", "one"))
    running = squall.start("serve", str(program), cwd=tmp_path, environ={"SQUALL_DEV_SUFFIX": "Ann"})
    running.wait_said("Watched, until Ctrl-C", 120)
    assert "Web function site: http://edited-site-ann.localhost:" in running.said()
    address = f"{url_of(squall)}/w/edited-site-ann/"
    assert httpx.get(address, timeout=60).text == "one"

    program.write_text(EDITED.replace("ANSWER", "two"))

    wait_until(lambda: httpx.get(address, timeout=60).text == "two", "the edit is seen", 30)
    running.signal(signal.SIGINT)
    assert running.wait().code == 0
    assert httpx.get(address, timeout=60).status_code == 404
