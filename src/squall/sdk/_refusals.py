"""Errors that a server answers, as exceptions of `squall.exception`."""

from __future__ import annotations

from squall import exception
from squall.protocol.errors import PlatformError

_BY_CODE: dict[str, type[exception.Error]] = {
    "invalid": exception.InvalidError,
    "not_found": exception.NotFoundError,
    "conflict": exception.ConflictError,
    "unauthenticated": exception.AuthError,
    "forbidden": exception.PermissionDeniedError,
    "exhausted": exception.ResourceExhaustedError,
    "timed_out": exception.ServiceError,
    "unavailable": exception.ServiceError,
    "unsupported": exception.UnimplementedError,
    "internal": exception.InternalError,
}


def translate(error: PlatformError) -> exception.Error:
    """The exception of `squall.exception` that an error of the wire is raised as."""
    return _BY_CODE.get(error.code, exception.ServiceError)(error.message)
