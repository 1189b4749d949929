"""How a container is to be started: as a fork of a template, or plainly and why."""

from __future__ import annotations

import posixpath
from dataclasses import dataclass, replace

from squall.agent.config import PLAIN, AgentConfig
from squall.agent.image.progress import BuiltImage
from squall.agent.template.template import Template
from squall.agent.template.verdicts import printable
from squall.protocol.function import GVISOR
from squall.protocol.guest import LIBRARY_DIR, SOCKET_DIR
from squall.protocol.node import ContainerStart


@dataclass(frozen=True, slots=True)
class Wish:
    """An image template that a start might have been a fork of."""

    key: str
    made_by: ContainerStart
    """See `key.of_image`."""
    request: ContainerStart
    """The start."""


@dataclass(frozen=True, slots=True)
class Way:
    """How a container is to be started."""

    template: Template | None
    """As a fork of this one; None: plainly."""
    cause: str = ""
    """Why plainly, or not from the template of the function that was asked for."""
    is_asked_for: bool = False
    """It was to be a fork, and may have waited for that."""
    waited: str = ""
    """For what, as the phase of the start is called: its template was made, or brought back from the disk."""
    wanted: Wish | None = None
    """A template that is to be made once the container has got going."""

    def because(self, cause: str) -> Way:
        """The same with its cause."""
        return replace(self, cause=printable(cause))


def without_templates(request: ContainerStart, config: AgentConfig) -> Way:
    """On a node that makes none: whoever wants a snapshot is told so."""
    plain = Way(None)
    if not request.is_snapshot_enabled:
        return plain
    if config.start_path != PLAIN:
        return plain.because("its node is being taken down, and makes no templates any more")
    setting = "SQUALL_TEMPLATE_MEMORY_MIB=0" if config.template_memory_mib == 0 else f"SQUALL_START_PATH={PLAIN}"
    return plain.because(f"its node makes no templates ({setting})")


def obstacle(request: ContainerStart, image: BuiltImage, *, is_restored: bool) -> str:
    """Why containers of this kind are no forks; empty if they may be.

    Args:
        is_restored: all containers of the node are to be, whether somebody has asked for it or not.
    """
    # A snapshot of the image for each function would take memory for starts that nobody has asked to be quick.
    if request.isolation == GVISOR and not (request.is_snapshot_enabled or is_restored):
        missing = "a container under gVisor is restored from a memory snapshot, and its function has none"
        return f"{missing}; enable_memory_snapshot=True makes one"
    if request.secrets and request.isolation == GVISOR:
        return "it has secrets, which would be in what is saved of its memory, and these are written nowhere"
    if request.volumes and request.isolation == GVISOR:
        return "it has volumes, and what is saved of a container under gVisor is restored without them"
    if request.buckets:
        return "it has buckets, which forks are not given yet"
    if cause := _covered(request):
        return cause
    if image.config.entrypoint:
        return "its image has an entrypoint, which is to start what runs in it; clear it with .entrypoint([])"
    return ""


def _covered(request: ContainerStart) -> str:
    """Why volumes cannot be put where they are to be once all else is there."""
    targets = [posixpath.normpath(start.mount.target) for start in request.volumes]
    for target in targets:
        if below := next((one for one in (*targets, SOCKET_DIR, LIBRARY_DIR) if one.startswith(f"{target}/")), ""):
            return f"its volume at {target} would cover {below}, which is there before in a fork"
    return ""
