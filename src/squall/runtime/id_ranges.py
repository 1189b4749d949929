"""One user namespace per id range, made once and kept open: every container of the range lives in it.

Containers of a range are one trust domain (an app's function); all their other namespaces are their own and belong to
the machine, so sharing this one gives them nothing over each other. It saves two processes' handshake over `uid_map`
per start, and the same descriptor maps the ids of their layers. See docs/decisions/0003.
"""

from __future__ import annotations

import os
import signal
from collections import Counter, OrderedDict
from collections.abc import Callable

from squall.runtime import syscalls as sc
from squall.runtime.errors import RuntimeFailure, describe_errno
from squall.runtime.spec import IdRange

KEPT_MAX = 1_024
"""Ranges without a container whose namespaces are kept."""
_TOP = -1


class UserNamespaces:
    """Descriptors of user namespaces by id range.

    Those of a range whose containers are there stay: a template has power over the one nested in its own, and over no
    other that is made later. Of others the least recently used are closed when there are too many, a range's together.
    """

    def __init__(self) -> None:
        self._of_range: OrderedDict[IdRange, dict[int, int]] = OrderedDict()
        self._held_by: dict[str, IdRange] = {}
        self._hold_counts: Counter[IdRange] = Counter()

    def get(self, id_range: IdRange) -> int:
        """The namespace whose ids 0..size-1 are this range. Valid while the range is held, or until the next call."""
        return self._get(id_range, _TOP, lambda: make_user_namespace(id_range))

    def get_nested(self, id_range: IdRange, uid: int) -> int:
        """The one nested in that, with the same ids, that a process of this uid in it may enter. Valid as the other."""
        outer_fd = self.get(id_range)
        return self._get(id_range, uid, lambda: make_nested_namespace(id_range, outer_fd, uid))

    def hold(self, container_id: str, id_range: IdRange) -> None:
        """A container of this range is there, from now until `let_go`."""
        self._held_by[container_id] = id_range
        self._hold_counts[id_range] += 1

    def let_go(self, container_id: str) -> None:
        """It is gone. Idempotent."""
        id_range = self._held_by.pop(container_id, None)
        if id_range is not None:
            self._hold_counts[id_range] -= 1
            if not self._hold_counts[id_range]:
                del self._hold_counts[id_range]

    def _get(self, id_range: IdRange, which: int, make: Callable[[], int]) -> int:
        descriptors = self._of_range.setdefault(id_range, {})
        self._of_range.move_to_end(id_range)
        try:
            if which not in descriptors:
                descriptors[which] = make()
        finally:
            if not descriptors:
                del self._of_range[id_range]
        if len(self._of_range) - len(self._hold_counts) > KEPT_MAX:
            self._close_oldest(id_range)
        return descriptors[which]

    def _close_oldest(self, kept: IdRange) -> None:
        for id_range in self._of_range:
            if id_range not in self._hold_counts and id_range != kept:
                for descriptor in self._of_range.pop(id_range).values():
                    os.close(descriptor)
                return

    def close(self) -> None:
        """Close all; namespaces in use live on in their processes."""
        while self._of_range:
            for descriptor in self._of_range.popitem()[1].values():
                os.close(descriptor)


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
        _map_ids(pid, id_range.start, id_range.size)
        return os.open(f"/proc/{pid}/ns/user", os.O_RDONLY | os.O_CLOEXEC)
    finally:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        os.close(pidfd)


def make_nested_namespace(id_range: IdRange, outer_fd: int, uid: int) -> int:
    """A descriptor of a new user namespace in `outer_fd`'s, with the same ids, owned by that one's `uid`.

    Whoever owns a user namespace may enter it, and has every capability there and none outside: that is how the forks
    of a template that may do nothing get into what was made for them.

    Raises:
        RuntimeFailure: the kernel refused.
    """
    read_end, write_end = os.pipe2(os.O_CLOEXEC)
    done_read, done_write = os.pipe2(os.O_CLOEXEC)
    # The map of a namespace is written from the one it is in: two processes, the second for the new one to be there.
    helper, helper_fd = sc.clone(0, signal.SIGCHLD)
    if helper == 0:
        code = 1
        try:
            sc.prctl(sc.PR_SET_PDEATHSIG, signal.SIGKILL)
            os.close(done_write)
            _be_in_nested(id_range, outer_fd, uid, write_end, done_read)
            code = 0
        except RuntimeFailure as failure:
            os.write(write_end, f"!{failure.message}".encode()[:4_000])
        finally:
            os._exit(code)
    os.close(write_end)
    os.close(done_read)
    try:
        with open(read_end, encoding="utf-8", closefd=True) as answers:
            said = answers.readline()
            if said.startswith("!") or not said:
                reason = said[1:] or "the process that was to make it was killed"
                raise RuntimeFailure(f"cannot make a user namespace for forks of templates: {reason}")
            return os.open(f"/proc/{int(said)}/ns/user", os.O_RDONLY | os.O_CLOEXEC)
    finally:
        os.close(done_write)
        os.waitpid(helper, 0)
        os.close(helper_fd)


def _be_in_nested(id_range: IdRange, outer_fd: int, uid: int, answer_fd: int, done_fd: int) -> None:
    """Make the namespace, tell the pid of a process that is in it, and end that one when the other side is done."""
    sc.setns(outer_fd, sc.CLONE_NEWUSER, f"the user namespace of ids {id_range.start}..")
    os.setgroups([])
    os.setresgid(0, 0, 0)
    os.setresuid(0, 0, 0)
    made_read, made_write = os.pipe2(os.O_CLOEXEC)
    inner = os.fork()
    if inner == 0:
        try:
            os.setresgid(uid, uid, uid)
            os.setresuid(uid, uid, uid)
            # Not before: changing ids clears it.
            sc.prctl(sc.PR_SET_PDEATHSIG, signal.SIGKILL)
            # Its map's file is root's otherwise, and root is not mapped here.
            sc.prctl(sc.PR_SET_DUMPABLE, 1)
            sc.unshare(sc.CLONE_NEWUSER)
            os.write(made_write, b".")
            while True:
                signal.pause()
        finally:
            os._exit(1)
    os.close(made_write)
    try:
        if not os.read(made_read, 1):
            raise RuntimeFailure("cannot make namespaces: the kernel refused a nested one")
        _map_ids(inner, 0, id_range.size)
        os.write(answer_fd, f"{inner}\n".encode())
        os.read(done_fd, 1)
    finally:
        os.kill(inner, signal.SIGKILL)
        os.waitpid(inner, 0)


def _map_ids(pid: int, start: int, size: int) -> None:
    for name in ("uid_map", "gid_map"):
        path = f"/proc/{pid}/{name}"
        try:
            with open(path, "w", encoding="ascii") as file:
                file.write(f"0 {start} {size}")
        except OSError as error:
            raise RuntimeFailure(describe_errno("map ids in", path, error.errno or 0)) from error
