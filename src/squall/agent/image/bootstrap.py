"""`python -m squall.agent.image.bootstrap`: make a base image ahead of its first use.

Set-up runs this beside the installation of the Python environment, from a source checkout (PYTHONPATH=src) and with
nothing but a Python of at least 3.11: neither this module nor what it imports may need a package.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from squall.agent.image.debian import BaseUnavailable, choose_base, ensure_base, known_bases
from squall.agent.image.layers import LayerError, LayerStore
from squall.agent.image.machine import MachineSettings, read_machine_settings
from squall.runtime.errors import RuntimeFailure


def main(arguments: Sequence[str]) -> int:
    """Make the base and say how long it took; 1 with the reason when it cannot be had."""
    parser = argparse.ArgumentParser(prog="python -m squall.agent.image.bootstrap", description=__doc__)
    parser.add_argument("--data-dir", required=True, type=Path, help="where this machine keeps its layers")
    parser.add_argument("--python", default="", metavar="3.11", help="series of Python; near to this one if not given")
    parser.add_argument("--verbose", action="store_true", help="show the output of mmdebstrap")
    chosen = parser.parse_args(arguments)
    settings = read_machine_settings(os.environ)
    started = time.monotonic()
    try:
        store = LayerStore(chosen.data_dir)
        store.sweep()
        python_version = chosen.python or _nearest(settings)
        layer = ensure_base(store, settings, python_version, print if chosen.verbose else lambda line: None)
    except (BaseUnavailable, LayerError, RuntimeFailure) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print(
        f"base image: Python {layer.facts['python_version']} ({layer.facts['suite']}),"
        f" {layer.size_bytes / 2**20:.0f} MiB, {time.monotonic() - started:.1f} s"
    )
    return 0


def _nearest(settings: MachineSettings) -> str:
    """The series a program started with this Python is going to ask for, or else the machine's own."""
    own = f"{sys.version_info.major}.{sys.version_info.minor}"
    series = [base.python_version for base in known_bases(settings)]
    if own in series or not series:
        return choose_base(own, settings).python_version
    return series[-1]


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
