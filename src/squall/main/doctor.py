"""Run the checks of `squall doctor` and print them as JSON: `python -m squall.main.doctor --data-dir D`.

A program of its own because the command line may not import the runtime.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict

from squall.runtime.checks import run_checks


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the checks; always 0: whether they are good is for the reader to say."""
    parser = argparse.ArgumentParser(prog="python -m squall.main.doctor", description=__doc__)
    parser.add_argument("--data-dir", required=True)
    options = parser.parse_args(arguments)
    # The clock's being right is one of the checks: it is compared with files and mirrors.
    checks = run_checks(options.data_dir, now_s=time.time(), env=dict(os.environ))  # tidy: wall clock
    json.dump([asdict(check) for check in checks], sys.stdout)
    return 0


if __name__ == "__main__":
    sys.exit(main())
