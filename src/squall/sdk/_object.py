"""An object of a class: its methods are functions, everything else is that of an instance here."""

from __future__ import annotations

from collections.abc import Coroutine
from typing import TYPE_CHECKING, Any

from squall.exception import ExecutionError, InvalidError, NotFoundError
from squall.sdk import _source
from squall.sdk._facade import blocking
from squall.sdk._parameters import checked
from squall.sdk._pending import running_loop
from squall.sdk._user_class import OBJECT_ATTRIBUTE
from squall.sdk.function import Function

if TYPE_CHECKING:
    import asyncio

    from squall.protocol.parameters import Value
    from squall.sdk.cls import Cls


class NoMethod(NotFoundError, AttributeError):
    """An object of a class that was looked up has no such method: nor has it for `hasattr`."""


class Obj:
    """What calling a class gives. It can be pickled, and is a handle then."""

    def __init__(
        self, cls: Cls, parameters: str, values: dict[str, Value], *, instance: Any = None, function_id: str = ""
    ) -> None:
        """`instance` is there already where this is what a container serves, and so is its `function_id`."""
        self._squall_cls = cls
        self._squall_values = values
        self._squall_variant = cls._variant.with_parameters(parameters)
        self._squall_functions: dict[str, Function[..., Any]] = {}
        self._squall_function_id = function_id or None
        self._squall_instance = instance
        self._squall_is_entered = instance is not None
        self._squall_loop: asyncio.AbstractEventLoop | None = None

    if TYPE_CHECKING:

        def __getattr__(self, name: str) -> Any:
            """To type checkers an object is one of the user's class; where that is not here, it may have anything."""

    else:

        def __getattr__(self, name: str) -> object:
            if name.startswith(("__", "_squall_")):
                raise AttributeError(f"an object of a class has no attribute {name!r}")
            self._squall_check(name)
            found = self._squall_functions.get(name) or self._squall_method(name)
            return found if found is not None else getattr(self._squall_local(), name)

        def __setattr__(self, name: str, value: object) -> None:
            if name.startswith("_squall_"):
                object.__setattr__(self, name, value)
            else:
                setattr(self._squall_local(), name, value)

    @blocking
    @checked(".update_autoscaler")
    async def update_autoscaler(
        self,
        *,
        min_containers: int | None = None,
        max_containers: int | None = None,
        scaledown_window: int | None = None,
        buffer_containers: int | None = None,
    ) -> None:
        """Change what the containers of this object are scaled by; what is None stays as it is.

        Raises:
            InvalidError: a value is impossible, or contradicts one that stays.
        """
        cls = self._squall_cls
        pool = Function[..., Any]._make(
            cls._name,
            app=cls.service_function._app,
            function_id=self._squall_function_id,
            client=cls.service_function._client,
            variant=self._squall_variant,
        )
        await pool.autoscaler.update_given(min_containers, max_containers, buffer_containers, scaledown_window)

    def _squall_check(self, name: str) -> None:
        """Whether an object of a class that was looked up may have such a method, as far as is known here.

        Raises:
            NoMethod: it has not.
        """
        cls = self._squall_cls
        function = cls.service_function
        if cls.user_class is None and not function.may_have(name):
            what = f"class {cls._name} has no method {name!r}{function.methods_said()}"
            raise NoMethod(f"{what}; if one was deployed since, Cls.from_name(…).hydrate() finds it")

    def _squall_method(self, name: str) -> Function[..., Any] | None:
        """Its method of that name. A class that was looked up may have any."""
        cls = self._squall_cls
        user_class = cls.user_class
        spec = user_class.methods.get(name) if user_class is not None else None
        if spec is None and user_class is not None:
            return None
        made = Function[..., Any]._make(
            f"{cls._name}.{name}",
            app=cls.service_function._app,
            is_generator=spec.is_generator if spec is not None else None,
            function_id=self._squall_function_id,
            client=cls.service_function._client,
            variant=self._squall_variant,
            method=name,
            owner=self,
            web=spec.web if spec is not None else None,
        )
        if user_class is not None:
            made.__doc__ = user_class.raw_methods[name].__doc__
            made.__wrapped__ = user_class.raw_methods[name]
        self._squall_functions[name] = made
        return made

    # Here

    def _squall_local(self) -> Any:
        """The instance in this process; made when it is first needed."""
        if self._squall_instance is None:
            cls = self._squall_cls
            if cls.user_class is None:
                raise NotFoundError(
                    f"class {cls._name} was looked up: of its objects only methods are here, and they are called by "
                    ".remote(…) and its like"
                )
            _ = cls.raw_class  # raises what the image's imports held back
            instance = cls.user_class.make(self._squall_values)
            object.__setattr__(instance, OBJECT_ATTRIBUTE, self)
            self._squall_instance = instance
        return self._squall_instance

    def _squall_call(self, name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Run a method here; before the first, the enter hooks."""
        cls = self._squall_cls
        if cls.user_class is None:
            raise ExecutionError(f"method {cls._name}.{name} cannot be called locally: its code is not in this program")
        instance = self._squall_local()
        raw = cls.user_class.raw_methods[name]
        if self._squall_is_entered:
            return raw(instance, *args, **kwargs)
        if _source.is_async(raw):
            return self._squall_async(raw, args, kwargs)
        self._squall_enter()
        return raw(instance, *args, **kwargs)

    def _squall_async(self, raw: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """An async method, after the hooks in the same loop; the hooks are run once, by whoever comes first."""
        if _source.is_generator(raw):
            return self._squall_items(raw, args, kwargs)
        return self._squall_value(raw, args, kwargs)

    async def _squall_value(self, raw: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        await self._squall_enter_async()
        return await raw(self._squall_local(), *args, **kwargs)

    async def _squall_items(self, raw: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        await self._squall_enter_async()
        async for item in raw(self._squall_local(), *args, **kwargs):
            yield item

    def _squall_enter(self) -> None:
        user_class = self._squall_cls.user_class
        assert user_class is not None
        if any(_source.is_async(hook) for hook in user_class.enter_hooks):
            if running_loop() is not None:
                raise InvalidError(
                    f"class {self._squall_cls._name} has async enter hooks: call an async method of it first, or call "
                    "this one where no event loop runs"
                )
            import asyncio  # cold start: classes with async hooks only

            self._squall_loop = self._squall_loop or asyncio.new_event_loop()
            self._squall_loop.run_until_complete(self._squall_enter_async())
            return
        for hook in user_class.enter_hooks:
            hook(self._squall_local())
        self._squall_is_entered = True

    async def _squall_enter_async(self) -> None:
        user_class = self._squall_cls.user_class
        assert user_class is not None
        if self._squall_is_entered:
            return
        self._squall_is_entered = True
        try:
            for hook in user_class.enter_hooks:
                found = hook(self._squall_local())
                if isinstance(found, Coroutine):
                    await found
        except BaseException:
            self._squall_is_entered = False
            raise

    def __del__(self) -> None:
        loop = self.__dict__.get("_squall_loop")
        if loop is not None and not loop.is_running():
            loop.close()

    def __repr__(self) -> str:
        from squall.protocol.parameters import shown  # cold start: only where it is shown

        return f"<Obj {self._squall_cls._name}({shown(self._squall_values)})>"

    def __reduce__(self) -> tuple[Any, ...]:
        return _object_of, (self._squall_cls, self._squall_variant.parameters, self._squall_values)


def _object_of(cls: Cls, parameters: str, values: dict[str, Value]) -> Obj:
    return Obj(cls, parameters, values)
