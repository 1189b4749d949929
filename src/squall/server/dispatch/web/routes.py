"""Which label, and which domain, leads to which web function of the apps that live.

Of several runs of one app the newest has the labels; when it ends, the one before has them again. Anything else that
another app has is refused when functions are made or published, so that nobody takes over what is in use.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from squall.protocol.app import DEPLOYED
from squall.protocol.errors import EXISTS, PlatformError
from squall.protocol.function import FunctionSpec
from squall.protocol.web import WebAddress, WebSpec
from squall.server.dispatch.app.apps import App
from squall.server.dispatch.function.dispatcher import Dispatcher
from squall.server.model.store import StoredApp
from squall.server.model.web_label import label_of, webs_of


@dataclass(frozen=True, slots=True)
class Route:
    """A web function that is found under a label."""

    label: str
    app: App
    dispatcher: Dispatcher
    method: str
    """Of a class; empty for a function."""
    web: WebSpec

    @property
    def environment(self) -> str:
        """In which its app is."""
        return self.app.row.environment


class Routes:
    """All routes; kept in step with the apps that live."""

    def __init__(self, url: str, domain: str) -> None:
        """`url` is where the server is; `domain` what comes behind labels, with a scheme and a port of its own if
        something stands before this server."""
        self._url = url.rstrip("/")
        self._domain = domain
        self.host_suffix = "." + domain.rpartition("//")[2].partition(":")[0].lower()
        """What the names of hosts end in that have a label before it: a dot and the domain."""
        self._by_label: dict[str, list[Route]] = {}
        """The newest last."""
        self._by_domain: dict[str, Route] = {}
        self._of_app: dict[str, list[Route]] = {}
        self._claimed: dict[str, str] = {}
        """Labels and domains on their way to be an app's, by its id."""

    # Finding

    def find(self, label: str) -> Route | None:
        """Who is found under a label."""
        routes = self._by_label.get(label)
        return routes[-1] if routes else None

    def find_domain(self, host: str) -> Route | None:
        """Who is found under a name of a host that is not made of a label."""
        return self._by_domain.get(host)

    def labels(self) -> Iterable[str]:
        """All there are."""
        return self._by_label.keys()

    def addresses(self, app_id: str) -> list[WebAddress]:
        """Where the web functions of an app are found, by label."""
        routes = sorted(self._of_app.get(app_id, ()), key=lambda route: route.label)
        return [self.address(route) for route in routes]

    def address(self, route: Route) -> WebAddress:
        """Where one is found."""
        spec = route.dispatcher.spec
        return WebAddress(
            spec.function_id, spec.name, route.method, route.label, self._url_of(route.label),
            f"{self._url}/w/{route.label}", route.web.custom_domains, route.web.kind,
        )  # fmt: skip

    def _url_of(self, label: str) -> str:
        scheme, _, own = self._url.partition("://")
        if "://" in self._domain:
            scheme, _, host = self._domain.partition("://")
            return f"{scheme}://{label}.{host}"
        port = own.rpartition(":")[2]
        return f"{scheme}://{label}.{self._domain}" + (f":{port}" if port.isdigit() else "")

    # Changing

    @contextmanager
    def claiming(self, method: str, row: StoredApp, suffix: str, specs: Sequence[FunctionSpec]) -> Iterator[None]:
        """Nobody else gets the labels of these functions while their app is being changed.

        Raises:
            PlatformError: `exists` when another app has one of them, or two of these functions would have the same.
        """
        wanted: dict[str, str] = {}
        for spec in specs:
            for name, label, web in _labels(row, suffix, spec):
                for key in (label, *web.custom_domains):
                    what = f"{spec.name}.{name}" if name else spec.name
                    if key in wanted:
                        message = f"{wanted[key]} and {what} would both be found under {key!r}; give one another label="
                        raise PlatformError(EXISTS, f"{method}: {message}")
                    self._check_free(method, row, what, key)
                    wanted[key] = what
        claimed = [key for key in wanted if key not in self._claimed]
        self._claimed.update(dict.fromkeys(claimed, row.app_id))
        try:
            yield
        finally:
            for key in claimed:
                del self._claimed[key]

    def _check_free(self, method: str, row: StoredApp, what: str, key: str) -> None:
        holder = self.find(key) or self.find_domain(key)
        other = holder.app.row if holder is not None else None
        if other is not None and (other.app_id == row.app_id or _are_runs_of_one(other, row)):
            other = None
        claimer = self._claimed.get(key, row.app_id)
        if other is None and claimer == row.app_id:
            return
        whose = f"app {other.name or other.app_id}" if other is not None else f"app {claimer}, which is being deployed"
        message = f"{what} would be found under {key!r}, which {whose} has; give it another label="
        raise PlatformError(EXISTS, f"{method}: {message}")

    def app_changed(self, app: App) -> None:
        """The app has other functions, or begins to end."""
        for route in self._of_app.pop(app.app_id, ()):
            routes = self._by_label[route.label]
            routes.remove(route)
            if not routes:
                del self._by_label[route.label]
            for domain in route.web.custom_domains:
                if self._by_domain.get(domain) is route:
                    del self._by_domain[domain]
        if app.stopping is not None:
            return
        made = []
        for dispatcher in app.dispatchers.values():
            for name, label, web in _labels(app.row, app.web_suffix, dispatcher.spec):
                route = Route(label, app, dispatcher, name, web)
                made.append(route)
                self._by_label.setdefault(label, []).append(route)
                for domain in web.custom_domains:
                    self._by_domain[domain] = route
        if made:
            self._of_app[app.app_id] = made


def _labels(row: StoredApp, suffix: str, spec: FunctionSpec) -> Iterator[tuple[str, str, WebSpec]]:
    """The methods of a function that answer requests, the label of each, and what it says of itself."""
    for name, web in webs_of(spec):
        app_name = row.name or row.app_id
        yield name, label_of(web, app_name, spec.name, name, environment=row.environment, suffix=suffix), web


def _are_runs_of_one(other: StoredApp, row: StoredApp) -> bool:
    is_either_deployed = DEPLOYED in (other.state, row.state)
    return not is_either_deployed and (other.name, other.environment) == (row.name, row.environment)
