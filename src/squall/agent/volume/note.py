"""What of an upper has been in commits, as it is written down: a line for each commit, with what it changed.

The first line has everything. One that was broken off is the last one, and as if it was not there: its commit is made
again under the id that it had, which the server knows.
"""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Mapping
from pathlib import Path

from squall.agent.volume.upper import Fingerprint, is_fingerprint

LINES_MAX = 200
"""Before all is written anew."""

_log = logging.getLogger("squall.agent.volume.note")


class Note:
    """Of one upper. All of it blocks."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lines = 0
        self.count = 0
        """Commits there have been."""

    def read(self) -> dict[str, Fingerprint]:
        """What there has been in commits, and as what. Without it everything is committed once more."""
        committed: dict[str, Fingerprint] = {}
        try:
            lines = self._path.read_text().splitlines()
        except FileNotFoundError:
            return committed
        except (OSError, ValueError) as error:
            _log.warning("%s: what was committed cannot be told: %s", self._path, error)
            return committed
        for number, line in enumerate(lines, 1):
            try:
                told = json.loads(line)
                put = {path: tuple(one) for path, one in told["put"].items() if is_fingerprint(one)}
                gone, count = list(told["gone"]), int(told["count"])
            except (ValueError, TypeError, KeyError, AttributeError):
                _log.warning("%s: line %d cannot be told", self._path, number)
                self._lines = 0
                return committed
            committed |= put
            for path in gone:
                committed.pop(path, None)
            self._lines, self.count = number, count
        return committed

    def keep(self, before: Mapping[str, Fingerprint], after: Mapping[str, Fingerprint]) -> None:
        """One more commit: after it, this is what has been in commits."""
        self.count += 1
        try:
            if not self._lines or self._lines >= LINES_MAX:
                self._write_all(after)
            else:
                put = {path: one for path, one in after.items() if before.get(path) != one}
                self._append({"put": put, "gone": list(before.keys() - after.keys()), "count": self.count})
        except FileNotFoundError:
            pass  # it is gone when the container is
        except OSError as error:
            # The version is there. All of it is written down the next time.
            self._lines = 0
            _log.warning("%s: what was committed cannot be written down: %s", self._path, error)

    def _write_all(self, after: Mapping[str, Fingerprint]) -> None:
        new = self._path.with_suffix(".new")
        new.write_text(json.dumps({"put": after, "gone": [], "count": self.count}) + "\n")
        os.replace(new, self._path)
        self._lines = 1

    def _append(self, told: dict[str, object]) -> None:
        with self._path.open("a") as file:
            file.write(json.dumps(told) + "\n")
        self._lines += 1
