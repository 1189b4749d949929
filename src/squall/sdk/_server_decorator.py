"""`@app.server(…)`: what makes a server of the app of the class it is put on."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from squall.exception import InvalidError
from squall.sdk import _container, _source
from squall.sdk._class_decorator import check_class
from squall.sdk._definition import Definition
from squall.sdk._names import check_name
from squall.sdk._options import check_flag
from squall.sdk._partial import take_apart
from squall.sdk._server_options import ServerOptions
from squall.sdk._user_class import UserClass
from squall.sdk.function import Function
from squall.sdk.server import Server

if TYPE_CHECKING:
    from squall.sdk.app import App


class ServerDecorator:
    """What `app.server(…)` returns."""

    def __init__(self, app: App, given: dict[str, Any]) -> None:
        self._app = app
        self._given = given

    def __call__(self, target: type) -> Server:
        given = self._given
        raw, asked = take_apart(target)
        check_class("@app.server()", raw, is_serialized=given["serialized"])
        if asked:
            raise InvalidError(
                f"@squall.{next(iter(asked))}() on server {raw.__qualname__}: write target_concurrency= and "
                "max_concurrency= of @app.server() in its place"
            )
        user_class = UserClass(raw, is_server=True)
        name = user_class.name if given["name"] is None else given["name"]
        check_name(name, "server name", "" if given["name"] is not None else "; or give it one: @app.server(name=…)")
        options = ServerOptions(name, given)
        user_class.check_snapshot(is_enabled=options.is_snapshot_enabled)
        if given["include_source"] is not None:
            check_flag("include_source", given["include_source"], f"server {name}")
        source = _source.find_source(raw, given["serialized"])
        if source.is_main and source.kind != _source.SERIALIZED and _container.current() is None:
            from squall.sdk._serialization import ship_main_as  # cold start: scripts only

            ship_main_as(source.module_name)
        definition = Definition(raw, source, options, given["image"], given["include_source"], user_class)
        function: Function[..., Any] = Function._make(name, app=self._app, definition=definition, web=options.web)
        made = Server._make(function, user_class)
        self._app._add(function, of_server=made)
        return made
