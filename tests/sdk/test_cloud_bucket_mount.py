"""CloudBucketMount: what it takes, and where it may be mounted."""

from __future__ import annotations

from typing import Any

import pytest

import squall
from squall.exception import InvalidError
from squall.protocol.bucket import BucketMount
from squall.sdk._volume_mounts import check_volumes, mounts_of

SECRET = squall.Secret.from_dict({"AWS_ACCESS_KEY_ID": "a", "AWS_SECRET_ACCESS_KEY": "b"})


def test_it_keeps_what_it_was_given() -> None:
    mount = squall.CloudBucketMount("the-bucket", "https://store", "a/", SECRET, None, True, True, True)

    assert (mount.bucket_name, mount.bucket_endpoint_url, mount.key_prefix) == ("the-bucket", "https://store", "a/")
    assert mount.secret is SECRET
    assert mount.read_only
    assert mount.requester_pays
    assert mount.force_path_style
    assert repr(mount) == "CloudBucketMount('the-bucket')"


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"bucket_name": 5}, "bucket_name=5 must be a string"),
        ({"bucket_name": "x"}, "no name of a bucket"),
        ({"key_prefix": "a"}, "must end with a slash"),
        ({"key_prefix": 1}, "key_prefix=1 must be a string"),
        ({"bucket_endpoint_url": "store"}, "no address of a store"),
        ({"secret": {"AWS_ACCESS_KEY_ID": "planted"}}, "must be a squall.Secret"),
        ({"requester_pays": True}, "needs a secret="),
        ({"read_only": 1}, "read_only"),
        ({"oidc_auth_role_arn": "arn:aws:iam::1:role/x"}, "oidc_auth_role_arn= is not in this version"),
    ],
)
def test_what_is_impossible_is_refused_at_once(given: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidError, match=message):
        squall.CloudBucketMount(**{"bucket_name": "the-bucket", **given})


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"/tmp": squall.CloudBucketMount("the-bucket")}, "/tmp"),
        ({"/data": "the-bucket"}, "must be a squall.Volume or a squall.CloudBucketMount"),
    ],
)
def test_it_is_mounted_where_volumes_are(given: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidError, match=message):
        check_volumes(given, "function f")


async def test_its_record_has_the_secret_s_id() -> None:
    async def name_secret(secret: squall.Secret) -> str:
        assert secret is SECRET
        return "st-1"

    given = {
        "/b": squall.CloudBucketMount("the-bucket", key_prefix="a/", secret=SECRET, read_only=True),
        "/a": squall.CloudBucketMount("public"),
    }

    volumes, buckets = await mounts_of(check_volumes(given, "f"), None, name_secret)  # type: ignore[arg-type]

    assert volumes == ()
    assert buckets == (
        BucketMount("public", "/a"),
        BucketMount("the-bucket", "/b", key_prefix="a/", secret_id="st-1", is_read_only=True),
    )


async def test_nothing_is_mounted_in_a_bucket() -> None:
    async def name_secret(secret: squall.Secret) -> str:
        return ""

    given = {"/a": squall.CloudBucketMount("one"), "/a/b": squall.CloudBucketMount("two")}
    given = {path: squall.CloudBucketMount(mount.bucket_name * 2) for path, mount in given.items()}

    with pytest.raises(InvalidError, match="in the bucket at /a"):
        await mounts_of(check_volumes(given, "f"), None, name_secret)  # type: ignore[arg-type]
