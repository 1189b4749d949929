"""What the agent writes down about a container before it makes it: its successor takes it over, or cleans up."""

from __future__ import annotations

import asyncio
import errno
import json
import logging
import os
from pathlib import Path

from squall.protocol.function import NAMESPACES
from squall.protocol.records import RecordError, from_wire, record, to_wire

_NAME = "agent.json"
_LACKS = (errno.EMFILE, errno.ENFILE, errno.ENOMEM)
READ_AGAIN_S = 1.0
"""Until it is tried again to read one, for want of files or memory."""

_log = logging.getLogger("squall.agent.record")


@record
class ContainerRecord:
    """One container, as its directory knows it. The token itself is in the container's environment only."""

    container_id: str
    """Empty while it is not known: of a cell."""
    app_id: str
    function_id: str
    image_id: str
    token_sha256: str
    """Empty while there is none."""
    mount_set: str = ""
    disk_mib: int | None = None
    layers: tuple[str, ...] = ()
    """What it stands on, by path: its image may have been built anew since."""
    version: int = 0
    """Of its app, as in `ContainerStart`."""
    memory_limit_mib: int = 0
    memory_mib: int = 0
    """What it reserves."""
    cell_id: str = ""
    """Of a clone: the runtime has it by this name, which is older than the container."""
    template_id: str = ""
    """Of a clone."""
    range_owner: str = ""
    """Whose id range it has, where that is not its function's: of an image template and its clones."""
    isolation: str = NAMESPACES

    @property
    def runtime_id(self) -> str:
        """What the runtime calls it, and its directory, its control group and its slot are called."""
        return self.cell_id or self.container_id


def write_record(directory: Path, record: ContainerRecord) -> None:
    """Write the record of a container that is not running yet; readable by root only."""
    # In one go, not by rename: if it is cut short the container has not begun yet, and its directory is swept. What was
    # there is cut off afterwards: a file that is made empty first is written to the disk when it is closed, by ext4.
    data = json.dumps(to_wire(record)).encode()
    descriptor = os.open(directory / _NAME, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
    with open(descriptor, "wb") as file:
        file.write(data)
        file.truncate(len(data))


def read_record(directory: Path) -> ContainerRecord | None:
    """The record in a container's directory, or None when it has none that can be read.

    Raises:
        OSError: this process, or the machine, cannot open a file more now: nothing is known of the record.
    """
    try:
        return from_wire(ContainerRecord, json.loads((directory / _NAME).read_text(encoding="utf-8")))
    except OSError as error:
        if error.errno in _LACKS:
            raise
        return None
    except (RecordError, ValueError):
        return None


async def await_record(directory: Path) -> ContainerRecord | None:
    """As `read_record`, when it can be read: what was decided without it might be the end of a container that runs."""
    is_told = False
    while True:
        try:
            return read_record(directory)
        except OSError as error:
            if not is_told:
                _log.error("%s: its record cannot be read now: %s; trying until it can", directory.name, error)
            is_told = True
            await asyncio.sleep(READ_AGAIN_S)
