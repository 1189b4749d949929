"""What the ingress says itself, in the place of an application's response."""

from __future__ import annotations

from dataclasses import dataclass

from squall.protocol.call import Failure
from squall.server.ingress.headers import Pairs
from squall.server.model.web import Busy, Full

RETRY_S = 5
"""When to come back."""


@dataclass(frozen=True, slots=True)
class Answer:
    """A short text with a status."""

    status: int
    text: str
    headers: tuple[tuple[bytes, bytes], ...] = ()

    @property
    def body(self) -> bytes:
        """The text as it is sent."""
        return self.text.encode() + b"\n"

    @property
    def pairs(self) -> Pairs:
        """All headers."""
        return [
            (b"content-type", b"text/plain; charset=utf-8"),
            (b"content-length", str(len(self.body)).encode()),
            *self.headers,
        ]


def busy(error: Busy) -> Answer:
    """Too much waits, or is asked."""
    status = 429 if isinstance(error, Full) else 503
    return Answer(status, str(error), ((b"retry-after", str(RETRY_S).encode()),))


_STATUS = {
    "timed_out": (504, "the request took longer than it may"),
    "startup_timed_out": (503, "its container did not start in time"),
    "cancelled": (503, "the request was cancelled"),
    "exhausted": (503, "too many requests wait"),
    "stopped": (503, "the app was stopped"),
    "unavailable": (503, "its containers do not start"),
    "import": (503, "its containers do not start"),
    "image": (503, "its image cannot be used"),
    "not_found": (404, "there is no such web function any more"),
    "crashed": (502, "its container ended while it answered"),
    "oom": (502, "its container ran out of memory while it answered"),
    "disk": (502, "its container wrote too much while it answered"),
    "lost": (502, "its container was lost while it answered"),
}


def of_failure(failure: Failure, request_id: str) -> Answer:
    """What a client is told that gets no response. Not why user code failed: that is in the app's log, and for its
    owner."""
    status, text = _STATUS.get(failure.kind, (500, "Internal Server Error"))
    headers = [(b"squall-request", request_id.encode())]
    if status == 503:
        headers.append((b"retry-after", str(RETRY_S).encode()))
    return Answer(status, f"{text} ({request_id})" if status != 500 else text, tuple(headers))
