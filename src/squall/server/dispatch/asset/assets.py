"""Assets: which there are, who may use them, and how long ephemeral ones live."""

from __future__ import annotations

import logging
import re
from typing import TYPE_CHECKING

from squall.protocol.asset import (
    ASSET_KINDS,
    SECRET,
    AssetCreate,
    AssetDelete,
    AssetGet,
    AssetInfo,
    AssetList,
    AssetListing,
    AssetRename,
)
from squall.protocol.empty import Empty
from squall.protocol.errors import CONFLICT, EXHAUSTED, EXISTS, FORBIDDEN, INVALID, NOT_FOUND, PlatformError
from squall.protocol.ids import is_id
from squall.protocol.names import NAME, NAME_RULE
from squall.protocol.pages import PAGE_RECORDS_MAX, first_page
from squall.protocol.task_set import TaskSet
from squall.server.dispatch.app.environments import shown
from squall.server.dispatch.app.near import NAMES_MAX, near
from squall.server.model.asset import StoredAsset

if TYPE_CHECKING:
    from collections.abc import Callable

    from squall.protocol.codec import Codec
    from squall.server.dispatch.app.apps import Apps
    from squall.server.dispatch.app.environments import Environments
    from squall.server.dispatch.client.callers import Caller
    from squall.server.dispatch.client.client import Client
    from squall.server.model.clock import Clock, Timer
    from squall.server.model.config import ServerConfig
    from squall.server.model.store import Store

KNOWN_MAX = 10_000
"""Assets that are in memory beside the store."""
EPHEMERAL_MAX = 1_000
"""Of one client."""
CREATED_BY_CHARS_MAX = 200
PURGED_AT_ONCE = 1_000
"""Rows of what was in an asset that is deleted, in one transaction."""

_log = logging.getLogger("squall.server.dispatch.asset.assets")


