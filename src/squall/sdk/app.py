"""An app: functions and entrypoints under one name, started by `run`."""

from __future__ import annotations

import os
import sys
import warnings
from collections.abc import AsyncGenerator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar

from squall.exception import InvalidError
from squall.sdk import _container
from squall.sdk._entrypoint import EntrypointDecorator, LocalEntrypoint
from squall.sdk._facade import blocking, blocking_context, blocking_static
from squall.sdk._function_decorator import FunctionDecorator
from squall.sdk._names import check_name, check_tags, program_name
from squall.sdk._options import check_flag, secrets_in, volumes_in
from squall.sdk._parameters import checked
from squall.sdk._value_text import value_text
from squall.sdk.function import Function
from squall.sdk.image import Image
from squall.sdk.retries import Retries

if TYPE_CHECKING:
    from datetime import datetime
    from pathlib import PurePosixPath

    from typing_extensions import dataclass_transform

    from squall.protocol import app as wire
    from squall.sdk._class_decorator import ClassDecorator
    from squall.sdk._client import Client
    from squall.sdk._image_build import Builds
    from squall.sdk._logs import Logs, Place
    from squall.sdk._parameter import parameter
    from squall.sdk._server_decorator import ServerDecorator
    from squall.sdk._volume_mounts import Mounted
    from squall.sdk.cls import Cls
    from squall.sdk.schedule import Cron, Period
    from squall.sdk.secret import Secret
    from squall.sdk.server import Server
    from squall.sdk.types import AppInfo, AppStats

else:
    parameter = None

    def dataclass_transform(**kwargs):
        """For type checkers: a class below `@app.cls()` is made of its parameters, by name."""
        return lambda decorated: decorated


P = ParamSpec("P")
R = TypeVar("R")

Number = float | int
Pair = Number | tuple[Number, Number]


