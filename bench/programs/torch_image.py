"""`torch_image.py NAME`: builds an image with torch that nobody has built before, and says how long that took."""

from __future__ import annotations

import contextlib
import io
import json
import re
import sys
import time

import squall

_DOWNLOAD = re.compile(r"^\s*Download(?:ing|ed) ", re.MULTILINE)

debian = squall.Image.debian_slim("3.11")
image = debian.env({"NAME": sys.argv[1]}).pip_install("torch==2.13.0")
said = io.StringIO()
with contextlib.redirect_stderr(said), squall.enable_output():
    debian.build()
    started_s = time.monotonic()
    image.build()
print(json.dumps({"took_s": time.monotonic() - started_s, "downloads": len(_DOWNLOAD.findall(said.getvalue()))}))
