"""Web functions, for the ingress."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from squall.protocol.web import WebRequest
from squall.server.dispatch.web.exchange import Exchange
from squall.server.dispatch.web.requests import Requests
from squall.server.dispatch.web.routes import Route, Routes
from squall.server.model import web as contract


def _opens_nothing(key: str, secret: str, environment: str) -> bool:
    return False


class WebFunctions:
    """Implements `model.web.Web`."""

    def __init__(self, routes: Routes, requests: Requests) -> None:
        self.routes = routes
        self.requests = requests
        self.opens: Callable[[str, str, str], bool] = _opens_nothing
        """See `model.web.Web`."""

    @property
    def host_suffix(self) -> str:
        """See `model.web.Web`."""
        return self.routes.host_suffix

    def find(self, label: str) -> Route | None:
        """See `model.web.Web`."""
        return self.routes.find(label)

    def find_domain(self, host: str) -> Route | None:
        """See `model.web.Web`."""
        return self.routes.find_domain(host)

    def labels(self) -> Iterable[str]:
        """See `model.web.Web`."""
        return self.routes.labels()

    def begin(self, route: contract.Route, head: WebRequest, body: bytes) -> Exchange:
        """See `model.web.Web`."""
        assert isinstance(route, Route), "a route of another control plane"
        return self.requests.begin(route, head, body)

    def begin_whole(self, route: contract.Route, value: bytes, taker: contract.Whole) -> Exchange:
        """See `model.web.Web`."""
        assert isinstance(route, Route), "a route of another control plane"
        return self.requests.begin_whole(route, value, taker)

    def responded(self, route: contract.Route, status: int) -> None:
        """See `model.web.Web`."""
        assert isinstance(route, Route), "a route of another control plane"
        dispatcher = route.dispatcher
        dispatcher.calls.recorder.responded(dispatcher.spec, status)

    def leave(self, exchange: contract.Exchange, code: int = 1006, reason: str = "") -> None:
        """See `model.web.Web`."""
        assert isinstance(exchange, Exchange), "an exchange of another control plane"
        self.requests.leave(exchange, code, reason)