class Assets:
    """All of them; the store has them, the last used ones are here too."""

    def __init__(
        self,
        *,
        apps: Apps,
        environments: Environments,
        store: Store,
        codec: Codec,
        clock: Clock,
        config: ServerConfig,
        tasks: TaskSet,
    ) -> None:
        self._apps = apps
        self._environments = environments
        self._store = store.assets
        self._codec = codec
        self._clock = clock
        self._config = config
        self._tasks = tasks
        self._known: dict[str, StoredAsset] = {}
        self._owned: dict[str, set[str]] = {}
        """Of each owner the ids of its ephemeral ones."""
        self._timers: dict[str, Timer] = {}
        """Of owners that are away."""
        self._is_purging = False
        self.on_deleted: list[Callable[[str], None]] = []
        """Told the id of each that is gone."""
        self.is_mounted: Callable[[Caller, str], bool] = lambda caller, asset_id: False
        """Whether the caller is code in a container that has this volume mounted."""

    async def load(self) -> None:
        """Wait for the owners of ephemeral ones, and go on with what is left to purge."""
        for asset in await self._store.owned():
            self._owned.setdefault(asset.owner, set()).add(asset.asset_id)
        for owner in self._owned:
            self._away(owner, self._config.restart_grace_s)
        self.purge_soon()

    # Using one

    async def used(self, caller: Caller, method: str, kind: str, asset_id: str) -> StoredAsset:
        """One that there is, and that the caller may use.

        Raises:
            PlatformError: `not_found`; `forbidden` in a container whose app is of another environment.
        """
        asset = self._known.get(asset_id) or await self._look_up(asset_id)
        if asset is None or asset.kind != kind:
            raise PlatformError(
                NOT_FOUND, f"{method}: there is no {kind} {asset_id[:80]}; it was deleted, or never was"
            )
        self._check_use(caller, method, asset.environment)
        return asset

    async def is_there(self, asset_id: str) -> bool:
        """Whether there is this one."""
        return asset_id in self._known or await self._look_up(asset_id) is not None

    async def _look_up(self, asset_id: str) -> StoredAsset | None:
        asset = await self._store.get(asset_id)
        if asset is not None:
            self._keep(asset)
        return asset

    def _keep(self, asset: StoredAsset) -> None:
        self._known[asset.asset_id] = asset
        while len(self._known) > KNOWN_MAX:
            del self._known[next(iter(self._known))]

    def _check_use(self, caller: Caller, method: str, environment: str) -> None:
        """Code in a container uses what is in the environment of its app, and no other."""
        if not caller.scope_app_id:
            return
        app = self._apps.live.get(caller.scope_app_id)
        if app is None or app.row.environment != environment:
            message = f"a container uses what is in the environment of its app, and this is in {shown(environment)}"
            raise PlatformError(FORBIDDEN, f"{method}: {message}")

    async def find(self, caller: Caller, method: str, kind: str, text: str, environment: str) -> StoredAsset:
        """One by its id or name.

        Raises:
            PlatformError: as `used`.
        """
        if is_id(text, _id_kind(method, kind)):
            return await self.used(caller, method, kind, text)
        self._check_use(caller, method, environment)
        asset = await self._store.find(kind, environment, text)
        if asset is None:
            hint = near(text, await self._store.names(kind, environment, NAMES_MAX))
            where = f"environment {shown(environment)}"
            hint = hint or f"; `squall {kind} list` shows those there are, `squall {kind} create` makes one"
            raise PlatformError(NOT_FOUND, f"{method}: there is no {kind} {text[:80]!r} in {where}{hint}")
        self._keep(asset)
        return asset

    # Methods

    async def create(self, caller: Caller, record: AssetCreate) -> AssetInfo:
        """See `AssetCreate`."""
        if record.kind == SECRET:
            raise PlatformError(INVALID, "AssetCreate: a secret is made with what is in it")
        return self.info(await self.make(caller, "AssetCreate", record))

    async def make(self, caller: Caller, method: str, record: AssetCreate) -> StoredAsset:
        """Make one of any kind; what is in it is somebody else's to put there.

        Raises:
            PlatformError: `invalid`, `exists`, `forbidden`; `exhausted` when the client has too many.
        """
        if not is_id(record.asset_id, _id_kind(method, record.kind)):
            raise PlatformError(INVALID, f"{method}: {record.asset_id[:80]!r} is no id of a {record.kind}")
        if record.name:
            check_name(method, record.kind, record.name)
        if len(record.created_by) > CREATED_BY_CHARS_MAX:
            raise PlatformError(INVALID, f"{method}: who makes it is said in {CREATED_BY_CHARS_MAX} characters at most")
        self._check_use(caller, method, record.environment)
        owner = "" if record.name else self._owner_of(caller, method)
        with self._environments.entering(method, record.environment):
            made = StoredAsset(
                record.asset_id,
                record.kind,
                record.name,
                record.environment,
                self._clock.now(),
                record.created_by,
                owner,
            )
            if owner:
                self._owned.setdefault(owner, set()).add(record.asset_id)
            kept = await self._store.put(made)
        is_same = kept.asset_id == record.asset_id
        if kept.kind != record.kind or (kept.environment, kept.name, kept.owner) != (
            record.environment, record.name, owner
        ):  # fmt: skip
            if kept.owner != owner:
                # Somebody else's is not to go with this client.
                self._disown(owner, record.asset_id)
            raise PlatformError(CONFLICT, f"{method}: {record.asset_id} is another {kept.kind}")
        if not is_same and not record.may_exist:
            where = f"environment {shown(record.environment)}"
            raise PlatformError(EXISTS, f"{method}: there is a {record.kind} {record.name!r} in {where} already")
        self._keep(kept)
        return kept

    async def get(self, caller: Caller, record: AssetGet) -> AssetInfo:
        """See `AssetGet`."""
        try:
            found = await self.find(caller, "AssetGet", record.kind, record.asset, record.environment)
        except PlatformError as error:
            mounted = await self._mounted(caller, record) if error.code == FORBIDDEN else None
            if mounted is None:
                raise
            found = mounted
        return self.info(found)

    async def _mounted(self, caller: Caller, record: AssetGet) -> StoredAsset | None:
        """One of another environment that somebody outside has had mounted where the caller is."""
        if is_id(record.asset, ASSET_KINDS[record.kind]):
            asset = await self._store.get(record.asset)
        else:
            asset = await self._store.find(record.kind, record.environment, record.asset)
        return asset if asset is not None and self.is_mounted(caller, asset.asset_id) else None

    async def list_some(self, caller: Caller, record: AssetList) -> AssetListing:
        """See `AssetList`."""
        before = None if record.before_at is None else (record.before_at, record.before_id)
        found = await self.list_of(caller, "AssetList", record.kind, record.environment, record.limit, before)
        return AssetListing(*first_page(self._codec, [self.info(one) for one in found]))

    async def list_of(
        self, caller: Caller, method: str, kind: str, environment: str, limit: int, before: tuple[float, str] | None
    ) -> tuple[StoredAsset, ...]:
        """Those of a kind that have a name, newest first, as many as a page may have and one more.

        Raises:
            PlatformError: `forbidden`.
        """
        _id_kind(method, kind)
        _check_change(caller, method, kind)
        self._check_use(caller, method, environment)
        return await self._store.list(kind, environment, max(0, min(limit, PAGE_RECORDS_MAX + 1)), before)

    async def rename(self, caller: Caller, record: AssetRename) -> AssetInfo:
        """See `AssetRename`."""
        _check_change(caller, "AssetRename", record.kind)
        asset = await self.find(caller, "AssetRename", record.kind, record.name, record.environment)
        if not asset.name:
            raise PlatformError(INVALID, f"AssetRename: {asset.asset_id} is ephemeral and has no name")
        check_name("AssetRename", record.kind, record.new_name)
        renamed = await self._store.rename(asset.asset_id, record.new_name)
        self._keep(renamed)
        return self.info(renamed)

    async def delete(self, caller: Caller, record: AssetDelete) -> Empty:
        """See `AssetDelete`."""
        _check_change(caller, "AssetDelete", record.kind)
        asset = await self.find(caller, "AssetDelete", record.kind, record.asset, record.environment)
        await self._delete(frozenset([asset.asset_id]))
        return Empty()

    async def delete_in(self, environment: str) -> int:
        """Delete all in an environment; how many had a name."""
        count = await self._store.delete_in(environment)
        self._forget({one.asset_id for one in self._known.values() if one.environment == environment})
        self.purge_soon()
        return count

    async def _delete(self, asset_ids: frozenset[str]) -> None:
        await self._store.delete(asset_ids)
        self._forget(asset_ids)
        self.purge_soon()

    def _forget(self, asset_ids: set[str] | frozenset[str]) -> None:
        for asset_id in asset_ids:
            self._known.pop(asset_id, None)
            for told in self.on_deleted:
                told(asset_id)
        for owner in list(self._owned):
            self._owned[owner] -= asset_ids
            if not self._owned[owner]:
                del self._owned[owner]

    def _disown(self, owner: str, asset_id: str) -> None:
        owned = self._owned.get(owner, set())
        owned.discard(asset_id)
        if not owned:
            self._owned.pop(owner, None)

    def info(self, asset: StoredAsset) -> AssetInfo:
        """As it is shown."""
        return AssetInfo(
            asset.asset_id, asset.kind, asset.name, shown(asset.environment), asset.created_at, asset.created_by
        )

    # What is in those that are deleted, or was in those that were cleared

    def purge_soon(self) -> None:
        """Something is left to purge."""
        if not self._is_purging:
            self._is_purging = True
            self._tasks.start(self._purge())

    async def _purge(self) -> None:
        try:
            # Other writes come in between: each takes its place in the queue of the store.
            has_more = True
            while has_more:
                has_more = await self._store.purge(PURGED_AT_ONCE)
        except PlatformError as error:
            _log.warning("what was in assets that are deleted or cleared is left for now: %s", error)
        finally:
            self._is_purging = False

    # Ephemeral ones

    def _owner_of(self, caller: Caller, method: str) -> str:
        if caller.client is None:
            message = "an asset without a name is held by a connection, and this is none; give it a name"
            raise PlatformError(INVALID, f"{method}: {message}")
        owner = _owner(caller.client)
        if len(self._owned.get(owner, ())) >= EPHEMERAL_MAX:
            message = f"this client has {EPHEMERAL_MAX} ephemeral assets already; leave the blocks that hold some"
            raise PlatformError(EXHAUSTED, f"{method}: {message}")
        return owner

    def taken_up_by(self, client: Client) -> None:
        """The client is there, for the first time or again."""
        timer = self._timers.pop(_owner(client), None)
        if timer is not None:
            timer.cancel()

    def released_by(self, client: Client) -> None:
        """The client's connection is gone."""
        if _owner(client) in self._owned:
            self._away(_owner(client), self._config.app_grace_s)

    def abandoned_by(self, client: Client) -> None:
        """The process that the client was is gone for good."""
        if _owner(client) in self._owned:
            self._away(_owner(client), 0.0)

    def _away(self, owner: str, grace_s: float) -> None:
        timer = self._timers.pop(owner, None)
        if timer is not None:
            timer.cancel()

        def overdue() -> None:
            self._tasks.start(self._expire(owner))

        self._timers[owner] = self._clock.call_later(grace_s, overdue)

    async def _expire(self, owner: str) -> None:
        self._timers.pop(owner, None)
        try:
            # By the store's word for whose they are: what is only asked for may be somebody else's.
            self._forget(await self._store.delete_of(owner))
            self._owned.pop(owner, None)
            self.purge_soon()
        except PlatformError as error:
            _log.warning("ephemeral assets of %s are left for now: %s", owner, error)
            self._away(owner, self._config.restart_grace_s)


def _check_change(caller: Caller, method: str, kind: str) -> None:
    if kind == SECRET:
        caller.forbid_secrets(method)


def check_name(method: str, kind: str, name: str) -> None:
    """Raises PlatformError `invalid` for what no asset can be called."""
    if not re.match(NAME, name):
        raise PlatformError(INVALID, f"{method}: {name[:80]!r} is no name of a {kind}: use {NAME_RULE}")
    if is_id(name, ASSET_KINDS[kind]):
        raise PlatformError(
            INVALID, f"{method}: {name!r} would be taken for the id of a {kind}; call it something else"
        )


def _id_kind(method: str, kind: str) -> str:
    found = ASSET_KINDS.get(kind)
    if found is None:
        raise PlatformError(INVALID, f"{method}: {kind[:40]!r} is no kind of asset: {', '.join(ASSET_KINDS)}")
    return found


def _owner(client: Client) -> str:
    return f"{client.scope_app_id}/{client.client_id}"
