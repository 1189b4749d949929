"""What the agent writes down about a container before it makes it: its successor takes it over, or cleans up."""

from __future__ import annotations

import json
import os
from pathlib import Path

from squall.protocol.records import RecordError, from_wire, record, to_wire

_NAME = "agent.json"


@record
class ContainerRecord:
    """One container, as its directory knows it. The token itself is in the container's environment only."""

    container_id: str
    app_id: str
    function_id: str
    image_id: str
    token_sha256: str
    mount_set: str = ""
    disk_mib: int | None = None
    layers: tuple[str, ...] = ()
    """What it stands on, by path: its image may have been built anew since."""
    version: int = 0
    """Of its app, as in `ContainerStart`."""
    memory_limit_mib: int = 0


def write_record(directory: Path, record: ContainerRecord) -> None:
    """Write the record of a new container; readable by root only."""
    # In one go, not by rename: if it is cut short the container does not exist yet, and its directory is swept.
    descriptor = os.open(directory / _NAME, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    with open(descriptor, "w", encoding="utf-8") as file:
        json.dump(to_wire(record), file)


def read_record(directory: Path) -> ContainerRecord | None:
    """The record in a container's directory, or None when it has none that can be read."""
    try:
        return from_wire(ContainerRecord, json.loads((directory / _NAME).read_text(encoding="utf-8")))
    except (OSError, RecordError, ValueError):
        return None
