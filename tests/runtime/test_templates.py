"""What a template says of itself, which user code may have written."""

from __future__ import annotations

import json

import pytest

from squall.runtime.contract import TemplateReport
from squall.runtime.templates import CAUSE_LENGTH_MAX, read_template_report


@pytest.mark.parametrize(
    ("said", "report"),
    [
        ({"ready": {"memory_bytes": 7, "enter_ms": 1.5}}, TemplateReport(True, memory_bytes=7, enter_ms=1.5)),
        ({"unfit": "a thread runs"}, TemplateReport(False, "a thread runs")),
        ({"failed": "its hook raised"}, TemplateReport(False, "its hook raised", has_failed=True)),
        ({"failed": "c" * 9_000}, TemplateReport(False, "c" * CAUSE_LENGTH_MAX, has_failed=True)),
        ({"unfit": "a thread runs", "failed": "and more"}, TemplateReport(False, "a thread runs")),
        ({"ready": {"memory_bytes": -7, "has_failed": 1, "is_ready": 0, "cause": 5}}, TemplateReport(True)),
        ({"ready": {"memory_bytes": 1.5, "enter_ms": 2}}, TemplateReport(True, memory_bytes=1, enter_ms=2.0)),
        ({"ready": {"memory_bytes": 10**400, "import_ms": 10**400}}, TemplateReport(True)),
        ({"ready": {"memory_bytes": float("inf"), "import_ms": float("nan")}}, TemplateReport(True)),
        ({"ready": {"memory_bytes": True, "import_ms": "7", "enter_ms": None}}, TemplateReport(True)),
        ({"ready": 1}, TemplateReport(False, "it does not speak as a template does")),
    ],
)
def test_what_is_made_of_it(said: object, report: TemplateReport) -> None:
    read = read_template_report(json.dumps(said).encode())

    assert read == report
    assert [type(one) for one in (read.memory_bytes, read.import_ms, read.enter_ms)] == [int, float, float]
