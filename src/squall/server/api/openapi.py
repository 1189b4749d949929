"""The OpenAPI 3.1 description of the HTTP twin, made from the table of methods and the records' types."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import msgspec

from squall.protocol.errors import HTTP_STATUS
from squall.protocol.methods import STREAM, Method
from squall.protocol.version import VERSION

REF = "#/components/schemas/{name}"

_BODY = {
    "type": "string",
    "contentEncoding": "base64",
    "description": "Opaque bytes that travel beside the record.",
}
_ERROR = {
    "description": "What went wrong; the code is one of " + ", ".join(HTTP_STATUS),
    "content": {
        "application/json": {
            "schema": {
                "type": "object",
                "required": ["error"],
                "properties": {
                    "error": {
                        "type": "object",
                        "required": ["code", "message"],
                        "properties": {
                            "code": {"enum": list(HTTP_STATUS)},
                            "message": {"type": "string"},
                        },
                    }
                },
            }
        }
    },
}


def describe(methods: Iterable[Method], prefix: str) -> dict[str, Any]:
    """The document; every method is a POST of its name below `prefix`."""
    listed = list(methods)
    records = {record for method in listed for record in (method.request, method.reply)}
    ordered = sorted(records, key=lambda record: record.__name__)
    references, components = msgspec.json.schema_components(ordered, ref_template=REF)
    schema_of = dict(zip(ordered, references, strict=True))
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Squall",
            "version": VERSION,
            "description": "Every method of the wire as plain HTTP: JSON in, JSON out.",
        },
        "paths": {f"{prefix}/{method.name}": {"post": _operation(method, schema_of)} for method in listed},
        "components": {
            "schemas": components,
            "responses": {"Error": _ERROR},
            "securitySchemes": {"token": {"type": "http", "scheme": "bearer"}},
        },
        "security": [{"token": []}],
    }


def _operation(method: Method, schema_of: dict[type[Any], dict[str, Any]]) -> dict[str, Any]:
    return {
        "operationId": method.name,
        "summary": method.summary,
        "requestBody": {
            "required": True,
            "content": {"application/json": {"schema": _with_body(method, schema_of[method.request])}},
        },
        "responses": {
            **_success(method, _with_body(method, schema_of[method.reply])),
            "default": {"$ref": "#/components/responses/Error"},
        },
    }


def _success(method: Method, schema: dict[str, Any]) -> dict[str, Any]:
    if method.shape == STREAM:
        description = "One JSON value a line; an error in the middle is a last line of the shape of an error."
        return {"200": {"description": description, "content": {"application/x-ndjson": {"schema": schema}}}}
    return {"200": {"description": "Done.", "content": {"application/json": {"schema": schema}}}}


def _with_body(method: Method, schema: dict[str, Any]) -> dict[str, Any]:
    if not method.has_body:
        return schema
    return {"allOf": [schema, {"type": "object", "properties": {"body": _BODY}}]}
