"""Functions that travel as bytes, with what they refer to."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Callable
from typing import Any

from squall.exception import InvalidError

_WARN_BYTES = 256 * 1024
_BYTES_MAX = 16 * 1024 * 1024
_PROTOCOL = 4


def pickle_function(raw_f: Callable[..., Any], name: str) -> bytes:
    """The function and what it refers to, as they are now.

    Raises:
        InvalidError: something in it cannot be pickled, or it is larger than anybody means.
    """
    import cloudpickle  # cold start: serialized functions only

    module = sys.modules.get(raw_f.__module__)
    is_by_value = module is not None and raw_f.__module__ != "__main__"
    if is_by_value:
        # The container does not have the module: what the function takes from it must come along.
        cloudpickle.register_pickle_by_value(module)
    try:
        data: bytes = cloudpickle.dumps(raw_f, protocol=_PROTOCOL)
    except Exception as error:
        raise InvalidError(f"cannot serialize function {name}: {error}") from error
    finally:
        if is_by_value:
            cloudpickle.unregister_pickle_by_value(module)
    if len(data) > _BYTES_MAX:
        raise InvalidError(
            f"function {name} is {len(data) / 2**20:.0f} MiB when serialized, at most "
            f"{_BYTES_MAX // 2**20} MiB: it takes large globals along; load them inside the function"
        )
    if len(data) > _WARN_BYTES:
        warnings.warn(
            f"function {name} is {len(data) // 1024} KiB when serialized: it takes large globals along",
            stacklevel=2,
        )
    return data
