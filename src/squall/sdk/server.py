"""Servers of an app: programs that listen in containers, and are reached by requests alone."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NoReturn

from squall.exception import InvalidError
from squall.sdk._definition import Handle
from squall.sdk._facade import blocking
from squall.sdk._names import check_name
from squall.sdk._parameters import checked
from squall.sdk._value_text import value_text
from squall.sdk.cls import Cls
from squall.sdk.function import Function

if TYPE_CHECKING:
    from datetime import datetime

    from squall.sdk._autoscaler import ServerAutoscaler
    from squall.sdk._client import Client
    from squall.sdk._logs import Logs
    from squall.sdk._user_class import UserClass
    from squall.sdk.types import ServerInfo, ServerStats


class Server:
    """What `@app.server()` makes of a class: each of its containers has one instance, whose `@squall.enter()` starts
    what listens at the port. Requests go straight there, without a time limit."""

    _function: Function[..., Any]
    """What serves it."""
    _user_class: UserClass | None
    """None of one that was looked up."""
    _info: ServerInfo | None

    def __init__(self, *args: object, **kwargs: object) -> None:
        raise InvalidError("Server() cannot be made directly; use @app.server() or Server.from_name(…)")

    @classmethod
    def _make(cls, function: Function[..., Any], user_class: UserClass | None) -> Server:
        made = object.__new__(cls)
        made._function = function
        made._user_class = user_class
        made._info = None
        if user_class is not None:
            made.__doc__ = user_class.raw.__doc__
        return made

    @classmethod
    @checked("Server.from_name")
    def from_name(
        cls, app_name: str, name: str, *, environment_name: str | None = None, client: Client | None = None
    ) -> Server:
        """A handle to a server of an app that runs or is deployed. Nothing is asked before its first use.

        It stays one of that name: when the app was stopped and another of its name runs, that one is found.
        """
        from squall.sdk._environment import environment_of  # cold start: programs only

        environment = environment_of(environment_name)
        check_name(app_name, "app name")
        if not isinstance(name, str) or not name:
            raise InvalidError("Server.from_name: the server's name must be a string")
        handle = Handle(app=app_name, name=name, is_class=True, is_server=True, environment=environment)
        return cls._make(Function[..., Any]._make(name, handle=handle, client=client), None)

    @classmethod
    @checked("Server.from_id")
    def from_id(cls, server_id: str, *, client: Client | None = None) -> Server:
        """A handle to a server by its id. Nothing is asked before its first use."""
        if not isinstance(server_id, str) or not server_id.startswith("fu-") or not server_id[3:].isalnum():
            raise InvalidError(f"Server.from_id({value_text(server_id)}): ids of servers begin with 'fu-'")
        handle = Handle(function_id=server_id, is_class=True, is_server=True)
        return cls._make(Function[..., Any]._make(server_id, handle=handle, client=client), None)

    @blocking
    async def hydrate(self, client: Client | None = None) -> Server:
        """Look the server up now, also again; returns itself.

        Raises:
            NotFoundError: there is no such server, or its app was stopped.
        """
        await self._function.hydrate.aio(client)
        return self

    @property
    def object_id(self) -> str:
        """The id of the server.

        Raises:
            AttributeError: its app does not run, or the handle has not been looked up.
        """
        function_id = self._function._known_id()
        if function_id is None:
            raise AttributeError(f"server {self._function.name} has no id yet: {self._function._why_unbound()}")
        return function_id

    @blocking
    async def get_url(self) -> str | None:
        """Where it answers requests; see `Function.get_web_url`."""
        return await self._function.get_web_url.aio()

    @blocking
    async def info(self, *, refresh: bool = False) -> ServerInfo:
        """What it runs with, as it was asked for first; `refresh` asks again."""
        from squall.sdk import _server_stats  # cold start: only where somebody asks

        if self._info is None or refresh:
            client, function_id = await self._function.scaled()
            self._info = await _server_stats.server_info(client, function_id)
        return self._info

    @blocking
    async def stats(
        self, *, since: datetime | None = None, until: datetime | None = None, container: str | None = None
    ) -> ServerStats:
        """What it did between two times, at most 7 days apart; the last hour, if nothing is said.

        Of one `container` that is remembered, what it did in its whole life. A time without a zone is local. Requests
        are not counted by their status: what a server answered is its own.

        Raises:
            InvalidError: `since` is not before `until`, or more than 7 days are.
        """
        from squall.sdk import _server_stats, _stats  # cold start: as above

        begin, end = _stats.window(f"{self._function.name}.stats()", since, until)
        client, function_id = await self._function.scaled()
        return await _server_stats.server_stats(client, function_id, begin, end, container or "")

    @property
    def autoscaler(self) -> ServerAutoscaler:
        """What its autoscaler goes by: `.autoscaler.settings()`, and `.autoscaler.update(…)` while it runs."""
        from squall.sdk._autoscaler import ServerAutoscaler  # cold start: as above

        return ServerAutoscaler(self._function, self._function.name)

    @property
    def logs(self) -> Logs:
        """The lines that its containers printed."""
        return self._function.logs

    @property
    def service_function(self) -> Function[..., Any]:
        """The function that serves it."""
        return self._function

    @property
    def user_class(self) -> UserClass | None:
        """The class as it was read; None of one that was looked up."""
        return self._user_class

    @property
    def service_class(self) -> Cls:
        """As a class with containers, which is what a container has of it."""
        return Cls._make(self._function, self._user_class)

    def __call__(self, *args: object, **kwargs: object) -> NoReturn:
        name = self._function.name
        raise TypeError(f"server {name} has no objects and is not called: send requests to what {name}.get_url() says")

    def __repr__(self) -> str:
        return f"<Server {self._function.name}>"

    def __reduce__(self) -> tuple[Any, ...]:
        return _from_function, (self._function,)

    def __getattr__(self, name: str) -> object:
        from squall.sdk import _later  # cold start: only where there is no such name

        if name in ("remote", "local", "map", "spawn"):
            raise AttributeError(f"a server has no .{name}(): it is reached by requests, where .get_url() says")
        return _later.absent(self, _later.OF_SERVER, name)


def _from_function(function: Function[..., Any]) -> Server:
    return Server._make(function, None)
