"""What the spawner writes down before it makes anything, so that whoever comes after a kill -9 knows what to look for.

A record is written beside its place and renamed, never half there. It is not synced to the disk: it must survive the
death of the spawner, which the page cache does; after a crash of the machine there are no processes, mounts or cgroups
left to find, and records may be empty.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from squall.runtime.errors import RuntimeFailure, describe_errno

log = logging.getLogger(__name__)

_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,127}")


@dataclass(frozen=True, slots=True)
class Record:
    """A container that is being made, runs, or has not been removed yet."""

    container_id: str
    state_dir: str
    """Empty where the record could not be read."""


def check_name(kind: str, name: str) -> str:
    """The name, if it can be part of a path without surprises.

    Raises:
        RuntimeFailure: it cannot.
    """
    if not _ID.fullmatch(name):
        raise RuntimeFailure(f"cannot use {name!r} as {kind}: letters, digits, '-', '_' and '.' only, at most 128")
    return name


class Records:
    """The records of one spawner, in `directory`."""

    def __init__(self, directory: str) -> None:
        self.directory = directory

    def write(self, record: Record) -> None:
        """Remember a container. Raises `RuntimeFailure` when the disk does not take it."""
        path = self._path(record.container_id)
        try:
            with open(f"{path}.new", "w", encoding="utf-8") as file:
                json.dump({"container_id": record.container_id, "state_dir": record.state_dir}, file)
            os.replace(f"{path}.new", path)
        except OSError as error:
            with contextlib.suppress(OSError):
                os.unlink(f"{path}.new")
            raise RuntimeFailure(describe_errno("write the record", path, error.errno or 0)) from error

    def forget(self, container_id: str) -> None:
        """Remove a container's record. Idempotent."""
        try:
            os.unlink(self._path(container_id))
        except FileNotFoundError:
            pass

    def all(self) -> Iterator[Record]:
        """Every record; half-written ones (nothing was made yet) are deleted. Of what cannot be read, which the log
        tells, the name of the file says whose it was.
        """
        if not os.path.isdir(self.directory):
            return
        for name in sorted(os.listdir(self.directory)):
            path = f"{self.directory}/{name}"
            if name.endswith(".new"):
                os.unlink(path)
            elif name.endswith(".json"):
                container_id = name.removesuffix(".json")
                values = read_noted(path)
                yield Record(container_id, values["state_dir"] if values else "")

    def _path(self, container_id: str) -> str:
        return f"{self.directory}/{container_id}.json"


def read_noted(path: str) -> Mapping[str, str] | None:
    """What was written down in a file, or None where a crash of the machine has left less of it; the log tells that.

    Raises:
        FileNotFoundError: there is no such file.
    """
    with open(path, "rb") as file:
        content = file.read()
    try:
        values = json.loads(content)
    except ValueError:
        values = None
    if not isinstance(values, dict):
        log.warning("what %s said is lost: %d bytes that cannot be read", path, len(content))
        return None
    return values
