"""What is checked of a function's definition: the method that a call is for, and what keeps its containers apart."""

from __future__ import annotations

from collections.abc import Iterable

from squall.protocol.call import GENERATOR
from squall.protocol.errors import INVALID, PlatformError
from squall.protocol.function import ISOLATIONS, Definition, FunctionSpec
from squall.server.model.web_label import web_of

NAMED_MAX = 20
"""Methods that a refusal names."""


def is_generator(definition: Definition, method: str) -> bool:
    """Whether it yields items."""
    if not definition.is_class:
        return definition.is_generator
    return any(one.name == method and one.is_generator for one in definition.methods)


def check_method(operation: str, spec: FunctionSpec, method: str, kind: str) -> None:
    """Whether the function can be called like this.

    Raises:
        PlatformError: `invalid`, naming the methods there are.
    """
    definition = spec.definition
    web = web_of(spec, method) or spec.web
    if web is not None:
        name = f"{spec.name}.{method}" if method else spec.name
        raise PlatformError(INVALID, f"{operation}: {name} answers requests ({web.kind}), and cannot be called")
    if not definition.is_class:
        if method:
            raise PlatformError(INVALID, f"{operation}: function {spec.name} is no class: it has no method {method!r}")
        return
    found = next((one for one in definition.methods if one.name == method), None)
    if found is None:
        names = ", ".join(one.name for one in definition.methods[:NAMED_MAX])
        more = ", …" if len(definition.methods) > NAMED_MAX else ""
        what = f"no method {method[:80]!r}" if method else "methods, and the call names none"
        raise PlatformError(INVALID, f"{operation}: class {spec.name} has {what}; it has: {names}{more}")
    missing = [one.name for one in definition.parameters if one.is_required] if not spec.parameters else []
    if missing:
        needs = ", ".join(f"{name}=" for name in missing)
        raise PlatformError(INVALID, f"{operation}: an object of class {spec.name} needs {needs}")
    if found.is_generator != (kind == GENERATOR):
        is_what, how = ("a generator", "remote_gen()") if found.is_generator else ("no generator", "remote()")
        raise PlatformError(INVALID, f"{operation}: method {method} of class {spec.name} is {is_what}: call .{how}")


def check_isolation(operation: str, specs: Iterable[FunctionSpec]) -> None:
    """Whether there is such an isolation as each of them names: an agent would take one that it does not know for none.

    Raises:
        PlatformError: `invalid`, naming those there are.
    """
    for spec in specs:
        if spec.isolation not in ISOLATIONS:
            what = f"isolation {spec.isolation[:80]!r} must be {' or '.join(ISOLATIONS)}"
            raise PlatformError(INVALID, f"{operation}: function {spec.name[:80]!r}: {what}")
