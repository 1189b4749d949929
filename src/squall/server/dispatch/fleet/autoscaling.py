"""What the autoscaler of a function goes by, changed while the function runs; the next deploy of its app resets it."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from squall.protocol.autoscaler import AutoscalerSettings, AutoscalerUpdate
from squall.protocol.errors import INVALID, PlatformError
from squall.protocol.function import SCALEUP_S_MAX, FunctionSpec, Scaling
from squall.protocol.limits import CONTAINERS_MAX
from squall.server.model.web_label import is_server

if TYPE_CHECKING:
    from squall.server.dispatch.app.apps import App
    from squall.server.dispatch.function.dispatcher import Dispatcher
    from squall.server.model.store import Store

SCALEDOWN_S = (2.0, 3_600.0)
_KEYS = (
    "min_containers", "max_containers", "buffer_containers", "scaledown_window_s", "target_inputs", "scaleup_window_s",
)  # fmt: skip
_OF_SERVERS = ("target_inputs", "scaleup_window_s")


def settings(scaling: Scaling) -> AutoscalerSettings:
    """What it goes by, as it is shown."""
    return AutoscalerSettings(
        scaling.min_containers, scaling.max_containers, scaling.buffer_containers, scaling.scaledown_window_s,
        scaling.target_inputs, scaling.scaleup_window_s,
    )  # fmt: skip


async def update(app: App, dispatcher: Dispatcher, store: Store, record: AutoscalerUpdate) -> AutoscalerSettings:
    """Change it: on disk first, then at once.

    Raises:
        PlatformError: `invalid`, naming the value and what it may be.
    """
    async with app.scaling_lock:
        spec = dispatcher.spec
        of_servers = record.is_untargeted, *(getattr(record, key) is not None for key in _OF_SERVERS)
        if any(of_servers) and not is_server(spec):
            raise _wrong(spec.name, "target_concurrency and scaleup_window are of an app's server")
        scaling = changed(dispatcher.scaling, record, spec.name)
        _check_can_serve(spec, scaling)
        if scaling != dispatcher.scaling:
            await store.set_scaling(spec.app_id, spec.function_id, scaling)
            if dispatcher.spec is spec:  # a deploy meanwhile has reset it, also on disk
                app.scaling[spec.function_id] = scaling
                dispatcher.rescale(scaling)
        return settings(dispatcher.scaling)


def _check_can_serve(spec: FunctionSpec, scaling: Scaling) -> None:
    """Raises PlatformError when containers were kept that could serve no object of their class."""
    required = [one.name for one in spec.definition.parameters if one.is_required]
    if scaling.min_containers and required and not spec.variant_of:
        names = ", ".join(f"{name}=…" for name in required)
        what = f"min_containers={scaling.min_containers}: its objects need {', '.join(required)}, and have containers"
        raise _wrong(spec.name, f"{what} each; update the autoscaler of one of them, {spec.name}({names})")


def changed(scaling: Scaling, record: AutoscalerUpdate, name: str) -> Scaling:
    """What there is, with what is asked for.

    Raises:
        PlatformError: `invalid`.
    """
    given = {key: value for key in _KEYS if (value := getattr(record, key)) is not None}
    if record.is_unbounded:
        given["max_containers"] = None
    if record.is_untargeted:
        given["target_inputs"] = None
    for key, least in (("min_containers", 0), ("max_containers", 1), ("buffer_containers", 0)):
        value = given.get(key)
        if value is not None and not least <= value <= CONTAINERS_MAX:
            raise _wrong(name, f"{key}={value} must be between {least} and {CONTAINERS_MAX}")
    window_s = given.get("scaledown_window_s")
    if window_s is not None and not SCALEDOWN_S[0] <= window_s <= SCALEDOWN_S[1]:
        least_s, most_s = SCALEDOWN_S
        raise _wrong(name, f"scaledown_window={window_s:g} must be between {least_s:g} and {most_s:g} seconds")
    scaleup_s = given.get("scaleup_window_s")
    if scaleup_s is not None and not 0 <= scaleup_s <= SCALEUP_S_MAX:
        raise _wrong(name, f"scaleup_window={scaleup_s:g} must be from 0 to {SCALEUP_S_MAX:g} seconds")
    target = given.get("target_inputs")
    if target is not None and not 1 <= target <= scaling.max_inputs:
        raise _wrong(name, f"target_concurrency={target} must be from 1 to {scaling.max_inputs}, as many as may run")
    after = replace(scaling, **given)
    if after.max_containers is not None and after.max_containers < after.min_containers:
        what = f"max_containers={after.max_containers} is less than min_containers={after.min_containers}"
        raise _wrong(name, f"{what}; change both")
    return after


def _wrong(name: str, message: str) -> PlatformError:
    return PlatformError(INVALID, f"AutoscalerUpdate: function {name}: {message}")
