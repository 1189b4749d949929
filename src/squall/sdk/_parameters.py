"""What decorators and their like may be given: a wrong name is told with the ones there are, and what to write where it
is known elsewhere by that name."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any, TypeVar, cast

from squall.exception import Error, WrongParameter

F = TypeVar("F", bound=Callable[..., Any])

_CONCURRENT = "put @squall.concurrent(max_inputs=…) below this decorator"
_VOLUMES = 'write volumes={"/path": volume}'
_FILES = "add the files to the image, as in image.add_local_dir(…)"
INSTEAD = {
    "@app.function": {
        "allow_concurrent_inputs": _CONCURRENT,
        "concurrency_limit": "write max_containers=",
        "container_idle_timeout": "write scaledown_window=",
        "keep_warm": "write min_containers=",
        "max_inputs": "write single_use_containers=True for one input in each container",
        "mounts": _FILES,
        "mount": _FILES,
        "network_file_systems": _VOLUMES,
        "shared_volumes": _VOLUMES,
        "secret": "write secrets=[…]",
        "checkpointing_enabled": "write enable_memory_snapshot=",
        "interactive": "leave it out, and run the program by `squall run -i`",
        "concurrent": _CONCURRENT,
        "batched": "put @squall.batched(max_batch_size=…, wait_ms=…) below this decorator",
        "batch_max_size": "put @squall.batched(max_batch_size=…, wait_ms=…) below this decorator",
        "disk": "write ephemeral_disk=",
        "environment": "write env=",
        "max_retries": "write retries=",
        "ram": "write memory=",
    }
}
"""What to write for parameters that such decorators have, or had, elsewhere."""
INSTEAD["@app.cls"] = {
    **INSTEAD["@app.function"],
    "schedule": "put it on a function that calls the class",
    "is_generator": "write @squall.method(is_generator=True) on the method",
    "name": "leave it out: a class has the name it is defined by",
}
INSTEAD[".with_options"] = {
    **{name: INSTEAD["@app.function"][name] for name in ("concurrency_limit", "container_idle_timeout", "secret")},
    "allow_concurrent_inputs": "write .with_concurrency(max_inputs=…)",
    "min_containers": "write .autoscaler.update(min_containers=…) for what it gives",
    "keep_warm": "write .autoscaler.update(min_containers=…) for what it gives",
    "image": "decorate a function of its own for it",
}


def checked(what: str) -> Callable[[F], F]:
    """Decorates what users give parameters: `what` is how they write it.

    Raises (when that is called):
        WrongParameter: names, or a number of values, that it does not take; or one that it needs is not given.
    """

    def decorate(function: F) -> F:
        code = function.__code__
        places, named = code.co_argcount, code.co_kwonlyargcount
        in_order = code.co_varnames[: places + named]
        names = [one for one in in_order if one not in ("self", "cls") and one[0] != "_"]
        optional = in_order[places - len(function.__defaults__ or ()) : places]
        required = set(names) - set(optional) - (function.__kwdefaults__ or {}).keys()
        known = frozenset(names)

        @wraps(function)
        def check(*args: Any, **given: Any) -> Any:
            if not given.keys() <= known:
                raise _unknown(what, names, next(one for one in given if one not in known))
            placed = in_order[: min(len(args), places)]
            if len(args) > places:
                raise _too_many(what, names, placed)
            if not given.keys().isdisjoint(placed):
                twice = next(one for one in placed if one in given)
                raise WrongParameter(f"{what}({twice}=…): it is given twice, also without its name; it is one value")
            if not required <= given.keys() | set(placed):
                missing = [f"{one}=" for one in names if one in required - given.keys() - set(placed)]
                raise WrongParameter(f"{what}() needs {' and '.join(missing)}; it takes {_listed(names)}")
            try:
                return function(*args, **given)
            except Error as error:
                from squall.sdk._traceback import for_user_code  # cold start: only where something is wrong

                raise for_user_code(error)  # noqa: B904 - it is that error

        return cast("F", check)

    return decorate


def _too_many(what: str, names: list[str], placed: tuple[str, ...]) -> WrongParameter:
    only = " and ".join([f"{name}=" for name in names if name in placed])
    others = [name for name in names if name not in placed]
    if not only:
        return WrongParameter(f"{what}(): give parameters by name: {_listed(others)}")
    if not others:
        return WrongParameter(f"{what}(): it takes {only} and nothing more")
    return WrongParameter(f"{what}(): only {only} can be given without a name, the others by name: {_listed(others)}")


def _unknown(what: str, names: list[str], name: str) -> WrongParameter:
    instead = INSTEAD.get(what, {}).get(name)
    if instead is not None:
        return WrongParameter(f"{what}({name}=…): there is no such parameter here; {instead}")
    from difflib import get_close_matches  # cold start: only where a name is wrong

    near = get_close_matches(name.lower(), names, 1)
    hint = f"did you mean {near[0]}=? It takes" if near else "it takes"
    return WrongParameter(f"{what}({name}=…): there is no such parameter; {hint} {_listed(names)}")


def _listed(names: list[str]) -> str:
    return ", ".join([f"{name}=" for name in names]) or "none"
