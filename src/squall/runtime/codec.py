"""Specs and statuses as plain JSON values and back, for the socket between agent and spawner.

Written out by hand: the spawner must stay small, so no validating library is loaded into it, and both ends of this
socket are ours. Unknown fields are ignored, missing ones take their defaults.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from squall.runtime.contract import TemplateReport
from squall.runtime.spec import (
    Bind,
    Bucket,
    ContainerSpec,
    ContainerStatus,
    ContainerUsage,
    ExecSpec,
    ExitStatus,
    IdRange,
    Limits,
    NetworkSlot,
    Volume,
)

Json = dict[str, Any]


def to_json(
    record: ContainerSpec | ExecSpec | ExitStatus | ContainerUsage | IdRange | TemplateReport | Volume,
) -> Json:
    """Any record of `spec` or `contract` as JSON values."""
    return asdict(record)


def _fields(kind: type, values: Mapping[str, Any]) -> Json:
    return {name: values[name] for name in kind.__dataclass_fields__ if name in values}  # type: ignore[attr-defined]


def container_spec(values: Mapping[str, Any]) -> ContainerSpec:
    """Undo `to_json`."""
    network = values.get("network")
    fields = _fields(ContainerSpec, values)
    fields["id_range"] = id_range(values["id_range"])
    fields["binds"] = [Bind(**_fields(Bind, bind)) for bind in values.get("binds", ())]
    fields["volumes"] = [volume(one) for one in values.get("volumes", ())]
    fields["buckets"] = [Bucket(**_fields(Bucket, one)) for one in values.get("buckets", ())]
    fields["limits"] = Limits(**_fields(Limits, values.get("limits", {})))
    fields["network"] = NetworkSlot(**_fields(NetworkSlot, network)) if network else None
    uid, gid = values.get("user", (0, 0))
    fields["user"] = (uid, gid)
    return ContainerSpec(**fields)


def volume(values: Mapping[str, Any]) -> Volume:
    """Undo `to_json`."""
    return Volume(**_fields(Volume, values))


def id_range(values: Mapping[str, Any]) -> IdRange:
    """Undo `to_json`."""
    return IdRange(**_fields(IdRange, values))


def template_report(values: Mapping[str, Any]) -> TemplateReport:
    """Undo `to_json`."""
    return TemplateReport(**_fields(TemplateReport, values))


def exec_spec(values: Mapping[str, Any]) -> ExecSpec:
    """Undo `to_json`."""
    return ExecSpec(**_fields(ExecSpec, values))


def exit_status(values: Mapping[str, Any]) -> ExitStatus:
    """Undo `to_json`."""
    return ExitStatus(**_fields(ExitStatus, values))


def usage(values: Mapping[str, Any]) -> ContainerUsage:
    """Undo `to_json`."""
    return ContainerUsage(**_fields(ContainerUsage, values))


def status_to_json(status: ContainerStatus) -> Json:
    """A status as JSON values."""
    return asdict(status)


def container_status(values: Mapping[str, Any]) -> ContainerStatus:
    """Undo `status_to_json`."""
    ended = values.get("exit_status")
    fields = _fields(ContainerStatus, values)
    fields["exit_status"] = exit_status(ended) if ended else None
    return ContainerStatus(**fields)
