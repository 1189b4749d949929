"""`squall.fastapi_endpoint`, `asgi_app`, `wsgi_app` and `web_server`: functions that answer requests."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from typing import Any

from squall.exception import InvalidError
from squall.protocol.records import replace
from squall.protocol.web import ASGI, ENDPOINT, WEB_SERVER, WSGI, WebSpec
from squall.sdk import _source
from squall.sdk._parameters import checked
from squall.sdk._partial import Partial, is_method, mark
from squall.sdk._value_text import value_text

METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE")
TIMEOUT_S_MAX = 24 * 3600
DOMAINS_MAX = 20
_LABEL = r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?\Z"
_DOMAIN = r"(?=.{1,253}\Z)(?:[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?\.)+[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?\Z"


class WebDecorator:
    """What these return."""

    def __init__(self, spec: WebSpec) -> None:
        self._spec = spec

    def __call__(self, target: Callable[..., Any]) -> Partial[..., Any]:
        marked = mark(target, self._spec.kind, self._spec)
        _check_function(f"@squall.{self._spec.kind}() on {marked.raw.__qualname__}", self._spec.kind, marked.raw)
        return marked


@checked("@squall.fastapi_endpoint")
def fastapi_endpoint(
    _wrong: object = None,
    *,
    method: str = "GET",
    label: str | None = None,
    custom_domains: Iterable[str] | None = None,
    docs: bool = False,
    requires_proxy_auth: bool = False,
) -> WebDecorator:
    """Let the function below answer requests: as the one route, `/`, of a FastAPI application, to pages of any origin.

    Its parameters and what it returns are FastAPI's. The image needs FastAPI, as in
    `image.uv_pip_install("fastapi[standard]")`.

    Args:
        method: of HTTP.
        label: the first part of its address; else that is made of the names of app and function.
        custom_domains: names of hosts that lead to it, too.
        docs: with pages that describe it, at `/docs`.
        requires_proxy_auth: only requests with a proxy token reach it.

    Raises:
        InvalidError: a value is impossible; or, when a function is decorated, it is a generator, or has another
            decorator that contradicts this one.
    """
    what = "@squall.fastapi_endpoint()"
    _refuse_bare(what, _wrong)
    if not isinstance(method, str) or method.upper() not in METHODS:
        raise InvalidError(f"{what}: method={value_text(method)} must be one of {', '.join(METHODS)}")
    if not isinstance(docs, bool):
        raise InvalidError(f"{what}: docs={value_text(docs)} must be True or False")
    spec = _spec(what, ENDPOINT, label, custom_domains, requires_proxy_auth)
    return WebDecorator(replace(spec, method=method.upper(), has_docs=docs))


@checked("@squall.asgi_app")
def asgi_app(
    _wrong: object = None,
    *,
    label: str | None = None,
    custom_domains: Iterable[str] | None = None,
    requires_proxy_auth: bool = False,
) -> WebDecorator:
    """Let what the function below returns, an ASGI application, answer requests and WebSockets.

    The function is called once in each container, before the first request; it is not async and takes nothing. The
    application's lifespan is run. Parameters and errors as of `fastapi_endpoint`.
    """
    what = "@squall.asgi_app()"
    _refuse_bare(what, _wrong)
    return WebDecorator(_spec(what, ASGI, label, custom_domains, requires_proxy_auth))


@checked("@squall.wsgi_app")
def wsgi_app(
    _wrong: object = None,
    *,
    label: str | None = None,
    custom_domains: Iterable[str] | None = None,
    requires_proxy_auth: bool = False,
) -> WebDecorator:
    """The same with an application of WSGI, as Flask and Django make: each request runs in a thread."""
    what = "@squall.wsgi_app()"
    _refuse_bare(what, _wrong)
    return WebDecorator(_spec(what, WSGI, label, custom_domains, requires_proxy_auth))


@checked("@squall.web_server")
def web_server(
    port: int,
    *,
    startup_timeout: float = 5.0,
    label: str | None = None,
    custom_domains: Iterable[str] | None = None,
    requires_proxy_auth: bool = False,
) -> WebDecorator:
    """Let the server that the function below starts, at a port of its container, answer requests.

    The function is called once in each container. Requests come when something listens at `port`, at the latest
    `startup_timeout` seconds later; else the container has failed. Other parameters and errors as of
    `fastapi_endpoint`.
    """
    what = "@squall.web_server()"
    spec = _spec(what, WEB_SERVER, label, custom_domains, requires_proxy_auth)
    return WebDecorator(replace(spec, port=check_port(what, port), port_timeout_s=check_startup(what, startup_timeout)))


def check_port(what: str, port: object) -> int:
    """Raises InvalidError for what is no port."""
    if isinstance(port, bool) or not isinstance(port, int) or not 1 <= port <= 65_535:
        raise InvalidError(f"{what}: port={value_text(port)} must be an integer from 1 to 65535")
    return port


def check_startup(what: str, seconds: object) -> float:
    """Raises InvalidError for what is no time to start in."""
    if isinstance(seconds, bool) or not isinstance(seconds, (int, float)) or not 0 < seconds <= TIMEOUT_S_MAX:
        wanted = f"a number of seconds above 0, {TIMEOUT_S_MAX} at most"
        raise InvalidError(f"{what}: startup_timeout={value_text(seconds)} must be {wanted}")
    return float(seconds)


def _spec(what: str, kind: str, label: object, custom_domains: object, requires_proxy_auth: object) -> WebSpec:
    if label is not None and (not isinstance(label, str) or not re.match(_LABEL, label.lower())):
        rule = "1 to 63 letters, digits and dashes, neither first nor last a dash"
        raise InvalidError(f"{what}: label={value_text(label)} must be {rule}")
    if not isinstance(requires_proxy_auth, bool):
        raise InvalidError(f"{what}: requires_proxy_auth={value_text(requires_proxy_auth)} must be True or False")
    domains = _domains(what, custom_domains)
    return WebSpec(kind, (label or "").lower(), domains, requires_proxy_auth)


def _domains(what: str, given: object) -> tuple[str, ...]:
    if given is None:
        return ()
    if isinstance(given, (str, bytes)) or not isinstance(given, Iterable):
        raise InvalidError(f"{what}: custom_domains={value_text(given)} must be a list of names of hosts")
    found = []
    for one in given:
        name = one.lower() if isinstance(one, str) else ""
        if not re.match(_DOMAIN, name):
            raise InvalidError(
                f"{what}: {value_text(one)} of custom_domains= must be the name of a host: api.example.com"
            )
        found.append(name)
        if len(found) > DOMAINS_MAX:
            raise InvalidError(f"{what}: custom_domains= has more than {DOMAINS_MAX} names")
    return tuple(dict.fromkeys(found))


def _refuse_bare(what: str, wrong: object) -> None:
    if callable(wrong):
        raise InvalidError(f"write {what} with parentheses")
    if wrong is not None:
        raise InvalidError(f"{what}: {value_text(wrong)} must be given by name, as in label=…")


def _check_function(where: str, kind: str, raw: Any) -> None:
    if _source.is_generator(raw):
        raise InvalidError(f"{where}: it is a generator; return the response, or one that streams")
    if kind == ENDPOINT:
        return
    if kind != WEB_SERVER and _source.is_async(raw):
        raise InvalidError(f"{where}: it is async, and returns its application only later; leave the async out")
    code = raw.__code__
    taken = code.co_argcount + code.co_kwonlyargcount - is_method(raw) - len(raw.__defaults__ or ())
    if taken - len(raw.__kwdefaults__ or ()) > 0:
        what = "starts its server" if kind == WEB_SERVER else "returns an application"
        raise InvalidError(f"{where}: it {what}, and is called without arguments; give its parameters defaults")
