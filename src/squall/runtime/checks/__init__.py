"""The findings behind `squall doctor`: what this machine has, what it lacks, and the command that gets it."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping

from squall.runtime.checks.check import Check
from squall.runtime.checks.criu import check_criu
from squall.runtime.checks.gvisor import check_runsc
from squall.runtime.checks.kernel import check_kernel_features
from squall.runtime.checks.machine import check_machine
from squall.runtime.checks.mirrors import check_mirrors

__all__ = ["Check", "run_checks"]


def run_checks(
    data_dir: str, *, now_s: float, ports: Iterable[int] = (), env: Mapping[str, str] | None = None
) -> list[Check]:
    """Look at everything containers need. Changes nothing that stays; blocks for a few seconds at most.

    Args:
        data_dir: where containers' files are kept; made if it is missing and this is root.
        now_s: seconds since 1970 by the caller's clock.
        ports: those the server is to listen on; leave out one that it listens on already.
        env: the environment that names proxies and indexes.
    """
    uid = os.geteuid()
    if uid == 0:
        os.makedirs(data_dir, mode=0o755, exist_ok=True)
    return [
        *check_kernel_features(data_dir, uid),
        *check_machine(data_dir, ports, uid),
        check_runsc(),
        check_criu(),
        *check_mirrors(env or {}, now_s),
    ]
