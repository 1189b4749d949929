"""Buckets of functions, with a real server that speaks S3: the node's proxy leads there, as a proxy does."""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import pytest

from squall.runtime.bucket.program import S3FS_PROGRAMS
from tests.agent.image.block.stores import S3Server
from tests.buckets import client_of
from tests.e2e import paths
from tests.e2e.installation import PROGRAMS, Installation
from tests.e2e.test_secrets import arguments_with, create, files_with, forms

EXAMPLE = Path(__file__).parent.parent.parent / "examples/storage/bucket.py"
PROGRAM = str(PROGRAMS / "bucket_user.py")
CALLER = str(PROGRAMS / "calling_buckets.py")
BUILDER = str(PROGRAMS / "building_in_buckets.py")

pytestmark = [
    pytest.mark.timeout(300),
    paths.OF_BUCKETS,
    pytest.mark.skipif(
        not any(map(os.path.exists, S3FS_PROGRAMS)), reason="missing program: s3fs (package s3fs, see make setup)"
    ),
]


@pytest.fixture
def store() -> Iterator[S3Server]:
    with S3Server() as server:
        client_of(server.environ["AWS_ENDPOINT_URL"]).create_bucket(Bucket="the-bucket")
        yield server


@pytest.fixture
def squall(make_installation: Callable[[Mapping[str, str]], Installation], store: S3Server) -> Installation:
    proxy = store.environ["AWS_ENDPOINT_URL"]
    # moto answers requests that are addressed to anybody, as a proxy is asked.
    return make_installation({"http_proxy": proxy, "HTTP_PROXY": proxy})


def objects(store: S3Server) -> dict[str, str]:
    client = client_of(store.environ["AWS_ENDPOINT_URL"])
    keys = [one["Key"] for one in client.list_objects_v2(Bucket="the-bucket").get("Contents", [])]
    return {
        key: client.get_object(Bucket="the-bucket", Key=key)["Body"].read().decode()
        for key in keys
        if not key.endswith("/")
    }


def test_a_bucket_is_read_and_written_and_its_keys_are_nowhere(
    squall: Installation, store: S3Server, tmp_path: Path
) -> None:
    named, local, variant = (f"planted-{kind}-{os.urandom(12).hex()}" for kind in ("named", "local", "variant"))
    planted = [form for value in (named, local, variant) for form in forms(value)]
    create(squall, tmp_path, "e2e-bucket", {"AWS_ACCESS_KEY_ID": "named", "AWS_SECRET_ACCESS_KEY": named})
    deployed = squall.command("deploy", PROGRAM, environ={"PLANTED_LOCAL": local}, timeout_s=240)
    assert deployed.code == 0, deployed

    running = squall.start(CALLER, executable=(sys.executable,), environ={"PLANTED_VARIANT": variant})
    running.wait_said("called")
    assert not arguments_with(planted)
    ended = running.wait(120)

    assert ended.code == 0, (ended, squall.server_log())
    answers = json.loads(ended.out.splitlines()[-1])
    assert answers["read"] == "one Read-only file system"
    assert named not in json.dumps(answers)
    assert objects(store) == {"in/a": "one", "elsewhere/b": "two"}
    assert answers["misses"].startswith("NoSuchBucket") or "NoSuchBucket" in answers["misses"], answers
    assert "bucket nowhere at /data" in answers["misses"]
    assert not files_with(squall.data_dir, planted)
    assert not any(value in f"{ended.out}{ended.err}".encode() for value in planted)
    squall.stop()
    assert not files_with(squall.data_dir, planted)


def test_steps_of_images_have_buckets_and_images_neither_them_nor_keys(
    squall: Installation, store: S3Server, tmp_path: Path
) -> None:
    named, local = f"planted-named-{os.urandom(12).hex()}", f"planted-local-{os.urandom(12).hex()}"
    create(squall, tmp_path, "e2e-bucket", {"AWS_ACCESS_KEY_ID": "named", "AWS_SECRET_ACCESS_KEY": named})
    client = client_of(store.environ["AWS_ENDPOINT_URL"])
    client.put_object(Bucket="the-bucket", Key="models/weights", Body=b"of the bucket")

    ended = squall.command("run", BUILDER, environ={"PLANTED_LOCAL": local}, timeout_s=240)

    assert ended.code == 0, ended
    assert "found ['of the bucket', 'made by a step', '', 'False']" in ended.out
    assert objects(store) == {"models/weights": "of the bucket", "models/by-a-step": "made by a step"}
    planted = [form for value in (named, local) for form in forms(value)]
    assert not files_with(squall.data_dir, planted)
    assert not any(value in f"{ended.out}{ended.err}".encode() for value in planted)


def test_the_example_writes_reports_and_reads_them(squall: Installation, store: S3Server, tmp_path: Path) -> None:
    create(squall, tmp_path, "example-bucket", {"AWS_ACCESS_KEY_ID": "me", "AWS_SECRET_ACCESS_KEY": "a-key"})
    environ = {"BUCKET": "the-bucket", "BUCKET_URL": "http://s3.us-east-1.amazonaws.com"}

    ended = squall.command("run", str(EXAMPLE), environ=environ, timeout_s=240)

    assert ended.code == 0, ended
    assert "day-1.json, day-2.json, day-3.json: 600 visitors" in ended.out
    assert sorted(objects(store)) == ["reports/day-1.json", "reports/day-2.json", "reports/day-3.json"]


def test_a_bucket_outlives_the_server_that_has_mounted_it(
    squall: Installation, store: S3Server, tmp_path: Path
) -> None:
    create(squall, tmp_path, "e2e-bucket", {"AWS_ACCESS_KEY_ID": "named", "AWS_SECRET_ACCESS_KEY": "a-key"})
    running = squall.start("run", f"{PROGRAM}::write_slowly")
    running.wait_said("begun")

    os.kill(squall.server_pid(), signal.SIGKILL)
    ended = running.wait(120)

    assert ended.code == 0, ended
    assert list(objects(store).values()) == ["begun, ended"], "the container that had begun has ended"
    squall.wait_no_processes(20)
