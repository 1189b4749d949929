"""s3fs, which serves a bucket: where it is, how it is called, and what it says when it cannot."""

from __future__ import annotations

import ipaddress
import os
import re
from collections.abc import Mapping, Sequence
from urllib.parse import urlsplit

from squall.runtime.errors import FeatureMissing
from squall.runtime.spec import Bucket

S3FS_PROGRAMS = ("/usr/bin/s3fs", "/usr/local/bin/s3fs")
HANDOVER_PROGRAMS = ("/bin/fusermount", "/usr/bin/fusermount", "/usr/local/bin/fusermount")
"""What it asks for the file system to serve: a program of the same name stands there in its sight."""
FUSE_DEVICE = "/dev/fuse"

CONNECT_S, ATTEMPTS = 10, 3
LOOK_AGAIN_S = 15
"""What is known of a key is asked for anew after so long; whoever opens it, asks at once."""
DISK_FREE_MIB = 2_560
"""What is to stay free of the node's disk: with less, it goes without files in between."""

_OF_AMAZON = "https://s3.amazonaws.com"
_CODE = re.compile(r"<Code>([^<]{1,200})</Code>(?:\s*<Message>([^<]{0,500}))?")
_LINE = re.compile(r"^\S+ \[(\w+)\] \S+\(\d+\): (.*)$")
_GIVEN_NAMES = (
    ("AWS_ACCESS_KEY_ID", "AWSACCESSKEYID"),
    ("AWS_SECRET_ACCESS_KEY", "AWSSECRETACCESSKEY"),
    ("AWS_SESSION_TOKEN", "AWSSESSIONTOKEN"),
)


_OF_BUCKETS = ".buckets"


def cgroup_name(container_id: str) -> str:
    """Of the programs of a container, beside the container's own."""
    return f"{container_id}{_OF_BUCKETS}"


def container_of(name: str) -> str:
    """The container that a cgroup belongs to, by its name."""
    return name.removesuffix(_OF_BUCKETS)


def find_s3fs() -> str:
    """Where it is on this machine.

    Raises:
        FeatureMissing: it is not there, or what it needs.
    """
    for path in S3FS_PROGRAMS:
        if os.path.exists(path):
            if not any(map(os.path.exists, HANDOVER_PROGRAMS)):
                raise FeatureMissing("cannot mount buckets: the node has no fusermount; install the package fuse3")
            if not os.path.exists(FUSE_DEVICE):
                raise FeatureMissing(f"cannot mount buckets: the node has no {FUSE_DEVICE}; load the module fuse")
            return path
    raise FeatureMissing("cannot mount buckets: s3fs is missing on the node; install the package s3fs")


def arguments(program: str, bucket: Bucket, user: tuple[int, int], place: str, files: str) -> Sequence[str]:
    """How it is called.

    Args:
        user: whose the files are, as seen inside.
        place: an empty directory, which it takes for the mount point.
        files: a directory for what is read or written just now.
    """
    url = bucket.endpoint_url.rstrip("/") or _OF_AMAZON
    options = [
        f"url={url}",
        f"uid={user[0]}",
        f"gid={user[1]}",
        f"tmpdir={files}",
        f"ensure_diskfree={DISK_FREE_MIB}",
        f"connect_timeout={CONNECT_S}",
        f"readwrite_timeout={bucket.silent_s}",
        f"retries={ATTEMPTS}",
        f"stat_cache_expire={LOOK_AGAIN_S}",
        "multireq_max=50",
        # Else it asks again with signatures of before, which few stores take, and wrong keys are told 15 s later.
        "sigv4",
        "allow_other",
        "dbglevel=err",
    ]
    if region := bucket.env.get("AWS_REGION") or bucket.env.get("AWS_DEFAULT_REGION"):
        options.append(f"endpoint={region}")
    if bucket.has_path_style or _is_address(url):
        options.append("use_path_request_style")
    if bucket.is_requester_paying:
        options.append("requester_pays")
    if "AWS_ACCESS_KEY_ID" not in bucket.env:
        options.append("public_bucket=1")
    if bucket.is_read_only:
        options.append("ro")
    source = f"{bucket.bucket}:/{bucket.key_prefix.rstrip('/')}"
    return [program, source, place, "-f", *(word for one in options for word in ("-o", one))]


def environment(bucket: Bucket, network: Mapping[str, str]) -> dict[str, str]:
    """The variables that it has: keys, and how its network reaches the outside."""
    # Its older versions know names of their own only.
    keys = {its_name: bucket.env[name] for name, its_name in _GIVEN_NAMES if bucket.env.get(name)}
    return {**network, **keys, "HOME": "/", "LC_ALL": "C"}


def cause_of(output: str) -> str:
    """What it has said of why it ended: the store's own words where there are some."""
    answers = _CODE.findall(output)
    if answers:
        code, message = answers[-1]
        return f"{code}: {message}" if message else code
    said: list[tuple[str, str]] = []
    for line in output.splitlines():
        matched = _LINE.match(line)
        if matched:
            said.append((matched[1], matched[2]))
        elif line.startswith("s3fs: "):
            said.append(("CRT", line.removeprefix("s3fs: ")))
    worst = [text for kind, text in said if kind == "CRT" and "debug level" not in text]
    told = worst or [text for kind, text in said if kind == "ERR"]
    if not told:
        return "s3fs ended without a word"
    return told[0].removesuffix(" - result of checking service.").strip()


def _is_address(url: str) -> bool:
    """Names of buckets cannot be put before an address."""
    host = urlsplit(url).hostname or ""
    if host == "localhost":
        return True
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True
