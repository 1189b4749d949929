"""Users of an image, by its own /etc/passwd and /etc/group."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from squall.agent.image.layer.merged import Merged

_BYTES_MAX = 2**20
_ID_MAX = 65_535
"""Containers have no ids beyond."""


class UnknownUser(Exception):
    """An image has no such user or group; the message says how it gets one."""


class User(NamedTuple):
    """Whom a process runs as."""

    uid: int
    gid: int
    home: str
    """Empty when nobody says."""


def find_user(layers: Merged, name: str) -> User:
    """The user a Dockerfile names: `name`, `name:group`, or numbers for either; root for an empty name.

    Raises:
        UnknownUser: the image has no such user or group.
    """
    user, _, group = name.partition(":")
    found = _user(layers, user) if user else User(0, 0, "/root")
    return found._replace(gid=_group(layers, group)) if group else found


def _user(layers: Merged, user: str) -> User:
    for row in _rows(layers, "/etc/passwd", 7):
        if user in (row[0], row[2]) and row[2].isdecimal() and row[3].isdecimal():
            return User(_checked(row[2]), _checked(row[3]), row[5])
    if user.isdecimal():
        return User(_checked(user), 0, "")
    raise UnknownUser(f"the image has no user {user!r}: make one in an earlier step, such as `useradd {user}`")


def _group(layers: Merged, group: str) -> int:
    if group.isdecimal():
        return _checked(group)
    for row in _rows(layers, "/etc/group", 4):
        if row[0] == group and row[2].isdecimal():
            return _checked(row[2])
    raise UnknownUser(f"the image has no group {group!r}: make one in an earlier step, such as `groupadd {group}`")


def _checked(number: str) -> int:
    if len(number) > 5 or int(number) > _ID_MAX:
        raise UnknownUser(f"user or group id {number[:20]} is beyond {_ID_MAX}, the last one containers have")
    return int(number)


def _rows(layers: Merged, path: str, fields: int) -> Iterator[list[str]]:
    text = layers.read(path, _BYTES_MAX).decode(errors="replace")
    rows = (line.split(":") for line in text.splitlines())
    return (row for row in rows if len(row) >= fields)
