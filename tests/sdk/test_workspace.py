"""`Workspace`: proxy tokens from programs."""

from __future__ import annotations

import hashlib
from datetime import UTC, datetime

import pytest

import squall
from squall.exception import InvalidError, NotFoundError
from squall.types import ProxyTokenInfo, TokenData
from tests.sdk.real_server import RealServer


def tokens() -> squall.sdk.workspace.WorkspaceProxyTokens:
    return squall.Workspace.from_context().proxy_tokens


def test_a_token_is_made_listed_changed_and_deleted(real_server: RealServer) -> None:
    squall.Environment.objects.create("dev")
    made = tokens().create("ci")
    opens = real_server.plane.web.opens

    assert isinstance(made, TokenData)
    assert opens(made.token_id, made.token_secret, "")
    [info] = tokens().list()
    assert isinstance(info, ProxyTokenInfo)
    assert (info.token_id, info.name, info.scoped) == (made.token_id, "ci", False)
    assert abs((datetime.now(UTC) - info.created_at).total_seconds()) < 60

    tokens().update(made.token_id, name="other")
    tokens().allow(made.token_id, "dev")
    [info] = tokens().list("dev")
    assert (info.name, info.scoped, info.environment_names) == ("other", True, ["dev"])
    assert tokens().list(environment_name="main") == []
    assert not opens(made.token_id, made.token_secret, "")
    tokens().revoke(made.token_id, "dev")
    assert not opens(made.token_id, made.token_secret, "dev")
    tokens().delete(made.token_id)
    assert tokens().list() == []
    with pytest.raises(NotFoundError, match="no proxy token"):
        tokens().delete(made.token_id)


async def test_every_method_can_be_awaited(real_server: RealServer) -> None:
    made = await tokens().create.aio()
    [info] = await tokens().list.aio()

    assert info.token_id == made.token_id


def test_the_server_is_told_a_hash(real_server: RealServer) -> None:
    made = tokens().create()

    [kept] = real_server.do(real_server.plane.store.proxy_tokens.list_all())
    assert kept.secret_sha256 == hashlib.sha256(made.token_secret.encode()).digest()
    assert made.token_secret not in f"{made!r} {kept!r}"
    assert kept.secret_sha256.hex() not in repr(kept)


def test_no_two_tokens_are_alike(real_server: RealServer) -> None:
    made = [tokens().create() for _ in range(3)]

    assert len({one.token_id for one in made}) == len({one.token_secret for one in made}) == 3
    assert all(len(one.token_secret) >= 40 for one in made)


def test_wrong_values_are_refused_before_a_server_is_asked() -> None:
    secret = "ws-abcdefghijklmnop"
    for call in (
        lambda: tokens().create("a\nb"),
        lambda: tokens().create(None),  # type: ignore[arg-type]
        lambda: tokens().delete(secret),
        lambda: tokens().update("ci", name="x"),
        lambda: tokens().allow("wk-00000000abcdefgh", ""),
        lambda: tokens().list("not a name"),
    ):
        with pytest.raises(InvalidError) as refused:
            call()
        assert secret not in str(refused.value)


def test_a_workspace_is_not_made_directly() -> None:
    with pytest.raises(InvalidError, match="from_context"):
        squall.Workspace()
