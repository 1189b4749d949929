"""A function of the user's that runs while an image is built: the call as a file, and a hash of what it depends on."""

from __future__ import annotations

import contextlib
import inspect
import json
import sys
import types
from collections.abc import Callable, Mapping
from typing import Any

from squall.exception import InvalidError, SerializationError
from squall.protocol.hashing import sha256_hex
from squall.protocol.image import CALL_PATH
from squall.protocol.records import replace
from squall.sdk import _container, _mount, _source
from squall.sdk._image_digest import NoText, name_of, text_of
from squall.sdk._image_steps import Step
from squall.sdk._pickled import pickle_function
from squall.sdk._serialization import serialize

_CODE_DIR = "root"
TIMEOUT_S_MAX = 24 * 3600


def limits(cpu: float | None, memory: int | None, timeout: int) -> dict[str, Any]:
    """What the step may use.

    Raises:
        InvalidError: impossible numbers.
    """
    for name, value in (("cpu", cpu), ("memory", memory), ("timeout", timeout)):
        if value is not None and (isinstance(value, bool) or not isinstance(value, int | float) or value <= 0):
            raise InvalidError(f"Image.run_function({name}={value!r}): it must be a number above zero")
    if memory is not None and not isinstance(memory, int):
        raise InvalidError(f"Image.run_function(memory={memory!r}): it must be a whole number of MiB")
    if timeout > TIMEOUT_S_MAX:
        raise InvalidError(f"Image.run_function(timeout={timeout!r}): it may be {TIMEOUT_S_MAX} seconds at most")
    return {
        "cpu_milli": 0 if cpu is None else round(cpu * 1000),
        "memory_mib": memory or 0,
        "timeout_s": float(timeout),
    }


class FunctionCallStep:
    """One call to make at build time."""

    def __init__(
        self, raw_f: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any], includes_source: bool
    ) -> None:
        """Raises:
        InvalidError: not a function that a container could call.
        """
        found: Any = _container.unwrap(raw_f)
        _check_callable(found)
        self._function = found
        self._args = args
        self._kwargs = kwargs
        self._includes_source = includes_source
        self.name: str = found.__qualname__

    def step(self, step: Step) -> Step:
        """The step with what it runs.

        Raises:
            InvalidError: the function cannot be found again, or its arguments cannot be pickled.
        """
        # What is in a function, or has no name, cannot be imported.
        source = _source.find_source(self._function, is_serialized="<" in self.name)
        pickled = b""
        if source.kind == _source.SERIALIZED:
            pickled = pickle_function(self._function, self.name)
        try:
            arguments = serialize((self._args, self._kwargs))
        except SerializationError as error:
            raise InvalidError(f"Image.run_function({self.name}): its arguments cannot travel: {error}") from error
        header = {
            "kind": source.kind,
            "module": source.module_name,
            "qualname": self.name,
            "name": self.name,
            "python_version": f"{sys.version_info[0]}.{sys.version_info[1]}" if pickled else "",
            "function_bytes": len(pickled),
        }
        call = json.dumps(header).encode() + b"\n" + pickled + arguments
        digest = self._digest(arguments, step.arguments)
        made = replace(step, arguments={**step.arguments, "digest": digest})
        return replace(made, files=lambda: self._mount(source, call))

    def _mount(self, source: _source.Source, call: bytes) -> _mount.Mount:
        files: list[_mount.LocalFile] = []
        if self._includes_source and source.kind == _source.BY_FILE:
            files = [_mount.LocalFile(source.path, f"{_CODE_DIR}/{source.module_name}.py")]
        elif self._includes_source and source.kind == _source.BY_PACKAGE:
            package = source.module_name.partition(".")[0]
            files = list(_mount.find_files(source.path, f"{_CODE_DIR}/{package}", _mount.is_code_noise))
        return _mount.make_mount(files, f"the source of {self.name}", [_mount.Content(call, CALL_PATH)])

    def _digest(self, arguments: bytes, step: Mapping[str, Any]) -> str:
        """A hash of what the result depends on, as far as it is known.

        That is the function's source and code, its arguments, the values it takes from its module or from the function
        around it, and its limits.

        Args:
            arguments: pickled, for those that say no more of themselves.
        """
        code = getattr(self._function, "__code__", None)
        try:
            source = inspect.getsource(self._function)
        except (OSError, TypeError):
            source = self.name
        known = getattr(self._function, "__globals__", {})
        try:
            given = self._text([self._args, self._kwargs])
        except NoText:
            given = sha256_hex(arguments)
        parts = [
            source,
            # Of two lambdas on one line, and of what a decorator made, the source is the same.
            self._text(code),
            given,
            *self._texts({name: known[name] for name in sorted(_names(code)) if name in known}),
            *self._texts(_bound(self._function)),
            *self._texts(dict(enumerate(getattr(self._function, "__defaults__", None) or ()))),
            *self._texts(getattr(self._function, "__kwdefaults__", None) or {}),
            json.dumps([step.get(name) for name in ("cpu_milli", "memory_mib", "timeout_s")]),
            json.dumps(self._includes_source),
        ]
        return sha256_hex(json.dumps(parts).encode())

    def _texts(self, values: Mapping[Any, object]) -> list[str]:
        """Values with their names. One that cannot be taken apart could not travel either: its class counts."""
        found = [str(len(values))]
        for name, value in values.items():
            try:
                text = self._text(value)
            except NoText:
                text = name_of(type(value), self._function.__module__)
            found += [str(name), text]
        return found

    def _text(self, value: object) -> str:
        return text_of(value, self._function.__module__)


def _check_callable(function: Any) -> None:
    """Refuse what would do nothing, or could not be called.

    Raises:
        InvalidError: it says which.
    """
    what = f"Image.run_function({getattr(function, '__qualname__', function)!r})"
    if isinstance(function, type) or not callable(function) or not hasattr(function, "__qualname__"):
        raise InvalidError(f"{what}: give it a function")
    if not inspect.isbuiltin(function) and getattr(function, "__self__", None) is not None:
        raise InvalidError(f"{what}: it is a method, whose object the image would not have; give it a function")
    if inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(function):
        raise InvalidError(f"{what}: it has a yield, so a call would run none of it; give it a function without")


def _bound(function: Any) -> dict[str, Any]:
    """What a function takes from the one it was defined in, as it is now."""
    code, found = getattr(function, "__code__", None), {}
    for name, cell in zip(getattr(code, "co_freevars", ()), getattr(function, "__closure__", None) or (), strict=False):
        # Of a name that has no value yet, there is none.
        with contextlib.suppress(ValueError):
            found[name] = cell.cell_contents
    return found


def _names(code: types.CodeType | None) -> set[str]:
    """Names that code, and functions inside it, look up in their module."""
    if code is None:
        return set()
    found = set(code.co_names)
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            found |= _names(constant)
    return found
