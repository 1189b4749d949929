"""A function of an app: what its decorator makes of it, and the ways to call it."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterable, Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any, Generic, NamedTuple, NoReturn, ParamSpec, TypeVar, cast

from squall.exception import Error, ExecutionError, InvalidError, NotFoundError
from squall.sdk import _container
from squall.sdk._definition import Definition, Handle
from squall.sdk._deprecated import deprecated, without
from squall.sdk._facade import blocking, blocking_iterator
from squall.sdk._names import check_name
from squall.sdk._parameters import checked
from squall.sdk._remote_call import blocking_remote, invoke, remote_of
from squall.sdk._target import NoFunction, Target
from squall.sdk._value_text import value_text
from squall.sdk._with import With

if TYPE_CHECKING:
    from datetime import datetime

    from squall.protocol.function import FunctionOptions, FunctionSpec, MethodSpec
    from squall.protocol.guest import Boot
    from squall.protocol.web import WebSpec
    from squall.sdk._autoscaler import FunctionAutoscaler
    from squall.sdk._client import Client
    from squall.sdk._given import Given
    from squall.sdk._logs import Logs, Place
    from squall.sdk._lookup import Lookup
    from squall.sdk._object import Obj
    from squall.sdk._variant import Variant
    from squall.sdk.app import App
    from squall.sdk.function_call import FunctionCall
    from squall.sdk.types import FunctionInfo, FunctionStats

P = ParamSpec("P")
R = TypeVar("R")


class FunctionCurrentStats(NamedTuple):
    """How busy a function is now."""

    backlog: int
    num_total_runners: int
    num_running_inputs: int
    input_headroom: int
    """How many more the containers there are could begin now."""


class Function(With, Generic[P, R]):
    """One function of an app. It is not callable: say `.local(…)`, `.remote(…)` or `.map(…)`."""

    def __init__(self, *args: object, **kwargs: object) -> None:
        raise InvalidError("Function() cannot be made directly; use @app.function() or Function.from_name(…)")

    _name: str
    _app: App | None
    _held_by: list[App]
    """The app it was made for, and those that include it."""
    _definition: Definition | None
    _is_generator: bool | None
    """None until that is learnt of what it is a method or a variant of."""
    _function_id: str | None
    _handle: Handle | None
    _client: Client | None
    _variant: Variant | None
    """What it has of its own, if it is a variant of another one."""
    _method: str
    """Of an object: the method that it is."""
    _owner: Obj | None
    _methods: tuple[MethodSpec, ...] | None
    """Of a class that was looked up."""
    _web: WebSpec | None
    """What makes it answer requests, if anything does, as far as is known here."""
    _lookup: Lookup | None
    """Once it was asked for, of a handle."""
    _info: FunctionInfo | None
    """As it was asked for last."""

    @classmethod
    def _make(
        cls,
        name: str,
        *,
        app: App | None = None,
        definition: Definition | None = None,
        is_generator: bool | None = False,
        function_id: str | None = None,
        handle: Handle | None = None,
        client: Client | None = None,
        variant: Variant | None = None,
        method: str = "",
        owner: Obj | None = None,
        methods: tuple[MethodSpec, ...] | None = None,
        web: WebSpec | None = None,
    ) -> Function[P, R]:
        function = object.__new__(cls)
        function._name = name
        function._app = app
        function._held_by = [] if app is None else [app]
        function._definition = definition
        function._is_generator = is_generator
        function._function_id = function_id
        function._handle = handle
        function._client = client
        function._variant = variant
        function._method = method
        function._owner = owner
        function._methods = methods
        function._web = web
        function._lookup = None
        function._info = None
        if definition is not None:
            function.__doc__ = definition.raw_f.__doc__
            function.__wrapped__ = definition.raw_f
        return function

    __wrapped__: Callable[..., Any]

    # Handles

    @classmethod
    @checked("Function.from_name")
    def from_name(
        cls,
        app_name: str,
        name: str,
        *,
        version: int | None = None,
        environment_name: str | None = None,
        client: Client | None = None,
    ) -> Function[..., Any]:
        """A handle to a function of an app that runs or is deployed. Nothing is asked before its first use.

        It stays one of that name: when the app was stopped and another of its name runs, the next call finds that one.

        With `version` it runs as it was in that version of its app, whatever is deployed later, and so do the functions
        of its app that it calls.
        """
        from squall.sdk._environment import environment_of  # cold start: as below
        from squall.sdk._lookup import check_version  # cold start: as below

        number = check_version(version, "Function.from_name")
        environment = environment_of(environment_name)
        check_name(app_name, "app name")
        if not isinstance(name, str) or not name:
            raise InvalidError("Function.from_name: the function's name must be a string")
        handle = Handle(app=app_name, name=name, environment=environment, version=number)
        return Function[..., Any]._make(name, handle=handle, client=client)

    @classmethod
    def from_id(cls, function_id: str, *, client: Client | None = None) -> Function[..., Any]:
        """A handle to a function by its id. Nothing is asked before its first use."""
        if not isinstance(function_id, str) or not function_id.startswith("fu-") or not function_id[3:].isalnum():
            raise InvalidError(f"Function.from_id({value_text(function_id)}): ids of functions begin with 'fu-'")
        return Function[..., Any]._make(function_id, handle=Handle(function_id=function_id), client=client)

    @blocking
    async def hydrate(self, client: Client | None = None) -> Function[P, R]:
        """Look the handle up now; returns itself.

        Raises:
            NotFoundError: there is no such function, or its app was stopped.
        """
        if client is not None:
            self._client = client
        await self.resolve_anew()
        if self.is_named:
            await (self if self._variant is None else self._variant.base)._check_runs()
        return self

    # Calling

    @blocking_remote
    async def remote(self, /, *args: P.args, **kwargs: P.kwargs) -> R:
        """Run in a container and wait for the value.

        Raises:
            BaseException: what the function raised, with its remote frames.
            FunctionTimeoutError: it ran longer than its `timeout`.
            InvalidError: it is a generator; use `remote_gen`.
        """
        return cast("R", await remote_of(await self.target("remote"), args, kwargs, self._method))

    def local(self, /, *args: P.args, **kwargs: P.kwargs) -> R:
        """Call the function right here, in this process; an async one gives its coroutine.

        Raises:
            ExecutionError: only a handle by name or id is here, not the code.
        """
        if self._owner is not None:
            return cast("R", self._owner._squall_call(self._method, args, kwargs))
        if self._definition is None:
            raise ExecutionError(f"function {self._name} cannot be called locally: its code is not in this program")
        return cast("R", self._definition.raw_f(*args, **kwargs))

    @blocking_iterator
    async def remote_gen(self, /, *args: P.args, **kwargs: P.kwargs) -> AsyncGenerator[Any, None]:
        """Run a generator function and yield its items while it still runs."""
        target = await self.target("remote_gen")
        while True:
            call = await invoke().generator_call(
                target.client, target.function_id, args, kwargs, self._method, self._name
            )
            items = invoke().items_of(target.client, call)
            try:
                async for item in items:
                    yield item
                return
            except NoFunction as error:
                refused = error.error
            finally:
                await items.aclose()
            target = await target.again(refused, "remote_gen")

    @blocking_iterator
    @without("wrap_returned_exceptions", ".map")
    def map(
        self,
        *input_iterators: Iterable[Any] | AsyncIterable[Any],
        kwargs: dict[str, Any] | None = None,
        order_outputs: bool = True,
        return_exceptions: bool = False,
    ) -> AsyncGenerator[R, None]:
        """Run once per element of an iterable (several are zipped) and yield the values.

        Inputs are pulled as the map gets on, at most 1,000 ahead. The first failure is raised, unless
        `return_exceptions` puts exceptions in the place of values.
        """
        return self._mapped("map", input_iterators, False, kwargs, order_outputs, return_exceptions)

    @blocking_iterator
    @without("wrap_returned_exceptions", ".starmap")
    def starmap(
        self,
        input_iterator: Iterable[Sequence[Any]] | AsyncIterable[Sequence[Any]],
        *,
        kwargs: dict[str, Any] | None = None,
        order_outputs: bool = True,
        return_exceptions: bool = False,
    ) -> AsyncGenerator[R, None]:
        """As `map`, with one iterable of argument tuples."""
        return self._mapped("starmap", (input_iterator,), True, kwargs, order_outputs, return_exceptions)

    @blocking
    async def for_each(
        self,
        *input_iterators: Iterable[Any] | AsyncIterable[Any],
        kwargs: dict[str, Any] | None = None,
        ignore_exceptions: bool = False,
    ) -> None:
        """As `map`, for everything that has no result: waits until all is done."""
        async for _ in self._mapped("for_each", input_iterators, False, kwargs, False, ignore_exceptions):
            continue

    @blocking
    async def spawn(self, /, *args: P.args, **kwargs: P.kwargs) -> FunctionCall[R]:
        """Start a durable call and return at once; its result is kept for 7 days."""
        from squall.sdk import _spawn  # cold start: as above
        from squall.sdk.function_call import FunctionCall  # cold start: as above

        target = await self.target("spawn")
        while True:
            try:
                call_id = await _spawn.spawn(target, args, kwargs, self._method)
                return FunctionCall[R]._make(call_id, self._client)
            except NotFoundError as error:
                refused = error
            target = await target.again(refused, "spawn")

    @blocking
    async def spawn_map(
        self, *input_iterators: Iterable[Any] | AsyncIterable[Any], kwargs: dict[str, Any] | None = None
    ) -> None:
        """Start one durable call for the inputs of a map, pulled as the server takes them: with a million waiting, it
        waits. Returns when all are on disk; the results are not collected."""
        await self._spawn_map("spawn_map", input_iterators, kwargs)

    @blocking
    async def experimental_spawn_map(
        self, *input_iterators: Iterable[Any] | AsyncIterable[Any], kwargs: dict[str, Any] | None = None
    ) -> FunctionCall[R]:
        """As `spawn_map`, and returns the call: its results can be had by `get(index=…)` and `iter()`."""
        from squall.sdk.function_call import FunctionCall  # cold start: as above

        call_id = await self._spawn_map("experimental_spawn_map", input_iterators, kwargs)
        return FunctionCall[R]._make(call_id, self._client)

    async def _spawn_map(self, method: str, iterables: tuple[Any, ...], kwargs: dict[str, Any] | None) -> str:
        from squall.sdk import _feed, _spawn  # cold start: as above

        what = f"{self._name}.{method}()"
        given = _feed.keyword_arguments(what, kwargs)
        feed = _feed.Feed(what, iterables, is_star=False)
        return await _spawn.spawn_map(await self.target(method), method, feed, given, self._method)

    @blocking
    async def get_web_url(self) -> str | None:
        """Where it answers requests; None where it is no web function.

        Of a class by its id, that of its only web method. Where names of the server end in `localhost` the address has
        the label in its path: browsers resolve `x.localhost`, and the C library, which most programs ask, does not.

        Raises:
            InvalidError: it is of an object with parameters, and requests reach one with the defaults.
            NotFoundError: what its name stands for is not there.
        """
        from squall.sdk._web_address import url_of  # cold start: web functions only

        variant = self._variant
        if variant is not None and variant.parameters and self._method:
            plain = f"{self._name.partition('.')[0]}().{self._method}"
            raise InvalidError(f"{self._name} of an object with parameters: requests reach the one without, {plain}")
        named = self if variant is None else variant.base
        function_id = await named.resolve_anew()
        if self._method:
            named._check_method(self._method)
        return await url_of(self._get_client(), function_id, self._method)

    @blocking
    async def get_current_stats(self) -> FunctionCurrentStats:
        """How busy the function is now."""
        from squall.protocol.function import FunctionStats, FunctionStatsGet  # cold start: as above

        function_id = await self.resolve_anew()
        stats = await self._get_client().request("FunctionStats", FunctionStatsGet(function_id), FunctionStats)
        return FunctionCurrentStats(
            stats.queued_inputs, stats.container_count, stats.running_inputs, stats.input_headroom
        )

    @property
    def logs(self) -> Logs:
        """The lines that its containers printed."""
        from squall.sdk._logs import Logs  # cold start: only where somebody reads them

        return Logs(f"{self._name}.logs", self._log_place)

    async def _log_place(self) -> Place:
        from squall.protocol.function import FunctionGet, FunctionSpec  # cold start: as above
        from squall.protocol.log import LogRead  # cold start: as above
        from squall.sdk._logs import Place  # cold start: as above

        client, function_id = self._get_client(), await self.resolve_anew()
        spec = await client.request("FunctionGet", FunctionGet(function_id=function_id), FunctionSpec)
        return Place(client, LogRead(app=spec.app_id, function=spec.function_id))

    @blocking
    async def info(self, *, refresh: bool = False) -> FunctionInfo:
        """What the function runs with, as it was asked for first; `refresh` asks again."""
        from squall.sdk import _stats  # cold start: as above

        if self._info is None or refresh:
            self._info = await _stats.function_info(self._get_client(), await self.resolve_anew())
        return self._info

    @blocking
    async def stats(
        self,
        *,
        since: datetime | None = None,
        until: datetime | None = None,
        container: str | None = None,
        all_variants: bool = False,
    ) -> FunctionStats:
        """What it did between two times, at most 7 days apart; the last hour, if nothing is said.

        Of one `container` that is remembered, what it did in its whole life. A time without a zone is local.

        Raises:
            InvalidError: `since` is not before `until`, or more than 7 days are.
        """
        from squall.sdk import _stats  # cold start: as above

        begin, end = _stats.window(f"{self._name}.stats()", since, until)
        function_id = await self.resolve_anew()
        return await _stats.function_stats(self._get_client(), function_id, begin, end, container or "", all_variants)

    def __call__(self, /, *args: Any, **kwargs: Any) -> NoReturn:
        raise TypeError(
            f"function {self._name} is not callable: {self._name}.remote(…) runs it in a container, "
            f"{self._name}.local(…) right here"
        )

    # What it is

    @property
    def object_id(self) -> str:
        """The id of the function on the server.

        Raises:
            AttributeError: its app does not run, or the handle has not been looked up.
        """
        function_id = self._known_id()
        if function_id is None:
            raise AttributeError(f"function {self._name} has no id yet: {self._why_unbound()}")
        return function_id

    @property
    def name(self) -> str:
        """Its name in the app."""
        return self._name

    @property
    def app(self) -> App:
        """The app it was defined in.

        Raises:
            ExecutionError: it is a handle by name or id.
        """
        if self._app is None:
            raise ExecutionError(f"function {self._name} is a handle: it has no app in this program")
        return self._app

    @property
    def autoscaler(self) -> FunctionAutoscaler:
        """What its autoscaler goes by: `.autoscaler.settings()`, and `.autoscaler.update(…)` while it runs."""
        from squall.sdk._autoscaler import FunctionAutoscaler  # cold start: as above

        return FunctionAutoscaler(self, self._name)

    @blocking
    @deprecated(".update_autoscaler()", "write .autoscaler.update(…)")
    @checked(".update_autoscaler")
    async def update_autoscaler(
        self,
        *,
        min_containers: int | None = None,
        max_containers: int | None = None,
        scaledown_window: int | None = None,
        buffer_containers: int | None = None,
    ) -> None:
        """As `.autoscaler.update(…)`, but what is None stays as it is. Deprecated."""
        await self.autoscaler.update_given(min_containers, max_containers, buffer_containers, scaledown_window)

    @property
    def is_generator(self) -> bool:
        """Whether it is called by `remote_gen`."""
        return bool(self._is_generator)

    @property
    def is_web(self) -> bool:
        """Whether it answers requests, as far as is known here."""
        return self._web is not None

    @property
    def raw_f(self) -> Callable[..., Any]:
        """The function as it was before it was decorated.

        Raises:
            ExecutionError: it is a handle by name or id.
        """
        if self._definition is None:
            raise ExecutionError(f"function {self._name}: its code is not in this program")
        # In a container of this image, an import that must work may have failed: say so before anything is run.
        image = self._definition.image or (self._app.image if self._app is not None else None)
        if image is not None and _container.current() is not None:
            image.raise_import_error()
        return self._definition.raw_f

    @property
    def definition(self) -> Definition | None:
        """What the decorator was given; None for a handle."""
        return self._definition

    @property
    def bound_id(self) -> str | None:
        """What `bind` was told last."""
        return self._function_id

    def bind(self, function_id: str | None) -> None:
        """The app runs, and this is the function's id there; None when it has ended."""
        self._function_id = function_id

    if not TYPE_CHECKING:

        def __getattr__(self, name: str) -> object:
            from squall.sdk import _later  # cold start: only where there is no such name

            return _later.absent(self, _later.OF_FUNCTION, name)

    def __repr__(self) -> str:
        return f"<Function {self._name}>"

    def __reduce__(self) -> tuple[Any, ...]:
        function_id = self._known_id()
        variant = self._variant
        if variant is not None and function_id is not None and variant.base._handle is None:
            variant = None
        if function_id is None and self._handle is None and variant is None:
            raise InvalidError(f"function {self._name} cannot be pickled, as it has no id yet: {self._why_unbound()}")
        methods = self._methods
        if self._definition is not None and self._definition.user_class is not None:
            methods = tuple(self._definition.user_class.methods.values())
        given = (self._name, function_id, self._handle, self._is_generator, self._method, variant, methods, self._web)
        return _from_handle, given

    # Inside

    def _known_id(self) -> str | None:
        if self._function_id is not None:
            return self._function_id
        if self._variant is not None:
            return self._variant.known_id()
        state = _container.current()
        if state is not None and self._definition is not None:
            return self._id_in(state.boot)
        return None

    def _id_in(self, boot: Boot) -> str | None:
        """Its id in the app that this container serves, if it is a function of that app: a module may have several apps
        with functions of one name."""
        function_id = boot.functions.get(self._name)
        served = _container.find_served(boot) if function_id is not None else None
        served = getattr(served, "service_function", served)
        if not isinstance(served, Function) or served is self:
            return function_id
        is_ours = any(app.has_function(self) for app in served._held_by)
        return function_id if is_ours else None

    async def scaled(self) -> tuple[Client, str]:
        """Whom to ask about its containers, and its id there."""
        return self._get_client(), await self.resolve_anew()

    def held_by(self, app: App) -> None:
        """Another app includes it."""
        self._held_by.append(app)

    def _get_client(self) -> Client:
        if self._client is not None:
            return self._client
        return invoke().current()  # type: ignore[no-any-return]

    async def _resolve(self) -> str:
        if self._variant is not None:
            if self._is_generator is None:
                await self._learn()
            return self._function_id or await self._variant.resolve(self._get_client())
        known_id = self._known_id()
        if known_id is not None:
            return known_id
        if self._handle is None:
            raise ExecutionError(f"function {self._name} cannot be called: {self._why_unbound()}")
        return await self._look_up(self._handle)

    def _why_unbound(self) -> str:
        """Why it has no id, and what to do."""
        base = self if self._variant is None else self._variant.base
        if base._handle is not None or base._known_id() is not None:
            return "it has not been looked up; .hydrate() does that, and so does a call"
        app_id = base._app.app_id if base._app is not None else None
        if app_id is not None:
            return (
                f"it was defined after its app began to run, as {app_id}, or was deployed; define it before that, or "
                "run the app again"
            )
        return (
            "its app does not run; call it inside `with app.run():`, or from a local entrypoint started by `squall run`"
        )

    async def _look_up(self, handle: Handle, instead_of: str = "") -> str:
        """Ask what the handle stands for; other threads and tasks go by what is known until more is."""
        from squall.sdk._lookup import Lookup  # cold start: as above

        if self._lookup is None:
            self._lookup = Lookup(handle)
        await self._lookup.ask(self._get_client(), instead_of, self._learn_of)
        assert self._function_id is not None
        return self._function_id

    def _learn_of(self, spec: FunctionSpec) -> None:
        self._is_generator = spec.definition.is_generator
        self._methods = spec.definition.methods
        self._web = spec.web
        self._name = spec.name
        # In this order: who sees the id goes by the rest.
        self._function_id = spec.function_id

    async def _check_runs(self) -> None:
        """Raises NotFoundError where its name stands for a function of an app that was stopped."""
        if self._lookup is not None:
            await self._lookup.check_runs(self._get_client())

    async def _learn(self) -> None:
        """What is known of a method, or of what it is a variant of, once that was looked up."""
        assert self._variant is not None
        base = self._variant.base
        await base._resolve()
        if self._method and base._handle is not None and not base.may_have(self._method):
            await base.resolve_anew()  # a later version may have it
        if not self._method:
            self._web, self._is_generator = base._web, base.is_generator
            return
        found = base._check_method(self._method)
        self._web = found.web if found is not None else None
        self._is_generator = found is not None and found.is_generator

    def may_have(self, name: str) -> bool:
        """Whether the class that was looked up has such a method, as far as is known."""
        return self._methods is None or any(one.name == name for one in self._methods)

    def methods_said(self) -> str:
        """`; it has: …` with the methods of the class that was looked up, or nothing."""
        return f"; it has: {', '.join(one.name for one in self._methods)}" if self._methods else ""

    def _check_method(self, name: str) -> MethodSpec | None:
        """The method of a class that was looked up, as far as is known.

        Raises:
            NotFoundError: the class has no such method.
        """
        found = next((one for one in self._methods or () if one.name == name), None)
        if found is None and self._methods is not None:
            raise NotFoundError(f"class {self._name} has no method {name!r}{self.methods_said()}")
        return found

    def _with(self, options: FunctionOptions, given: Given | None = None) -> Function[P, R]:
        if self._method:
            class_name = self._name.partition(".")[0]
            raise InvalidError(
                f"method {self._name}: options are given to the class, as in {class_name}.with_options(…)()"
            )
        if self._web is not None:
            raise InvalidError(
                f"function {self._name} answers requests, all at one address: options are given where it is decorated"
            )
        from squall.sdk._variant import Variant  # cold start: as above

        variant = (self._variant or Variant(self)).with_options(options, given)
        if options.batching is not None and self._definition is not None:
            from squall.sdk._batched import check_parameters  # cold start: as above

            check_parameters(f"{self._name}.with_batching()", self._definition.raw_f)
        return Function[P, R]._make(
            self._name,
            app=self._app,
            definition=self._definition,
            is_generator=None if self._definition is None else self._is_generator,
            client=self._client,
            variant=variant,
        )

    @property
    def _is_batched(self) -> bool:
        return self._definition is not None and self._definition.options.batching is not None

    async def target(self, method: str, *, instead_of: str = "") -> Target:
        """What a call by that method is made of. `instead_of` an id that the server does not know, it is the last that
        is tried."""
        function_id = await self._resolve_for(method, instead_of)
        client = self._get_client()
        return Target(self, client, function_id, client.sending_over, is_last=bool(instead_of))

    @property
    def is_named(self) -> bool:
        """Whether its name may stand for another one some day."""
        named = self if self._variant is None else self._variant.base
        return named._handle is not None and bool(named._handle.name)

    async def resolve_anew(self, *, instead_of: str = "") -> str:
        """The id of what its name stands for now, where asking once more is worth it; of what has no name, its id.

        Nothing that is known is taken from others that use it meanwhile. `instead_of` an id that the server does not
        know, it is enough that they have found another one.

        Raises:
            NotFoundError: there is nothing of that name now.
        """
        named = self if self._variant is None else self._variant.base
        if not self.is_named or (instead_of and self._known_id() != instead_of):
            return await self._resolve()
        assert named._handle is not None
        unknown_id = named._known_id() or "" if instead_of else ""
        named_id = await named._look_up(named._handle, unknown_id)
        if named_id == unknown_id:
            await named._check_runs()
        if self._variant is None:
            return named_id
        if self._definition is None:
            await self._learn()
        function_id = await self._variant.resolve(self._get_client())
        self._function_id = None  # of one that was pickled, the id it had then
        return function_id

    async def _resolve_for(self, method: str, instead_of: str) -> str:
        """Its id, for a method of calling it: what it runs is of the kind that it can run."""
        await self._refuse_web(method)
        if method != "remote_gen":
            self._refuse_generator(method)
        function_id = await (self.resolve_anew(instead_of=instead_of) if instead_of else self._resolve())
        # Again: what a handle stands for is known only now.
        await self._refuse_web(method)
        if method != "remote_gen":
            self._refuse_generator(method)
        elif not self._is_generator:
            raise InvalidError(f"function {self._name} is no generator: call .remote()")
        return function_id

    async def _refuse_web(self, method: str) -> None:
        if self._web is None:
            return
        from squall.protocol.web import SERVER  # cold start: web functions only

        try:
            url = await self.get_web_url.aio()
        except Error:
            url = None  # why it cannot be told is not what is wrong
        where = f"send requests to {url}" if url is not None else "its app gives it an address, by `squall serve`"
        kind = "app.server" if self._web.kind == SERVER else f"squall.{self._web.kind}"
        what = f"function {self._name} answers requests (@{kind}())"
        raise InvalidError(f"{what}: .{method}() cannot run it; {where}")

    def _refuse_generator(self, method: str) -> None:
        if self._is_generator:
            raise InvalidError(f"function {self._name} is a generator: .{method}() cannot run it; use .remote_gen()")

    async def _mapped(
        self,
        method: str,
        iterables: tuple[Any, ...],
        is_star: bool,
        kwargs: dict[str, Any] | None,
        is_ordered: bool,
        has_exceptions: bool,
    ) -> AsyncGenerator[R, None]:
        from squall.sdk import _feed, _map, _output  # cold start: as above

        what = f"{self._name}.{method}()"
        given = _feed.keyword_arguments(what, kwargs)
        feed = _feed.Feed(what, iterables, is_star=is_star)
        target = await self.target(method)
        mapping = _map.Mapping(
            target,
            method,
            feed,
            given,
            _output.MapProgress(self._name),
            self._method,
        )
        values = _map.mapped(target.client, mapping, is_ordered=is_ordered, has_exceptions=has_exceptions)
        try:
            async for value in values:
                yield value
        finally:
            await values.aclose()


def _from_handle(
    name: str,
    function_id: str | None,
    handle: Handle | None,
    is_generator: bool | None,
    method: str = "",
    variant: Variant | None = None,
    methods: tuple[MethodSpec, ...] | None = None,
    web: WebSpec | None = None,
) -> Function[..., Any]:
    return Function[..., Any]._make(
        name,
        function_id=function_id,
        handle=handle,
        is_generator=is_generator,
        method=method,
        variant=variant,
        methods=methods,
        web=web,
    )
