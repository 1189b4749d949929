"""A durable call: its results can be had later, and from another process."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Generic, TypeVar, cast

from squall.exception import InvalidError
from squall.sdk._facade import blocking, blocking_iterator, blocking_static
from squall.sdk._value_text import value_text

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from squall.sdk._client import Client
    from squall.sdk._logs import CallLogs, Place
    from squall.sdk.types import InputInfo

T = TypeVar("T")


class FunctionCall(Generic[T]):
    """What `.spawn(…)` returns. Keep its `object_id` to find it again by `FunctionCall.from_id`."""

    def __init__(self, *args: object, **kwargs: object) -> None:
        raise InvalidError("FunctionCall() cannot be made directly; use .spawn(…) or FunctionCall.from_id(…)")

    _call_id: str
    _client: Client | None

    @classmethod
    def _make(cls, call_id: str, client: Client | None) -> FunctionCall[T]:
        call = object.__new__(cls)
        call._call_id = call_id
        call._client = client
        return call

    @staticmethod
    def from_id(function_call_id: str, client: Client | None = None) -> FunctionCall[Any]:
        """A handle to a call by its id. Nothing is asked before its first use."""
        is_id = isinstance(function_call_id, str) and function_call_id.startswith("fc-")
        if not is_id or not function_call_id[3:].isalnum():
            raise InvalidError(f"FunctionCall.from_id({value_text(function_call_id)}): ids of calls begin with 'fc-'")
        return FunctionCall[Any]._make(function_call_id, client)

    @property
    def object_id(self) -> str:
        """The id of the call."""
        return self._call_id

    @blocking
    async def get(self, timeout: float | None = None, *, index: int = 0) -> T:
        """Wait for the result of one input; may be repeated.

        Raises:
            BaseException: what the function raised.
            TimeoutError: (the builtin and that of `squall.exception`) not there within `timeout` seconds; 0 looks only.
            NotFoundError: there never was such a call.
            OutputExpiredError: its result is not kept any more, 7 days after the call has ended.
            InvalidError: the call has no input of that index; `timeout` is no time.
        """
        from squall.sdk import _durable  # cold start: loaded when used

        _check_get(timeout, index)
        return cast("T", await _durable.get(self._get_client(), self._call_id, index, timeout))

    @blocking
    async def cancel(self, terminate_containers: bool = False) -> None:
        """Cancel the call's inputs, without retries; `terminate_containers` also ends the containers they run in.

        Code that runs gets `InputCancellation` (`asyncio.CancelledError` in async code); if it goes on for 2 s more,
        its container is ended.
        """
        from squall.sdk import _durable  # cold start: as above

        await _durable.cancel(self._get_client(), self._call_id, terminate_containers)

    @blocking
    async def hydrate(self, client: Client | None = None) -> FunctionCall[T]:
        """Look the call up now; returns itself.

        Raises:
            NotFoundError: there never was such a call.
            OutputExpiredError: it is not kept any more.
        """
        from squall.sdk import _durable  # cold start: as above

        if client is not None:
            self._client = client
        await _durable.info(self._get_client(), self._call_id)
        return self

    @property
    def logs(self) -> CallLogs:
        """The lines that its inputs printed."""
        from squall.sdk._logs import CallLogs  # cold start: only where somebody reads them

        return CallLogs("FunctionCall.logs", self._log_place)

    async def _log_place(self) -> Place:
        from squall.protocol.function import FunctionGet, FunctionSpec  # cold start: as above
        from squall.protocol.log import LogRead  # cold start: as above
        from squall.sdk import _durable  # cold start: as above
        from squall.sdk._logs import Place  # cold start: as above

        client = self._get_client()
        info = await _durable.info(client, self._call_id)
        spec = await client.request("FunctionGet", FunctionGet(function_id=info.function_id), FunctionSpec)
        wanted = LogRead(app=spec.app_id, function=spec.function_id)
        return Place(client, wanted, f"in-{self._call_id[3:]}:", info.created_at - 1.0)

    @blocking
    async def get_call_graph(self) -> list[InputInfo]:
        """Its inputs, each with the inputs that it called below it: as much as the server remembers, at most 1,000."""
        from squall.sdk import _stats  # cold start: as above

        return await _stats.call_graph(self._get_client(), self._call_id)

    @blocking
    async def num_inputs(self) -> int:
        """How many inputs it has."""
        from squall.sdk import _durable  # cold start: as above

        return (await _durable.info(self._get_client(), self._call_id)).input_count

    @blocking_iterator
    def iter(self, *, start: int = 0, end: int | None = None) -> AsyncGenerator[T, None]:
        """Results of inputs `start` up to `end`, in order, as they come; what the function raised is raised.

        Without `end`, up to the last input there is when the iteration begins: `spawn_map` may still be adding some.

        Raises:
            ValueError: the call has no such inputs.
        """
        return self._results(start, end)

    async def _results(self, start: int, end: int | None) -> AsyncGenerator[T, None]:
        from squall.sdk import _durable  # cold start: as above

        results = _durable.results(self._get_client(), self._call_id, start, end)
        try:
            async for result in results:
                yield result
        finally:
            await results.aclose()

    @blocking_static
    async def gather(*function_calls: FunctionCall[Any]) -> list[Any]:
        """Wait for several calls; their results in the order given. The first failure is raised, and the other calls
        go on.

        Raises:
            InvalidError: one is no call.
        """
        from squall.sdk import _durable  # cold start: as above

        _check_gather(function_calls)
        return await _durable.gather([(call._get_client(), call._call_id) for call in function_calls])

    def _get_client(self) -> Client:
        if self._client is not None:
            return self._client
        from squall.sdk import _client  # cold start: as above

        return _client.current()

    if not TYPE_CHECKING:

        def __getattr__(self, name: str) -> object:
            from squall.sdk import _later  # cold start: only where there is no such name

            return _later.absent(self, _later.OF_FUNCTION_CALL, name)

    def __repr__(self) -> str:
        return f"<FunctionCall {self._call_id}>"

    def __reduce__(self) -> tuple[Any, ...]:
        return FunctionCall.from_id, (self._call_id,)


def _check_get(timeout: object, index: object) -> None:
    is_time = isinstance(timeout, (int, float)) and not isinstance(timeout, bool) and timeout >= 0
    if timeout is not None and not is_time:
        what = f"timeout={value_text(timeout)} must be a number of seconds from 0 on"
        raise InvalidError(f"FunctionCall.get(): {what}, or None to wait for as long as it takes")
    if isinstance(index, bool) or not isinstance(index, int) or index < 0:
        raise InvalidError(f"FunctionCall.get(): index={value_text(index)} must be an integer from 0 on")


def _check_gather(calls: tuple[object, ...]) -> None:
    for one in calls:
        if not isinstance(one, FunctionCall):
            hint = "; write FunctionCall.gather(*calls)" if isinstance(one, (list, tuple)) else ""
            raise InvalidError(f"FunctionCall.gather() takes what .spawn(…) returns, not {value_text(one)}{hint}")
