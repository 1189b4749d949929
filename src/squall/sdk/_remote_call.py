"""`.remote` of a function: as short as it can be where a thread waits for one small value."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar, cast

from squall.sdk._facade import BlockingCall, blocking, warn_in_loop
from squall.sdk._pending import run, running_loop
from squall.sdk._target import NoFunction, Target

if TYPE_CHECKING:
    from squall.sdk.function import Function

P = ParamSpec("P")
R = TypeVar("R")
S = TypeVar("S")


class RemoteCall(BlockingCall[P, R]):
    """`.remote` of a function; its blocking form is short where nothing has to be looked up first."""

    __slots__ = ("_function",)

    def __init__(self, function: Function[P, R], core: Callable[P, Coroutine[Any, Any, R]], name: str) -> None:
        super().__init__(core, name)
        self._function = function

    def __call__(self, /, *args: P.args, **kwargs: P.kwargs) -> R:
        try:
            function = self._function
            function_id = function._function_id or function._known_id()
            is_plain = function._is_generator is False and function._web is None
            if function_id is None or not is_plain or running_loop() is not None:
                # Not by super(): one frame more, and the warning would show this line instead of the caller's.
                warn_in_loop(".remote()", "`await ….remote.aio(…)`")
                return run(self._core(*args, **kwargs))
            client = function._get_client()
            sent_over = client.sending_over
            try:
                return cast(
                    "R", invoke().remote_now(client, function_id, args, kwargs, function._method, function._name)
                )
            except NoFunction as error:
                refused = error.error
            target = run(Target(function, client, function_id, sent_over).again(refused, "remote"))
            return cast("R", run(remote_of(target, args, kwargs, function._method)))
        except BaseException as error:  # noqa: BLE001 - raised again
            from squall.sdk._traceback import for_user_code  # cold start: only when something failed

            raise for_user_code(error)  # noqa: B904 - it is that error


async def remote_of(target: Target, args: tuple[Any, ...], kwargs: dict[str, Any], method: str) -> Any:
    """Run one input and wait for its value, whatever id the function has by now."""
    while True:
        try:
            return await invoke().remote(target.client, target.function_id, args, kwargs, method, target.name)
        except NoFunction as error:
            refused = error.error
        target = await target.again(refused, "remote")


class blocking_remote(blocking[S, P, R]):  # noqa: N801 - a decorator
    """As `blocking`, for `Function.remote`."""

    if not TYPE_CHECKING:  # to the type checker it is the method it overrides

        def __get__(self, owner, kind):
            if owner is None:
                return self
            return RemoteCall(owner, self._core.__get__(owner, kind), self.__name__)


_invoke_module: Any = None


def invoke() -> Any:
    """The module that calls; looking it up at each call would cost as much as encoding the call."""
    global _invoke_module
    if _invoke_module is None:
        from squall.sdk import _invoke  # cold start: a container that calls nothing loads none of the client

        _invoke_module = _invoke
    return _invoke_module
