"""Shells in images: also in one whose step failed, as it was before that step."""

from __future__ import annotations

from squall.protocol.records import field, record
from squall.protocol.volume import VolumeMount


@record
class ImageShell:
    """Open a shell in a container of an image: a stream of `TerminalOutput`, fed by `TerminalInput`.

    The container is thrown away with the stream. Its first item says that it is there, and in words what it is.
    """

    image: str
    """Its id, or name:tag."""
    step: int = 0
    """Counted from 1: the container is as a build has it before this step, the step's own variables and files
    included. 0: of the image once it is built."""
    command: str = ""
    """A line for the shell to run; empty for one that reads what is typed."""
    has_pty: bool = False
    rows: int = 24
    columns: int = 80
    environment: str = ""
    """Of the names; empty for the default one."""
    secrets: tuple[str, ...] = ()
    """Names, or ids, of secrets whose variables the shell has."""
    variables: dict[str, str] = field(default_factory=dict, repr=False)
    """What is in these, from the server to a node."""
    volumes: tuple[str, ...] = ()
    """Names, or ids, of volumes, each mounted at `/mnt/NAME`; what is written there is committed, also at the end."""
    mounts: tuple[VolumeMount, ...] = ()
    """What these are, from the server to a node."""
