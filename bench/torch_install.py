"""The second image on a machine that installs torch: its packages are there, downloaded for the first one."""

from __future__ import annotations

import secrets

from bench.figure import Absent, Context, Figure


def run(context: Context) -> Figure:
    """The build of an image that has torch as its only step above Debian, torch having been wanted before."""
    first = context.program("torch_image.py", secrets.token_hex(8))
    second = context.program("torch_image.py", secrets.token_hex(8))
    if second["downloads"]:
        raise Absent(f"the second image downloaded {second['downloads']:.0f} packages")
    note = "build of the second image with pip_install('torch==2.13.0'), nothing downloaded"
    return Figure(second["took_s"], "s", note, {"first_s": first["took_s"]})
