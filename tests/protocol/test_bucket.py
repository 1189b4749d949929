"""What may be a bucket of a function, and which of a secret's values are its keys."""

from __future__ import annotations

from typing import Any

import pytest

from squall.protocol.bucket import (
    OF_FUNCTION_MAX,
    BucketMount,
    bucket_problem,
    buckets_problem,
    keys_in,
    keys_problem,
)
from squall.protocol.volume import VolumeMount


def bucket(**fields: Any) -> BucketMount:
    return BucketMount(**{"bucket": "the-bucket", "target": "/data", **fields})


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"bucket": "a.b-c"},
        {"bucket": "Old_Bucket1"},
        {"endpoint_url": "https://account.r2.cloudflarestorage.com"},
        {"endpoint_url": "http://127.0.0.1:9000/"},
        {"endpoint_url": "http://[::1]:9000"},
        {"endpoint_url": "https://store.example.com/s3"},
        {"key_prefix": "a/"},
        {"key_prefix": "a b/ä,=/"},
    ],
)
def test_what_stores_have_is_taken(fields: dict[str, str]) -> None:
    assert bucket_problem(bucket(**fields)) == ""


@pytest.mark.parametrize(
    ("fields", "problem"),
    [
        ({"bucket": ""}, "no name of a bucket"),
        ({"bucket": "ab"}, "no name of a bucket"),
        ({"bucket": "a" * 64}, "no name of a bucket"),
        ({"bucket": "a:/b"}, "no name of a bucket"),
        ({"bucket": "-oallow"}, "no name of a bucket"),
        ({"bucket": "bucket\n"}, "no name of a bucket"),
        ({"target": "data"}, "absolute path"),
        ({"target": "/proc"}, "which containers need"),
        ({"endpoint_url": "store.example.com"}, "no address of a store"),
        ({"endpoint_url": "ftp://store.example.com"}, "no address of a store"),
        ({"endpoint_url": "https://store.example.com,passwd_file=/x"}, "no address of a store"),
        ({"endpoint_url": "https://store.example.com/a,b"}, "no address of a store"),
        ({"endpoint_url": "https://store.example.com?x=1"}, "no address of a store"),
        ({"endpoint_url": "https://store.example.com:port"}, "no address of a store"),
        ({"endpoint_url": "https://key:planted@store.example.com"}, "keys are in the secret"),
        ({"endpoint_url": "https://"}, "no address of a store"),
        ({"key_prefix": "a"}, "must end with a slash"),
        ({"key_prefix": "/"}, "no names"),
        ({"key_prefix": "/a/"}, "no names"),
        ({"key_prefix": "a//b/"}, "no names"),
        ({"key_prefix": "a/../b/"}, "no names"),
        ({"key_prefix": "./"}, "no names"),
        ({"key_prefix": "a\nb/"}, "no names"),
        ({"key_prefix": "a" * 900 + "/"}, "900 bytes at most"),
    ],
)
def test_what_is_none_is_refused_in_words(fields: dict[str, str], problem: str) -> None:
    assert problem in bucket_problem(bucket(**fields))
    assert "planted" not in bucket_problem(bucket(**fields))


def test_several_buckets_and_volumes_have_places_of_their_own() -> None:
    assert buckets_problem([bucket(), bucket(target="/other")], [VolumeMount("vo-1", "/volume")]) == ""
    assert buckets_problem([bucket(target="/volume/below")], [VolumeMount("vo-1", "/volume")]) == ""


@pytest.mark.parametrize(
    ("targets", "volumes", "problem"),
    [
        (["/data", "/data"], [], "something else"),
        (["/data"], ["/data"], "something else"),
        (["/data"], ["/data/below"], "in the bucket at /data"),
        (["/data/below", "/data"], [], "in the bucket at /data"),
        ([f"/{number}" for number in range(OF_FUNCTION_MAX + 1)], [], "at most 20"),
        (["relative"], [], "absolute"),
    ],
)
def test_two_things_in_one_place_are_refused(targets: list[str], volumes: list[str], problem: str) -> None:
    mounts = [bucket(target=target) for target in targets]

    assert problem in buckets_problem(mounts, [VolumeMount(f"vo-{target}", target) for target in volumes])


def test_of_a_secret_only_the_keys_are_taken() -> None:
    values = {"AWS_ACCESS_KEY_ID": "a", "AWS_SECRET_ACCESS_KEY": "b", "AWS_REGION": "", "PASSWORD": "c"}

    assert keys_in(values) == {"AWS_ACCESS_KEY_ID": "a", "AWS_SECRET_ACCESS_KEY": "b"}
    google = {"GOOGLE_ACCESS_KEY_ID": "g", "GOOGLE_ACCESS_KEY_SECRET": "s"}
    assert keys_in(google) == {"AWS_ACCESS_KEY_ID": "g", "AWS_SECRET_ACCESS_KEY": "s"}
    assert keys_problem(keys_in(google)) == ""


@pytest.mark.parametrize(
    ("keys", "problem"),
    [
        ({}, "no AWS_ACCESS_KEY_ID"),
        ({"AWS_ACCESS_KEY_ID": "a"}, "no AWS_SECRET_ACCESS_KEY"),
        ({"AWS_ACCESS_KEY_ID": "a", "AWS_SECRET_ACCESS_KEY": "planted\n"}, "cannot be printed"),
        ({"AWS_ACCESS_KEY_ID": "a", "AWS_SECRET_ACCESS_KEY": "b", "AWS_REGION": "x,url=y"}, "commas"),
    ],
)
def test_a_secret_without_keys_is_told_without_its_values(keys: dict[str, str], problem: str) -> None:
    assert problem in keys_problem(keys)
    assert "planted" not in keys_problem(keys)
