"""A module that an image lacks and this machine has: whose it is says how it gets there."""

from __future__ import annotations

import os
import re
import sysconfig
from importlib.util import find_spec

_MISSING = re.compile(r"No module named '([\w.]+)'\. The image has no package .*", re.DOTALL)
_GUESS = "The image has no package "
_INSTALLED = ("site-packages", "dist-packages")


def with_own_advice(message: str) -> str:
    """What a container says of a module that it lacks; of one of the user's own, with what to do about that alone.

    The container can only guess whether a name is that of a package to be installed, and a package of strangers may
    have the name of a file that lies beside the program.
    """
    found = _MISSING.search(message)
    advice = _advice(found[1]) if found is not None else ""
    return (
        f"{message[: found.start()]}No module named {found[1]!r}. {advice}" if found is not None and advice else message
    )


def note_own(error: ModuleNotFoundError) -> None:
    """The same for what such an error from a function has as its note."""
    notes = getattr(error, "__notes__", [])
    advice = _advice(error.name or "") if notes and notes[0].startswith(_GUESS) else ""
    if advice:
        notes[0] = advice


def _advice(name: str) -> str:
    package = name.partition(".")[0]
    path = _own_path(package) if package else ""
    if not path:
        return ""
    return f"It is yours ({path}), and the image lacks it: add it with image.add_local_python_source({package!r})"


def _own_path(package: str) -> str:
    """Where a module or package of that name is that nobody has installed; empty if there is none."""
    try:
        spec = find_spec(package)
    except (ImportError, ValueError, AttributeError):
        return ""
    places = [spec.origin or "", *(spec.submodule_search_locations or ())] if spec is not None else []
    path = next((place for place in places if os.path.exists(place)), "")
    is_of_python = path.startswith(sysconfig.get_path("stdlib") + os.sep)
    return "" if is_of_python or any(part in _INSTALLED for part in path.split(os.sep)) else path
