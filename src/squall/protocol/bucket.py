"""Buckets of a store that speaks S3, mounted in containers. What is in them is the store's: nothing is kept here."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from urllib.parse import urlsplit

from squall.protocol.records import field, record
from squall.protocol.volume import VolumeMount, target_problem

OF_FUNCTION_MAX = 20
PREFIX_BYTES_MAX, URL_CHARS_MAX = 900, 500
KEY_NAMES = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "AWS_REGION", "AWS_DEFAULT_REGION")
"""Of what is in a secret, this goes to the node."""
OTHER_NAMES = {
    "GOOGLE_ACCESS_KEY_ID": "AWS_ACCESS_KEY_ID",
    "GOOGLE_ACCESS_KEY_SECRET": "AWS_SECRET_ACCESS_KEY",
}
"""What secrets for other stores call the same."""
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{1,61}[A-Za-z0-9]")
_HOST = re.compile(r"[A-Za-z0-9.-]{1,253}|\[[0-9A-Fa-f:.]{2,45}\]")
_URL_PATH = re.compile(r"(/[A-Za-z0-9._~-]+)*/?")


@record
class BucketMount:
    """A bucket of a function."""

    bucket: str
    target: str
    """An absolute directory in the container."""
    endpoint_url: str = ""
    """Of the store; empty: Amazon's."""
    key_prefix: str = ""
    """Only keys that begin with it are seen, without it; it ends with a slash."""
    secret_id: str = ""
    """What the store is asked with: `KEY_NAMES`. Without one it is asked as by anybody."""
    is_read_only: bool = False
    is_requester_paying: bool = False
    has_path_style: bool = False
    """The bucket's name is part of the path of requests, and not of the host's name."""


@record
class BucketStart:
    """A bucket of a container that is to start."""

    mount: BucketMount
    keys: dict[str, str] = field(default_factory=dict, repr=False)
    """Of `KEY_NAMES`, what is in its secret. In the memory of the node, and written nowhere."""


def bucket_problem(mount: BucketMount) -> str:
    """What is wrong with one bucket; empty when nothing is."""
    if not _NAME.fullmatch(mount.bucket):
        return f"{mount.bucket[:80]!r} is no name of a bucket: 3 to 63 letters, digits, '.', '-' and '_'"
    if problem := target_problem(mount.target, "a bucket"):
        return problem
    if mount.endpoint_url and (problem := _url_problem(mount.endpoint_url)):
        return problem
    if mount.key_prefix and (problem := _prefix_problem(mount.key_prefix)):
        return problem
    return ""


def buckets_problem(mounts: Sequence[BucketMount], volumes: Sequence[VolumeMount]) -> str:
    """What is wrong with the buckets of one function, beside its volumes; empty when nothing is."""
    if len(mounts) > OF_FUNCTION_MAX:
        return f"it has {len(mounts)} buckets, at most {OF_FUNCTION_MAX}"
    for mount in mounts:
        if problem := bucket_problem(mount):
            return problem
    targets = [*(mount.target for mount in mounts), *(volume.target for volume in volumes)]
    for index, mount in enumerate(mounts):
        others = targets[:index] + targets[index + 1 :]
        if mount.target in others:
            return f"a bucket and something else are to be mounted at {mount.target}"
        for target in others:
            if target.startswith(f"{mount.target}/"):
                return f"nothing can be mounted at {target}, which is in the bucket at {mount.target}"
    return ""


def keys_in(values: Mapping[str, str]) -> dict[str, str]:
    """Of what is in a secret, what a store is asked with."""
    named = {OTHER_NAMES[name]: value for name, value in values.items() if name in OTHER_NAMES}
    named |= {name: value for name, value in values.items() if name in KEY_NAMES}
    return {name: value for name, value in named.items() if value}


def keys_problem(keys: dict[str, str]) -> str:
    """What is wrong with the keys for a store; empty when nothing is."""
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        if name not in keys:
            return f"its secret has no {name}"
    if any(not value.isprintable() or " " in value or "," in value for value in keys.values()):
        return "what is in its secret has spaces, commas or characters that cannot be printed"
    return ""


def _url_problem(url: str) -> str:
    wrong = f"{url[:200]!r} is no address of a store, such as https://storage.example.com"
    try:
        parts = urlsplit(url)
        parts.port  # noqa: B018 - raises where it is none
    except ValueError:
        return wrong
    if parts.username is not None or parts.password is not None:
        return "the address of a store is written without a name and a password: keys are in the secret"
    host = parts.netloc.rpartition(":")[0] if parts.port is not None else parts.netloc
    is_right = (
        len(url) <= URL_CHARS_MAX
        and parts.scheme in ("http", "https")
        and _HOST.fullmatch(host)
        and _URL_PATH.fullmatch(parts.path)
        and not parts.query
        and not parts.fragment
    )
    return "" if is_right else wrong


def _prefix_problem(prefix: str) -> str:
    if not prefix.endswith("/"):
        return f"the prefix {prefix[:200]!r} must end with a slash"
    if len(prefix.encode(errors="replace")) > PREFIX_BYTES_MAX:
        return f"the prefix of a bucket has {PREFIX_BYTES_MAX} bytes at most"
    parts = prefix[:-1].split("/")
    if not prefix.isprintable() or any(part in ("", ".", "..") for part in parts):
        return f"the prefix {prefix[:200]!r} has parts that are no names, as in a/b/"
    return ""
