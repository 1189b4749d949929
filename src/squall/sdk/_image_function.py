"""A function of the user's that runs while an image is built: the call as a file, and a hash of what it depends on."""

from __future__ import annotations

import hashlib
import inspect
import json
import sys
import types
from collections.abc import Callable, Mapping
from typing import Any

from squall.exception import InvalidError, SerializationError
from squall.protocol.image import CALL_PATH
from squall.sdk import _container, _mount, _source
from squall.sdk._image_steps import Step
from squall.sdk._pickled import pickle_function
from squall.sdk._serialization import serialize

_CODE_DIR = "root"
TIMEOUT_S_MAX = 24 * 3600
_PLAIN = (bool, int, float, complex, str, bytes, type(None), tuple, list, dict, set, frozenset)


def limits(cpu: float | None, memory: int | None, timeout: int) -> dict[str, Any]:
    """What the step may use.

    Raises:
        InvalidError: impossible numbers.
    """
    for name, value in (("cpu", cpu), ("memory", memory), ("timeout", timeout)):
        if value is not None and (isinstance(value, bool) or not isinstance(value, int | float) or value <= 0):
            raise InvalidError(f"Image.run_function({name}={value!r}): it must be a number above zero")
    if timeout > TIMEOUT_S_MAX:
        raise InvalidError(f"Image.run_function(timeout={timeout!r}): it may be {TIMEOUT_S_MAX} seconds at most")
    return {
        "cpu_milli": 0 if cpu is None else round(cpu * 1000),
        "memory_mib": 0 if memory is None else round(memory),
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
        found = _container.unwrap(raw_f)
        if not callable(found) or not hasattr(found, "__qualname__"):
            raise InvalidError(f"Image.run_function({raw_f!r}): give it a function")
        self._function: Any = found
        self._args = args
        self._kwargs = kwargs
        self._includes_source = includes_source
        self.name: str = found.__qualname__

    def step(self, step: Step) -> Step:
        """The step with what it runs.

        Raises:
            InvalidError: the function cannot be found again, or its arguments cannot be pickled.
        """
        source = _source.find_source(self._function, is_serialized="<locals>" in self.name)
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
        is_plain = all(isinstance(value, _PLAIN) for value in (*self._args, *self._kwargs.values()))
        known = _canonical([self._args, self._kwargs]).encode() if is_plain else arguments
        digest = self._digest(known, step.arguments)
        made = step._replace(arguments={**step.arguments, "digest": digest})
        return made._replace(files=lambda: self._mount(source, call))

    def _mount(self, source: _source.Source, call: bytes) -> _mount.Mount:
        files: list[_mount.LocalFile] = []
        if self._includes_source and source.kind == _source.BY_FILE:
            files = [_mount.LocalFile(source.path, f"{_CODE_DIR}/{source.module_name}.py")]
        elif self._includes_source and source.kind == _source.BY_PACKAGE:
            package = source.module_name.partition(".")[0]
            files = list(_mount.find_files(source.path, f"{_CODE_DIR}/{package}", _mount.is_code_noise))
        return _mount.make_mount(files, f"the source of {self.name}", [_mount.Content(call, CALL_PATH)])

    def _digest(self, arguments: bytes, step: Mapping[str, Any]) -> str:
        """A hash of the function's source, its arguments, the plain values it takes from its module, and its limits."""
        code = getattr(self._function, "__code__", None)
        try:
            source = inspect.getsource(self._function).encode()
        except (OSError, TypeError):
            source = code.co_code + repr(code.co_consts).encode() if code else self.name.encode()
        known = getattr(self._function, "__globals__", {})
        taken = {name: known[name] for name in sorted(_names(code)) if name in known}
        values = {name: value for name, value in taken.items() if isinstance(value, _PLAIN)}
        limits = {name: step.get(name) for name in ("cpu_milli", "memory_mib", "timeout_s")}
        parts = (source, arguments, _canonical(values).encode(), json.dumps(limits).encode())
        digest = hashlib.sha256()
        for part in parts:
            digest.update(len(part).to_bytes(8, "little") + part)
        return digest.hexdigest()


def _canonical(value: Any) -> str:
    """As `repr`, but the same in every process: that of sets is not."""
    if isinstance(value, set | frozenset):
        return "{" + ", ".join(sorted(map(_canonical, value))) + "}"
    if isinstance(value, dict):
        return "{" + ", ".join(f"{_canonical(key)}: {_canonical(item)}" for key, item in value.items()) + "}"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(map(_canonical, value)) + "]"
    # An object's own repr has its address.
    return repr(value) if isinstance(value, _PLAIN) else type(value).__qualname__


def _names(code: types.CodeType | None) -> set[str]:
    """Names that code, and functions inside it, look up in their module."""
    if code is None:
        return set()
    found = set(code.co_names)
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            found |= _names(constant)
    return found
