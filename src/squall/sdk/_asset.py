"""What handles of assets have in common: dicts, queues, secrets and volumes."""

from __future__ import annotations

import re
from collections import deque
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar

from squall import exception
from squall.exception import InvalidError, NotFoundError
from squall.protocol.asset import ASSET_KINDS, AssetCreate, AssetDelete, AssetGet, AssetInfo
from squall.protocol.empty import Empty
from squall.protocol.ids import is_id, new_id
from squall.protocol.names import NAME, NAME_RULE
from squall.sdk._environment import environment_of
from squall.sdk._facade import blocking_itself
from squall.sdk._value_text import value_text

if TYPE_CHECKING:
    from datetime import datetime

    from typing_extensions import Self

    from squall.sdk._client import Client

A = TypeVar("A", bound="Asset")

LIST_MAX = 1_000_000
DONE_MAX = 1_000


class Asset:
    """A handle to an asset. Nothing is asked before its first use, or `.hydrate()`.

    It can be pickled, and is a handle to the same asset wherever it comes.
    """

    _kind: ClassVar[str]
    _later: ClassVar[frozenset[str]] = frozenset(["client", "get_dashboard_url"])

    _name: str
    _environment: str
    _asset_id: str
    _is_created: bool
    _client: Client | None
    _info: AssetInfo | None
    _done: deque[str]
    """Requests that took something out and whose answers have come: the server need not remember them, and is told with
    the next one."""

    def __init__(self, *args: object, **kwargs: object) -> None:
        kind = type(self).__name__
        raise InvalidError(f"{kind}() cannot be made directly; use {kind}.from_name(…)")

    @classmethod
    def _make(
        cls,
        name: str = "",
        environment: str = "",
        *,
        asset_id: str = "",
        is_created: bool = False,
        client: Client | None = None,
        info: AssetInfo | None = None,
    ) -> Self:
        asset = object.__new__(cls)
        asset._name = name
        asset._environment = environment
        asset._asset_id = asset_id
        asset._is_created = is_created
        asset._client = client
        asset._info = info
        asset._done = deque(maxlen=DONE_MAX)
        return asset

    @classmethod
    def _named(
        cls, name: str, environment_name: str | None, client: Client | None, *, is_created: bool = False
    ) -> Self:
        what = f"{cls.__name__}.from_name"
        return cls._make(check_name(name, what), environment_of(environment_name), is_created=is_created, client=client)

    @classmethod
    def _of_id(cls, asset_id: str, client: Client | None) -> Self:
        if not isinstance(asset_id, str) or not is_id(asset_id, ASSET_KINDS[cls._kind]):
            raise InvalidError(f"{cls.__name__}.from_id({value_text(asset_id)}): that is no id of a {cls._kind}")
        return cls._make(asset_id=asset_id, client=client)

    @classmethod
    def _of_info(cls, info: AssetInfo, client: Client | None) -> Self:
        return cls._make(info.name, info.environment, asset_id=info.asset_id, client=client, info=info)

    # Finding it

    @blocking_itself
    async def hydrate(self, client: Client | None = None) -> object:
        """Find out what it stands for, making it where `create_if_missing` was given; returns itself.

        Raises:
            NotFoundError: there is none of that name or id.
            InvalidError: of a secret: it lacks a variable that it must have, or has no name.
        """
        await self._look_up(client)
        return self

    async def _look_up(self, client: Client | None) -> None:
        if client is not None:
            self._client = client
        await self._ask()

    async def _resolved(self) -> str:
        """Its id; the server is asked once."""
        if not self._asset_id:
            await self._ask()
        return self._asset_id

    async def _ask(self) -> AssetInfo:
        client = client_of(self._client)
        if self._is_created and not self._asset_id:
            info = await client.request("AssetCreate", creation(self._kind, self._name, self._environment), AssetInfo)
        else:
            asked = AssetGet(self._kind, self._asset_id or self._name, self._environment)
            info = await client.request("AssetGet", asked, AssetInfo)
        self._info, self._asset_id, self._name = info, info.asset_id, info.name
        return info

    async def _known(self) -> AssetInfo:
        return self._info if self._info is not None else await self._ask()

    def _take_done(self) -> tuple[str, ...]:
        # Other threads do the same.
        taken = []
        while self._done:
            try:
                taken.append(self._done.popleft())
            except IndexError:
                break
        return tuple(taken)

    @property
    def name(self) -> str | None:
        """Its name; None while only its id is known, and of an ephemeral one."""
        return self._name or None

    @property
    def object_id(self) -> str:
        """Its id.

        Raises:
            AttributeError: it has not been looked up.
        """
        if not self._asset_id:
            raise AttributeError(f"{self!r} has no id yet: it has not been looked up; .hydrate() does that")
        return self._asset_id

    if not TYPE_CHECKING:

        def __getattr__(self, name: str) -> object:
            from squall.sdk import _later  # cold start: only where there is no such name

            return _later.absent(self, self._later, name)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self._name or self._asset_id}>"

    def __reduce__(self) -> tuple[Any, ...]:
        return _handle, (type(self), self._name, self._environment, self._asset_id, self._is_created)


