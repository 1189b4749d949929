"""Environments: which there are, which one a request means, and what goes with one that is deleted.

The default is kept under the empty name wherever names are kept: what came before there were others is in it. What is
sent and what is shown has its real name; the border is here.

Who brings something into an environment *enters* it; a deletion lets nobody enter, waits for those who have, and takes
along what they brought.
"""

from __future__ import annotations

import asyncio
import functools
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from squall.protocol.environment import (
    DEFAULT,
    EnvironmentCreate,
    EnvironmentDelete,
    EnvironmentDeleted,
    EnvironmentGet,
    EnvironmentInfo,
    EnvironmentList,
    EnvironmentListing,
    is_environment_name,
)
from squall.protocol.errors import CONFLICT, EXHAUSTED, EXISTS, INVALID, NOT_FOUND, PlatformError
from squall.protocol.ids import derived_id
from squall.protocol.names import ENVIRONMENT_RULE
from squall.protocol.records import replace as replaced
from squall.protocol.task_set import TaskSet
from squall.server.dispatch.app.near import near

if TYPE_CHECKING:
    from squall.server.dispatch.app.apps import App, Apps
    from squall.server.dispatch.client.callers import Caller
    from squall.server.model.clock import Clock
    from squall.server.model.store import Store, StoredApp

ENVIRONMENTS_MAX = 1_000


def shown(environment: str) -> str:
    """The name of an environment as it is kept, as people know it."""
    return environment or DEFAULT


def kept(environment: str) -> str:
    """The other way round."""
    return "" if environment == DEFAULT else environment


@functools.lru_cache(ENVIRONMENTS_MAX + 1)
def _environment_id(created_at: float, name: str) -> str:
    return derived_id("en", created_at, name)


