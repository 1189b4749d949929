"""Start of the guest: connect, load, run."""

from __future__ import annotations

import os
import sys

from squall.guest.main import main

if __name__ == "__main__":
    code = main()
    sys.stdout.flush()
    # Not sys.exit: threads that user code left behind must not keep a container that has nothing to do.
    os._exit(code)
