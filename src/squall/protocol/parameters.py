"""Parameters of an object of a class, as text: JSON with sorted keys, so that equal ones are equal texts.

Bytes, which JSON has not, are `{"bytes": base64}`.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping

from squall.protocol.function import ParameterSpec

KINDS: dict[str, type] = {"str": str, "int": int, "bool": bool, "bytes": bytes}
PARAMETERS_CHARS_MAX = 16 * 1024
"""Of all parameters of one object, as text."""
SHOWN_CHARS_MAX = 40
"""Of one value in a name for people."""

Value = str | int | bool | bytes


class ParametersInvalid(ValueError):
    """These are not the parameters of the class; the message names the one."""


def encode(values: Mapping[str, Value]) -> str:
    """The text for these; empty where there are none."""
    if not values:
        return ""
    plain = {
        name: {"bytes": base64.b64encode(value).decode()} if isinstance(value, bytes) else value
        for name, value in values.items()
    }
    return json.dumps(plain, sort_keys=True, separators=(",", ":"))


def decode(text: str) -> dict[str, Value]:
    """The values of a text.

    Raises:
        ParametersInvalid: it is none that `encode` makes.
    """
    try:
        plain = json.loads(text) if text else {}
        values = {
            name: base64.b64decode(value["bytes"], validate=True) if isinstance(value, dict) else value
            for name, value in plain.items()
        }
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise ParametersInvalid(f"the parameters {text[:80]!r} cannot be read: {error}") from error
    if any(type(value) not in KINDS.values() for value in values.values()) or encode(values) != text:
        raise ParametersInvalid(f"the parameters {text[:80]!r} are not written as they are compared")
    return values


def check(class_name: str, known: tuple[ParameterSpec, ...], values: Mapping[str, object]) -> None:
    """Whether an object of the class can be made of these.

    Raises:
        ParametersInvalid: one is unknown, of another type or missing.
    """
    specs = {one.name: one for one in known}
    for name, value in values.items():
        spec = specs.get(name)
        if spec is None:
            has = f"it has: {', '.join(specs)}" if specs else "it has none"
            raise ParametersInvalid(f"class {class_name} has no parameter {name[:80]!r}; {has}")
        # A bool is an int to Python, and would be another object than the number.
        if type(value) is not KINDS.get(spec.kind):
            what = f"parameter {name} of class {class_name} must be {spec.kind}"
            raise ParametersInvalid(f"{what}, not {type(value).__name__}")
    missing = [one.name for one in known if one.is_required and one.name not in values]
    if missing:
        raise ParametersInvalid(f"class {class_name} needs {', '.join(f'{name}=' for name in missing)}")


def shown(values: Mapping[str, Value]) -> str:
    """For people, as they would write it: `x=1, name='a'`; long values are shortened."""
    return ", ".join(f"{name}={_short(repr(value))}" for name, value in sorted(values.items()))


def _short(text: str) -> str:
    return text if len(text) <= SHOWN_CHARS_MAX else text[: SHOWN_CHARS_MAX - 1] + "…"
