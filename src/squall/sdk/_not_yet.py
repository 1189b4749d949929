"""Parameters of decorators that only later versions can honour.

Each is refused by name, so that nothing is accepted in silence that then does not happen; and it is refused as wrong
where no version will take it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Mapping
from typing import Any

from squall.exception import InvalidError
from squall.sdk._value_text import value_text

GPU = r"[A-Za-z0-9._-]{1,64}(:[1-9][0-9]{0,3})?\Z"


def refuse_not_yet(what: str, given: Mapping[str, Any]) -> None:
    """Looks at those of `given` that are of later versions; `what` is whose they are.

    Raises:
        InvalidError: one is used, or is none that there could be.
    """
    for name, (is_right, rule) in _LATER.items():
        value = given.get(name)
        if value is None:
            continue
        if not is_right(value):
            raise InvalidError(f"{what}: {name}={value_text(value)} must be {rule}")
        says_nothing = value is False or (isinstance(value, Collection) and not value)
        if name == "proxy" or not says_nothing:
            raise InvalidError(f"{what}: {name}= is not in this version of Squall yet; leave it out to run without")


def _is_gpu(value: object) -> bool:
    kinds = value if isinstance(value, (list, tuple)) else (value,)
    return bool(kinds) and all(isinstance(kind, str) and re.match(GPU, kind) for kind in kinds)


def _is_flag(value: object) -> bool:
    return isinstance(value, bool)


def _are_options(value: object) -> bool:
    return isinstance(value, Mapping) and all(isinstance(name, str) for name in value)


_FLAG = (_is_flag, "True or False")
_LATER: dict[str, tuple[Callable[[Any], bool], str]] = {
    "gpu": (_is_gpu, 'a type of GPU, such as "A100" or "A100:2", or a list of them'),
    "proxy": (lambda _: True, "a proxy"),
    "restrict_modal_access": _FLAG,
    "i6pn": _FLAG,
    "experimental_options": (_are_options, "a dictionary of names and values"),
}
"""Each with what it may be. A proxy is nothing yet: whatever it is, it is of a later version."""
