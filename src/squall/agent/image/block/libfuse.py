"""mfusepy on libfuse 3, whatever else is installed.

It takes libfuse 2 where that is there, as s3fs and AppImages bring it along. That one does not know mounts that are
made before: it would mount over /dev/fuse itself, and nothing on the machine could be served any more.
"""

from __future__ import annotations

import os
from ctypes.util import find_library

if "FUSE_LIBRARY_PATH" not in os.environ:
    found = find_library("fuse3")
    if not found:
        raise OSError("cannot find libfuse 3: install the package fuse3")
    os.environ["FUSE_LIBRARY_PATH"] = found

import mfusepy  # the environment says which library it loads

__all__ = ["mfusepy"]
