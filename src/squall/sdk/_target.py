"""What a call is made of: a function under its id of the moment, and under another one if it was found by its name and
its app was stopped and deployed anew meanwhile.

A call that nobody can have begun is made again, once, under the new id. One that may have run is not: it fails, and the
next call finds the new one.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from squall.exception import NotFoundError

if TYPE_CHECKING:
    from squall.sdk._client import Client
    from squall.sdk.function import Function


class NoFunction(Exception):
    """The server has no such function, and began nothing of the call. `error` is what its caller is to see."""

    def __init__(self, error: BaseException) -> None:
        super().__init__(str(error))
        self.error = error


class Target:
    """One function as one call means it."""

    __slots__ = ("_function", "_is_last", "_sent_over", "client", "function_id")

    def __init__(
        self,
        function: Function[..., Any],
        client: Client,
        function_id: str,
        sent_over: int,
        *,
        is_last: bool = False,
    ) -> None:
        """`sent_over` is the `Client.sending_over` from before the call was sent."""
        self._function = function
        self._sent_over = sent_over
        self._is_last = is_last
        self.client = client
        self.function_id = function_id

    @property
    def name(self) -> str:
        """Of the function, for messages."""
        return self._function._name

    @property
    def may_have_another(self) -> bool:
        """Whether `again` may find another one."""
        return not self._is_last and self._function.is_named

    async def again(self, refused: BaseException, method: str) -> Target:
        """Another one to make the call with, where `refused` says that the server does not know this one.

        Raises:
            BaseException: `refused`, when there is no other.
            NotFoundError: there is nothing of that name now, or the call may have been begun.
        """
        function = self._function
        if self._is_last or not function.is_named:
            raise refused
        if self.client.connection_count > self._sent_over:
            how = "the connection broke meanwhile, and whether it had begun is not known; call it again"
            raise NotFoundError(f"{refused}; {how}")
        found = await function.target(method, instead_of=self.function_id)
        if found.function_id == self.function_id:
            raise refused
        return found
