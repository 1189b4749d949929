"""Variants: functions made from others, by parameters, by other options, or by being held to a version.

Pure: what is asked for and the record of the function it is of give the variant's record and its id, the same on every
server.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from squall.protocol.errors import INVALID, PlatformError
from squall.protocol.function import FunctionBind, FunctionOptions, FunctionSpec, Hosting, Resources, Scaling
from squall.protocol.ids import hashed_id
from squall.protocol.parameters import PARAMETERS_CHARS_MAX, ParametersInvalid, check, decode, shown
from squall.protocol.records import replace, to_wire

NAME_CHARS_MAX = 300
OPTIONS_CHARS_MAX = 64 * 1024


@dataclass(frozen=True, slots=True)
class StoredVariant:
    """A variant as the store has it: what was asked for. Its record is made anew from that of its function."""

    function_id: str
    base_id: str
    app_id: str
    parameters: str = ""
    options: FunctionOptions | None = None
    version: int = 0
    """The one it is held to; 0 for none."""
    used_at: float = 0.0

    def asked(self) -> FunctionBind:
        """What makes it again."""
        return FunctionBind(self.base_id, self.parameters, self.options, self.version)


def composed(base: FunctionSpec, asked: FunctionBind) -> FunctionBind:
    """What is asked of the function that `base` is a variant of; of a function that is none, what is asked."""
    if not base.variant_of:
        return replace(asked, options=_or_none(asked.options))
    options = _or_none(asked.options)
    if base.options is not None:
        options = base.options if options is None else _over(base.options, options)
    version = asked.version or (base.version if base.is_pinned else 0)
    return FunctionBind(base.variant_of, asked.parameters or base.parameters, options, version)


def is_plain(asked: FunctionBind) -> bool:
    """Whether nothing is asked for that the function has not."""
    return not asked.parameters and asked.options is None and not asked.version


def has_none_of_its_own(spec: FunctionSpec) -> bool:
    """Whether there is nothing of a function beside its variants: it is a class whose objects need parameters.

    What such a class does, its objects do; whoever asks about it asks about them.
    """
    definition = spec.definition
    return not spec.variant_of and definition.is_class and any(one.is_required for one in definition.parameters)


def is_measured(spec: FunctionSpec) -> bool:
    """Whether it is there for as long as somebody measures its starts."""
    return spec.options is not None and bool(spec.options.is_measured)


def variant_id(asked: FunctionBind) -> str:
    """The id of what is asked for."""
    parts = [asked.function_id, asked.parameters, to_wire(asked.options), asked.version]
    return hashed_id("fu", json.dumps(parts, sort_keys=True, separators=(",", ":")))


def merged(base: FunctionSpec, asked: FunctionBind) -> FunctionSpec:
    """The record of a variant of `base`, which is the function's own record, or that of the version asked for.

    Containers are not kept waiting for it, whatever the function says: nobody would ever let them go.
    """
    options = asked.options or FunctionOptions()
    scaling, concurrency = base.scaling, {}
    if options.max_inputs is not None:
        concurrency = {"max_inputs": options.max_inputs, "target_inputs": options.target_inputs}
    limits = {
        "max_containers": _or(options.max_containers, scaling.max_containers),
        "buffer_containers": _or(options.buffer_containers, scaling.buffer_containers),
        "scaledown_window_s": _or(options.scaledown_window_s, scaling.scaledown_window_s),
    }
    return replace(
        base,
        function_id=variant_id(asked),
        name=name_of(base.name, asked),
        variant_of=asked.function_id,
        parameters=asked.parameters,
        options=asked.options,
        is_pinned=asked.version > 0,
        # The version asked for and not the one since when the function is so: its others may be newer than it.
        version=asked.version or base.version,
        schedule=None,
        env=base.env if options.env is None else options.env,
        secrets=base.secrets if options.secrets is None else options.secrets,
        volumes=base.volumes if options.volumes is None else options.volumes,
        buckets=base.buckets if options.volumes is None else options.buckets or (),
        resources=base.resources if options.resources is None else _sized(base.resources, options.resources),
        scaling=replace(scaling, min_containers=0, **limits, **concurrency),
        retries=base.retries if options.retries is None else options.retries,
        timeout_s=_or(options.timeout_s, base.timeout_s),
        batching=base.batching if options.batching is None else options.batching,
        hosting=base.hosting if options.hosting is None else _hosted(base.hosting, options.hosting),
    )


def remade(variant: FunctionSpec, base: FunctionSpec) -> FunctionSpec:
    """The record of a variant that follows its function, which has another one now."""
    return merged(base, FunctionBind(variant.variant_of, variant.parameters, variant.options))


def check_asked(base: FunctionSpec, asked: FunctionBind) -> None:
    """Whether there can be such a variant.

    Raises:
        PlatformError: `invalid`, naming what does not fit.
    """
    options, name = asked.options or FunctionOptions(), base.name
    scaling: Scaling = base.scaling
    try:
        if len(asked.parameters) > PARAMETERS_CHARS_MAX:
            raise ParametersInvalid(f"the parameters are longer than {PARAMETERS_CHARS_MAX} characters")
        values = decode(asked.parameters)
        if values and not base.definition.is_class:
            raise ParametersInvalid(f"function {name} is no class, and has no parameters")
        # A class with other options, or held to a version, is no object yet: that is bound to it later.
        if values and base.definition.is_class:
            check(name, base.definition.parameters, values)
    except ParametersInvalid as error:
        raise PlatformError(INVALID, f"FunctionBind: {error}") from None
    most = options.max_inputs or 1
    target = options.target_inputs
    batching = options.batching
    problems = (
        (len(json.dumps(to_wire(options))) > OPTIONS_CHARS_MAX, f"options are longer than {OPTIONS_CHARS_MAX}"),
        (batching is not None and not _can_batch(base), f"{name} cannot be given lists: it yields, or has methods"),
        (batching is not None and (batching.max_batch_size < 1 or batching.wait_ms < 0), "a batch of no size"),
        (scaling.is_single_use and most > 1, f"containers of {name} are for a single input; max_inputs must be 1"),
        (target is not None and not 1 <= target <= most, "target_inputs must be from 1 to max_inputs"),
        (asked.version < 0, "a version counts from 1"),
        (options.buckets is not None and options.volumes is None, "buckets are given together with volumes"),
    )
    for is_wrong, message in problems:
        if is_wrong:
            raise PlatformError(INVALID, f"FunctionBind: {message}")


def _can_batch(base: FunctionSpec) -> bool:
    """Whether there is one thing that is called, and it returns."""
    definition = base.definition
    called = definition.methods if definition.is_class else (definition,)
    return len(called) == 1 and not called[0].is_generator


def name_of(base_name: str, asked: FunctionBind) -> str:
    """What lists call it: `Model(size=3)`, `square[cpu=4]`, `square[v2]`."""
    objects = f"({shown(decode(asked.parameters))})" if asked.parameters else ""
    extras = [*_shown_options(asked.options), *([f"v{asked.version}"] if asked.version else [])]
    options = f"[{', '.join(extras)}]" if extras else ""
    name = base_name + objects + options
    return name if len(name) <= NAME_CHARS_MAX else name[: NAME_CHARS_MAX - 1] + "…"


def plain_name(spec: FunctionSpec) -> str:
    """The name of the function that it is, or is a variant of."""
    return spec.name.partition("(")[0].partition("[")[0] if spec.variant_of else spec.name


def _shown_options(options: FunctionOptions | None) -> Iterator[str]:
    if options is None:
        return
    for name, value in to_wire(options).items():
        if name in ("env", "secrets"):
            yield name  # what is in it is for nobody's eyes
        elif name == "is_measured":
            yield "measured"
        elif name in ("volumes", "buckets"):
            # Both are given together, and mostly one is empty.
            if value or (name == "volumes" and not options.buckets):
                yield f"{name}={'+'.join(mount['target'] for mount in value)}"
        elif isinstance(value, dict):
            yield from (_shown_option(key, one) for key, one in value.items())
        else:
            yield _shown_option(name, value)


_UNITS = {"cpu_milli": "cpu", "cpu_limit_milli": "cpu_limit"}
_SHORT = {"timeout_s": "timeout", "scaledown_window_s": "scaledown_window", "memory_mib": "memory"}
"""What users write for what the records call otherwise."""


def _shown_option(name: str, value: Any) -> str:
    if name in _UNITS:
        return f"{_UNITS[name]}={value / 1000:g}"
    return f"{_SHORT.get(name, name)}={value:g}" if isinstance(value, float) else f"{_SHORT.get(name, name)}={value}"


def _sized(base: Resources, own: Resources) -> Resources:
    """A request goes with its limit, or with there being none."""
    sizes: dict[str, Any] = {}
    if own.cpu_milli is not None:
        sizes |= {"cpu_milli": own.cpu_milli, "cpu_limit_milli": own.cpu_limit_milli}
    if own.memory_mib is not None:
        sizes |= {"memory_mib": own.memory_mib, "memory_limit_mib": own.memory_limit_mib}
    return replace(base, **sizes)


def _hosted(base: Hosting, own: Hosting) -> Hosting:
    """Both; of what both say, what is its own."""
    return replace(base, **{name: value for name, value in vars(own).items() if value})


def _over(earlier: FunctionOptions, later: FunctionOptions) -> FunctionOptions:
    """Both; of what both have, the later."""
    values = {name: value for name, value in vars(later).items() if value is not None}
    if later.volumes is not None:
        values["buckets"] = later.buckets
    if earlier.resources is not None and later.resources is not None:
        values["resources"] = _sized(earlier.resources, later.resources)
    if earlier.hosting is not None and later.hosting is not None:
        values["hosting"] = _hosted(earlier.hosting, later.hosting)
    return replace(earlier, **values)


def _or_none(options: FunctionOptions | None) -> FunctionOptions | None:
    return None if options == FunctionOptions() else options


def _or(value: Any, otherwise: Any) -> Any:
    return otherwise if value is None else value
