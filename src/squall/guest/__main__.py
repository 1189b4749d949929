"""Start of the guest: connect, load, run."""

from __future__ import annotations

import os
import sys

# A program's own directory comes first in the path of imports. Ours holds `main.py`, `link.py`, `values.py`: a user's
# module of such a name would not be found. (Python's -P does this from 3.11 on only.)
if sys.path and sys.path[0] == os.path.dirname(os.path.abspath(__file__)):
    del sys.path[0]

from squall.guest.main import main

if __name__ == "__main__":
    # Python puts the folder of a program first on the path; user code of the same names (main, values) is elsewhere.
    if sys.path[0] == os.path.dirname(os.path.abspath(__file__)):
        del sys.path[0]
    code = main()
    sys.stdout.flush()
    # Not sys.exit: threads that user code left behind must not keep a container that has nothing to do.
    os._exit(code)
