"""What has changed of the files that an app was made from.

By looking at each again and again: that works on every file system, needs no library, and takes some milliseconds for a
thousand files. Large trees are looked at less often.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping

from squall.sdk._shipped import Stamp, stamp_of

PERIOD_S = 0.3
SCAN_SHARE = 10
"""A scan may take one part in so many of the time."""
_NOISE_ENDS = (".pyc", ".pyo", ".swp", ".swx", ".tmp", "~")


class Watch:
    """Files as they were when they were read, and directories, to which files may be added."""

    def __init__(self, files: Mapping[str, Stamp], directories: Iterable[str]) -> None:
        self._files: dict[str, Stamp | None] = dict(files)
        self._entries = {path: _entries(path) for path in sorted(directories)}

    def changes(self) -> list[str]:
        """The paths that are not as they were when this was asked last."""
        changed = []
        for path, before in self._files.items():
            now = _stamp(path)
            if now != before:
                self._files[path] = now
                changed.append(path)
        for directory, before_entries in self._entries.items():
            entries = _entries(directory)
            if entries != before_entries:
                self._entries[directory] = entries
                changed += [os.path.join(directory, name) for name in sorted(entries ^ before_entries)]
        return sorted(set(changed))


def _stamp(path: str) -> Stamp | None:
    try:
        return stamp_of(os.stat(path))
    except OSError:
        return None  # gone; some editors put a new file in the place of the old one


def _entries(directory: str) -> frozenset[str]:
    try:
        names = os.listdir(directory)
    except OSError:
        return frozenset()
    return frozenset(name for name in names if not is_noise(name))


def is_noise(name: str) -> bool:
    """Files that editors and Python leave beside what is edited; a version made for them would be the same."""
    return name.startswith(".") or name == "__pycache__" or name.endswith(_NOISE_ENDS)


def describe(files: Iterable[str], directories: Iterable[str]) -> list[str]:
    """A tree of what is watched: directories as wholes, each with how many files of it, and files that are in none."""
    files, inside = sorted(files), set(directories)
    tops = sorted(path for path in inside if os.path.dirname(path) not in inside)
    lines = []
    for top in tops:
        count = sum(path.startswith(f"{top}{os.sep}") for path in files)
        lines.append(f"{_short(top)}{os.sep} ({count} file{'' if count == 1 else 's'})")
    lines += [_short(path) for path in files if not any(path.startswith(f"{top}{os.sep}") for top in tops)]
    return [f"{'└─' if line is lines[-1] else '├─'} {line}" for line in lines]


def _short(path: str) -> str:
    relative = os.path.relpath(path)
    return path if relative.startswith("..") else relative
