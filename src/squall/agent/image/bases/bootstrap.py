"""`python -m squall.agent.image.bases.bootstrap`: make a base image ahead of its first use.

Set-up runs this beside the installation of the Python environment, from a source checkout (PYTHONPATH=src) and with
nothing but a Python of at least 3.11: neither this module nor what it imports may need a package.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from squall.agent.image.bases.debian import BaseUnavailable, known_bases
from squall.agent.image.bases.ensure import ensure_base
from squall.agent.image.bases.python_image import checked_pattern
from squall.agent.image.layer.store import Layer, LayerError, LayerStore
from squall.agent.image.machine.settings import MachineSettings, read_machine_settings
from squall.runtime.errors import RuntimeFailure
from squall.runtime.layer_mounts import can_mount_images


def main(arguments: Sequence[str]) -> int:
    """Make the base and say how long it took; 1 with the reason when it cannot be had."""
    parser = argparse.ArgumentParser(prog="python -m squall.agent.image.bases.bootstrap", description=__doc__)
    parser.add_argument("--data-dir", required=True, type=Path, help="where this machine keeps its layers")
    parser.add_argument("--python", default="", metavar="3.11", help="series of Python; near to this one if not given")
    parser.add_argument("--verbose", action="store_true", help="show the output of skopeo and mmdebstrap")
    chosen = parser.parse_args(arguments)
    try:
        settings = _settings(os.environ)
    except ValueError as error:
        parser.error(f"SQUALL_PYTHON_IMAGE {error}")
    started = time.monotonic()
    try:
        store = LayerStore(chosen.data_dir, is_packed=can_mount_images())
        store.sweep()
        layer = _made(store, settings, chosen.python, print if chosen.verbose else lambda line: None)
    except (BaseUnavailable, LayerError, RuntimeFailure) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print(
        f"base image: Python {layer.facts['python_version']} ({layer.facts.get('image') or layer.facts['suite']}),"
        f" {layer.size_bytes / 2**20:.0f} MiB, {time.monotonic() - started:.1f} s"
    )
    return 0


def _settings(environ: Mapping[str, str]) -> MachineSettings:
    python_image = checked_pattern(environ.get("SQUALL_PYTHON_IMAGE", ""))
    return replace(read_machine_settings(environ), python_image=python_image)


def _made(store: LayerStore, settings: MachineSettings, python_version: str, on_line: Callable[[str], None]) -> Layer:
    """The base for a series; if none is given, the one that a program started with this Python is going to ask for.

    Where nobody has that, Debian's newest.
    """
    wanted = python_version or f"{sys.version_info.major}.{sys.version_info.minor}"
    try:
        return ensure_base(store, settings, wanted, on_line)
    except BaseUnavailable:
        series = [base.python_version for base in known_bases(settings)]
        if python_version or wanted in series or not series:
            raise
        return ensure_base(store, settings, series[-1], on_line)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
