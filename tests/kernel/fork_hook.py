"""User code in the child of a fork, before the guest has given up anything: tries every attack and writes down what
became of it."""

from __future__ import annotations

import contextlib
import io
import os
import runpy
import sys

RAN = "FORK_HOOK_RAN"
"""In the environment: attacks fork, too, and what they fork is not to attack in its turn."""

if RAN not in os.environ:
    os.environ[RAN] = "1"
    sys.argv = ["/attacks.py"]
    said = io.StringIO()
    with contextlib.redirect_stdout(said):
        runpy.run_path("/attacks.py")["main"]()
    with open("/tmp/outcomes", "w") as file:
        file.write(said.getvalue())
