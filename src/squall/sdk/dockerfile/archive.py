"""Which files ADD unpacks."""

from __future__ import annotations

import lzma
import tarfile
import zlib

_ZSTD = b"\x28\xb5\x2f\xfd"
_ZSTD_NAMES = (".tar.zst", ".tzst")


def is_archive(path: str) -> bool:
    """Whether a file is a tar archive, plain or compressed with gzip, bzip2, xz or zstd.

    Of zstd, which the standard library reads from Python 3.14 on only, the name says whether there is an archive in it.
    """
    if path.endswith(_ZSTD_NAMES):
        with open(path, "rb") as file:
            return file.read(len(_ZSTD)) == _ZSTD
    try:
        with tarfile.open(path) as archive:
            return archive.next() is not None
    except (tarfile.TarError, OSError, EOFError, ValueError, zlib.error, lzma.LZMAError):
        return False
