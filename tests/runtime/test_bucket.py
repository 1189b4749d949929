"""How the program of a bucket is called, what it sees, and what is told when it ends."""

from __future__ import annotations

from dataclasses import replace

import pytest

from squall.runtime import operations as op
from squall.runtime.bucket.plan import plan_server
from squall.runtime.bucket.program import arguments, cause_of, environment
from squall.runtime.plan import plan_start
from squall.runtime.spec import Bucket, ContainerSpec, IdRange, NetworkSlot

KEYS = {"AWS_ACCESS_KEY_ID": "somebody", "AWS_SECRET_ACCESS_KEY": "planted", "AWS_SESSION_TOKEN": "for-now"}
BUCKET = Bucket("0", "/data", "the-bucket", env=KEYS)
SLOT = NetworkSlot("s", "/netns/s", "10.0.0.2/32", "10.0.0.1", "nameserver 10.0.0.1\n", {"https_proxy": "http://p:1"})
SPEC = ContainerSpec("ct-1", ["/layer"], "/state/ct-1", IdRange(100_000), ["x"], {}, network=SLOT, buckets=[BUCKET])


def options(bucket: Bucket) -> list[str]:
    argv = list(arguments("/usr/bin/s3fs", bucket, (5, 6), "/mnt", "/tmp"))
    return [argv[index + 1] for index, word in enumerate(argv) if word == "-o"]


def test_a_bucket_is_named_with_its_prefix() -> None:
    assert arguments("/s3fs", BUCKET, (0, 0), "/mnt", "/tmp")[1] == "the-bucket:/"
    assert arguments("/s3fs", replace(BUCKET, key_prefix="a/b/"), (0, 0), "/mnt", "/tmp")[1] == "the-bucket:/a/b"


@pytest.mark.parametrize(
    ("fields", "option"),
    [
        ({}, "url=https://s3.amazonaws.com"),
        ({}, "uid=5"),
        ({}, "sigv4"),
        ({}, "gid=6"),
        ({"endpoint_url": "https://store.example.com/"}, "url=https://store.example.com"),
        ({"endpoint_url": "http://127.0.0.1:9000"}, "use_path_request_style"),
        ({"endpoint_url": "http://[::1]:9000"}, "use_path_request_style"),
        ({"endpoint_url": "http://localhost:9000"}, "use_path_request_style"),
        ({"has_path_style": True}, "use_path_request_style"),
        ({"is_requester_paying": True}, "requester_pays"),
        ({"is_read_only": True}, "ro"),
        ({"env": {}}, "public_bucket=1"),
        ({"env": {**KEYS, "AWS_REGION": "eu-central-1"}}, "endpoint=eu-central-1"),
    ],
)
def test_what_is_asked_for_is_said(fields: dict[str, object], option: str) -> None:
    assert option in options(replace(BUCKET, **fields))  # type: ignore[arg-type]


@pytest.mark.parametrize("option", ["use_path_request_style", "requester_pays", "ro", "public_bucket=1"])
def test_what_is_not_asked_for_is_not_said(option: str) -> None:
    assert option not in options(replace(BUCKET, endpoint_url="https://store.example.com"))


def test_keys_are_in_the_environment_and_nowhere_else() -> None:
    env = environment(BUCKET, SLOT.env)
    argv = arguments("/usr/bin/s3fs", BUCKET, (0, 0), "/mnt", "/tmp")

    assert (env["AWSACCESSKEYID"], env["AWSSECRETACCESSKEY"], env["AWSSESSIONTOKEN"]) == tuple(KEYS.values())
    assert env["https_proxy"] == "http://p:1"
    assert not any(value in word for word in argv for value in KEYS.values())
    assert "planted" not in repr(BUCKET) + repr(SPEC)


@pytest.mark.parametrize(
    ("output", "cause"),
    [
        ("", "s3fs ended without a word"),
        (
            "2026-12-01T02:19:43.534Z [ERR] curl.cpp:CheckBucket(3421): Check bucket failed, S3 response: <?xml?>\n"
            "<Error><Code>NoSuchBucket</Code><Message>The bucket does not exist</Message></Error>\n"
            "2026-12-01T02:19:43.534Z [CRT] s3fs.cpp:s3fs_check_service(3593): bucket or key not found(host=x)",
            "NoSuchBucket: The bucket does not exist",
        ),
        (
            "2026-12-01T02:19:45.535Z [CRT] s3fs_logger.cpp:Low(240): change debug level from [CRT] to [ERR]\n"
            "2026-12-01T02:19:45.537Z [ERR] curl.cpp:RequestPerform(2416): ### CURLE_COULDNT_CONNECT\n"
            "2026-12-01T02:19:49.537Z [CRT] s3fs.cpp:s3fs_check_service(3597): unable to connect(host=http://h:1) "
            "- result of checking service.",
            "unable to connect(host=http://h:1)",
        ),
        ("s3fs: could not determine how to establish security credentials.", "could not determine how to establish"),
        ("2026-12-01T02:19:49.537Z [ERR] curl.cpp:x(1): ### giving up", "### giving up"),
    ],
)
def test_the_cause_is_the_store_s_word_or_what_was_worst(output: str, cause: str) -> None:
    assert cause_of(output).startswith(cause)


def test_its_process_may_do_nothing_when_it_becomes_the_program() -> None:
    operations = [one for phase in plan_server(SPEC, BUCKET, "/usr/bin/s3fs", []) for one in phase.operations]
    kinds = [type(one) for one in operations]

    assert op.JoinNetwork("/netns/s") in operations
    assert op.DropCapabilities(()) in operations
    confined = kinds.index(op.EnterUserNamespace)
    assert kinds.index(op.PivotRoot) < kinds.index(op.EnterCgroup) < confined
    assert kinds[confined:] == [
        op.EnterUserNamespace,
        op.BecomeUser,
        op.DropCapabilities,
        op.ForbidPrivileges,
        op.OpenStandardInput,
        op.KeepMade,
        op.FilterCalls,
        op.Execute,
    ]


def test_without_a_network_it_has_none_either() -> None:
    phases = plan_server(replace(SPEC, network=None), BUCKET, "/usr/bin/s3fs", [])

    assert not any(isinstance(one, op.JoinNetwork) for phase in phases for one in phase.operations)


def test_a_container_attaches_its_buckets_before_it_gives_up_the_machine_s_root() -> None:
    operations = [one for phase in plan_start(SPEC, []) for one in phase.operations]

    assert operations.index(op.AttachBucket("0", "/data")) < operations.index(op.EnterUserNamespace(SPEC.id_range))
