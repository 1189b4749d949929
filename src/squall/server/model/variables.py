"""Environment variables of functions as they are shown: by name. What is in them is often secret, and is told only to
the containers that run with it and to who replays a call."""

from __future__ import annotations

import json
from typing import Any

from squall.protocol.function import FunctionOptions, FunctionSpec
from squall.protocol.records import replace, to_wire


def without_values(spec: FunctionSpec) -> FunctionSpec:
    """The record with the names of its variables, each empty."""
    options = spec.options
    if options is not None and options.env is not None:
        options = replace(options, env=dict.fromkeys(options.env, ""))
    return replace(spec, env=dict.fromkeys(spec.env, ""), options=options)


def shown_options(options: FunctionOptions | None) -> str:
    """What a variant has of its own, as JSON, with the names of its variables; empty where it has nothing."""
    if options is None:
        return ""
    found: dict[str, Any] = to_wire(options)
    if options.env is not None:
        found["env"] = sorted(options.env)
    return json.dumps(found, sort_keys=True)
