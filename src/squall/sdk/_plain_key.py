"""Keys of dicts as bytes: what two programs mean by the same key must be the same bytes.

A pickle says more than a value: whether two parts of it are one object, and which form of pickling made it. So plain
keys, which most are, are pickled in a form of their own, which is the same in every version of Python and wherever the
parts came from. Of other keys the pickle is what is looked for.
"""

from __future__ import annotations

import io
import pickle
from typing import Any

from squall.sdk._serialization import serialize

_PROTOCOL = 4
"""Of plain keys, for good: another one would make other keys."""
_PLAIN = frozenset({str, bytes, int, float, bool, type(None)})
_DEPTH_MAX = 20
"""Of tuples in tuples. Deeper ones are not plain."""


def encode_key(key: Any) -> bytes:
    """The key's bytes; unpickling them gives the key.

    Raises:
        SerializationError: it cannot be pickled.
    """
    if not _is_plain(key, _DEPTH_MAX):
        return serialize(key)
    buffer = io.BytesIO()
    pickler = pickle.Pickler(buffer, _PROTOCOL)
    # No memo: a part that comes twice is written twice, whether it is one object or two.
    pickler.fast = True
    pickler.dump(key)
    return buffer.getvalue()


def _is_plain(key: Any, depth: int) -> bool:
    if type(key) in _PLAIN:
        return True
    return type(key) is tuple and depth > 0 and all(_is_plain(part, depth - 1) for part in key)
