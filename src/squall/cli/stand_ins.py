"""Stand-ins for modules that a library imports and seldom uses; the real one is loaded when it is first used."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import ModuleType
from typing import Any


class StandIn(ModuleType):
    """In the place of a module, where it was imported while `standing_in` was active."""

    def __getattr__(self, name: str) -> Any:
        # While others import, it is what they would get for the module.
        if sys.modules.get(self.__name__) is self:
            del sys.modules[self.__name__]
        return getattr(importlib.import_module(self.__name__), name)


@contextmanager
def standing_in(modules: dict[str, dict[str, Callable[..., Any]]]) -> Iterator[None]:
    """What is imported meanwhile gets stand-ins for these modules; everybody else gets the modules.

    Args:
        modules: by name; with it, what the stand-in can do without loading the module.
    """
    made: dict[str, ModuleType] = {}
    for name, own in modules.items():
        if name not in sys.modules:
            made[name] = sys.modules[name] = StandIn(name)
            vars(made[name]).update(own)
    try:
        yield
    finally:
        for name, module in made.items():
            if sys.modules.get(name) is module:
                del sys.modules[name]
