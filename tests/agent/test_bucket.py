"""Buckets of a container as the runtime takes them, and what they mean for how it starts."""

from __future__ import annotations

from squall.agent.bucket import buckets_of
from squall.agent.template.way import obstacle
from squall.protocol.bucket import BucketMount, BucketStart
from squall.protocol.records import replace
from squall.runtime.spec import Bucket
from tests.agent.template.test_volumes import BUILT, START

KEYS = {"AWS_ACCESS_KEY_ID": "one", "AWS_SECRET_ACCESS_KEY": "planted"}


def test_each_is_taken_as_it_was_asked_for() -> None:
    mount = BucketMount("some:bucket", "/data", "https://store", "a/", "st-1", True, True, True)

    assert buckets_of([BucketStart(BucketMount("public", "/p")), BucketStart(mount, KEYS)]) == (
        Bucket("0", "/p", "public"),
        Bucket("1", "/data", "some:bucket", "https://store", "a/", True, True, True, env=KEYS),
    )


def test_a_container_with_buckets_is_no_fork() -> None:
    request = replace(START, buckets=(BucketStart(BucketMount("bucket", "/data")),), is_snapshot_enabled=True)

    assert obstacle(request, BUILT, is_restored=False) == "it has buckets, which forks are not given yet"
