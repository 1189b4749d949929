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
from pathlib import Path

_HOST_OF_SHORT_NAMES = "docker.io"  # tidy: what skopeo takes a name without a registry for, and looks passwords up by


@dataclass(frozen=True, slots=True)
class Credentials:
    """Who asks a registry. The password is in no representation of it."""

    username: str
    password: str = field(repr=False)
    known_as: str = ""
    """What a user who is refused has to look at; empty for the password."""

    @property
    def pair(self) -> str:
        """Both as a registry is told them."""
        return base64.b64encode(f"{self.username}:{self.password}".encode()).decode()

    @property
    def hidden(self) -> tuple[str, str]:
        """What is in nothing that anybody is shown."""
        return self.password, self.pair


@dataclass(frozen=True, slots=True)
class AwsKeys:
    """Who asks AWS for a password. What is secret of them is in no representation."""

    access_key_id: str
    secret_access_key: str = field(repr=False)
    region: str
    session_token: str = field(default="", repr=False)
    """Of keys that AWS has given for a while."""
    endpoint: str = ""
    """URL of what speaks for AWS; empty for AWS itself."""

    @property
    def hidden(self) -> tuple[str, str]:
        """As those of `Credentials`."""
        return self.secret_access_key, self.session_token


def registry_of(name: str) -> str:
    """The part of an image's name that says where it is; empty for short names."""
    first, slash, _ = name.partition("/")
    return first if slash and (set(first) & set(".:") or first == "localhost") else ""


def place_of(name: str) -> str:
    """The registry that an image's name leads to; short names lead to that of skopeo."""
    return registry_of(name) or _HOST_OF_SHORT_NAMES


@contextlib.contextmanager
def file_in_memory(name: str, content: str) -> Iterator[int]:
    """A descriptor of a file that is on no disk and ends with those who have it open."""
    descriptor = os.memfd_create(name)
    try:
        os.write(descriptor, content.encode())
        yield descriptor
    finally:
        os.close(descriptor)


def path_of(descriptor: int) -> Path:
    """Such a file, also in a program that has inherited it; opened by this it is read from its beginning."""
    return Path(f"/proc/self/fd/{descriptor}")


@contextlib.contextmanager
def auth_file(name: str, credentials: Credentials | None) -> Iterator[tuple[tuple[str, ...], tuple[int, ...]]]:
    """The options that let skopeo use credentials for an image's registry, and what it must inherit for them.

    It uses no others then. Without credentials, it uses those this machine has.
    """
    if credentials is None:
        yield (), ()
        return
    content = json.dumps({"auths": {place_of(name): {"auth": credentials.pair}}})
    with file_in_memory("credentials", content) as descriptor:
        yield ("--authfile", str(path_of(descriptor))), (descriptor,)