class App:
    """Functions, and entrypoints that call them, under one name. Local until it is run; a program may have several."""

    @checked("squall.App")
    def __init__(
        self,
        name: str | None = None,
        *,
        tags: dict[str, str] | None = None,
        image: Image | None = None,
        secrets: Sequence[object] = (),
        volumes: Mapping[str | PurePosixPath, object] | None = None,
        include_source: bool = True,
    ) -> None:
        """`image` and `include_source` are what functions have that name none of their own.

        Raises:
            InvalidError: a value of a wrong type, or of a later version.
        """
        self._name = None if name is None else check_name(name, "app name")
        self._description: str | None = self._name
        self._tags = check_tags({} if tags is None else tags)
        if image is not None and not isinstance(image, Image):
            raise InvalidError(f"App(image={value_text(image)}): it must be a squall.Image")
        check_flag("include_source", include_source, f"app {name or 'without a name'}")
        what = f"app {self._name or 'without a name'}"
        self._volumes = volumes_in({"volumes": volumes}, what)
        self._secrets = secrets_in({"secrets": secrets}, what) or ()
        self._image = image
        self._builds: Builds | None = None
        self._include_source = include_source
        self._functions: dict[str, Function[..., Any]] = {}
        self._classes: dict[str, Cls] = {}
        self._servers: dict[str, Server] = {}
        self._entrypoints: dict[str, LocalEntrypoint[..., Any]] = {}
        self._app_id: str | None = None
        self._info: AppInfo | None = None
        self._is_running = False

    @property
    def given_secrets(self) -> tuple[Secret, ...]:
        """What each of its functions has before its own."""
        return self._secrets

    @property
    def given_volumes(self) -> dict[str, Mounted]:
        """What is mounted in containers of each of its functions, unless they have something else there."""
        return self._volumes

    # Building it

    @checked("@app.function")
    def function(
        self,
        _wrong: object = None,
        *,
        image: Image | None = None,
        schedule: Cron | Period | None = None,
        env: dict[str, str | None] | None = None,
        secrets: Sequence[object] | None = None,
        gpu: object = None,
        serialized: bool = False,
        volumes: Mapping[str | PurePosixPath, object] | None = None,
        cpu: Pair | None = None,
        memory: Pair | None = None,
        ephemeral_disk: int | None = None,
        min_containers: int | None = None,
        max_containers: int | None = None,
        buffer_containers: int | None = None,
        scaledown_window: int | None = None,
        proxy: object = None,
        retries: int | Retries | None = None,
        timeout: float = 300,
        startup_timeout: float | None = None,
        name: str | None = None,
        is_generator: bool | None = None,
        cloud: str | None = None,
        region: str | Sequence[str] | None = None,
        routing_region: str | None = None,
        nonpreemptible: bool = False,
        enable_memory_snapshot: bool = False,
        block_network: bool = False,
        restrict_modal_access: bool = False,
        single_use_containers: bool = False,
        i6pn: bool | None = None,
        include_source: bool | None = None,
        experimental_options: dict[str, Any] | None = None,
        isolation: str = "namespaces",
    ) -> FunctionDecorator:
        """Make the function below a function of this app.

        `timeout` is how many seconds one attempt at an input may run. When they are over, `InputCancellation` is raised
        in its code (`asyncio.CancelledError` in async code); if it goes on for 2 s more, its container is ended.

        With `enable_memory_snapshot` its module is imported once on each node, and further containers begin as copies
        of what is loaded then; not only where its app is deployed. `isolation` is what keeps containers apart from the
        machine: `"namespaces"`, or `"gvisor"`, which puts a kernel of its own between.

        Raises (when the function is decorated):
            TypeError: it is a class.
            InvalidError: it is a method, or nested without `serialized=True`; or a parameter is impossible, or of a
                later version of Squall.
        """
        given = dict(locals())
        del given["self"]
        if given.pop("_wrong") is not None:
            raise InvalidError("write @app.function() with parentheses")
        if image is not None and not isinstance(image, Image):
            raise InvalidError(f"@app.function(image={value_text(image)}): it must be a squall.Image")
        return FunctionDecorator(self, given)

    @dataclass_transform(field_specifiers=(parameter,), kw_only_default=True)
    @checked("@app.cls")
    def cls(
        self,
        _wrong: object = None,
        *,
        image: Image | None = None,
        env: dict[str, str | None] | None = None,
        secrets: Sequence[object] | None = None,
        gpu: object = None,
        serialized: bool = False,
        volumes: Mapping[str | PurePosixPath, object] | None = None,
        cpu: Pair | None = None,
        memory: Pair | None = None,
        ephemeral_disk: int | None = None,
        min_containers: int | None = None,
        max_containers: int | None = None,
        buffer_containers: int | None = None,
        scaledown_window: int | None = None,
        proxy: object = None,
        retries: int | Retries | None = None,
        timeout: float = 300,
        startup_timeout: float | None = None,
        cloud: str | None = None,
        region: str | Sequence[str] | None = None,
        routing_region: str | None = None,
        nonpreemptible: bool = False,
        enable_memory_snapshot: bool = False,
        block_network: bool = False,
        restrict_modal_access: bool = False,
        single_use_containers: bool = False,
        i6pn: bool | None = None,
        include_source: bool | None = None,
        experimental_options: dict[str, Any] | None = None,
        isolation: str = "namespaces",
    ) -> ClassDecorator:
        """Make the class below one of this app: its methods with `@squall.method()` are called in containers.

        The parameters are those of `function`, for all methods. Each set of `squall.parameter()` values has containers
        of its own, and each container one instance, on which hooks with `@squall.enter()` and `@squall.exit()` are run.

        Raises (when the class is decorated):
            InvalidError: it has an `__init__`, or no method; it is nested without `serialized=True`; or a parameter is
                impossible, or of a later version of Squall.
        """
        given = dict(locals())
        del given["self"]
        if given.pop("_wrong") is not None:
            raise InvalidError("write @app.cls() with parentheses")
        if image is not None and not isinstance(image, Image):
            raise InvalidError(f"@app.cls(image={value_text(image)}): it must be a squall.Image")
        from squall.sdk._class_decorator import ClassDecorator  # cold start: programs with classes only

        return ClassDecorator(self, given)

    @checked("@app.server")
    def server(
        self,
        _wrong: object = None,
        *,
        image: Image | None = None,
        env: dict[str, str | None] | None = None,
        secrets: Sequence[object] | None = None,
        gpu: object = None,
        serialized: bool = False,
        volumes: Mapping[str | PurePosixPath, object] | None = None,
        cpu: Pair | None = None,
        memory: Pair | None = None,
        ephemeral_disk: int | None = None,
        target_concurrency: float | None = None,
        max_concurrency: int | None = None,
        min_containers: int | None = None,
        max_containers: int | None = None,
        buffer_containers: int | None = None,
        scaleup_window: float | None = None,
        scaledown_window: int | None = None,
        startup_timeout: float | None = 30,
        name: str | None = None,
        port: int = 8000,
        unauthenticated: bool = False,
        h2_enabled: bool = False,
        exit_grace_period: float = 0,
        routing_region: str | None = "us-east",
        compute_region: str | Sequence[str] | None = None,
        cloud: str | None = None,
        nonpreemptible: bool = False,
        proxy: object = None,
        i6pn: bool | None = None,
        enable_memory_snapshot: bool = False,
        include_source: bool | None = None,
        experimental_options: dict[str, Any] | None = None,
        isolation: str = "namespaces",
    ) -> ServerDecorator:
        """Make the class below a server of this app: what its `@squall.enter()` starts at `port` answers requests.

        Requests go straight there, without a time limit for each. Containers start as more are under way than
        `target_concurrency` for each there is, for as long as `scaleup_window` says; 0 is for a single container. One
        is given `max_concurrency` at a time, and what comes when there can be no other is answered by 429. A proxy
        token is required, unless it is `unauthenticated`.

        Parameters that `function` has as well are the same; `startup_timeout` includes the time until something
        listens.

        Raises (when the class is decorated):
            InvalidError: it has an `__init__`, a method, a parameter, or no `@squall.enter()`; it is nested without
                `serialized=True`; or a parameter is impossible, or of a later version of Squall.
        """
        given = dict(locals())
        del given["self"]
        if given.pop("_wrong") is not None:
            raise InvalidError("write @app.server() with parentheses")
        if image is not None and not isinstance(image, Image):
            raise InvalidError(f"@app.server(image={value_text(image)}): it must be a squall.Image")
        from squall.sdk._server_decorator import ServerDecorator  # cold start: programs with servers only

        return ServerDecorator(self, given)

    @checked("@app.local_entrypoint")
    def local_entrypoint(self, _wrong: object = None, *, name: str | None = None) -> EntrypointDecorator:
        """Make the function below one that `squall run` starts on the caller's machine.

        Raises (when the function is decorated):
            InvalidError: there is an entrypoint of that name already.
        """
        if _wrong is not None:
            raise InvalidError("write @app.local_entrypoint() with parentheses")
        return EntrypointDecorator(self, name)

    def include(self, other_app: App, inherit_tags: bool = True) -> App:
        """Take the other app's functions into this one, too; returns this app."""
        if not isinstance(other_app, App):
            raise InvalidError(f"{self!r}.include() takes an App, not {type(other_app).__name__}")
        for name, function in other_app._functions.items():
            if name in self._functions and self._functions[name] is not function:
                warnings.warn(f"{self!r}: function {name} is replaced by that of {other_app!r}", stacklevel=2)
            self._add_named(function, other_app._classes.get(name), other_app._servers.get(name))
            function.held_by(self)
        if inherit_tags:
            self._tags = {**other_app._tags, **self._tags}
        return self

    def _add_named(self, function: Function[..., Any], of_class: Cls | None, of_server: Server | None) -> None:
        self._functions[function.name] = function
        self._classes.pop(function.name, None)
        self._servers.pop(function.name, None)
        if of_class is not None:
            self._classes[function.name] = of_class
        if of_server is not None:
            self._servers[function.name] = of_server

    def _add(self, function: Function[..., Any], of_class: Cls | None = None, of_server: Server | None = None) -> None:
        # In a container it has been said already.
        earlier = self._functions.get(function.name)
        if earlier is not None and not _is_notebook() and _container.current() is None:
            places = f"({_place(earlier)} and {_place(function)})"
            warnings.warn(
                f"{self!r} has two functions named {function.name}: the later one counts; give one of them name=…"
                f" {places}",
                stacklevel=3,
            )
        self._add_named(function, of_class, of_server)

    def _add_entrypoint(self, entrypoint: LocalEntrypoint[P, R]) -> LocalEntrypoint[P, R]:
        if entrypoint.name in self._entrypoints:
            raise InvalidError(f"{self!r} has two local entrypoints named {entrypoint.name}")
        self._entrypoints[entrypoint.name] = entrypoint
        return entrypoint

    # What it is

    @property
    def name(self) -> str | None:
        """The name it was given, if any."""
        return self._name

    @property
    def description(self) -> str | None:
        """What lists call it: its name, or the program it was run from."""
        return self._description

    @description.setter
    def description(self, text: str) -> None:
        self._description = text

    @property
    def app_id(self) -> str | None:
        """The id of the run; None while it does not run. In its own containers it has that, once they are loaded."""
        return self._app_id or self._served_id()

    def _served_id(self) -> str | None:
        """The id of the app that this container serves, if it is this one: a module may have several."""
        state = _container.current()
        if state is None:
            return None
        served = _container.find_served(state.boot)
        if served is None:
            from squall.protocol.function import SERIALIZED  # cold start: only where somebody asks

            # What was pickled has no module; the app came with it as a name, of no functions.
            is_ours = bool(self._name) and self._name == state.boot.app_name
            return state.boot.app_id if is_ours and state.boot.definition.kind == SERIALIZED else None
        served = getattr(served, "service_function", served)
        return state.boot.app_id if isinstance(served, Function) and self.has_function(served) else None

    def running_builds(self, what: str) -> Builds:
        """What builds images for the run; `what` needs it.

        Raises:
            InvalidError: the app does not run.
        """
        if self._builds is None:
            raise InvalidError(f"{what}: {self!r} does not run; use it inside `with app.run():`, or leave app out")
        return self._builds

    @property
    def image(self) -> Image | None:
        """What functions run in that name no image of their own."""
        return self._image

    @property
    def include_source(self) -> bool:
        """Whether the code of functions is shipped that do not say."""
        return self._include_source

    @property
    def tags(self) -> dict[str, str]:
        """A copy of its tags."""
        return dict(self._tags)

    @property
    def registered_functions(self) -> dict[str, Function[..., Any]]:
        """Its functions by name."""
        others = self._classes.keys() | self._servers.keys()
        return {name: one for name, one in self._functions.items() if name not in others}

    @property
    def served_functions(self) -> dict[str, Function[..., Any]]:
        """Its functions, and for each class and server the one that serves it, by name."""
        return dict(self._functions)

    def has_function(self, function: Function[..., Any]) -> bool:
        """Whether it has this very function, its own or an included one."""
        return self._functions.get(function.name) is function

    @property
    def registered_entrypoints(self) -> dict[str, LocalEntrypoint[..., Any]]:
        """Its local entrypoints by name."""
        return dict(self._entrypoints)

    @property
    def registered_classes(self) -> dict[str, Cls]:
        """Its classes by name."""
        return dict(self._classes)

    @property
    def registered_web_endpoints(self) -> list[str]:
        """Names of its web functions; of methods, after that of the class and a dot."""
        names = [name for name, one in self.registered_functions.items() if one.is_web]
        for class_name, one in self._classes.items():
            names += [f"{class_name}.{method}" for method in (one.user_class.web_methods if one.user_class else ())]
        return names

    @property
    def registered_servers(self) -> dict[str, Server]:
        """Its servers by name."""
        return dict(self._servers)

    def __repr__(self) -> str:
        return f"App({self._name!r})" if self._name is not None else "App()"

    if not TYPE_CHECKING:

        def __getattr__(self, name: str) -> object:
            from squall.sdk import _later  # cold start: only where there is no such name

            return _later.absent(self, _later.OF_APP, name)

    def __reduce__(self) -> tuple[Any, ...]:
        # An app that a serialized function refers to is a name there: it is never built again, nor run.
        return App, (self._name,)

    # Running it

    @blocking_context
    @checked("app.run")
    async def run(
        self,
        *,
        name: str | None = None,
        client: Client | None = None,
        detach: bool = False,
        interactive: bool = False,
        environment_name: str | None = None,
    ) -> AsyncGenerator[App, None]:
        """While the block runs, the app does: its functions can be called, and end with the block.

        With `detach` it goes on when this program loses its connection or ends without leaving the block; and after the
        block until what was spawned is done. Other calls that are under way then are cancelled.
        In a function the app is a child of that function's app: it ends with its container, or that app, at the latest.

        Raises:
            InvalidError: it runs already; this is a container that imports its module, or one that asks for `detach`.
            ImageBuildError: an image cannot be built.
            ConnectionError: (of `squall.exception`) no server can be reached or started.
        """
        self._check_runnable(is_detached=detach)
        from squall.sdk import _client, _run  # cold start: a container that runs no app loads none of this
        from squall.sdk._environment import environment_of  # cold start: as above

        environment = environment_of(environment_name)
        running = _run.Running(self, client or _client.current())
        app_name = check_name(name, "app name") if name is not None else self._description or _program()
        self._app_id, self._builds = running.app_id, running.builds
        self._is_running = True
        is_aborted = True
        try:
            await running.start(app_name, environment, is_detached=detach, is_interactive=interactive)
            yield self
            is_aborted = False
        except (Exception, SystemExit):
            # An exception or exit of the program is not an abort of the app; Ctrl-C and its like are.
            is_aborted = False
            raise
        except BaseException as error:
            from squall.sdk._traceback import is_remote  # cold start: seldom

            # A KeyboardInterrupt that a function raised is no Ctrl-C.
            is_aborted = not is_remote(error)
            raise
        finally:
            try:
                await running.stop(is_aborted=is_aborted, is_detached=detach)
            finally:
                self._app_id = self._builds = None
                self._is_running = False
                for function in self._functions.values():
                    function.bind(None)

    def _check_runnable(self, *, is_detached: bool) -> None:
        state = _container.current()
        if state is not None and is_detached:
            raise InvalidError(
                f"{self!r}.run(detach=True) in a function: an app started there ends with its container; leave detach "
                "out, or start it from outside"
            )
        if state is not None and state.is_importing:
            raise InvalidError(
                f"{self!r}.run() at the top level of a module that a container imports: it would start apps without "
                "end; put it below `if __name__ == '__main__':` or into a local entrypoint"
            )
        if self._app_id is not None:
            what = f"{self!r} runs already" if self._is_running else f"{self!r} is deployed: call its functions"
            raise InvalidError(f"{what}, as {self._app_id}")

    # Deploying it

    @blocking
    @checked("app.deploy")
    async def deploy(
        self,
        *,
        name: str | None = None,
        environment_name: str | None = None,
        tag: str = "",
        client: Client | None = None,
        strategy: str = "rolling",
    ) -> App:
        """Make the app one that stays, or a new version of the one of that name; returns this app.

        When it returns, calls go to the new version. With `strategy="rolling"` containers of the version before finish
        what they run, with `"recreate"` they are ended, and what they ran begins again. From then on the functions of
        this app can be called here, and `app_id` is that of the deployed one.

        Raises:
            InvalidError: there is no name, or a parameter is none; the app runs; this is a container.
            ImageBuildError: an image cannot be built. What is deployed stays as it was.
            ConflictError: the app was stopped, or deployed for the first time by somebody else, meanwhile.
        """
        from squall.sdk import _deploy  # cold start: as above

        await _deploy.deploy(self, name=name, environment=environment_name, tag=tag, client=client, strategy=strategy)
        return self

    def check_deployable(self) -> None:
        """Whether it can be deployed from here and now.

        Raises:
            InvalidError: this is a container, or the app runs.
        """
        if _container.current() is not None:
            raise InvalidError(
                f"{self!r}.deploy() in a container: apps are deployed from outside; put it below "
                "`if __name__ == '__main__':` or into a local entrypoint"
            )
        if self._is_running:
            raise InvalidError(f"{self!r}.deploy(): it runs, as {self._app_id}; deploy it outside of `app.run()`")

    def deployed_as(self, app_id: str) -> None:
        """It is deployed, and this is its id."""
        self._app_id = app_id

    @blocking_static
    @checked("App.lookup")
    async def lookup(
        name: str,  # noqa: N805 - static
        *,
        client: Client | None = None,
        environment_name: str | None = None,
        create_if_missing: bool = False,
    ) -> App:
        """The deployed app of that name, or the app of that id; asked for now.

        With `create_if_missing` an app without functions is deployed where there is none of that name.

        Raises:
            NotFoundError: there is no such app.
            InvalidError: `create_if_missing` with an id, which is given to apps and not chosen; this is a container.
        """
        from squall.sdk import _client, _deploy  # cold start: as above

        found = client or _client.current()
        return App._found(await _deploy.look_up(found, name, environment_name, is_created=create_if_missing))

    @classmethod
    def _found(cls, info: wire.AppInfo) -> App:
        """A handle to an app that is there."""
        app = cls(tags=info.tags)
        app._name = app._description = info.name or None
        app._app_id = info.app_id
        return app

    @blocking
    async def set_tags(self, tags: Mapping[str, str], *, client: Client | None = None) -> None:
        """Replace the tags of the app, which runs or is deployed.

        Raises:
            InvalidError: the app does neither, or these are no tags.
        """
        from squall.protocol.app import AppInfo  # cold start: as above
        from squall.protocol.deployment import AppTagsPut  # cold start: as above
        from squall.sdk import _client  # cold start: as above

        record = AppTagsPut(self._live_id("set_tags"), check_tags(tags))
        info = await (client or _client.current()).request("AppTagsPut", record, AppInfo)
        self._tags = dict(info.tags)

    @blocking
    async def get_tags(self, *, client: Client | None = None) -> dict[str, str]:
        """The tags that the app has, which runs or is deployed.

        Raises:
            InvalidError: it does neither.
        """
        from squall.protocol.app import AppGet, AppInfo  # cold start: as above
        from squall.sdk import _client  # cold start: as above

        record = AppGet(self._live_id("get_tags"), has_functions=False)
        info = await (client or _client.current()).request("AppGet", record, AppInfo)
        return dict(info.tags)

    def _live_id(self, method: str) -> str:
        app_id = self.app_id
        if app_id is None:
            raise InvalidError(f"{self!r}.{method}(): it neither runs nor is deployed by this program")
        return app_id

    @property
    def logs(self) -> Logs:
        """The lines that its containers printed."""
        from squall.sdk._logs import Logs  # cold start: only where somebody reads them

        return Logs(f"{self!r}.logs", self._log_place)

    async def _log_place(self) -> Place:
        from squall.protocol.log import LogRead  # cold start: as above
        from squall.sdk import _client  # cold start: as above
        from squall.sdk._logs import Place  # cold start: as above

        return Place(_client.current(), LogRead(app=self._known_id("logs")))

    @blocking
    async def info(self, refresh: bool = False) -> AppInfo:
        """How the app is, as it was asked for first; `refresh` asks again.

        Raises:
            InvalidError: it does not run, and was not looked up.
        """
        from squall.sdk import _client, _stats  # cold start: as above

        app_id = self._known_id("info")
        if self._info is None or self._info.app_id != app_id or refresh:
            self._info = await _stats.app_info(_client.current(), app_id)
        return self._info

    @blocking
    async def stats(self, *, since: datetime | None = None, until: datetime | None = None) -> AppStats:
        """What its functions did between two times, at most 7 days apart; the last hour, if nothing is said.

        Raises:
            InvalidError: it does not run; `since` is not before `until`, or more than 7 days are.
        """
        from squall.sdk import _client, _stats  # cold start: as above

        begin, end = _stats.window(f"{self!r}.stats()", since, until)
        return await _stats.app_stats(_client.current(), self._known_id("stats"), begin, end)

    def _known_id(self, method: str) -> str:
        app_id = self.app_id
        if app_id is None:
            raise InvalidError(f"{self!r}.{method}(): the app has no id yet: run it, deploy it or look it up first")
        return app_id

    @blocking
    async def stop(self, *, client: Client | None = None) -> None:
        """Stop the app, which runs or is deployed: its inputs are cancelled and its containers ended, for good.

        Raises:
            InvalidError: it neither runs nor is deployed by this program.
        """
        app_id = self.app_id
        if app_id is None:
            raise InvalidError(f"{self!r} does not run, so it cannot be stopped")
        from squall.protocol.app import AppStop, AppStopped  # cold start: as above
        from squall.sdk import _client  # cold start: as above

        record = AppStop(app_id, "stopped by its program")
        await (client or _client.current()).request("AppStop", record, AppStopped)


def _program() -> str:
    """What an app without a name is listed as: the script it is run from, or the function."""
    state = _container.current()
    if state is not None:
        return state.boot.function_name
    return program_name(sys.argv[0] if sys.argv else "")


def _place(function: Function[..., Any]) -> str:
    """Where it was written."""
    raw_f: Any = function.raw_f
    if isinstance(raw_f, type):
        return f"{raw_f.__module__}.{raw_f.__qualname__}"
    while hasattr(raw_f, "__wrapped__"):
        raw_f = raw_f.__wrapped__
    return f"{os.path.basename(raw_f.__code__.co_filename)}:{raw_f.__code__.co_firstlineno}"


def _is_notebook() -> bool:
    return "ipykernel" in sys.modules or hasattr(sys, "ps1")
