"""Images on their way out of a node: to a registry, or into a file."""

from __future__ import annotations

from squall.protocol.records import record

OCI, DOCKER = "oci", "docker"
"""Forms of one file with an image in it."""
FORMS = (OCI, DOCKER)
GZIP, ZSTD = "gzip", "zstd"
COMPRESSIONS = (GZIP, ZSTD)


@record
class ImagePush:
    """Bring a built image to a registry: a stream of `TransferEvent` that ends with `done`, or with an error."""

    image_id: str
    target: str
    """The image's name there, with its registry: `registry.example.com/team/app:1`."""
    username: str = ""
    """Empty: as the node's machine is known to that registry."""
    password: str = ""
    """Kept nowhere, and in no log."""
    compression: str = GZIP
    """Of the layers."""


@record
class ImageExport:
    """Read a built image as one file: a stream of `TransferEvent`, those of `data` with a part of it in the body."""

    image_id: str
    form: str = OCI
    tag: str = ""
    """What it is called in the file; Docker's form takes a name and a tag, as in `app:1`."""
    compression: str = GZIP
    """Of the layers; Docker's form has none."""


@record
class TransferEvent:
    """Something to tell whoever waits for a transfer.

    kind: `line` (of what is happening), `data` (the next part of the file is in the body), `done` (the last event).
    """

    kind: str
    text: str = ""
    digest: str = ""
    """done: of what was pushed, as the registry knows it."""
    size_bytes: int = 0
    """done: of the whole file."""
