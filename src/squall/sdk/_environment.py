"""Which environment names are of: the one that is given, or the program's."""

from __future__ import annotations

import os

from squall.exception import InvalidError
from squall.protocol.environment import is_environment_name
from squall.protocol.names import ENVIRONMENT_RULE
from squall.sdk._value_text import value_text

_chosen = ""


def choose(name: str) -> None:
    """What everything in this program means that names no environment (`-e` of a command); empty for no choice.

    Raises:
        InvalidError: no environment can be called that.
    """
    global _chosen
    _chosen = check_environment(name, "-e/--env") if name else ""


def check_environment(name: object, what: str) -> str:
    """The name, if an environment can have it.

    Raises:
        InvalidError: it cannot.
    """
    if not isinstance(name, str) or not is_environment_name(name):
        raise InvalidError(f"{what}: {value_text(name)} is no name of an environment: use {ENVIRONMENT_RULE}")
    return name


def environment_of(given: str | None, what: str = "environment_name") -> str:
    """The given one, else that of `-e`, else `SQUALL_ENVIRONMENT`. Empty leaves it to the server: its default, or in a
    container that of the app.

    Raises:
        InvalidError: no environment can be called that.
    """
    if given not in (None, ""):
        return check_environment(given, what)
    if _chosen:
        return _chosen
    for variable in ("SQUALL_ENVIRONMENT", "MODAL_ENVIRONMENT"):
        value = os.environ.get(variable, "")
        if value:
            return check_environment(value, variable)
    return ""
