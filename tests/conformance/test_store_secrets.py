"""One suite for every store: what is in secrets."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from squall.protocol.app import DEPLOYED, EPHEMERAL, STOPPED
from squall.protocol.asset import SECRET
from squall.protocol.bucket import BucketMount
from squall.protocol.function import FunctionOptions
from squall.server.model.asset import StoredAsset
from squall.server.model.secret import SealedSecret
from squall.server.model.store import Store, StoredApp
from squall.server.model.variant import StoredVariant
from squall.server.model.version import StoredVersion
from tests.server.doubles import make_spec


def make_secret(number: int = 1, app_id: str = "", mark: str = "", **fields: Any) -> SealedSecret:
    given = {"kept_at": 1.0, "last_used_at": None, **fields}
    return SealedSecret(
        f"st-{number}", app_id, ("A", "B"), 1, "key-1", b"nonce" + bytes([number]), b"\x00sealed", mark, **given
    )


async def kept(store: Store, *secret_ids: str) -> tuple[SealedSecret, ...]:
    return await store.secrets.get(frozenset(secret_ids))


async def test_a_secret_is_found_by_its_id_as_it_was_put(store: Store) -> None:
    secret = make_secret()

    assert await store.secrets.put(secret) == secret
    assert await kept(store, "st-1", "st-2") == (secret,)


async def test_what_is_there_stays_as_it_is_and_is_kept_from_then_on(store: Store) -> None:
    first = await store.secrets.put(make_secret(1, "ap-1", "same"))

    assert await store.secrets.put(make_secret(2, "ap-1", "same", kept_at=5.0)) == replace(first, kept_at=5.0)
    assert await store.secrets.put(make_secret(3, "ap-2", "same")) == make_secret(3, "ap-2", "same")
    assert await store.secrets.put(make_secret(1, "ap-1", "other")) == replace(first, kept_at=5.0)
    assert await store.secrets.count_of("ap-1") == 1
    # Those with a name have no mark, and are no two the same.
    assert await store.secrets.put(make_secret(4)) == make_secret(4)
    assert await store.secrets.put(make_secret(5)) == make_secret(5)


async def test_one_is_replaced_only_while_it_is_as_it_was_read(store: Store) -> None:
    before = await store.secrets.put(make_secret())
    after = replace(before, nonce=b"other", ciphertext=b"more", revision=2, names=("C",))

    assert await store.secrets.replace(before.nonce, after)
    assert not await store.secrets.replace(before.nonce, replace(after, nonce=b"third"))
    assert not await store.secrets.replace(b"other", make_secret(9))
    assert await kept(store, "st-1", "st-9") == (after,)


async def test_those_of_other_keys_are_found_one_after_the_other(store: Store) -> None:
    for number in range(1, 6):
        await store.secrets.put(make_secret(number))
    await store.secrets.put(replace(make_secret(6), key_id="key-2"))

    first = await store.secrets.sealed_otherwise("key-2", "", 3)
    rest = await store.secrets.sealed_otherwise("key-2", first[-1].secret_id, 3)

    assert [one.secret_id for one in (*first, *rest)] == [f"st-{number}" for number in range(1, 6)]
    assert await store.secrets.sealed_otherwise("key-2", "st-5", 3) == ()


async def test_when_one_was_used_is_noted(store: Store) -> None:
    await store.secrets.put(make_secret())

    await store.secrets.use({"st-1": 7.0, "st-2": 8.0})

    assert [one.last_used_at for one in await kept(store, "st-1", "st-2")] == [7.0]


async def test_what_is_in_a_deleted_asset_is_purged(store: Store) -> None:
    await store.assets.put(StoredAsset("st-1", SECRET, "token"))
    await store.secrets.put(make_secret())

    await store.assets.delete(frozenset(["st-1"]))
    while await store.assets.purge(10):
        pass

    assert await kept(store, "st-1") == ()


async def test_those_go_that_nothing_leads_to(store: Store) -> None:
    await store.assets.put(StoredAsset("st-1", SECRET, "token"))
    await store.put_app(StoredApp("ap-1", "web", EPHEMERAL, 1.0, None))
    buckets = (BucketMount("public", "/a"), BucketMount("bucket", "/b", secret_id="st-9"))
    await store.put_functions((make_spec("ap-1", secrets=("st-3",), buckets=buckets),))
    options = FunctionOptions(
        secrets=("st-4",),
        volumes=(),
        buckets=(BucketMount("public", "/a"), BucketMount("bucket", "/b", secret_id="st-10")),
    )
    await store.put_variant(StoredVariant("fu-v", make_spec("ap-1").function_id, "ap-1", options=options))
    await store.put_app(StoredApp("ap-2", "ended", EPHEMERAL, 1.0, None))
    await store.put_functions((make_spec("ap-2", secrets=("st-6",)),))
    for number, app_id in ((1, ""), (2, ""), (3, "ap-1"), (4, "ap-1"), (5, "ap-1"), (6, "ap-2"), (7, "ap-none")):
        await store.secrets.put(make_secret(number, app_id, f"mark-{number}" if app_id else ""))
    for number in (9, 10):
        await store.secrets.put(make_secret(number, "ap-1", f"mark-{number}"))
    await store.secrets.put(make_secret(8, "ap-1", "mark-8", kept_at=9.0))
    await store.set_app_state("ap-2", STOPPED, 2.0)

    assert await store.secrets.prune(1.0) == 0
    assert await store.secrets.prune(5.0) == 4

    left = await kept(store, *(f"st-{number}" for number in range(1, 11)))
    assert [one.secret_id for one in left] == ["st-1", "st-10", "st-3", "st-4", "st-8", "st-9"]


@pytest.mark.parametrize("is_kept", [True, False])
async def test_a_version_keeps_what_it_names_as_long_as_it_is_kept(store: Store, is_kept: bool) -> None:
    app = StoredApp("ap-1", "web", DEPLOYED, 1.0, None)
    for number in (1, 2):
        await store.secrets.put(make_secret(number, "ap-1", f"mark-{number}"))
        fields = {"buckets": (BucketMount("bucket", "/b", secret_id=f"st-{number}"),)}
        spec = make_spec("ap-1", version=number, **({"secrets": (f"st-{number}",)} if number == 2 else fields))
        version = StoredVersion("ap-1", number, float(number), f"deploy-{number}", "rolling", "", "0.1", "ann", None)
        await store.publish_version(app, version, (spec,), frozenset(), 10 if is_kept else 1)

    assert await store.secrets.prune(5.0) == (0 if is_kept else 1)
    assert [one.secret_id for one in await kept(store, "st-1", "st-2")] == (["st-1"] if is_kept else []) + ["st-2"]
