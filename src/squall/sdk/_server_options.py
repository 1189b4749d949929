"""The parameters of `@app.server`, checked."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from squall.protocol.function import INPUTS_AT_ONCE_MAX, SCALEUP_S_MAX, SERVER_TIMEOUT_S
from squall.protocol.records import replace
from squall.protocol.web import SERVER, WebSpec
from squall.sdk._concurrent import Concurrency
from squall.sdk._options import TIMEOUT_S_MAX, Options
from squall.sdk._value_text import value_text
from squall.sdk._web import check_port

STARTUP_S = 30
REPORT_S = 5.0
"""After `startup_timeout`, in which a container says that nothing listens in it, before it is ended for being late."""
EXIT_GRACE_S_MAX = 3_600
_NOT_OF_SERVERS: dict[str, Any] = {
    "schedule": None,
    "retries": None,
    "timeout": TIMEOUT_S_MAX,
    "block_network": False,
    "single_use_containers": False,
}


class ServerOptions(Options):
    """What a server's decorator says, besides its code and image."""

    _kind = "server"
    _region = "compute_region"

    def __init__(self, name: str, given: Mapping[str, Any]) -> None:
        """Raises:
        InvalidError: a value is impossible, or of a later version.
        """
        startup = STARTUP_S if given["startup_timeout"] is None else given["startup_timeout"]
        super().__init__(name, {**given, **_NOT_OF_SERVERS, "startup_timeout": startup})
        if self._flag("h2_enabled", given["h2_enabled"]):
            raise self._wrong("h2_enabled= is not in this version of Squall yet; leave it out for HTTP/1.1")
        self.timeout_s = SERVER_TIMEOUT_S
        listens_s, self.startup_timeout_s = self.startup_timeout_s, self.startup_timeout_s + REPORT_S
        self.scaleup_window_s = self._scaleup(given["scaleup_window"])
        most = self._count("max_concurrency", given["max_concurrency"], 0, INPUTS_AT_ONCE_MAX) or 0
        target = self._target(given["target_concurrency"], most)
        self.concurrency = Concurrency(most or INPUTS_AT_ONCE_MAX, target or None)
        if target == 0:
            self._check_single()
            self.max_containers = 1
        self.web = WebSpec(
            SERVER,
            is_proxy_auth_required=not self._flag("unauthenticated", given["unauthenticated"]),
            port=check_port(f"server {name}", given["port"]),
            port_timeout_s=listens_s,
            requests_max=most,
            exit_grace_s=self._seconds("exit_grace_period", given["exit_grace_period"], 0, EXIT_GRACE_S_MAX),
        )

    def records(self) -> dict[str, Any]:
        """See `Options`."""
        records = super().records()
        records["scaling"] = replace(records["scaling"], scaleup_window_s=self.scaleup_window_s)
        return records

    def _scaleup(self, value: object) -> float:
        if value is None:
            return 0.0
        seconds = self._seconds("scaleup_window", value, 0, SCALEUP_S_MAX)
        if not seconds:
            raise self._wrong(f"scaleup_window={value_text(value)} must be above 0 seconds; leave it out for none")
        return seconds

    def _target(self, value: object, most: int) -> int | None:
        """Whole requests: those of a container are counted, and not measured."""
        if value is None:
            return None
        limit = most or INPUTS_AT_ONCE_MAX
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value <= limit:
            of = f"max_concurrency={most}" if most else f"{limit:,}"
            raise self._wrong(f"target_concurrency={value_text(value)} must be a number from 0 to {of}")
        return whole_target(value)

    def _check_single(self) -> None:
        for name, most in (("max_containers", 1), ("min_containers", 1), ("buffer_containers", 0)):
            count = getattr(self, name)
            if count is not None and count > most:
                raise self._wrong(f"target_concurrency=0 means a single container; leave {name}={count} out")


def whole_target(value: float) -> int:
    """How many requests a container is meant to be given: below one it is one, and what is left of the second place
    behind the point counts as one more."""
    return 0 if not value else max(1, math.ceil(round(value, 2)))
