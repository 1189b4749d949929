"""Where a function comes from, and so how its containers get hold of it: by file, by package, or serialized."""

from __future__ import annotations

import os
import sys
from types import ModuleType
from typing import Any

from squall.exception import InvalidError, ModuleNotMountable
from squall.protocol.records import record

BY_FILE = "file"
BY_PACKAGE = "package"
SERIALIZED = "serialized"

_IS_GENERATOR = 0x20
_IS_COROUTINE = 0x80
_IS_ASYNC_GENERATOR = 0x200


@record
class Source:
    """How a container gets hold of a function."""

    kind: str
    module_name: str = ""
    """As the container imports it."""
    path: str = ""
    """file: of the script. package: of the top-level package's directory."""
    is_main: bool = False
    """It is the program this process runs."""


def find_source(function: Any, is_serialized: bool) -> Source:
    """By the module it was defined in."""
    if is_serialized:
        return Source(SERIALIZED)
    module = sys.modules.get(getattr(function, "__module__", None) or "")
    if module is None or not _is_in_a_file(function, module):
        return Source(SERIALIZED)
    return source_of_module(module)


def _is_in_a_file(function: Any, module: ModuleType) -> bool:
    """Whether its code was read from a file, and not given to exec() by a program that is one."""
    while hasattr(function, "__wrapped__"):
        function = function.__wrapped__
    name = getattr(getattr(function, "__code__", None), "co_filename", "")
    if name.startswith("<"):
        return False
    # A relative name may be of another working directory; one in a zip file or of bytecode alone is no file, either.
    path = getattr(module, "__file__", None) or ""
    return not os.path.isabs(name) or name == path or not path.endswith(".py") or os.path.exists(name)


def source_of_module(module: ModuleType) -> Source:
    """By what Python knows of a module: no file (a notebook, a shell) means serialized."""
    path = getattr(module, "__file__", None)
    is_main = module.__name__ == "__main__"
    spec = getattr(module, "__spec__", None)
    if not path or path.startswith("<"):
        return Source(SERIALIZED)
    if module.__package__:
        name = spec.name if spec is not None else module.__name__
        if is_main and name.endswith(".__main__"):
            name = f"{module.__package__}.__main__"
        return Source(BY_PACKAGE, name, _package_directory(module.__package__.partition(".")[0], path, name), is_main)
    return Source(BY_FILE, module_name_of(path), os.path.abspath(path), is_main)


def module_name_of(path: str) -> str:
    """What a container imports a script as: the file's stem, where that can be imported.

    `__main__` is the container's own program, so a `__main__.py` goes by its directory; a dot would mean a package.
    """
    directory, name = os.path.split(os.path.abspath(path))
    stem = os.path.splitext(name)[0]
    if stem == "__main__":
        stem = f"{os.path.basename(directory)}_main"
    return stem.replace(".", "_")


def _package_directory(package: str, path: str, module_name: str) -> str:
    found = sys.modules.get(package)
    places = list(getattr(found, "__path__", ()))
    if places:
        return os.path.abspath(str(places[0]))
    # Not loaded as a package (run by a loader of its own): as many levels up as the name has dots.
    levels: int = module_name.count(".") + (1 if os.path.basename(path) == "__init__.py" else 0)
    directory: str = os.path.abspath(path)
    for _ in range(max(1, levels)):
        directory = os.path.dirname(directory)
    return directory


def python_module_source(name: str) -> Source:
    """The file or package directory of a module that can be imported here, without importing it.

    Raises:
        ModuleNotMountable: there is none, or it has no file.
    """
    import importlib.util  # cold start: only where an image adds local source

    top = name.partition(".")[0]
    try:
        spec = importlib.util.find_spec(top)
    except (ImportError, ValueError) as error:
        raise ModuleNotMountable(f"module {name!r} cannot be found: {error}") from error
    if spec is None:
        raise ModuleNotMountable(f"module {name!r} cannot be found; is its directory on sys.path?")
    if spec.submodule_search_locations:
        return Source(BY_PACKAGE, top, os.path.abspath(next(iter(spec.submodule_search_locations))))
    if not spec.origin or not os.path.isfile(spec.origin):
        raise ModuleNotMountable(f"module {name!r} is built in: it has no file to add")
    return Source(BY_FILE, top, os.path.abspath(spec.origin))


def check_definable(function: Any, is_serialized: bool) -> None:
    """Refuse what no container could find again.

    Raises:
        TypeError: a class.
        InvalidError: a method, a nested function, or no function at all.
    """
    if isinstance(function, type):
        raise TypeError(f"@app.function() on the class {function.__name__}: put it on a function")
    if not callable(function) or not hasattr(function, "__code__"):
        raise InvalidError(f"@app.function() on {function!r}: it takes a Python function")
    if is_serialized:
        return
    qualname = function.__qualname__
    if "<locals>" in qualname:
        raise InvalidError(
            f"function {qualname}: it is defined inside another function, where a container cannot import it; move it "
            "to the top level of its module, or use serialized=True"
        )
    if "." in qualname:
        raise InvalidError(
            f"function {qualname}: it is a method; @app.function() takes functions at the top level of a module"
        )
    if qualname == "<lambda>":
        raise InvalidError(
            'a lambda has no name that a container could import: write @app.function(serialized=True, name="…")'
        )


def is_generator(function: Any) -> bool:
    """Whether calling it makes a generator, by its own code."""
    return bool(function.__code__.co_flags & (_IS_GENERATOR | _IS_ASYNC_GENERATOR))


def is_async(function: Any) -> bool:
    """Whether it is `async def`, by its own code."""
    return bool(function.__code__.co_flags & (_IS_COROUTINE | _IS_ASYNC_GENERATOR))
