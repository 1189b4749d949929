"""What commands tell of web functions and servers: where they answer requests."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner

import squall
from squall.cli import call_replay, deploy, main
from squall.cli.server_calls import ask
from squall.protocol.app import AppCreate, AppCreated
from squall.protocol.function import BY_FILE, Definition, FunctionCreate, FunctionCreated, MethodSpec
from squall.protocol.ids import new_id
from squall.protocol.web import ASGI, SERVER, WSGI, WebSpec
from squall.sdk import _client, _local_server
from tests.sdk.real_server import RealServer
from tests.server.doubles import make_spec

DESK = Definition(
    BY_FILE, "shop", "Desk", is_class=True, methods=(MethodSpec("shut"), MethodSpec("page", web=WebSpec(WSGI)))
)
COUNTER = Definition(BY_FILE, "shop", "Counter", is_class=True)


@pytest.fixture
def app_id(data_dir: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """An app on a server without nodes."""
    monkeypatch.setenv("SQUALL_DATA_DIR", str(data_dir))
    monkeypatch.delenv("SQUALL_SERVER_URL", raising=False)
    monkeypatch.setattr(_local_server, "start", lambda data_dir: None)
    with RealServer(data_dir):
        found = new_id("ap")
        specs = (
            make_spec(found, "site", web=WebSpec(ASGI)),
            make_spec(found, "plain"),
            make_spec(found, "Desk", definition=DESK),
            make_spec(found, "Counter", definition=COUNTER, web=WebSpec(SERVER, port=8_000, port_timeout_s=60.0)),
        )
        ask("AppCreate", AppCreate(found, "shop"), AppCreated)
        ask("FunctionCreate", FunctionCreate(specs), FunctionCreated)
        yield found
        _client.close()


def said(*arguments: str) -> str:
    """What the command prints."""
    ended = CliRunner().invoke(main.squall, arguments)
    assert ended.exit_code == 0, ended.output
    return ended.output


def test_app_info_has_the_addresses_that_browsers_take(app_id: str) -> None:
    lines = [line.split() for line in said("app", "info", app_id).splitlines()]

    for name, label in (("Counter", "counter"), ("Desk.page", "desk-page"), ("site", "site")):
        assert [name, f"http://shop-{label}-dev.localhost:1"] in lines
    assert not any(line[:1] == ["Desk.shut"] for line in lines)


def test_function_info_has_those_of_its_methods(app_id: str) -> None:
    assert "web         http://shop-site-dev.localhost:1 (asgi_app)" in said("function", "info", "shop/site")
    assert "web page    http://shop-desk-page-dev.localhost:1 (wsgi_app)" in said("function", "info", "shop/Desk")
    assert "http://" not in said("function", "info", "shop/plain")


def test_programs_get_both_addresses(app_id: str) -> None:
    of_app = json.loads(said("app", "info", "shop", "--json"))["addresses"]
    of_class = json.loads(said("function", "info", "shop/Desk", "--json"))["addresses"]

    assert [one["label"] for one in of_app] == ["shop-counter-dev", "shop-desk-page-dev", "shop-site-dev"]
    assert of_class == of_app[1:2]
    assert (of_class[0]["method"], of_class[0]["url"]) == ("page", "http://shop-desk-page-dev.localhost:1")
    assert of_class[0]["path_url"].endswith("/w/shop-desk-page-dev")
    assert json.loads(said("function", "info", "shop/plain", "--json"))["addresses"] == []


def test_server_has_no_time_limit_to_tell_of(app_id: str) -> None:
    assert "none of requests; of a start 60 s" in said("function", "info", "shop/Counter")
    assert "timeout     300 s; of a start 300 s" in said("function", "info", "shop/site")


def test_replay_takes_no_requests(app_id: str) -> None:
    for definition, web in ((DESK, None), (COUNTER, WebSpec(SERVER, port=8_000))):
        made = call_replay._made_for(new_id("ap"), make_spec(app_id, "x", definition=definition, web=web))

        assert made.web is None
        assert all(one.web is None for one in made.definition.methods)


def test_deploy_says_how_to_call_what_can_be_called(capsys: pytest.CaptureFixture[str]) -> None:
    app = squall.App("shop")

    class Page:
        @squall.asgi_app()
        def page(self) -> None: ...

    class Desk:
        @squall.method()
        def shut(self) -> None: ...

    for one in (Page, Desk):
        one.__qualname__ = one.__name__
    app.cls()(Page)
    app.function(serialized=True, name="site")(squall.asgi_app()(lambda: None))
    deploy._say_how_to_call(app, "shop")
    assert not capsys.readouterr().err

    app.cls()(Desk)
    deploy._say_how_to_call(app, "shop")
    assert "squall.Cls.from_name('shop', 'Desk')" in capsys.readouterr().err
