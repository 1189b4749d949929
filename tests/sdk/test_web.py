"""What may answer requests, and how a program hears where it is found."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

import pytest

import squall
from squall.exception import InvalidError
from squall.protocol.web import ASGI, ENDPOINT, WEB_SERVER, WSGI, WebAddress, WebSpec
from squall.sdk._web_address import for_programs

ANY: Any = 1
WORD: Any = "yes"


def made(decorator: Any, **options: Any) -> squall.Function[..., Any]:
    """A function of an app with that on it."""

    def site() -> object:
        return None

    app = squall.App("shop")
    function: squall.Function[..., Any] = app.function(serialized=True, name="site", **options)(decorator(site))
    return function


@pytest.mark.parametrize(
    ("decorator", "spec"),
    [
        (squall.fastapi_endpoint(), WebSpec(ENDPOINT)),
        (squall.fastapi_endpoint(method="post", docs=True), WebSpec(ENDPOINT, method="POST", has_docs=True)),
        (squall.asgi_app(label="A-1"), WebSpec(ASGI, "a-1")),
        (
            squall.wsgi_app(custom_domains=["A.example.com", "a.example.com"], requires_proxy_auth=True),
            WebSpec(WSGI, "", ("a.example.com",), True),
        ),
        (squall.web_server(8_000, startup_timeout=60), WebSpec(WEB_SERVER, port=8_000, port_timeout_s=60.0)),
    ],
)
def test_what_is_asked_is_in_the_record(decorator: Any, spec: WebSpec) -> None:
    definition = made(decorator).definition

    assert definition is not None
    assert definition.options.records()["web"] == spec


def test_method_of_a_class_has_its_own() -> None:
    app = squall.App("shop")

    class Site:
        @squall.enter()
        def load(self) -> None: ...

        @squall.asgi_app(label="shop")
        def page(self) -> object:
            return None

        @squall.method()
        def other(self) -> None: ...

    made_cls: Any = app.cls(serialized=True)(Site)
    methods = made_cls.user_class.methods
    assert (methods["page"].web, methods["other"].web) == (WebSpec(ASGI, "shop"), None)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: squall.fastapi_endpoint(method="FETCH"), "method='FETCH' must be one of GET, HEAD"),
        (lambda: squall.fastapi_endpoint(docs=ANY), "docs=1 must be True or False"),
        (lambda: squall.asgi_app(label="Not_A_Label"), "label='Not_A_Label' must be 1 to 63 letters"),
        (lambda: squall.asgi_app(label="-x"), "label='-x'"),
        (lambda: squall.asgi_app(custom_domains="a.example.com"), "must be a list of names of hosts"),
        (lambda: squall.asgi_app(custom_domains=["no domain"]), "'no domain' of custom_domains= must be the name"),
        (lambda: squall.wsgi_app(requires_proxy_auth=WORD), "requires_proxy_auth='yes' must be True or False"),
        (lambda: squall.web_server(0), "port=0 must be an integer from 1 to 65535"),
        (lambda: squall.web_server(80, startup_timeout=0), "startup_timeout=0 must be a number of seconds above 0"),
        (lambda: squall.asgi_app(made), "write @squall.asgi_app() with parentheses"),
        (lambda: squall.fastapi_endpoint("POST"), "'POST' must be given by name"),
    ],
)
def test_impossible_values_are_refused_by_name(make: Any, message: str) -> None:
    with pytest.raises(InvalidError) as refused:
        make()
    assert message in str(refused.value)


def yields() -> Any:
    yield 1


async def later() -> None: ...


def takes(x: int) -> None: ...


def plain(x: int = 1) -> None: ...


@pytest.mark.parametrize(
    ("decorator", "function", "message"),
    [
        (squall.fastapi_endpoint(), yields, "it is a generator"),
        (squall.asgi_app(), later, "it is async, and returns its application only later"),
        (squall.asgi_app(), takes, "returns an application, and is called without arguments"),
        (squall.web_server(80), takes, "starts its server, and is called without arguments"),
        (squall.asgi_app(), squall.wsgi_app()(plain), "a function answers requests in one way"),
        (squall.asgi_app(), squall.method()(plain), "cannot be called as well"),
        (squall.method(), squall.asgi_app()(plain), "cannot be called as well"),
        (squall.asgi_app(), squall.enter()(plain), "what is run by itself cannot answer requests as well"),
        (squall.asgi_app(), squall.asgi_app()(plain), "is on plain twice"),
    ],
)
def test_what_contradicts_is_refused(decorator: Any, function: Any, message: str) -> None:
    with pytest.raises(InvalidError) as refused:
        decorator(function)
    assert message in str(refused.value)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"retries": 2}, "retries= cannot be used on what answers requests"),
        ({"schedule": squall.Period(hours=1)}, "schedule= cannot be used on what answers requests"),
        ({"is_generator": True}, "is_generator= cannot be used on what answers requests"),
    ],
)
def test_options_that_mean_nothing_there_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidError) as refused:
        made(squall.asgi_app(), **options)
    assert message in str(refused.value)


def test_web_function_runs_here_and_cannot_be_put_below_a_class() -> None:
    assert made(squall.asgi_app()).local() is None
    with pytest.raises(InvalidError, match="put it on a method of it"):
        squall.asgi_app()(dict)


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("http://x.localhost:7855", "http://127.0.0.1:7855/w/x"),
        ("https://x.apps.example.com", "https://x.apps.example.com"),
    ],
)
def test_programs_are_told_what_they_can_resolve(url: str, expected: str) -> None:
    address = WebAddress("fu-1", "site", "", "x", url, "http://127.0.0.1:7855/w/x")

    assert for_programs(address) == expected


PROGRAM = """
import subprocess

