"""Buckets of functions: what may be named, and which keys go with a container."""

from __future__ import annotations

from typing import Any

import pytest

from squall.protocol.asset import SECRET, AssetDelete
from squall.protocol.bucket import BucketMount, BucketStart
from squall.protocol.empty import Empty
from squall.protocol.environment import EnvironmentCreate, EnvironmentInfo
from squall.protocol.function import FunctionBind, FunctionBound, FunctionCreate, FunctionCreated, FunctionOptions
from squall.protocol.ids import new_id
from squall.protocol.secret import SecretList, SecretListing
from squall.protocol.volume import VolumeMount
from tests.server.dispatch.asset.test_secrets import create, creation, failure_of, started, update, why_failed
from tests.server.dispatch.client.test_callers import container_of
from tests.server.doubles import make_spec, staged

KEYS = {"AWS_ACCESS_KEY_ID": "one", "AWS_SECRET_ACCESS_KEY": "planted", "PASSWORD": "another"}


def bucket(**fields: Any) -> BucketMount:
    return BucketMount(**{"bucket": "the-bucket", "target": "/data", **fields})


async def test_only_the_keys_of_its_secret_go_with_a_container() -> None:
    async with staged() as stage:
        made = await create(stage.client, creation(values=KEYS))
        mounts = (bucket(secret_id=made.asset_id), bucket(target="/public", bucket="public"))
        spec = await stage.client.function(buckets=mounts)

        start = await started(stage, spec.function_id)

        keys = {"AWS_ACCESS_KEY_ID": "one", "AWS_SECRET_ACCESS_KEY": "planted"}
        assert start.buckets == (BucketStart(mounts[0], keys), BucketStart(mounts[1], {}))
        assert start.secrets == {}
        (shown,) = (await stage.client.ask("SecretList", SecretList(), SecretListing)).secrets
        assert shown.last_used_at is not None


async def test_the_next_container_has_keys_that_were_changed() -> None:
    async with staged() as stage:
        made = await create(stage.client, creation(values=KEYS))
        spec = await stage.client.function(buckets=(bucket(secret_id=made.asset_id),))
        await started(stage, spec.function_id)

        await update(stage.client, AWS_SECRET_ACCESS_KEY="rotated")

        start = await started(stage, spec.function_id)
        assert start.buckets[0].keys["AWS_SECRET_ACCESS_KEY"] == "rotated"


async def test_a_variant_has_the_buckets_of_its_function() -> None:
    async with staged() as stage:
        made = await create(stage.client, creation(values=KEYS))
        spec = await stage.client.function(buckets=(bucket(secret_id=made.asset_id),))
        bind = FunctionBind(spec.function_id, options=FunctionOptions(secrets=()))
        variant = await stage.client.ask("FunctionBind", bind, FunctionBound)

        start = await started(stage, variant.function_id)

        assert [one.mount for one in start.buckets] == list(spec.buckets)


async def test_a_variant_has_buckets_of_its_own_with_keys_of_theirs() -> None:
    async with staged() as stage:
        made = await create(stage.client, creation(values=KEYS))
        spec = await stage.client.function(buckets=(bucket(target="/not-asked-for"),))
        own = bucket(secret_id=made.asset_id)
        bind = FunctionBind(spec.function_id, options=FunctionOptions(volumes=(), buckets=(own,)))
        variant = await stage.client.ask("FunctionBind", bind, FunctionBound)

        start = await started(stage, variant.function_id)

        keys = {"AWS_ACCESS_KEY_ID": "one", "AWS_SECRET_ACCESS_KEY": "planted"}
        assert start.buckets == (BucketStart(own, keys),)


@pytest.mark.parametrize(
    ("mount", "code"),
    [(bucket(secret_id=new_id("st")), "not_found"), (bucket(target="/proc/x"), "invalid")],
)
async def test_a_variant_s_buckets_are_looked_at_as_its_function_s(mount: BucketMount, code: str) -> None:
    async with staged() as stage:
        spec = await stage.client.function()
        bind = FunctionBind(spec.function_id, options=FunctionOptions(volumes=(), buckets=(mount,)))

        assert (await failure_of(stage.client.ask("FunctionBind", bind, FunctionBound))).code == code


async def test_a_bucket_without_a_network_is_refused_at_once() -> None:
    async with staged() as stage:
        spec = make_spec(await stage.client.app(), buckets=(bucket(),), is_network_blocked=True)

        refused = await failure_of(stage.client.ask("FunctionCreate", FunctionCreate((spec,)), FunctionCreated))

        assert refused.code == "invalid"
        assert "bucket the-bucket is reached by its network, which block_network=True blocks" in refused.message


@pytest.mark.parametrize("values", [{"TOKEN": "planted"}, {**KEYS, "AWS_ACCESS_KEY_ID": "planted\n"}])
async def test_a_secret_that_has_no_keys_is_told_to_who_waits(values: dict[str, str]) -> None:
    async with staged() as stage:
        made = await create(stage.client, creation(values=values))
        spec = await stage.client.function(buckets=(bucket(secret_id=made.asset_id),))

        failure = await why_failed(stage, spec.function_id)

        assert failure.kind == "invalid"
        assert failure.message.startswith("function square cannot be started: bucket the-bucket: ")
        assert "planted" not in failure.message
        assert not stage.node.starts


async def test_a_secret_that_is_gone_is_told_to_who_waits() -> None:
    async with staged() as stage:
        made = await create(stage.client, creation(values=KEYS))
        spec = await stage.client.function(buckets=(bucket(secret_id=made.asset_id),))
        await stage.client.ask("AssetDelete", AssetDelete(SECRET, "token"), Empty)

        failure = await why_failed(stage, spec.function_id)

        assert failure.message.startswith("function square cannot be started: bucket the-bucket: there is no secret")


@pytest.mark.parametrize(
    ("buckets", "volumes", "code"),
    [
        ((bucket(secret_id="st-1"),), (), "invalid"),
        ((bucket(secret_id=new_id("st")),), (), "not_found"),
        ((bucket(bucket="a,b"),), (), "invalid"),
        ((bucket(endpoint_url="https://x/,y"),), (), "invalid"),
        ((bucket(key_prefix="../"),), (), "invalid"),
        ((bucket(target="/proc/x"),), (), "invalid"),
        ((bucket(), bucket()), (), "invalid"),
        ((bucket(),), (VolumeMount("vo-1", "/data/below"),), "invalid"),
    ],
)
async def test_what_cannot_be_is_refused_whoever_has_written_it(buckets: Any, volumes: Any, code: str) -> None:
    async with staged() as stage:
        functions = FunctionCreate((make_spec(await stage.client.app(), buckets=buckets, volumes=volumes),))

        assert (await failure_of(stage.client.ask("FunctionCreate", functions, FunctionCreated))).code == code


async def test_code_in_a_container_names_secrets_of_its_environment_only() -> None:
    async with staged() as stage:
        await stage.client.ask("EnvironmentCreate", EnvironmentCreate("dev"), EnvironmentInfo)
        hidden = await create(stage.client, creation(environment="dev", values=KEYS))
        parent = await stage.client.function(min_containers=1)
        client = await container_of(stage, parent)
        child = make_spec(parent.app_id, "other", buckets=(bucket(secret_id=hidden.asset_id),))

        failure = await failure_of(client.ask("FunctionCreate", FunctionCreate((child,)), FunctionCreated))

        assert failure.code == "forbidden"
