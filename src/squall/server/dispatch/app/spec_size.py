"""How large a function's record may be: what is listed, stored and sent to nodes again and again."""

from __future__ import annotations

from collections.abc import Iterable

from squall.protocol.codec import Codec
from squall.protocol.errors import INVALID, PlatformError
from squall.protocol.function import SPEC_BYTES_MAX, FunctionSpec
from squall.protocol.pages import size_of


def check_sizes(codec: Codec, method: str, specs: Iterable[FunctionSpec]) -> None:
    """Whether these may be made.

    Raises:
        PlatformError: `invalid`, naming the first that is too large.
    """
    for spec in specs:
        size_bytes = size_of(codec, spec)
        if size_bytes > SPEC_BYTES_MAX:
            has = f"its record has {size_bytes / 2**20:.1f} MiB, at most {SPEC_BYTES_MAX >> 20}"
            raise PlatformError(INVALID, f"{method}: function {spec.name[:80]!r}: {has}; give it smaller variables")
