"""The description names every method and is a valid document."""

from __future__ import annotations

import json
import re
from typing import Any

import msgspec

from squall.server.api.http import PREFIX, TWINS
from squall.server.api.openapi import describe


def document() -> dict[str, Any]:
    made: dict[str, Any] = json.loads(msgspec.json.encode(describe(TWINS.values(), PREFIX)))
    return made


def test_every_method_is_described() -> None:
    paths = document()["paths"]

    assert set(paths) == {f"/api/v1/{name}" for name in TWINS}
    assert all(set(path) == {"post"} for path in paths.values())
    assert len({path["post"]["operationId"] for path in paths.values()}) == len(TWINS)


def test_every_reference_leads_somewhere() -> None:
    made = document()
    references = set(re.findall(r'"\$ref": "#/([^"]+)"', json.dumps(made)))

    assert references
    for reference in references:
        place: Any = made
        for part in reference.split("/"):
            assert part in place, reference
            place = place[part]


def test_bodies_are_described_where_there_are_some() -> None:
    paths = document()["paths"]

    def text(name: str) -> str:
        return json.dumps(paths[f"/api/v1/{name}"])

    assert "base64" in text("BlobPut")
    assert "base64" not in text("AppGet")
    assert "x-ndjson" in text("LogRead")
    assert "/api/v1/CallClose" not in paths


def test_no_record_has_a_field_called_body() -> None:
    """Its name is taken: opaque bytes travel in it, beside the record."""
    for method in TWINS.values():
        for record in (method.request, method.reply):
            assert "body" not in record.__dataclass_fields__, record


def test_records_say_what_they_are() -> None:
    schemas = document()["components"]["schemas"]

    assert schemas["AppGet"]["description"].startswith("Ask for one app")
    assert schemas["AppGet"]["required"] == ["app"]
