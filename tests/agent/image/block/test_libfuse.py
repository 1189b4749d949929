"""Which libfuse serves layers."""

from __future__ import annotations

import subprocess
import sys

import pytest

PROGRAM = """
import ctypes.util
known = ctypes.util.find_library
ctypes.util.find_library = lambda name: known("fuse3") and {"fuse": "libfuse.so.2"}.get(name, known(name))
from squall.agent.image.block import libfuse
print(libfuse.mfusepy._libfuse._name)
"""


def test_libfuse_3_serves_also_where_libfuse_2_is_installed() -> None:
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, timeout=60, check=False)
    if "libfuse 3" in done.stderr:
        pytest.skip("there is no libfuse 3 here")
    assert done.stdout.strip().startswith("libfuse3.so"), done
