"""Proxy tokens: which there are, and what they open.

All of them are in memory, as each request to a web function that asks for one is compared with them. What is taken
away from a token is away in the store first, then here, and then whoever asked hears of it: a server that ends in
between has not said that it is done.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import logging
import os
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import TypeVar

from squall.protocol.empty import Empty
from squall.protocol.errors import EXHAUSTED, EXISTS, INVALID, NOT_FOUND, PlatformError
from squall.protocol.ids import is_id
from squall.protocol.proxy_token import (
    NAME_RULE,
    ProxyTokenAllow,
    ProxyTokenCreate,
    ProxyTokenDelete,
    ProxyTokenInfo,
    ProxyTokenList,
    ProxyTokenListing,
    ProxyTokenRevoke,
    ProxyTokenUpdate,
    is_sha256,
    is_token_name,
)
from squall.protocol.task_set import TaskSet
from squall.server.dispatch.app.environments import Environments, kept
from squall.server.model.clock import Clock
from squall.server.model.proxy_token import ProxyTokenStore, StoredProxyToken

TOKENS_MAX = 1_000
CREATED_BY_CHARS_MAX = 200
NOTE_EVERY_S = 3_600.0
"""Between two notes in the store of which were used."""

_NOBODYS = os.urandom(32)
"""What secrets are compared with that come with an id of no token: the answer takes as long as to others."""
_log = logging.getLogger("squall.server.dispatch.web.proxy_tokens")

T = TypeVar("T")


class ProxyTokens:
    """All of them."""

    def __init__(self, *, store: ProxyTokenStore, environments: Environments, clock: Clock, tasks: TaskSet) -> None:
        self._store = store
        self._environments = environments
        self._clock = clock
        self._tasks = tasks
        self._tokens: dict[str, StoredProxyToken] = {}
        self._changing = asyncio.Lock()
        self._used_at: dict[str, float] = {}
        """Not in the store yet."""
        self._noted_at = -NOTE_EVERY_S

    async def load(self) -> None:
        """Read which there are."""
        self._tokens = {token.token_id: token for token in await self._store.list_all()}

    # Opening

    def opens(self, key: str, secret: str, environment: str) -> bool:
        """See `model.web.Web`."""
        token = self._tokens.get(key)
        # Bytes: texts are compared in constant time only if they are ASCII.
        given = hashlib.sha256(secret.encode("utf-8", "surrogatepass")).digest()
        is_it = hmac.compare_digest(given, _NOBODYS if token is None else token.secret_sha256)
        if token is None or not is_it:
            return False
        if token.environment_ids is not None and self._environments.id_of(environment) not in token.environment_ids:
            return False
        self._used_at[key] = self._clock.now()
        return True

    def tick(self, now: float) -> None:
        """Each second."""
        if self._used_at and now - self._noted_at >= NOTE_EVERY_S:
            self._noted_at = now
            self._tasks.start(self.note())

    async def note(self) -> None:
        """Let the store know which were used."""
        async with self._changing:
            used, self._used_at = self._used_at, {}
            try:
                if used:
                    await self._store.use(used)
            except PlatformError as error:
                self._used_at = {**used, **self._used_at}
                _log.warning("cannot note which proxy tokens are used: %s", error.message)
                return
            for token_id, at in used.items():
                self._tokens[token_id] = replace(self._tokens[token_id], last_used_at=at)

    # Methods

    async def create(self, record: ProxyTokenCreate) -> ProxyTokenInfo:
        """See `ProxyTokenCreate`."""
        if not is_id(record.token_id, "wk"):
            raise PlatformError(INVALID, f"ProxyTokenCreate: {record.token_id[:80]!r} is no id of a proxy token")
        if not is_sha256(record.secret_sha256):
            raise PlatformError(INVALID, "ProxyTokenCreate: secret_sha256 must be 64 lower-case hexadecimal digits")
        _check_name("ProxyTokenCreate", record.name)
        if len(record.created_by) > CREATED_BY_CHARS_MAX:
            most = f"created_by has more than {CREATED_BY_CHARS_MAX} characters"
            raise PlatformError(INVALID, f"ProxyTokenCreate: {most}")
        return await self._to_the_end(lambda: self._create(record))

    async def _create(self, record: ProxyTokenCreate) -> ProxyTokenInfo:
        sha256 = bytes.fromhex(record.secret_sha256)
        known = self._tokens.get(record.token_id)
        if known is None:
            if len(self._tokens) >= TOKENS_MAX:
                raise PlatformError(EXHAUSTED, f"ProxyTokenCreate: there are {TOKENS_MAX} already; delete some")
            now = self._clock.now()
            known = StoredProxyToken(record.token_id, sha256, record.name, now, record.created_by)
            await self._put(known)
        elif not hmac.compare_digest(known.secret_sha256, sha256):
            raise PlatformError(EXISTS, f"ProxyTokenCreate: there is a token {record.token_id}, with another secret")
        return self._info(known)

    async def list_all(self, record: ProxyTokenList) -> ProxyTokenListing:
        """See `ProxyTokenList`."""
        tokens = sorted(self._tokens.values(), key=lambda token: (token.created_at, token.token_id), reverse=True)
        if record.allowed_in:
            environment = kept(record.allowed_in)
            self._environments.check("ProxyTokenList", environment)
            environment_id = self._environments.id_of(environment)
            tokens = [one for one in tokens if one.environment_ids is None or environment_id in one.environment_ids]
        return ProxyTokenListing(tuple(map(self._info, tokens)))

    async def update(self, record: ProxyTokenUpdate) -> ProxyTokenInfo:
        """See `ProxyTokenUpdate`."""
        _check_name("ProxyTokenUpdate", record.name)

        async def update() -> ProxyTokenInfo:
            return await self._put(replace(self._find("ProxyTokenUpdate", record.token_id), name=record.name))

        return await self._to_the_end(update)

    async def allow(self, record: ProxyTokenAllow) -> ProxyTokenInfo:
        """See `ProxyTokenAllow`; which environment is meant was found out before."""

        async def allow() -> ProxyTokenInfo:
            token = self._find("ProxyTokenAllow", record.token_id)
            ids = (token.environment_ids or frozenset()) | {self._environments.id_of(record.environment)}
            return await self._put(replace(token, environment_ids=ids))

        return await self._to_the_end(allow)

    async def revoke(self, record: ProxyTokenRevoke) -> ProxyTokenInfo:
        """See `ProxyTokenRevoke`; which environment is meant was found out before."""

        async def revoke() -> ProxyTokenInfo:
            token = self._find("ProxyTokenRevoke", record.token_id)
            if token.environment_ids is None:
                message = f"{token.token_id} opens every environment: allow it those that it shall open, or delete it"
                raise PlatformError(INVALID, f"ProxyTokenRevoke: {message}")
            ids = token.environment_ids - {self._environments.id_of(record.environment)}
            return await self._put(replace(token, environment_ids=ids))

        return await self._to_the_end(revoke)

    async def delete(self, record: ProxyTokenDelete) -> Empty:
        """See `ProxyTokenDelete`."""

        async def delete() -> Empty:
            token = self._find("ProxyTokenDelete", record.token_id)
            await self._store.delete(token.token_id)
            del self._tokens[token.token_id]
            self._used_at.pop(token.token_id, None)
            return Empty()

        return await self._to_the_end(delete)

    async def _to_the_end(self, change: Callable[[], Awaitable[T]]) -> T:
        """One change after the other, each carried out to the end, whatever becomes of who asked: what the store has
        and what is here must not differ."""

        async def run() -> T:
            async with self._changing:
                return await change()

        return await asyncio.shield(self._tasks.start(run()))

    async def _put(self, token: StoredProxyToken) -> ProxyTokenInfo:
        await self._store.put(token)
        self._tokens[token.token_id] = token
        return self._info(token)

    def _find(self, method: str, token_id: str) -> StoredProxyToken:
        token = self._tokens.get(token_id)
        if token is None:
            hint = "`squall workspace proxy-tokens list` shows them"
            raise PlatformError(NOT_FOUND, f"{method}: there is no proxy token {token_id[:80]!r}; {hint}")
        return token

    def _info(self, token: StoredProxyToken) -> ProxyTokenInfo:
        ids = token.environment_ids
        return ProxyTokenInfo(
            token.token_id,
            token.name,
            token.created_at,
            token.created_by,
            self._used_at.get(token.token_id, token.last_used_at),
            ids is not None,
            tuple(self._environments.names_of(ids or ())),
        )


def _check_name(method: str, name: str) -> None:
    if not is_token_name(name):
        raise PlatformError(INVALID, f"{method}: {name[:80]!r} is no name of a token: it has {NAME_RULE}")
