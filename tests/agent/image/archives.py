"""Archives and images as a registry might send them, proper and not, made by hand."""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
from collections.abc import Iterable, Mapping
from pathlib import Path

Entry = tuple[tarfile.TarInfo, bytes]


def entry(
    name: str, content: bytes = b"", *, kind: bytes = tarfile.REGTYPE, link: str = "", mode: int = 0o644, **more: object
) -> Entry:
    """One entry of an archive; `more` sets what else a header has."""
    info = tarfile.TarInfo(name)
    info.type, info.linkname, info.mode, info.size, info.mtime = kind, link, mode, len(content), 1_600_000_000
    for field, value in more.items():
        setattr(info, field, value)
    return info, content


def directory(name: str, mode: int = 0o755) -> Entry:
    """A directory."""
    return entry(name, kind=tarfile.DIRTYPE, mode=mode)


def symlink(name: str, target: str) -> Entry:
    """A symbolic link."""
    return entry(name, kind=tarfile.SYMTYPE, link=target)


def hard_link(name: str, target: str) -> Entry:
    """Another name of a file."""
    return entry(name, kind=tarfile.LNKTYPE, link=target)


def archive(*entries: Entry) -> bytes:
    """A tar archive with names as they are, whatever they say."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for info, content in entries:
            tar.addfile(info, io.BytesIO(content))
    return buffer.getvalue()


def digest_of(content: bytes) -> str:
    """As OCI writes it."""
    return f"sha256:{hashlib.sha256(content).hexdigest()}"


def write_layers(folder: Path, *archives: bytes) -> list[tuple[str, str]]:
    """Archives as files, each with its digest."""
    layers = []
    for number, content in enumerate(archives):
        path = folder / f"layer-{number}.tar"
        path.write_bytes(content)
        layers.append((str(path), digest_of(content)))
    return layers


def write_image(
    folder: Path,
    layers: Iterable[bytes],
    config: Mapping[str, object] | None = None,
    platform: Mapping[str, str] | None = None,
) -> None:
    """An image in the form skopeo's `dir:` has."""
    folder.mkdir(exist_ok=True)
    stored = list(layers)
    rootfs = {"diff_ids": [digest_of(one) for one in stored]}
    raw = json.dumps({"config": config or {}, "rootfs": rootfs, **(platform or {})}).encode()
    for content in (raw, *stored):
        (folder / digest_of(content).removeprefix("sha256:")).write_bytes(content)
    named = [{"digest": digest_of(one)} for one in stored]
    (folder / "manifest.json").write_text(json.dumps({"config": {"digest": digest_of(raw)}, "layers": named}))
