"""Error codes: born here and nowhere else.

    PlatformError(code, message)
    ├── invalid           the request itself is wrong; repeating it cannot help
    ├── not_found         no such object
    ├── expired           it was kept for a while, and is gone
    ├── exists            there is one of that name
    ├── conflict          is in a state that does not allow this
    ├── unauthenticated   say who you are
    ├── forbidden         known, but not allowed
    ├── exhausted         a limit or budget is used up; later it may work
    ├── timed_out         did not finish in the time given
    ├── unavailable       the other side is not there (yet); retrying is right
    ├── unsupported       this machine or version cannot do it
    └── internal          our mistake; the message names a request id, the log has the rest

A message names the operation, the object, the cause and what to do. User code's exceptions are never errors of ours:
they travel as data in outputs.
"""

from __future__ import annotations

import errno

from squall.protocol.records import record

INVALID = "invalid"
NOT_FOUND = "not_found"
EXPIRED = "expired"
EXISTS = "exists"
CONFLICT = "conflict"
UNAUTHENTICATED = "unauthenticated"
FORBIDDEN = "forbidden"
EXHAUSTED = "exhausted"
TIMED_OUT = "timed_out"
UNAVAILABLE = "unavailable"
UNSUPPORTED = "unsupported"
INTERNAL = "internal"

HTTP_STATUS = {
    INVALID: 400,
    UNAUTHENTICATED: 401,
    FORBIDDEN: 403,
    NOT_FOUND: 404,
    EXISTS: 409,
    CONFLICT: 409,
    EXPIRED: 410,
    EXHAUSTED: 429,
    INTERNAL: 500,
    UNSUPPORTED: 501,
    UNAVAILABLE: 503,
    TIMED_OUT: 504,
}
"""What the server writes. The code itself is in the body: two share a status where HTTP knows one word for both."""


def is_disk_full(error: BaseException) -> bool:
    """Whether the disk took no more."""
    return isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT)


def disk_full(method: str, error: BaseException) -> PlatformError:
    """What to tell of that, where nobody has said it in better words. Paths are none of the asker's business."""
    cause = f"the disk of the server or of a node is full ({getattr(error, 'strerror', '') or error})"
    return PlatformError(EXHAUSTED, f"{method}: {cause}; free space in the data directory's file system, or move it")


class PlatformError(Exception):
    """A failure that the other side should hear about, with a code a program can act on."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code if code in HTTP_STATUS else INTERNAL
        self.message = message

    def __repr__(self) -> str:
        return f"PlatformError({self.code!r}, {self.message!r})"


class ChannelClosed(PlatformError):
    """The connection ended before the answer came; whether the request was carried out is unknown."""

    def __init__(self, message: str = "the connection was closed") -> None:
        super().__init__(UNAVAILABLE, message)


@record
class ErrorRecord:
    """A PlatformError on the wire."""

    code: str
    message: str

    def to_error(self) -> PlatformError:
        """The exception it stands for."""
        return PlatformError(self.code, self.message)