class Environments:
    """All of them, which are few, in memory."""

    def __init__(self, *, apps: Apps, store: Store, clock: Clock, tasks: TaskSet) -> None:
        self._apps = apps
        self._store = store
        self._clock = clock
        self._tasks = tasks
        self.delete_assets: Callable[[str], Awaitable[int]] | None = None
        """Deletes what is kept in an environment, and says how much that was."""
        self._created_at: dict[str, float] = {}
        """Besides the default."""
        self._entering: Counter[str] = Counter()
        """How many bring something into each just now."""
        self._going: dict[str, asyncio.Event] = {}
        """Being deleted: nobody enters them any more; set once all who had entered are done."""

    async def load(self) -> None:
        """Read which there are."""
        self._created_at = dict(await self._store.list_environments())

    # Which one is meant

    def meant(self, method: str, record: Any, caller: Caller) -> Any:
        """The request with the environment that it means, as it is kept; one that names none is of the caller's.

        Raises:
            PlatformError: `not_found` for one that there is not, `conflict` for one that is being deleted.
        """
        named: str | None = getattr(record, "environment", None)
        if named is None:
            return record
        if not named and caller.scope_app_id:
            app = self._apps.live.get(caller.scope_app_id)
            return replaced(record, environment=app.row.environment if app is not None else "")
        self.check(method, kept(named))
        return replaced(record, environment=kept(named))

    def check(self, method: str, environment: str) -> None:
        """Whether there is this environment, by the name it is kept under.

        Raises:
            PlatformError: as `meant`.
        """
        if environment and environment not in self._created_at:
            hint = near(environment, [DEFAULT, *self._created_at]) or "; `squall environment list` shows them"
            raise PlatformError(NOT_FOUND, f"{method}: there is no environment {environment[:80]!r}{hint}")
        if environment in self._going:
            raise PlatformError(CONFLICT, f"{method}: environment {environment} is being deleted")

    def is_of_it(self, row: StoredApp) -> bool:
        """Whether an app is of the environment there is by that name now, and not of one that was deleted before."""
        made_at = self._created_at.get(row.environment, 0.0)
        return row.stopped_at is None or row.stopped_at >= made_at

    def id_of(self, environment: str) -> str:
        """What tells the environment there is by that name (as it is kept) from others that were or will be."""
        return _environment_id(self._created_at.get(environment, 0.0), shown(environment))

    def names_of(self, environment_ids: Iterable[str]) -> list[str]:
        """The names, as people know them, of those of these that there are."""
        wanted = frozenset(environment_ids)
        return sorted(shown(one) for one in ("", *self._created_at) if self.id_of(one) in wanted)

    async def apps_in(self, environment: str, app_ids: Iterable[str]) -> set[str]:
        """Those of these apps that are in an environment, or were; forgotten ones are in none."""
        live, ended = [], set()
        for app_id in app_ids:
            app = self._apps.live.get(app_id)
            if app is not None:
                live.append(app.row)
            else:
                ended.add(app_id)
        stored = await self._store.get_apps(ended) if ended else ()
        return {row.app_id for row in (*live, *stored) if row.environment == environment and self.is_of_it(row)}

    @contextmanager
    def entering(self, method: str, environment: str) -> Iterator[None]:
        """Held while something is brought into an environment, until it can be found there.

        Raises:
            PlatformError: as `meant`.
        """
        self.check(method, environment)
        self._entering[environment] += 1
        try:
            yield
        finally:
            self._entering[environment] -= 1
            if not self._entering[environment]:
                del self._entering[environment]
                if environment in self._going:
                    self._going[environment].set()

    # Methods

    async def create(self, record: EnvironmentCreate) -> EnvironmentInfo:
        """See `EnvironmentCreate`."""
        name = record.name
        if not is_environment_name(name):
            raise PlatformError(INVALID, f"EnvironmentCreate: {name[:80]!r} is no name of one: use {ENVIRONMENT_RULE}")
        if name == DEFAULT or name in self._created_at:
            raise PlatformError(EXISTS, f"EnvironmentCreate: there is an environment {name} already")
        if len(self._created_at) >= ENVIRONMENTS_MAX:
            raise PlatformError(EXHAUSTED, f"EnvironmentCreate: there are {ENVIRONMENTS_MAX} already; delete some")
        now = self._clock.now()
        # Taken before the wait: of two that ask at once, one is told.
        self._created_at[name] = now
        try:
            await self._store.put_environment(name, now)
        except PlatformError:
            del self._created_at[name]
            raise
        return self._info(name)

    async def get(self, record: EnvironmentGet) -> EnvironmentInfo:
        """See `EnvironmentGet`; what is meant was found out before."""
        return self._info(record.environment)

    async def list_all(self, record: EnvironmentList) -> EnvironmentListing:
        """See `EnvironmentList`."""
        return EnvironmentListing(tuple(self._info(one) for one in ("", *sorted(self._created_at))))

    def _info(self, environment: str) -> EnvironmentInfo:
        created_at = self._created_at.get(environment, 0.0)
        name = shown(environment)
        return EnvironmentInfo(name, created_at, len(self._apps_in(environment)), self.id_of(environment))

    def _apps_in(self, environment: str) -> list[App]:
        live = self._apps.live.values()
        return [app for app in live if app.row.environment == environment and not app.row.ancestors]

    async def delete(self, record: EnvironmentDelete) -> EnvironmentDeleted:
        """See `EnvironmentDelete`. Carried out to the end, whatever becomes of who asked."""
        name = record.name
        if name == DEFAULT:
            raise PlatformError(INVALID, f"EnvironmentDelete: {DEFAULT} is the default, which always is")
        return await asyncio.shield(self._tasks.start(self._delete(name)))

    async def _delete(self, name: str) -> EnvironmentDeleted:
        self.check("EnvironmentDelete", name)
        entered = self._going[name] = asyncio.Event()
        try:
            if self._entering[name]:
                await entered.wait()
            apps = self._apps_in(name)
            reason = f"environment {name} was deleted"
            await asyncio.gather(*(self._apps.stop(app, reason) for app in apps))
            names = await self._store.list_image_names(name)
            for one in names:
                await self._store.delete_image_name(one.ref)
            asset_count = await self.delete_assets(name) if self.delete_assets is not None else 0
            await self._store.delete_environment(name)
            self._created_at.pop(name, None)
        finally:
            del self._going[name]
        return EnvironmentDeleted(len(apps), len(names), asset_count)