import squall as modal
from squall import asgi_app, web_server

app = modal.App("elsewhere")
image = modal.Image.debian_slim().pip_install("fastapi[standard]")


@app.function(image=image)
@modal.concurrent(max_inputs=100)
@modal.asgi_app()
def pages():
    from fastapi import FastAPI

    return FastAPI()


@app.function(image=image, min_containers=1)
@asgi_app(label="chat", custom_domains=["chat.example.com"], requires_proxy_auth=True)
@modal.concurrent(max_inputs=10)
def chat():
    return None


@app.function(image=image)
@modal.fastapi_endpoint(method="POST", docs=True)
async def square(item: dict):
    return item


@app.function()
@web_server(8000, startup_timeout=60)
def files():
    subprocess.Popen("python -m http.server -d / 8000", shell=True)


@app.cls(image=image)
@modal.concurrent(max_inputs=8)
class Model:
    @modal.enter()
    def load(self):
        self.model = len

    @modal.method()
    def generate(self, prompt: str):
        return self.model(prompt)

    @modal.fastapi_endpoint(docs=True)
    def web(self, prompt: str):
        return self.generate.local(prompt)

    @modal.wsgi_app()
    def flask(self):
        return None


@app.server(port=8000, unauthenticated=True, target_concurrency=4, startup_timeout=120)
class Serving:
    @modal.enter()
    def start(self):
        self.process = subprocess.Popen("python -m http.server 8000", shell=True)

    @modal.exit()
    def stop(self):
        self.process.terminate()


@app.local_entrypoint()
def main():
    print(pages.get_web_url(), Model().web.get_web_url(), Serving.get_url())
"""


def test_programs_of_elsewhere_are_read_as_they_are(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "elsewhere.py").write_text(PROGRAM)
    monkeypatch.syspath_prepend(str(tmp_path))
    module = importlib.import_module("elsewhere")

    assert module.app.registered_web_endpoints == ["pages", "chat", "square", "files", "Model.web", "Model.flask"]
    assert list(module.app.registered_servers) == ["Serving"]
    assert module.Model().web.local("four") == 4
    with pytest.raises(AttributeError, match=r"squall\.fastapi_endpoint takes its place"):
        _ = squall.web_endpoint


def test_order_of_decorators_is_told() -> None:
    function = squall.App("shop").function(serialized=True)(plain)
    with pytest.raises(InvalidError, match=r"it goes on a plain function, below @app\.function\(\)"):
        squall.asgi_app()(function)
    with pytest.raises(TypeError, match=r"plain has @squall\.asgi_app\(\) on it and no @app\.function\(\) above"):
        squall.asgi_app()(plain)()


def test_concurrency_of_a_web_method_is_its_classs() -> None:
    class Site:
        def page(self) -> None: ...

    with pytest.raises(InvalidError, match="all of whose methods share a container"):
        squall.concurrent(max_inputs=2)(squall.asgi_app()(Site.page))


@pytest.mark.parametrize("other", [squall.method(), squall.enter(), squall.exit(), squall.wsgi_app()])
@pytest.mark.parametrize("web", [squall.fastapi_endpoint(), squall.asgi_app(), squall.web_server(80)])
def test_what_answers_requests_is_nothing_else(other: Any, web: Any) -> None:
    def body(self: object) -> None: ...

    body.__qualname__ = "Site.body"
    reason = "on Site.body: (what is run by itself|what answers requests|a function answers requests in one way)"
    for first, second in ((other, web), (web, other)):
        with pytest.raises(InvalidError, match=reason):
            second(first(body))
