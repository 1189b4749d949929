"""Every database says of a value that it cannot keep that it cannot, and goes on."""

from __future__ import annotations

import pytest

from squall.protocol.errors import INVALID, PlatformError
from squall.server.model.proxy_token import StoredProxyToken
from squall.server.model.store import Store
from squall.server.store.sql import SqlStore
from tests.conformance.test_store import make_call, make_inputs


@pytest.mark.parametrize("number", [2**63, -(2**63) - 1, 10**30], ids=["above", "below", "far"])
async def test_a_number_that_is_too_large_is_refused(store: Store, number: int) -> None:
    if not isinstance(store, SqlStore):
        pytest.skip("in memory there are no limits")
    await store.put_call(make_call("fc-1", 1.0), make_inputs("fc-1"))

    with pytest.raises(PlatformError) as refused:
        await store.read_outputs("fc-1", number, 1)

    assert refused.value.code == INVALID
    assert await store.read_outputs("fc-1", 0, 1) == ()


async def test_a_text_that_is_none_to_the_database_is_kept_or_refused(store: Store) -> None:
    token = StoredProxyToken("wk-1", b"", "a\0b", 1.0, "")
    code = ""
    try:
        await store.proxy_tokens.put(token)
    except PlatformError as error:
        code = error.code

    assert (code, await store.proxy_tokens.list_all()) in [("", (token,)), (INVALID, ())]
