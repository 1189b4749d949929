"""The instance of a class that a container serves: made without a constructor, entered, and left.

Enter hooks are run before the first input, exit hooks after the last one, whatever ends the container, if the enter
hooks have run to their end. Those of a class with anything async in it are run on the event loop of its methods.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable
from typing import Any, NamedTuple

from squall.exception import InputCancellation
from squall.guest.inbox import Stopping
from squall.guest.loading import EnterFailed, LoadFailed, describe_missing
from squall.protocol.call import Failure, decode_failure
from squall.protocol.function import SERIALIZED
from squall.protocol.guest import Boot
from squall.protocol.parameters import ParametersInvalid, check, decode
from squall.sdk import _container
from squall.sdk._object import Obj
from squall.sdk._serialization import encode_exception
from squall.sdk._user_class import OBJECT_ATTRIBUTE, UserClass
from squall.sdk.cls import Cls
from squall.sdk.function import Function

PICKLED_BYTES_MAX = 256 * 1024
"""Of an exception of a hook; each call that waits gets it."""


Hook = Callable[[Any], Any]


class Method(NamedTuple):
    """A method as it is run."""

    function: Callable[..., Any]
    is_generator: bool
    is_async: bool


class Instance:
    """The one instance of this container."""

    def __init__(self, boot: Boot, found: Any) -> None:
        """`found` is what the definition names, or was pickled.

        Raises:
            LoadFailed: it is no class, or has no such parameters.
        """
        self._is_async = boot.definition.is_async
        self._pid = os.getpid()
        cls = _class_of(boot, found)
        assert cls.user_class is not None
        self._user_class = cls.user_class
        self._snap_hooks: tuple[Hook, ...] = cls.user_class.snap_hooks
        self._late_hooks: tuple[Hook, ...] = cls.user_class.enter_hooks[len(self._snap_hooks) :]
        try:
            values = decode(boot.parameters)
            check(cls.user_class.name, cls.user_class.givable, values)
        except ParametersInvalid as error:
            raise LoadFailed(Failure("invalid", str(error), container_id=boot.container_id)) from error
        made = cls.user_class.make(values)
        self._object = Obj(cls, boot.parameters, values, instance=made, function_id=boot.function_id)
        with contextlib.suppress(AttributeError):  # a class with slots has no room for it: its methods are its own
            object.__setattr__(made, OBJECT_ATTRIBUTE, self._object)
        self._made = made
        self.is_entered = False
        self.methods = {
            name: Method(self._user_class.raw_methods[name].__get__(made), spec.is_generator, spec.is_async)
            for name, spec in self._user_class.methods.items()
        }

    # Before the first input

    @property
    def has_late_hooks(self) -> bool:
        """Whether hooks are to be run that a snapshot does not keep."""
        return bool(self._late_hooks)

    def enter_before_snapshot(self) -> None:
        """Run the hooks with `snap=True`: of a class with anything async on an event loop that ends with them, as none
        can be forked. The same whether the container is forked afterwards or goes on by itself.

        Raises:
            EnterFailed: one has raised.
        """
        hooks = self._snap_hooks
        if hooks and self._is_async:
            from squall.guest.async_runner import run_on_loop  # cold start: async classes only

            run_on_loop(self._enter_async(hooks))
        else:
            self._enter(hooks)

    def taken_over(self) -> None:
        """We are a fork that goes on as a container of its own."""
        self._pid = os.getpid()

    def enter(self) -> None:
        """Run the other enter hooks, of a class without anything async.

        Raises:
            EnterFailed: one has raised.
        """
        self._enter(self._late_hooks)
        self.is_entered = True

    async def enter_async(self) -> None:
        """The same on an event loop."""
        await self._enter_async(self._late_hooks)
        self.is_entered = True

    def _enter(self, hooks: tuple[Hook, ...]) -> None:
        for hook in hooks:
            with self._failing():
                hook(self._made)

    async def _enter_async(self, hooks: tuple[Hook, ...]) -> None:
        for hook in hooks:
            with self._failing():
                found = hook(self._made)
                if hasattr(found, "__await__"):
                    await found

    @contextlib.contextmanager
    def _failing(self) -> Any:
        try:
            yield
        except (Stopping, InputCancellation, GeneratorExit):
            raise
        except BaseException as error:
            value = encode_exception(error, _container.container_id())
            failure, pickled = decode_failure(value)
            raise EnterFailed(failure, pickled if len(pickled) <= PICKLED_BYTES_MAX else b"") from error

    # After the last input

    def leave(self) -> None:
        """Run the exit hooks, each whatever the others do; once."""
        for hook in self._take_exit_hooks():
            try:
                hook(self._made)
            except BaseException as error:  # noqa: BLE001 - the container ends anyway, and the others are to run
                _tell(error)

    async def leave_async(self) -> None:
        """The same on an event loop."""
        for hook in self._take_exit_hooks():
            try:
                found = hook(self._made)
                if hasattr(found, "__await__"):
                    await found
            except BaseException as error:  # noqa: BLE001 - as above
                _tell(error)

    def _take_exit_hooks(self) -> tuple[Hook, ...]:
        # A child that user code forked is no container.
        if not self.is_entered or os.getpid() != self._pid:
            return ()
        self.is_entered = False
        return self._user_class.exit_hooks


def _class_of(boot: Boot, found: Any) -> Cls:
    if boot.web is not None:
        from squall.sdk.server import Server  # cold start: servers only

        found = found.service_class if isinstance(found, Server) else found
    if isinstance(found, Cls):
        _ = found.raw_class  # raises what `Image.imports` held back, if this container runs that image
        return found
    is_server = boot.web is not None
    if boot.definition.kind == SERIALIZED and isinstance(found, type):
        function: Function[..., Any] = Function._make(boot.function_name, function_id=boot.function_id)
        return Cls._make(function, UserClass(found, is_server=is_server))
    decorator = "@app.server()" if is_server else "@app.cls()"
    message = f"cannot load class {boot.function_name}: {describe_missing(boot)} is no class with {decorator}"
    raise LoadFailed(Failure("import", message, container_id=boot.container_id))


def _tell(error: BaseException) -> None:
    """Into the log: nobody waits for what an exit hook does."""
    from squall.guest.runner import print_failure  # cold start: only when something failed

    print_failure(error)
