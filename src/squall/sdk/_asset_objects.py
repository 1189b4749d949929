"""`.objects` of kinds of assets: makes, lists and deletes those that have a name."""

from __future__ import annotations

from typing import TYPE_CHECKING, Generic, TypeVar

from squall.exception import NotFoundError
from squall.protocol.asset import AssetDelete, AssetInfo, AssetList, AssetListing
from squall.protocol.empty import Empty
from squall.sdk._asset import LIST_MAX, Asset, check_listing, check_name, client_of, creation
from squall.sdk._environment import environment_of
from squall.sdk._facade import blocking

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

    from squall.sdk._client import Client

A = TypeVar("A", bound=Asset)


class AssetObjects(Generic[A]):
    """All of one kind, which is the class that it is an attribute of."""

    _kind: type[A]

    def __set_name__(self, kind: type[A], name: str) -> None:
        self._kind = kind

    @blocking
    async def list(
        self,
        *,
        max_objects: int | None = None,
        created_before: datetime | str | None = None,
        environment_name: str = "",
        client: Client | None = None,
    ) -> list[A]:
        """Those there are, newest first.

        Raises:
            InvalidError: `max_objects` is no count, or `created_before` no time.
        """
        what = f"{self._kind.__name__}.objects.list"
        limit, before_at = check_listing(max_objects, created_before, what, LIST_MAX)
        return list(await self._listed(environment_of(environment_name or None), limit, before_at, client))

    @blocking
    async def delete(
        self,
        name: str,
        *,
        allow_missing: bool = False,
        environment_name: str | None = None,
        client: Client | None = None,
    ) -> None:
        """Delete one with all that is in it, for good. Containers that run keep what they were given at their start.

        Raises:
            NotFoundError: there is none of that name, and `allow_missing` is not given.
        """
        checked = check_name(name, f"{self._kind.__name__}.objects.delete")
        try:
            record = AssetDelete(self._kind._kind, checked, environment_of(environment_name))
            await client_of(client).request("AssetDelete", record, Empty)
        except NotFoundError:
            if not allow_missing:
                raise

    async def _create(
        self, name: str, environment_name: str | None, client: Client | None, *, allow_existing: bool
    ) -> None:
        checked = check_name(name, f"{self._kind.__name__}.objects.create")
        record = creation(self._kind._kind, checked, environment_of(environment_name), may_exist=allow_existing)
        await client_of(client).request("AssetCreate", record, AssetInfo)

    async def _listed(
        self, environment: str, limit: int, before_at: float | None, client: Client | None
    ) -> Sequence[A]:
        from squall.sdk._pages import ask_pages  # cold start: lists are seldom asked for in containers

        asked = AssetList(self._kind._kind, environment, limit, before_at)
        pages = await ask_pages(client_of(client), "AssetList", asked, AssetListing)
        return [self._kind._of_info(info, client) for page in pages for info in page.assets]


class EmptyObjects(AssetObjects[A]):
    """Those of a kind that begins empty."""

    @blocking
    async def create(
        self,
        name: str,
        *,
        allow_existing: bool = False,
        environment_name: str | None = None,
        client: Client | None = None,
    ) -> None:
        """Make one.

        Raises:
            AlreadyExistsError: there is one of that name, and `allow_existing` is not given.
            InvalidError: none can be called that.
        """
        await self._create(name, environment_name, client, allow_existing=allow_existing)
