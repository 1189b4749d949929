"""Proxy tokens: what they open, from when on, and until when."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from squall.protocol.empty import Empty
from squall.protocol.environment import EnvironmentCreate, EnvironmentDelete, EnvironmentDeleted, EnvironmentInfo
from squall.protocol.errors import UNAVAILABLE, PlatformError
from squall.protocol.hashing import sha256_hex
from squall.protocol.ids import new_id
from squall.protocol.proxy_token import (
    ProxyTokenAllow,
    ProxyTokenCreate,
    ProxyTokenDelete,
    ProxyTokenInfo,
    ProxyTokenList,
    ProxyTokenListing,
    ProxyTokenRevoke,
    ProxyTokenUpdate,
)
from squall.server.dispatch.web import proxy_tokens
from squall.server.store.memory import MemoryStore
from tests.server.doubles import Stage, staged

SECRET = "ws-very-secret"
WRITES: dict[str, Callable[[str], Any]] = {
    "ProxyTokenUpdate": lambda token_id: ProxyTokenUpdate(token_id, "ci"),
    "ProxyTokenAllow": lambda token_id: ProxyTokenAllow(token_id, "main"),
    "ProxyTokenRevoke": lambda token_id: ProxyTokenRevoke(token_id, "main"),
    "ProxyTokenDelete": lambda token_id: ProxyTokenDelete(token_id),
}


async def ask(stage: Stage, method: str, record: Any) -> ProxyTokenInfo:
    info: ProxyTokenInfo = await stage.client.ask(method, record, ProxyTokenInfo)
    return info


async def create(stage: Stage, name: str = "", secret: str = SECRET) -> str:
    record = ProxyTokenCreate(new_id("wk"), sha256_hex(secret.encode()), name, "ann")
    return (await ask(stage, "ProxyTokenCreate", record)).token_id


async def make_environment(stage: Stage, name: str) -> None:
    await stage.client.ask("EnvironmentCreate", EnvironmentCreate(name), EnvironmentInfo)


async def listed(stage: Stage, allowed_in: str = "") -> tuple[ProxyTokenInfo, ...]:
    listing: ProxyTokenListing = await stage.client.ask("ProxyTokenList", ProxyTokenList(allowed_in), ProxyTokenListing)
    return listing.tokens


async def code_of(awaitable: Any) -> str:
    with pytest.raises(PlatformError) as caught:
        await awaitable
    return caught.value.code


async def test_a_token_opens_every_environment_and_only_with_its_secret() -> None:
    async with staged() as stage:
        await make_environment(stage, "dev")
        token_id = await create(stage)
        opens = stage.plane.web.opens

        assert opens(token_id, SECRET, "")
        assert opens(token_id, SECRET, "dev")
        for key, secret in (
            (token_id, ""), (token_id, SECRET + "x"), (token_id, SECRET[:-1]), (token_id, "ws-ä\xff"), ("", ""),
            (token_id.swapcase(), SECRET), (new_id("wk"), SECRET), ("ä", "\x00"), (SECRET, token_id),
            (token_id, sha256_hex(SECRET.encode())),
        ):  # fmt: skip
            assert not opens(key, secret, ""), (key, secret)


async def test_a_request_that_is_sent_again_makes_the_same_token() -> None:
    async with staged() as stage:
        record = ProxyTokenCreate(new_id("wk"), sha256_hex(SECRET.encode()), "ci", "ann")
        once = await ask(stage, "ProxyTokenCreate", record)
        stage.clock.advance(5)

        assert await ask(stage, "ProxyTokenCreate", record) == once
        assert await listed(stage) == (once,)
        other = ProxyTokenCreate(record.token_id, sha256_hex(b"another"))
        assert await code_of(ask(stage, "ProxyTokenCreate", other)) == "exists"
        assert stage.plane.web.opens(record.token_id, SECRET, "")
        assert not stage.plane.web.opens(record.token_id, "another", "")


async def test_what_is_no_token_is_refused() -> None:
    sha256 = sha256_hex(b"x")
    async with staged() as stage:
        for record in (
            ProxyTokenCreate("ap-00000000none", sha256), ProxyTokenCreate("wk-", sha256),
            ProxyTokenCreate(new_id("wk"), SECRET), ProxyTokenCreate(new_id("wk"), sha256.upper()),
            ProxyTokenCreate(new_id("wk"), sha256, "a\nb"), ProxyTokenCreate(new_id("wk"), sha256, "x" * 101),
            ProxyTokenCreate(new_id("wk"), sha256, created_by="x" * 201),
        ):  # fmt: skip
            assert await code_of(ask(stage, "ProxyTokenCreate", record)) == "invalid", record
        assert await listed(stage) == ()
        for method, make in WRITES.items():
            assert await code_of(stage.client.ask(method, make(new_id("wk")), Empty)) == "not_found", method


async def test_there_are_so_many_at_most(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(proxy_tokens, "TOKENS_MAX", 2)
    async with staged() as stage:
        await create(stage)
        token_id = await create(stage)

        assert await code_of(create(stage)) == "exhausted"
        record = ProxyTokenCreate(token_id, sha256_hex(SECRET.encode()))
        assert (await ask(stage, "ProxyTokenCreate", record)).token_id == token_id


async def test_a_token_that_is_allowed_an_environment_opens_no_other() -> None:
    async with staged() as stage:
        await make_environment(stage, "dev")
        token_id = await create(stage)
        opens = stage.plane.web.opens

        assert await code_of(ask(stage, "ProxyTokenRevoke", ProxyTokenRevoke(token_id, "dev"))) == "invalid"
        assert opens(token_id, SECRET, "")
        allowed = await ask(stage, "ProxyTokenAllow", ProxyTokenAllow(token_id, "dev"))
        assert (allowed.is_scoped, allowed.environments) == (True, ("dev",))
        assert opens(token_id, SECRET, "dev")
        assert not opens(token_id, SECRET, "")
        both = await ask(stage, "ProxyTokenAllow", ProxyTokenAllow(token_id, "main"))
        assert both.environments == ("dev", "main")
        assert opens(token_id, SECRET, "")
        for _ in range(2):
            await ask(stage, "ProxyTokenRevoke", ProxyTokenRevoke(token_id, "main"))
        last = await ask(stage, "ProxyTokenRevoke", ProxyTokenRevoke(token_id, "dev"))
        assert (last.is_scoped, last.environments) == (True, ())
        assert not opens(token_id, SECRET, "dev")
        assert not opens(token_id, SECRET, "")
        assert await code_of(ask(stage, "ProxyTokenAllow", ProxyTokenAllow(token_id, "none"))) == "not_found"


async def test_an_environment_made_anew_is_another() -> None:
    async with staged() as stage:
        await make_environment(stage, "dev")
        token_id = await create(stage)
        await ask(stage, "ProxyTokenAllow", ProxyTokenAllow(token_id, "dev"))
        await stage.client.ask("EnvironmentDelete", EnvironmentDelete("dev"), EnvironmentDeleted)
        stage.clock.advance(1)
        await make_environment(stage, "dev")

        assert not stage.plane.web.opens(token_id, SECRET, "dev")
        [token] = await listed(stage)
        assert (token.is_scoped, token.environments) == (True, ())


async def test_a_deleted_token_opens_nothing() -> None:
    async with staged() as stage:
        token_id, other = await create(stage), await create(stage, secret="other")
        await stage.client.ask("ProxyTokenDelete", ProxyTokenDelete(token_id), Empty)

        assert not stage.plane.web.opens(token_id, SECRET, "")
        assert stage.plane.web.opens(other, "other", "")
        await stage.restart()
        assert not stage.plane.web.opens(token_id, SECRET, "")
        assert stage.plane.web.opens(other, "other", "")


async def test_tokens_are_listed_newest_first_also_of_one_environment() -> None:
    async with staged() as stage:
        await make_environment(stage, "dev")
        made = []
        for name in ("everywhere", "dev", "main"):
            stage.clock.advance(1)
            made.append(await create(stage, name))
        await ask(stage, "ProxyTokenAllow", ProxyTokenAllow(made[1], "dev"))
        await ask(stage, "ProxyTokenAllow", ProxyTokenAllow(made[2], "main"))
        await ask(stage, "ProxyTokenUpdate", ProxyTokenUpdate(made[0], "all ä"))

        assert [token.name for token in await listed(stage)] == ["main", "dev", "all ä"]
        assert [token.name for token in await listed(stage, "dev")] == ["dev", "all ä"]
        assert [token.name for token in await listed(stage, "main")] == ["main", "all ä"]
        assert await code_of(listed(stage, "none")) == "not_found"


async def test_tokens_are_there_after_a_restart_with_all_that_is_known_of_them() -> None:
    async with staged() as stage:
        await make_environment(stage, "dev")
        token_id = await create(stage, "ci")
        await ask(stage, "ProxyTokenAllow", ProxyTokenAllow(token_id, "dev"))
        assert stage.plane.web.opens(token_id, SECRET, "dev")
        used_at = stage.clock.now()
        before = await listed(stage)

        await stage.restart()
        await stage.client.connect()

        assert await listed(stage) == before
        assert before[0].last_used_at == used_at
        assert stage.plane.web.opens(token_id, SECRET, "dev")
        assert not stage.plane.web.opens(token_id, SECRET, "")


class CountingStore(MemoryStore):
    def __init__(self) -> None:
        super().__init__()
        self.noted: list[dict[str, float]] = []
        self.failing: PlatformError | None = None
        self.gate: asyncio.Event | None = None
        rows = self.proxy_tokens
        use, put = rows.use, rows.put

        async def noting(used_at: dict[str, float]) -> None:
            if self.failing is not None:
                raise self.failing
            self.noted.append(used_at)
            await use(used_at)

        async def putting(token: Any) -> None:
            if self.gate is not None:
                await self.gate.wait()
            if self.failing is not None:
                raise self.failing
            await put(token)

        rows.use, rows.put = noting, putting  # type: ignore[method-assign]


async def test_use_is_noted_once_an_hour() -> None:
    store = CountingStore()
    async with staged(store=store) as stage:
        token_id = await create(stage)
        for _ in range(3):
            assert stage.plane.web.opens(token_id, SECRET, "")
        await stage.pass_time(1.5)
        assert len(store.noted) == 1
        assert stage.plane.web.opens(token_id, SECRET, "")
        await stage.pass_time(3_500, step_s=50)
        assert len(store.noted) == 1
        await stage.pass_time(200, step_s=50)
        assert len(store.noted) == 2
        await stage.pass_time(7_200, step_s=50)
        assert len(store.noted) == 2


async def test_use_that_cannot_be_noted_is_noted_later() -> None:
    store = CountingStore()
    async with staged(store=store) as stage:
        token_id = await create(stage)
        assert stage.plane.web.opens(token_id, SECRET, "")
        store.failing = PlatformError(UNAVAILABLE, "the database is away")
        await stage.plane.proxy_tokens.note()
        store.failing = None
        await stage.plane.proxy_tokens.note()

        assert [set(one) for one in store.noted] == [{token_id}]


async def test_what_the_store_did_not_take_is_not_so() -> None:
    store = CountingStore()
    async with staged(store=store) as stage:
        await make_environment(stage, "dev")
        token_id = await create(stage)
        store.failing = PlatformError(UNAVAILABLE, "the database is away")

        assert await code_of(ask(stage, "ProxyTokenAllow", ProxyTokenAllow(token_id, "dev"))) == "unavailable"
        assert await code_of(create(stage)) == "unavailable"
        store.failing = None
        [token] = await listed(stage)
        assert not token.is_scoped


async def test_changes_at_once_are_all_made() -> None:
    store = CountingStore()
    async with staged(store=store) as stage:
        for name in ("a", "b"):
            await make_environment(stage, name)
        token_id = await create(stage)
        store.gate = asyncio.Event()
        changes = [
            asyncio.ensure_future(ask(stage, "ProxyTokenAllow", ProxyTokenAllow(token_id, name))) for name in ("a", "b")
        ]
        record = ProxyTokenCreate(new_id("wk"), sha256_hex(b"x"))
        twice = [asyncio.ensure_future(ask(stage, "ProxyTokenCreate", record)) for _ in range(2)]
        await asyncio.sleep(0)
        store.gate.set()
        await asyncio.gather(*changes, *twice)

        assert {token.environments for token in await listed(stage)} == {("a", "b"), ()}
