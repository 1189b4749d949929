"""What archives become is bounded, whoever decompresses them: nothing of strangers fills the disk."""

from __future__ import annotations

import bz2
import gzip
import json
import lzma
import os
import shutil
from pathlib import Path

import pytest

from squall.agent.image.layer.store import LayerStore
from squall.agent.image.machine.settings import MachineSettings
from squall.agent.image.machine.tool import Output, ToolFailed
from squall.agent.image.machine.write_limit import WroteTooMuch, size_of
from squall.agent.image.oci.added_archive import add_archives
from squall.agent.image.oci.pull import import_archive
from squall.agent.image.oci.refusal import RegistryFailure
from tests.agent.image.archives import archive, digest_of, entry

pytestmark = pytest.mark.long

MIB = 2**20
BYTES_MAX = 8 * MIB


def make_oci_archive(layer: bytes) -> bytes:
    """An image of OCI's form with one layer, compressed by gzip."""
    packed = gzip.compress(layer, 1)
    config = json.dumps(
        {"os": "linux", "architecture": "amd64", "rootfs": {"type": "layers", "diff_ids": [digest_of(layer)]}}
    ).encode()

    def described(kind: str, content: bytes) -> dict[str, object]:
        media = f"application/vnd.oci.image.{kind}"
        return {"mediaType": media, "digest": digest_of(content), "size": len(content)}

    manifest = json.dumps(
        {
            "schemaVersion": 2,
            "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "config": described("config.v1+json", config),
            "layers": [described("layer.v1.tar+gzip", packed)],
        }
    ).encode()
    index = json.dumps({"schemaVersion": 2, "manifests": [described("manifest.v1+json", manifest)]}).encode()
    blobs = [entry(f"blobs/sha256/{digest_of(one)[7:]}", one) for one in (config, manifest, packed)]
    return archive(entry("oci-layout", b'{"imageLayoutVersion": "1.0.0"}'), entry("index.json", index), *blobs)


def import_one(tmp_path: Path, content: bytes, bytes_max: int = BYTES_MAX) -> dict[str, str]:
    path = tmp_path / "given"
    path.write_bytes(content)
    with LayerStore(tmp_path).scratch() as scratch:
        try:
            return import_archive(
                path,
                MachineSettings(registry_env={"HOME": str(tmp_path)}),
                scratch,
                scratch.path / "fs",
                Output(),
                name="big.tar.gz",
                bytes_max=bytes_max,
            )
        finally:
            assert size_of(scratch.path) <= 2 * bytes_max


def test_file_that_is_compressed_as_a_whole_is_decompressed_so_far_and_no_further(tmp_path: Path) -> None:
    with pytest.raises(WroteTooMuch, match=r"decompressing big\.tar\.gz takes 8 MiB or more, .* 8 MiB on the disk"):
        import_one(tmp_path, gzip.compress(bytes(40 * MIB), 1))


def test_other_compressions_are_bounded_as_well(tmp_path: Path) -> None:

    for content in (bz2.compress(bytes(40 * MIB)), lzma.compress(bytes(40 * MIB), preset=0)):
        with pytest.raises(WroteTooMuch, match="SQUALL_STEP_BYTES_MAX"):
            import_one(tmp_path, content)


@pytest.mark.skipif(shutil.which("skopeo") is None, reason="missing program: skopeo")
def test_layers_are_decompressed_so_far_and_no_further(tmp_path: Path) -> None:
    image = make_oci_archive(archive(entry("zeros", bytes(40 * MIB))))

    assert import_one(tmp_path, image, 100 * MIB)["image"] == "big.tar.gz"
    with pytest.raises(WroteTooMuch, match=r"fetching big\.tar\.gz takes 8 MiB or more"):
        import_one(tmp_path, image)


@pytest.mark.skipif(shutil.which("skopeo") is None, reason="missing program: skopeo")
def test_file_and_what_is_in_it_are_counted_together(tmp_path: Path) -> None:
    image = gzip.compress(make_oci_archive(archive(entry("zeros", bytes(5 * MIB)), entry("more", b"x"))), 1)
    padded = gzip.compress(gzip.decompress(image) + bytes(5 * MIB), 1)

    assert import_one(tmp_path, image)["image"] == "big.tar.gz"
    with pytest.raises(WroteTooMuch, match="fetching"):
        import_one(tmp_path, padded)


def add(tmp_path: Path, *contents: bytes) -> None:
    paths = []
    for number, content in enumerate(contents):
        paths.append(tmp_path / f"{number}")
        paths[-1].write_bytes(content)
    with LayerStore(tmp_path).scratch() as scratch:
        add_archives(paths, scratch.path / "tree", scratch, Output(), bytes_max=BYTES_MAX)
        # What comes next has the room that decompressing took.
        assert os.listdir(scratch.path) == ["tree"]


def test_added_archives_are_bounded_together(tmp_path: Path) -> None:
    half = gzip.compress(archive(entry("half", bytes(5 * MIB))), 1)

    add(tmp_path, half)
    with pytest.raises(WroteTooMuch, match="decompressing archive 2 of 2 takes 10 MiB or more"):
        add(tmp_path, half, half)


def test_files_of_archives_are_bounded_before_they_are_written(tmp_path: Path) -> None:
    holes = archive(entry("one", bytes(5 * MIB)), entry("two", bytes(5 * MIB)))

    with pytest.raises(ToolFailed, match=r"more than 8 MiB in them, which is SQUALL_STEP_BYTES_MAX"):
        add(tmp_path, holes)


def test_archive_that_is_none_is_named(tmp_path: Path) -> None:
    with pytest.raises(RegistryFailure, match=r"^big\.tar\.gz: cannot be decompressed: "):
        import_one(tmp_path, b"\x1f\x8b no gzip")
