"""A user and a password for one registry, handed to skopeo by a file that is on no disk.

Arguments can be seen by everyone on the machine and an environment by every program of the account; a file in a
directory stays when its writer is killed. So it is a file in memory, open in skopeo and in us, gone with the two.
"""

from __future__ import annotations

import base64
import contextlib
import json
import os
from collections.abc import Iterator
from dataclasses import dataclass, field

_HOST_OF_SHORT_NAMES = "docker.io"  # tidy: what skopeo takes a name without a registry for, and looks passwords up by


@dataclass(frozen=True, slots=True)
class Credentials:
    """Who asks a registry. The password is in no representation of it."""

    username: str
    password: str = field(repr=False)


def registry_of(name: str) -> str:
    """The part of an image's name that says where it is; empty for short names."""
    first, slash, _ = name.partition("/")
    return first if slash and (set(first) & set(".:") or first == "localhost") else ""


def place_of(name: str) -> str:
    """The registry that an image's name leads to; short names lead to that of skopeo."""
    return registry_of(name) or _HOST_OF_SHORT_NAMES


@contextlib.contextmanager
def auth_file(name: str, credentials: Credentials | None) -> Iterator[tuple[tuple[str, ...], tuple[int, ...]]]:
    """The options that let skopeo use credentials for an image's registry, and what it must inherit for them.

    It uses no others then. Without credentials, it uses those this machine has.
    """
    if credentials is None:
        yield (), ()
        return
    pair = base64.b64encode(f"{credentials.username}:{credentials.password}".encode()).decode()
    content = json.dumps({"auths": {place_of(name): {"auth": pair}}}).encode()
    descriptor = os.memfd_create("credentials")
    try:
        os.write(descriptor, content)
        yield ("--authfile", f"/proc/self/fd/{descriptor}"), (descriptor,)
    finally:
        os.close(descriptor)
