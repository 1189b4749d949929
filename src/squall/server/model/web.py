"""What the ingress and the control plane say to each other: a request is taken in, and what comes of it is read."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple, Protocol

from squall.protocol.call import Failure
from squall.protocol.web import DATA, WebRequest, WebSpec

END = "end"
"""All of the response has come; what came last is with it."""
LATE = "late"
"""Nothing has come for a while."""


CONNECTION = "squall.connection"
"""Where in the scope of an HTTP request the connection is that it came over."""


class Out(NamedTuple):
    """Something of a response."""

    kind: str
    """As of `WebOut`, or END, or LATE."""
    data: bytes
    status: int = 0
    """0: its head has come before."""
    headers: tuple[str, ...] = ()
    subprotocol: str = ""
    code: int = 1000
    reason: str = ""


class RequestFailed(Exception):
    """There will be no (more of the) response; `failure` says why."""

    def __init__(self, failure: Failure) -> None:
        super().__init__(failure.message)
        self.failure = failure


class Busy(Exception):
    """Too many requests wait for this function."""


class Full(Busy):
    """All containers that the server may have are given as many as they take at a time."""


class Exchange(Protocol):
    """A request that was taken in."""

    @property
    def request_id(self) -> str:
        """What it is called in logs: an input's id."""

    @property
    def is_running(self) -> bool:
        """Whether a container has it."""

    async def next(self) -> Out | None:
        """What comes next of the response; None when its client has gone.

        Raises:
            RequestFailed: nothing more comes, and it was not the end.
        """

    def remind(self) -> None:
        """If nothing has come yet: let `next` say so (LATE)."""

    def taken(self, count: int) -> None:
        """So many bytes have gone on to the client."""

    async def give(self, data: bytes, *, has_more: bool, kind: str = DATA) -> bool:
        """More of the request, as soon as the application wants it; False when it never will.

        A message (another kind than DATA) goes in one piece.
        """


class Whole(Protocol):
    """Who takes a response if it comes whole, and does not ask for it."""

    def whole(self, value: bytes) -> bool:
        """It has come (`protocol.web.split_response`); False where it cannot be passed on like this."""

    def other(self) -> None:
        """Something else has come, or it has failed: it is to be asked for by `Exchange.next`. Must not block."""


class Route(Protocol):
    """A web function that is found under a label."""

    @property
    def label(self) -> str: ...
    @property
    def web(self) -> WebSpec: ...
    @property
    def environment(self) -> str: ...


class Web(Protocol):
    """What the control plane offers to the ingress."""

    @property
    def host_suffix(self) -> str:
        """What the names of hosts end in that have a label before it."""

    def find(self, label: str) -> Route | None:
        """Who is found under a label."""

    def find_domain(self, host: str) -> Route | None:
        """Who is found under a custom domain."""

    def labels(self) -> Iterable[str]:
        """All there are, to find the one that was meant."""

    def opens(self, key: str, secret: str, environment: str) -> bool:
        """Whether a proxy token opens the web functions of an environment."""

    def begin(self, route: Route, head: WebRequest, body: bytes) -> Exchange:
        """A request has come; `body` is what has come of it.

        Raises:
            Busy: as many wait as may.
        """

    def begin_whole(self, route: Route, value: bytes, taker: Whole) -> Exchange:
        """The same for a request without a body, whose value is made already (`protocol.web.joined_request`); `taker`
        is told what comes first. Not within this. Raises as `begin`."""

    def responded(self, route: Route, status: int) -> None:
        """A client was answered, by its server or in the place of it: 101 for a WebSocket."""

    def leave(self, exchange: Exchange, code: int = 1006, reason: str = "") -> None:
        """Its client has gone; one that still waits for a container will not be run."""
