"""Copies of directory trees as they are: owners, modes, attributes, links and all."""

from __future__ import annotations

import subprocess

from squall.runtime.errors import RuntimeFailure

_CAUSE_LENGTH = 500


def copy_tree(source: str, target: str, *, is_linked: bool = False, timeout_s: float | None = None) -> None:
    """Copy a tree to a place where nothing is; `is_linked`: its files are the same ones.

    Raises:
        RuntimeFailure: it was not copied whole, or not in time.
    """
    way = "--link" if is_linked else "--reflink=auto"
    command = ["cp", "--archive", way, "--no-target-directory", source, target]
    try:
        ended = subprocess.run(
            command, capture_output=True, text=True, errors="replace", check=False, timeout=timeout_s
        )
    except subprocess.TimeoutExpired as error:
        raise RuntimeFailure(f"copying {source} to {target} took longer than {timeout_s:g} s") from error
    if ended.returncode != 0:
        raise RuntimeFailure(f"cannot copy {source} to {target}: {ended.stderr.strip()[:_CAUSE_LENGTH]}")
