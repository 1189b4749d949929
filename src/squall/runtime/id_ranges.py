"""One user namespace per id range, made once and kept open: every container of the range lives in it.

Containers of a range are one trust domain (an app's function); all their other namespaces are their own and belong to
the machine, so sharing this one gives them nothing over each other. It saves two processes' handshake over `uid_map`
per start, and the same descriptor maps the ids of their layers. See docs/decisions/0003.
"""

from __future__ import annotations

import os
import signal
from collections import OrderedDict

from squall.runtime import syscalls as sc
from squall.runtime.errors import RuntimeFailure, describe_errno
from squall.runtime.spec import IdRange

KEPT_MAX = 1_024


class UserNamespaces:
    """Descriptors of user namespaces by id range, the least recently used closed when there are too many."""

    def __init__(self) -> None:
        self._descriptors: OrderedDict[tuple[int, int], int] = OrderedDict()

    def get(self, id_range: IdRange) -> int:
        """The namespace whose ids 0..size-1 are this range. Valid until the next call."""
        key = (id_range.start, id_range.size)
        descriptor = self._descriptors.get(key)
        if descriptor is None:
            while len(self._descriptors) >= KEPT_MAX:
                os.close(self._descriptors.popitem(last=False)[1])
            descriptor = self._descriptors[key] = make_user_namespace(id_range)
        self._descriptors.move_to_end(key)
        return descriptor

    def close(self) -> None:
        """Close all; namespaces in use live on in their processes."""
        while self._descriptors:
            os.close(self._descriptors.popitem()[1])


def make_user_namespace(id_range: IdRange) -> int:
    """A descriptor of a new user namespace with this range mapped; no process stays in it.

    Raises:
        RuntimeFailure: the range is empty, is not of its own, or the kernel refused.
    """
    if id_range.start <= 0 or id_range.size <= 0:
        raise RuntimeFailure(
            f"cannot use the ids {id_range.start}..{id_range.start + id_range.size - 1} for a container: "
            "a range begins above 0, so that no container runs on the machine's own ids"
        )
    pid, pidfd = sc.clone(sc.CLONE_NEWUSER, signal.SIGCHLD)
    if pid == 0:
        # Nothing to do but to be there; the parent's death must not leave it.
        sc.prctl(sc.PR_SET_PDEATHSIG, signal.SIGKILL)
        while True:
            signal.pause()
    try:
        for name in ("uid_map", "gid_map"):
            path = f"/proc/{pid}/{name}"
            try:
                with open(path, "w", encoding="ascii") as file:
                    file.write(f"0 {id_range.start} {id_range.size}")
            except OSError as error:
                raise RuntimeFailure(describe_errno("map ids in", path, error.errno or 0)) from error
        return os.open(f"/proc/{pid}/ns/user", os.O_RDONLY | os.O_CLOEXEC)
    finally:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        os.close(pidfd)
