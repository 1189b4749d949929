"""A file of the newest version of a volume, as a program outside sees it."""

import sys

import squall

volume = squall.Volume.from_name("kept", create_if_missing=True)
try:
    print(b"".join(volume.read_file(sys.argv[1])).decode())
except FileNotFoundError:
    print("missing")
