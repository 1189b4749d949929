"""Notices what is changed inside a network namespace while somebody else has power over it.

For a moment a clone has every capability over its own namespace, and what it changes there would meet the next clone
that gets it. The kernel tells whoever listens in a namespace of every change to interfaces, addresses, routes, rules,
neighbours and queues: asking for all of that and comparing would take longer, and know of fewer things.
"""

from __future__ import annotations

import socket
from types import TracebackType

from squall.runtime.errors import RuntimeFailure, describe_errno
from squall.runtime.network.rtnl import RoutingSocket, read_link_changes

# Of those that exist all are about what somebody sets, but for interfaces that come up. Those above 32 are joined one
# by one, as many as this kernel has.
_ALL_GROUPS = 0xFFFFFFFF
_FURTHER_GROUPS = range(33, 65)
_SOL_NETLINK, _NETLINK_ADD_MEMBERSHIP = 270, 1
_MESSAGE_BYTES = 64 * 1024
_MESSAGES_MAX = 64
"""Of an untouched slot there is one or two. So many need not be read to know better."""


class ChangeWatch:
    """Listens in the network namespace that the thread is in when it is made. Keeps that namespace until closed.

    All is to stay as it is then.

    Raises:
        RuntimeFailure: the process has no descriptor left.
    """

    def __init__(self) -> None:
        self._is_unchanged = True
        flags = socket.SOCK_RAW | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK
        try:
            self._socket = socket.socket(socket.AF_NETLINK, flags, socket.NETLINK_ROUTE)
            self._socket.bind((0, _ALL_GROUPS))
        except OSError as error:
            raise RuntimeFailure(describe_errno("watch", "a network namespace", error.errno or 0)) from error
        for group in _FURTHER_GROUPS:
            try:
                self._socket.setsockopt(_SOL_NETLINK, _NETLINK_ADD_MEMBERSHIP, group)
            except OSError:
                break
        try:
            # After it listens: what is changed meanwhile is heard.
            with RoutingSocket() as routing:
                self._links = routing.links()
        except BaseException:
            self._socket.close()
            raise

    def __enter__(self) -> ChangeWatch:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def is_unchanged(self) -> bool:
        """Whether everything is as it was; what was changed and changed back is not."""
        for _ in range(_MESSAGES_MAX):
            try:
                message = self._socket.recv(_MESSAGE_BYTES)
            except BlockingIOError:
                return self._is_unchanged
            except OSError:
                # There was more than the socket holds.
                break
            # An interface that comes up is told late and more than once, and so is no change by itself.
            if not all(state in self._links for state in read_link_changes(message)):
                break
        self._is_unchanged = False
        return False

    def close(self) -> None:
        """Listen no more. Idempotent."""
        self._socket.close()
