"""Apps that code in containers makes: what they may be, how many there are, and who is above them.

Such an app is a *child* of the app whose container made it. It is ephemeral, it ends with its parent at the latest, and
every container above it may use it. Nothing here waits or changes anything.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence

from squall.protocol import app as wire
from squall.protocol import ids
from squall.protocol.app import AppCreate
from squall.protocol.errors import CONFLICT, EXHAUSTED, INVALID, PlatformError
from squall.protocol.function import (
    INPUTS_AT_ONCE_MAX,
    NAMESPACES,
    SCALEUP_S_MAX,
    SERVER_TIMEOUT_S,
    FunctionSpec,
    secrets_named,
)
from squall.protocol.limits import CONTAINERS_MAX, TAGS_MAX
from squall.protocol.names import NAME, NAME_RULE
from squall.server.model.store import StoredApp
from squall.server.model.web_label import is_server

DEPTH_MAX = 32
"""How many apps may be above one: a function that runs its own app without end stops there."""
CHILDREN_MAX = 1_000
"""How many descendants of one app may live at a time."""
ENDED_KEPT_MAX = 1_000
"""Descendants of one app that are remembered, with their functions and log lines, after they have ended."""
FUNCTIONS_MAX = 10_000
"""Functions of all living descendants of one app."""
SPEC_BYTES_MAX = 64 * 1024
"""Of texts in the definition of a function: variables, mount targets, names."""
RESOURCE_MAX = 2**31
SECONDS_MAX = 7 * 24 * 3600.0

# What the SDK lets through: names that code in a container chose are shown in the terminals of people outside.


def check_new(record: AppCreate) -> None:
    """Whether a container may make an app like this.

    Raises:
        PlatformError: `invalid`: it would outlive its container, or its name is not one that lists can show.
    """
    if record.state != wire.EPHEMERAL:
        message = f"AppCreate: an app made inside a container ends with it, so it cannot be {record.state}"
        raise PlatformError(INVALID, f"{message}; leave detach out")
    texts = [record.name, record.environment, *record.tags, *record.tags.values()]
    if len(record.tags) > TAGS_MAX or not all(not text or re.match(NAME, text) for text in texts):
        message = f"names and tags are {NAME_RULE}"
        raise PlatformError(INVALID, f"AppCreate: {message}, with at most {TAGS_MAX} tags; choose others")


def check_room(parent: StoredApp, is_stopping: bool, live: Iterable[StoredApp]) -> None:
    """Whether the app may have one more child now.

    Raises:
        PlatformError: `conflict` when it is being stopped, `exhausted` when there are too many, or too deep.
    """
    if is_stopping:
        raise PlatformError(CONFLICT, f"AppCreate: app {parent.app_id} is being stopped and starts no others")
    if len(parent.ancestors) + 1 > DEPTH_MAX:
        message = f"AppCreate: {DEPTH_MAX} apps are above this one already, each started by a function of the one above"
        raise PlatformError(EXHAUSTED, f"{message}; does a function run its own app?")
    count = sum(1 for one in live if one.ancestors and one.root_app_id == parent.root_app_id)
    if count >= CHILDREN_MAX:
        message = f"AppCreate: {count} apps started by functions of app {parent.root_app_id} run already"
        raise PlatformError(EXHAUSTED, f"{message}; let some of them end first")


def check_function(spec: FunctionSpec, *, is_network_blocked: bool, isolation: str = NAMESPACES) -> None:
    """Whether a container, itself with or without a network and kept apart like that, may create this function.

    Raises:
        PlatformError: `invalid`.
    """
    if not re.match(NAME, spec.name):
        message = f"a name is {NAME_RULE}"
        raise PlatformError(INVALID, f"FunctionCreate: {message}; give function {spec.name[:80]!r} another one")
    # Derived: who chose freely could take the id of another app's function, or of a variant that is yet to be made.
    if spec.function_id != ids.function_id(spec.app_id, spec.name):
        message = f"function {spec.name!r} has the id of another; take ids.function_id(app_id, name)"
        raise PlatformError(INVALID, f"FunctionCreate: {message}")
    if is_network_blocked and not spec.is_network_blocked:
        message = f"function {spec.name!r} would have the network that the function creating it is kept from"
        raise PlatformError(INVALID, f"FunctionCreate: {message}; give it block_network=True, too")
    if isolation != NAMESPACES and spec.isolation != isolation:
        message = f"function {spec.name!r} would not have the isolation of the function creating it"
        raise PlatformError(INVALID, f'FunctionCreate: {message}; give it isolation="{isolation}", too')
    size = sum(len(text) for text in _texts(spec))
    if size > SPEC_BYTES_MAX:
        message = f"its variables, mounts and names are {size} characters, at most {SPEC_BYTES_MAX}"
        raise PlatformError(INVALID, f"FunctionCreate: function {spec.name!r}: {message}")
    check_numbers(spec, "FunctionCreate")


def check_numbers(spec: FunctionSpec, operation: str) -> None:
    """Whether the numbers of a function are such as there are.

    Raises:
        PlatformError: `invalid`.
    """
    for name, value, most in _numbers(spec):
        if value is not None and not 0 <= value <= most:
            message = f"{name} of {value:g} is not between 0 and {most:g}"
            raise PlatformError(INVALID, f"{operation}: function {spec.name!r}: {message}")


def check_count(specs: Sequence[FunctionSpec], existing: Iterable[str], root_app_id: str) -> None:
    """Whether these functions may be added to the existing ones, given by id, of all descendants of an app.

    Raises:
        PlatformError: `exhausted`.
    """
    count = len({*existing, *(spec.function_id for spec in specs)})
    if count > FUNCTIONS_MAX:
        message = f"apps started from app {root_app_id} would have {count} functions, at most {FUNCTIONS_MAX}"
        raise PlatformError(EXHAUSTED, f"FunctionCreate: {message}; let some of the apps end first")


def _texts(spec: FunctionSpec) -> Iterator[str]:
    definition = spec.definition
    yield from (spec.image_id, definition.kind, definition.module, definition.qualname, definition.blob_sha256)
    yield definition.python_version
    for mount in spec.mounts:
        yield from (mount.mount_id, mount.target)
    for name, value in spec.env.items():
        yield from (name, value)
    yield from secrets_named(spec)
    for volume in spec.volumes:
        yield from (volume.volume_id, volume.target, volume.sub_path, volume.name)
    for bucket in spec.buckets:
        yield from (bucket.bucket, bucket.target, bucket.endpoint_url, bucket.key_prefix)
    hosting = spec.hosting
    yield from (hosting.cloud or "", hosting.routing_region or "", *(hosting.regions or ()))


def _numbers(spec: FunctionSpec) -> Iterator[tuple[str, float | None, float]]:
    """Each with the most it may be. From outside they are taken as they come: whoever writes them owns the machine."""
    scaling, resources, retries = spec.scaling, spec.resources, spec.retries
    counts = ("min_containers", "max_containers", "buffer_containers")
    yield from ((name, getattr(scaling, name), CONTAINERS_MAX) for name in counts)
    yield from ((name, getattr(scaling, name), INPUTS_AT_ONCE_MAX) for name in ("max_inputs", "target_inputs"))
    sizes = ("cpu_milli", "cpu_limit_milli", "memory_mib", "memory_limit_mib", "disk_mib")
    yield from ((name, getattr(resources, name), RESOURCE_MAX) for name in sizes)
    yield "scaledown_window_s", scaling.scaledown_window_s, SECONDS_MAX
    yield "timeout_s", spec.timeout_s, SERVER_TIMEOUT_S if is_server(spec) else SECONDS_MAX
    yield "scaleup_window_s", scaling.scaleup_window_s, SCALEUP_S_MAX
    yield "startup_timeout_s", spec.startup_timeout_s, SECONDS_MAX
    yield "initial_delay_s", retries.initial_delay_s, SECONDS_MAX
    yield "max_delay_s", retries.max_delay_s, SECONDS_MAX
    yield "backoff_coefficient", retries.backoff_coefficient, 10.0
