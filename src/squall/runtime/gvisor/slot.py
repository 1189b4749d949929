"""A network slot that a sandbox has had, as it was before.

runsc takes the address off the slot's interface, so that the machine's kernel does not answer beside the sandbox, and
the routes go with it. Written down before the start, in the container's directory: whoever removes what is left of the
container, also after a kill -9, gives the slot its address back before it is anybody's again.
"""

from __future__ import annotations

import json
import os

from squall.runtime.errors import RuntimeFailure, describe_errno
from squall.runtime.network.inner_end import restore_inner_end
from squall.runtime.records import read_noted
from squall.runtime.spec import ContainerSpec

_FILE = "sandbox-slot.json"


def note_slot(spec: ContainerSpec) -> None:
    """Remember the slot of a container that is about to start.

    Raises:
        RuntimeFailure: the disk does not take it.
    """
    if spec.network is None or not spec.network.gateway:
        return
    slot = {"path": spec.network.netns_path, "address": spec.network.address, "gateway": spec.network.gateway}
    path = f"{spec.state_dir}/{_FILE}"
    try:
        with open(f"{path}.new", "w", encoding="utf-8") as file:
            json.dump(slot, file)
        os.replace(f"{path}.new", path)
    except OSError as error:
        raise RuntimeFailure(describe_errno("write", path, error.errno or 0)) from error


def restore_slot(state_dir: str) -> None:
    """Undo what a sandbox did to the slot of the container of this directory. Idempotent; without one, nothing.

    Raises:
        RuntimeFailure: the slot could not be made what it was; it is noted still.
    """
    path = f"{state_dir}/{_FILE}"
    try:
        slot = read_noted(path)
    except FileNotFoundError:
        return
    # Without it the machine has crashed, and the slot went with that.
    if slot is not None:
        restore_inner_end(slot["path"], slot["address"].partition("/")[0], slot["gateway"])
    os.unlink(path)
