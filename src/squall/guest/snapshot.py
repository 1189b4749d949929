"""A template that is saved and restored, where processes cannot be forked into their containers: under gVisor.

    runtime                                  template, in a directory that both see
      report.json ◀──────────────────────────  ready or unfit, once; what is unfit ends
      saves all of the container, ends it        waits for an identity, which never comes
                                             restored, in a directory of its own
      identity.json ─────────────────────────▶  is there already: takes it on, and goes on as the guest

It has loaded the function and run its hooks as any template has. Threads are saved with it, sockets are not.
"""

from __future__ import annotations

import json
import os
import socket
import time
from typing import Any

from squall.guest import fork_safety
from squall.guest.clone import adopt_environment
from squall.guest.loading import Served
from squall.guest.template import Begun, Template
from squall.protocol.guest import ENV_TEMPLATE_DIR, TEMPLATE_IDENTITY, TEMPLATE_REPORT, Ready

LOOK_S = 0.005
"""How often it looks for its identity."""
EXIT_CHECKED = 0


class Restored:
    """The container that a saved template has become."""

    def __init__(self, served: Served | None, started: float, ready: Ready | None) -> None:
        self.served = served
        self.started = started
        self.ready = ready
        self.waiting: socket.socket | None = None

    def end(self, code: int) -> None:
        """Nobody has to be told: the process is the container's own."""


class SavedTemplate(Template):
    """This process, until it has been restored or ends."""

    def _connect(self) -> None:
        self._directory = os.environ.pop(ENV_TEMPLATE_DIR)

    def _look(self, watch: fork_safety.ThreadWatch) -> fork_safety.Found:
        return fork_safety.look(watch, has_threads=True)

    def _tell(self, said: dict[str, Any]) -> None:
        path = f"{self._directory}/{TEMPLATE_REPORT}"
        with open(f"{path}.new", "w", encoding="utf-8") as file:
            json.dump(said, file)
        os.rename(f"{path}.new", path)

    def _go_on(self, found: fork_safety.Found, served: Served | None) -> Begun:
        path = f"{self._directory}/{TEMPLATE_IDENTITY}"
        while not os.path.exists(path):
            time.sleep(LOOK_S)
        started = time.monotonic()
        # Before all else: what threads draw meanwhile is the same in all that are restored.
        self._renewals.run()
        with open(path, encoding="utf-8") as file:
            identity = json.load(file)
        adopt_environment(identity["env"], self._environment)
        # The sign that it is somebody now; and nobody finds the token there.
        os.unlink(path)
        if identity.get("is_check"):
            os._exit(EXIT_CHECKED)
        return Restored(served, started, self._ready(served))
