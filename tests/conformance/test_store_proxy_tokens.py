"""One suite for every store: proxy tokens."""

from __future__ import annotations

from dataclasses import replace

from squall.server.model.proxy_token import StoredProxyToken
from squall.server.model.store import Store

TOKEN = StoredProxyToken("wk-1", bytes(range(32)), "ci ä", 1.5, "ann")


async def test_tokens_are_kept_as_they_are_until_they_are_deleted(store: Store) -> None:
    scoped = replace(TOKEN, token_id="wk-2", environment_ids=frozenset(["en-1", "en-2"]), last_used_at=2.5)
    nowhere = replace(TOKEN, token_id="wk-3", environment_ids=frozenset())
    for token in (TOKEN, scoped, nowhere):
        await store.proxy_tokens.put(token)

    assert set(await store.proxy_tokens.list_all()) == {TOKEN, scoped, nowhere}

    await store.proxy_tokens.put(replace(TOKEN, name="other", environment_ids=frozenset(["en-3"])))
    await store.proxy_tokens.delete("wk-2")
    await store.proxy_tokens.delete("wk-2")
    left = {token.token_id: token for token in await store.proxy_tokens.list_all()}
    assert left == {"wk-1": replace(TOKEN, name="other", environment_ids=frozenset(["en-3"])), "wk-3": nowhere}


async def test_use_is_noted_of_those_that_there_are(store: Store) -> None:
    await store.proxy_tokens.put(TOKEN)

    await store.proxy_tokens.use({"wk-1": 7.5, "wk-gone": 8.0})

    assert await store.proxy_tokens.list_all() == (replace(TOKEN, last_used_at=7.5),)
