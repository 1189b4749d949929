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
from squall.guest.loading import LoadFailed, describe_missing
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


class Method(NamedTuple):
    """A method as it is run."""

    function: Callable[..., Any]
    is_generator: bool
    is_async: bool


class EnterFailed(LoadFailed):
    """An enter hook has raised; `pickled` is what."""

    def __init__(self, failure: Failure, pickled: bytes) -> None:
        super().__init__(failure)
        self.pickled = pickled


class Instance:
    """The one instance of this container."""

    def __init__(self, boot: Boot, found: Any) -> None:
        """`found` is what the definition names, or was pickled.

        Raises:
            LoadFailed: it is no class, or has no such parameters.
        """
        self._boot = boot
        self._pid = os.getpid()
        cls = _class_of(boot, found)
        assert cls.user_class is not None
        self._user_class = cls.user_class
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

    def enter(self) -> None:
        """Run the enter hooks of a class without anything async.

        Raises:
            EnterFailed: one has raised.
        """
        for hook in self._user_class.enter_hooks:
            with self._failing():
                hook(self._made)
        self.is_entered = True

    async def enter_async(self) -> None:
        """The same on an event loop."""
        for hook in self._user_class.enter_hooks:
            with self._failing():
                found = hook(self._made)
                if hasattr(found, "__await__"):
                    await found
        self.is_entered = True

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

    def _take_exit_hooks(self) -> tuple[Callable[[Any], Any], ...]:
        # A child that user code forked is no container.
        if not self.is_entered or os.getpid() != self._pid:
            return ()
        self.is_entered = False
        return self._user_class.exit_hooks


def _class_of(boot: Boot, found: Any) -> Cls:
    if isinstance(found, Cls):
        _ = found.raw_class  # raises what `Image.imports` held back, if this container runs that image
        return found
    if boot.definition.kind == SERIALIZED and isinstance(found, type):
        function: Function[..., Any] = Function._make(boot.function_name, function_id=boot.function_id)
        return Cls._make(function, UserClass(found))
    message = f"cannot load class {boot.function_name}: {describe_missing(boot)} is no class with @app.cls()"
    raise LoadFailed(Failure("import", message, container_id=boot.container_id))


def _tell(error: BaseException) -> None:
    """Into the log: nobody waits for what an exit hook does."""
    from squall.guest.runner import print_failure  # cold start: only when something failed

    print_failure(error)
