"""What the server is told of a start that failed."""

from __future__ import annotations

import errno

from squall.protocol.errors import INVALID, UNAVAILABLE, UNSUPPORTED, PlatformError
from squall.protocol.node import ContainerStart
from squall.runtime.errors import FeatureMissing, ProgramMissing, ProgramRefused, RuntimeFailure, SubPathMissing


def as_platform_error(request: ContainerStart, error: BaseException) -> PlatformError | None:
    """What the server is to hear about a failed start; None for what is not for it."""
    if isinstance(error, PlatformError):
        return error
    what = f"cannot start container {request.container_id}: "
    cause = str(error).removeprefix(what)
    if isinstance(error, ProgramMissing | ProgramRefused):
        # The image's fault, and the same at every attempt.
        cause = cause.partition(";")[0]
        remedy = "see that its steps neither remove nor replace the base's Python, and that its entrypoint is there"
        return PlatformError(INVALID, f"{what}image {request.image_id} cannot run its Python ({cause}); {remedy}")
    if isinstance(error, SubPathMissing):
        return PlatformError(INVALID, f"{what}{cause}")
    if isinstance(error, FeatureMissing):
        return PlatformError(UNSUPPORTED, f"{what}{cause}")
    if isinstance(error, RuntimeFailure | OSError):
        # Not "exhausted": the server would wait for capacity that no ending container gives back.
        is_full = getattr(error, "errno", None) in (errno.ENOSPC, errno.EDQUOT) or "ENOSPC" in str(error)
        hint = "; free space in the data directory's file system, or move it" if is_full else ""
        return PlatformError(UNAVAILABLE, f"{what}{cause}{hint}")
    return None
