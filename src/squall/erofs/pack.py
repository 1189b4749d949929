"""`python -m squall.erofs.pack LAYER... IMAGE`: make an image of a directory and write it out to the disk.

Of several layers, directories or images from the bottom one up, it makes the one that stands for them.

A program of its own: packing takes a processor for as long as it lasts, and who asks has others to serve.
"""

from __future__ import annotations

import argparse
import contextlib
import gc
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from squall.erofs.errors import BadImage, PackError
from squall.erofs.image_tree import ImageTree
from squall.erofs.merge import Merged
from squall.erofs.tree import Lent, Scan, Source
from squall.erofs.writer import pack, write

# Copies into one file wait for one another: more would do little but wait.
_PROCESSES_MAX = 4


def main(arguments: Sequence[str]) -> int:
    """Pack, or say on standard error why not; 0 or 1."""
    parser = argparse.ArgumentParser(prog="squall.erofs.pack", description=__doc__)
    parser.add_argument("layers", nargs="+", metavar="LAYER", help="the directory, or the layers to merge")
    parser.add_argument("image", type=Path, help="the new file")
    parser.add_argument(
        "--lent", nargs="+", metavar=("PREFIX", "FOLDER"), help="links below a prefix are the files of these folders"
    )
    parser.add_argument("--spare-bytes", type=int, default=0, help="what is to be free on the disk afterwards")
    chosen = parser.parse_args(arguments)
    lent = Lent(chosen.lent[0], chosen.lent[1:]) if chosen.lent else None
    try:
        make(chosen.layers, chosen.image, lent, chosen.spare_bytes)
        descriptor = os.open(chosen.image, os.O_RDONLY | os.O_CLOEXEC)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
    except (PackError, BadImage) as error:
        print(error, file=sys.stderr)  # tidy: the program's answer
        return 1
    except OSError as error:
        print(f"cannot pack {' '.join(chosen.layers)}: {error}", file=sys.stderr)  # tidy: the program's answer
        return 1
    return 0


def make(layers: Sequence[str], image: Path, lent: Lent | None = None, spare_bytes: int = 0) -> None:
    """Write an image of a directory, or of several layers; see `squall.erofs.writer.write` for what is raised.

    Args:
        lent: files that a single directory has links to.
        spare_bytes: what is to be free on the disk afterwards.
    """
    # Nothing that is made here is garbage before the end; looking for it takes a sixth of the time.
    gc.disable()
    processes = min(os.cpu_count() or 1, _PROCESSES_MAX)
    try:
        if len(layers) == 1:
            pack(layers[0], image, lent, processes, spare_bytes=spare_bytes)
            return
        with contextlib.ExitStack() as stack:
            opened: list[Source] = []
            for layer in layers:
                if os.path.isdir(layer):
                    opened.append(stack.enter_context(Scan(layer)))
                else:
                    opened.append(stack.enter_context(ImageTree(Path(layer))))
            write(Merged(opened), image, processes, spare_bytes=spare_bytes)
    finally:
        gc.enable()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
