"""`python -m squall.erofs.pack TREE IMAGE`: make an image of a directory and write it out to the disk.

A program of its own: packing takes a processor for as long as it lasts, and who asks has others to serve.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from squall.erofs.errors import PackError
from squall.erofs.writer import pack


def main(arguments: Sequence[str]) -> int:
    """Pack, or say on standard error why not; 0 or 1."""
    parser = argparse.ArgumentParser(prog="squall.erofs.pack", description=__doc__)
    parser.add_argument("tree", help="the directory")
    parser.add_argument("image", type=Path, help="the new file")
    chosen = parser.parse_args(arguments)
    try:
        pack(chosen.tree, chosen.image)
        descriptor = os.open(chosen.image, os.O_RDONLY | os.O_CLOEXEC)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
    except PackError as error:
        print(error, file=sys.stderr)  # tidy: the program's answer
        return 1
    except OSError as error:
        print(f"cannot pack {chosen.tree}: {error}", file=sys.stderr)  # tidy: the program's answer
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
