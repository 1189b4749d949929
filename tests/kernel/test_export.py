"""What overlayfs shows of an image's layers is what its export unpacks to, whatever the steps did."""

from __future__ import annotations

import json
import random
from pathlib import Path

import pytest

from squall.agent.image.oci.export import ImageToExport, export
from squall.agent.image.oci.unpack import unpack
from squall.runtime.layer_mounts import FROM_LOOP_DEVICE
from tests.erofs.trees import make_everything, set_times
from tests.kernel.elsewhere import elsewhere
from tests.kernel.test_deep_chains import AS_DIRECTORY, NAMES, Chain, seen


@pytest.mark.parametrize(("way", "seed"), [(FROM_LOOP_DEVICE, 3), (AS_DIRECTORY, 4), (AS_DIRECTORY, 5)])
def test_export_unpacks_to_what_overlayfs_shows(data_dir: Path, way: str, seed: int) -> None:
    def make() -> tuple[object, object]:
        rng = random.Random(seed)
        chain = Chain(data_dir, way)
        base = data_dir / "base"
        make_everything(base)
        (base / "socket").unlink()
        for name in NAMES:
            (base / name / name / name).mkdir(parents=True)
            (base / name / name / "file").write_bytes(name.encode())
        set_times(base)
        chain.add(base)
        for _ in range(25):
            chain.step(rng)
        shown = seen(chain.mount("shown", chain.shown))
        layout, root = data_dir / "layout", data_dir / "unpacked"
        root.mkdir()
        export(ImageToExport(tuple(chain.layers), ()), layout)
        blobs = layout / "blobs/sha256"
        (named,) = json.loads((layout / "index.json").read_text())["manifests"]
        digests = [one["digest"] for one in json.loads((blobs / named["digest"][7:]).read_text())["layers"]]
        unpack(str(root), [(str(blobs / digest[7:]), digest) for digest in digests])
        return without_links(shown), without_links(seen(root))

    before, after = elsewhere(make)

    assert after == before


def without_links(found: dict[bytes, tuple[object, ...]]) -> dict[bytes, tuple[object, ...]]:
    """A name inside a renamed directory and one outside are two files in an archive."""
    return {path: (*one[:4], *one[5:]) for path, one in found.items()}
