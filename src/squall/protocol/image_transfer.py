"""Images on their way out of a node: to a registry, or into a file."""

from __future__ import annotations

import re

from squall.protocol.image import ImageInvalid
from squall.protocol.records import field, record

OCI, DOCKER = "oci", "docker"
"""Forms of one file with an image in it."""
FORMS = (OCI, DOCKER)
GZIP, ZSTD = "gzip", "zstd"
COMPRESSIONS = (GZIP, ZSTD)
_NAME = re.compile(r"^[A-Za-z0-9][A-Za-z0-9._:/-]{0,511}\Z")


@record
class ImagePush:
    """Bring a built image to a registry: a stream of `TransferEvent` that ends with `done`, or with an error."""

    image_id: str
    """Or the name it is published by."""
    target: str
    """The image's name there, with its registry: `registry.example.com/team/app:1`."""
    username: str = ""
    """Empty: as the node's machine is known to that registry."""
    password: str = ""
    """Kept nowhere, and in no log."""
    compression: str = GZIP
    """Of the layers."""
    environment: str = ""
    """Of the published name, where that says none."""
    secret: dict[str, str] = field(default_factory=dict, repr=False)
    """In place of user and password, variables as `from_registry` takes them. Kept nowhere, and in no log."""


@record
class ImageExport:
    """Read a built image as one file: a stream of `TransferEvent`, those of `data` with a part of it in the body."""

    image_id: str
    """Or the name it is published by."""
    form: str = OCI
    tag: str = ""
    """What it is called in the file; Docker's form takes a name and a tag, as in `app:1`."""
    compression: str = GZIP
    """Of the layers; Docker's form has none."""
    environment: str = ""
    """Of the published name, where that says none."""


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


def check_push(record: ImagePush) -> None:
    """Refuse what no registry could take.

    Raises:
        ImageInvalid: the message says what is wrong.
    """
    if not _NAME.match(record.target) or "@" in record.target:
        raise ImageInvalid(f"{record.target!r} is no name for an image; write it as registry.example.com/team/app:1")
    if record.password and not record.username:
        raise ImageInvalid("there is a password, and no user whose it is")
    if record.username and record.secret:
        raise ImageInvalid("there is a user, and another login besides; give one of them")
    _check_compression(record.compression)


def check_export(record: ImageExport) -> None:
    """Refuse what no file could be.

    Raises:
        ImageInvalid: the message says what is wrong.
    """
    if record.form not in FORMS:
        raise ImageInvalid(f"there is no form {record.form!r} of a file; there are {' and '.join(FORMS)}")
    if record.tag and not _NAME.match(record.tag):
        raise ImageInvalid(f"{record.tag!r} is no name for an image; write it as app:1")
    if record.form == DOCKER and record.tag and ":" not in record.tag.rpartition("/")[2]:
        raise ImageInvalid(f"{record.tag!r} has no tag, which Docker's form wants; write it as {record.tag}:1")
    _check_compression(record.compression)


def _check_compression(compression: str) -> None:
    if compression not in COMPRESSIONS:
        raise ImageInvalid(f"layers cannot be compressed by {compression!r}; there are {' and '.join(COMPRESSIONS)}")
