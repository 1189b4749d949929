"""Functions and classes by name: the server is asked, and says what they are."""

from __future__ import annotations

from collections.abc import Callable
from itertools import count
from typing import Any

from squall.exception import Error, InvalidError, NotFoundError
from squall.protocol.app import STOPPED, STOPPING, AppGet, AppInfo
from squall.protocol.function import FunctionBind, FunctionBound, FunctionGet, FunctionSpec
from squall.protocol.records import replace
from squall.protocol.web import SERVER
from squall.sdk._client import Client
from squall.sdk._definition import Handle
from squall.sdk._pending import Pending
from squall.sdk._value_text import value_text

VERSION_MAX = 2**31 - 1
LOOK_S = 10.0
"""So long an answer to somebody else's question is waited for."""


class _Question:
    """One that was asked for a handle. Those asked later have higher numbers."""

    def __init__(self, client: Client, handle: Handle, number: int) -> None:
        self._client = client
        self._handle = handle
        self.number = number
        self.answer: Pending[Any] = Pending(client.connection)
        """As it came."""

    def ask(self) -> None:
        """Ask it; the answer comes by itself."""
        handle = self._handle
        record = FunctionGet(handle.function_id, handle.app, handle.name, handle.environment, handle.version)
        asked = self._client.ask("FunctionGet", record)

        def answered() -> None:
            if asked.error is not None:
                self.answer.fail(asked.error)
            else:
                self.answer.set(asked.result()[0])

        asked.add_callback(answered)


class Lookup:
    """What one handle stands for, asked for by all threads and tasks that use it. Without locks: see `_turn.py`."""

    def __init__(self, handle: Handle) -> None:
        self._handle = handle
        self._numbers = count(1)
        self._newest = 0
        self._shared: dict[str, _Question] = {}
        self._app_id = ""
        """Of what was found last."""

    async def ask(self, client: Client, instead_of: str, learn: Callable[[FunctionSpec], None]) -> None:
        """Ask what the handle stands for now.

        Args:
            learn: is given that, unless what a later question was answered has been learnt already.
            instead_of: an id that the server does not know any more, or empty. All that look for something instead of
                one id share a question: it was asked when that id was gone. Other questions are not shared, as one
                that is under way may have been answered before what the caller knows of.

        Raises:
            NotFoundError: there is no such thing, or a class where a function is meant, or the other way round.
        """
        question = _Question(client, self._handle, next(self._numbers))
        if instead_of:
            question = await self._share(question, instead_of)
        else:
            question.ask()
        spec = await _answered(client, self._handle, question.answer)
        if question.number >= self._newest:
            self._app_id = spec.app_id
            learn(spec)
            # Only now: who leaves an answer be, goes by what was learnt from a later one.
            self._newest = question.number

    async def check_runs(self, client: Client) -> None:
        """Say so where what was found last can be read about, but not called any more.

        Raises:
            NotFoundError: its app was stopped, and none has its name since.
        """
        info = await client.request("AppGet", AppGet(self._app_id, has_functions=False), AppInfo)
        if info.state in (STOPPING, STOPPED):
            handle = self._handle
            kind = "server" if handle.is_server else "class" if handle.is_class else "function"
            what = f"{kind} {handle.name!r}"
            raise NotFoundError(
                f"no app runs as {handle.app!r}: {info.app_id} of that name is {info.state}, and {what} with it; "
                "deploy it again"
            )

    async def _share(self, mine: _Question, instead_of: str) -> _Question:
        """A question that was answered: that of whoever was first, or else mine."""
        question = self._shared.setdefault(instead_of, mine)
        if question is mine:
            try:
                mine.ask()
                await mine.answer.within(None)
            finally:
                self._shared.pop(instead_of, None)
        elif not await question.answer.within(LOOK_S):
            question = mine  # whoever was first may have been interrupted before it was asked
            mine.ask()
        return question


async def _answered(client: Client, handle: Handle, answer: Pending[Any]) -> FunctionSpec:
    try:
        spec = client.codec.record(FunctionSpec, await answer)
    except NotFoundError as error:
        class_name, _, method = handle.name.partition(".")
        if not method or handle.is_class:
            raise NotFoundError(*error.args) from None  # others may get it, too, and put their frames into it
        how = f"Cls.from_name({handle.app!r}, {class_name!r})().{method}"
        raise NotFoundError(f"{error}; methods are found by their class: {how}") from None
    except Error as error:
        raise type(error)(*error.args) from None  # as above
    is_server = spec.web is not None and spec.web.kind == SERVER
    if handle.is_server and not is_server and not handle.name:
        raise NotFoundError(f"{handle.function_id} is no server, but {spec.name}: use Function.from_id(…)")
    if handle.name and (spec.definition.is_class, is_server) != (handle.is_class, handle.is_server):
        is_what, kind = ("a class", "Cls") if spec.definition.is_class else ("a function", "Function")
        is_what, kind = ("a server", "Server") if is_server else (is_what, kind)
        how = f"{kind}.from_name({handle.app!r}, {handle.name!r})"
        raise NotFoundError(f"{handle.name} of app {handle.app!r} is {is_what}: use {how}")
    if handle.version:
        held = FunctionBind(spec.function_id, version=handle.version, app_id=spec.app_id)
        bound = await client.request("FunctionBind", held, FunctionBound)
        spec = replace(spec, function_id=bound.function_id)
    return spec


def check_version(version: object, what: str) -> int:
    """The version to be held to, 0 for none.

    Raises:
        InvalidError: it is no number of one.
    """
    if version is None:
        return 0
    if not isinstance(version, int) or isinstance(version, bool) or not 1 <= version <= VERSION_MAX:
        raise InvalidError(
            f"{what}: version={value_text(version)} must be the number of a version, as in `squall app history`"
        )
    return version