def _handle(kind: type[A], name: str, environment: str, asset_id: str, is_created: bool) -> A:
    return kind._make(name, environment, asset_id=asset_id, is_created=is_created)


@asynccontextmanager
async def held(kind: type[A], environment_name: str | None, client: Client | None) -> AsyncGenerator[A, None]:
    """While the block runs, there is an ephemeral asset; other processes can use it, by its handle."""
    known = client_of(client)
    await known.connect()
    record = creation(kind._kind, "", environment_of(environment_name))
    known.hold(record.asset_id)
    try:
        info = await known.request("AssetCreate", record, AssetInfo)
        yield kind._of_info(info, client)
    finally:
        known.let_go(record.asset_id)
        # Somebody may have deleted it, or it could not be made; and without a server it goes as that of a client that
        # is gone. Either is no reason to hide what the block has raised.
        with suppress(NotFoundError, exception.ConnectionError):
            await known.request("AssetDelete", AssetDelete(kind._kind, record.asset_id), Empty)


# What others say of them


def check_listing(
    max_objects: int | None, created_before: datetime | str | None, what: str, most: int
) -> tuple[int, float | None]:
    """How many are asked for, and since when.

    Raises:
        InvalidError: `max_objects` is no count, or `created_before` no time.
    """
    if max_objects is not None and (not isinstance(max_objects, int) or max_objects < 0):
        raise InvalidError(f"{what}: max_objects={value_text(max_objects)} must be a number from 0 up, or None")
    limit = most if max_objects is None else max_objects
    return limit, None if created_before is None else _seconds(created_before, what)


def _seconds(given: datetime | str, what: str) -> float:
    """A time as seconds since 1970; one that names no zone is this machine's."""
    from datetime import datetime  # cold start: as above

    try:
        at = datetime.fromisoformat(given) if isinstance(given, str) else given
        return at.timestamp()
    except (ValueError, AttributeError, OverflowError):
        raise InvalidError(f"{what}: created_before={value_text(given)} is neither a datetime nor ISO 8601") from None


def time_of(seconds: float) -> datetime:
    """A time of the server's as programs get it."""
    from datetime import datetime, timezone  # cold start: as above

    return datetime.fromtimestamp(seconds, timezone.utc)


def creation(kind: str, name: str, environment: str, *, may_exist: bool = True) -> AssetCreate:
    """The record that makes an asset."""
    from squall.sdk._user import user_name  # cold start: only where something is made

    return AssetCreate(new_id(ASSET_KINDS[kind]), kind, name, environment, user_name(), may_exist)


def check_name(name: object, what: str) -> str:
    """The name, if an asset can have it.

    Raises:
        InvalidError: it cannot.
    """
    if not isinstance(name, str) or not re.match(NAME, name):
        # What is no string may be values of a secret.
        shown = value_text(name) if isinstance(name, str) else f"a {type(name).__name__}"
        raise InvalidError(f"{what}: {shown} is no name: use {NAME_RULE}")
    return name


def client_of(given: Client | None) -> Client:
    """The given one, or that of this program."""
    from squall.sdk import _client  # cold start: handles are often only passed on

    return given or _client.current()
