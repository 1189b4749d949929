"""Errors of ours as HTTP answers; the only place that knows both."""

from __future__ import annotations

import logging

import msgspec
from starlette.responses import Response

from squall.protocol.errors import HTTP_STATUS, INTERNAL, PlatformError, disk_full, is_disk_full
from squall.protocol.ids import new_id

_log = logging.getLogger("squall.server.api")


def error_value(error: PlatformError) -> dict[str, dict[str, str]]:
    """An error as JSON: `{"error": {"code": ..., "message": ...}}`."""
    return {"error": {"code": error.code, "message": error.message}}


def error_response(error: PlatformError, status: int | None = None) -> Response:
    """An error as an answer; the code decides the status unless one is given."""
    headers = {"WWW-Authenticate": "Bearer"} if error.code == "unauthenticated" else None
    content = msgspec.json.encode(error_value(error))
    return Response(content, HTTP_STATUS[error.code] if status is None else status, headers, "application/json")


def platform_error(method: str, error: Exception) -> PlatformError:
    """What to tell of an exception: itself if it is ours, else `internal` with the id under which the log has it."""
    if isinstance(error, PlatformError):
        return error
    request_id = new_id("rq")
    _log.error("%s failed (request %s)", method, request_id, exc_info=error)
    if is_disk_full(error):
        return disk_full(method, error)
    return PlatformError(INTERNAL, f"{method}: internal error (request {request_id}); the server's log has the cause")
