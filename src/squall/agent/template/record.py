"""What is written down of a template beside what is of every container: its successor goes on with it."""

from __future__ import annotations

import json
import os
from pathlib import Path

from squall.agent.template.template import Template
from squall.agent.template.user import TemplateUser
from squall.protocol.node import ContainerStart
from squall.protocol.records import RecordError, field, from_wire, record, replace, to_wire

_NAME = "template.json"


@record
class TemplateRecord:
    """One template, as its directory knows it."""

    key: str
    kind: str
    made_at: float
    """Seconds since 1970."""
    request: ContainerStart
    """A start it was made for, without its environment: there are secrets in that, and cells need none."""
    holds_secrets: bool = True
    """As in `Template`."""
    users: dict[str, TemplateUser] = field(default_factory=dict)
    """The same."""
    is_check: bool = False
    """The same."""


def write_template_record(directory: Path, template: Template) -> None:
    """Write the record of a template, in the place of the one before; readable by root only."""
    request = replace(template.request, env={}, secrets={})
    written = TemplateRecord(
        template.key, template.kind, template.made_at, request, template.holds_secrets, dict(template.users),
        template.is_check,
    )  # fmt: skip
    fresh = directory / f"{_NAME}.new"
    descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    with open(descriptor, "w", encoding="utf-8") as file:
        json.dump(to_wire(written), file)
    os.rename(fresh, directory / _NAME)


def read_template_record(directory: Path) -> TemplateRecord | None:
    """The record in a template's directory, or None when it has none that can be read."""
    try:
        return from_wire(TemplateRecord, json.loads((directory / _NAME).read_text(encoding="utf-8")))
    except (OSError, RecordError, ValueError):
        return None
