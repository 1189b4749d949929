"""A pytest plugin that writes down how each test ended and which statements of the tests failed, for `run`.

python -m pytest -p tests.mutations.report ...    with SQUALL_MUTATIONS_REPORT naming the file
"""

from __future__ import annotations

import json
import os
from collections.abc import Generator
from pathlib import Path

import pytest

TESTS = str(Path(__file__).resolve().parent.parent)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """One JSON object a line for each phase of each test."""
    report = yield
    failures = [] if call.excinfo is None or not report.failed else [*map(_failure, _leaves(call.excinfo.value))]
    said = {
        "test": item.nodeid,
        "phase": report.when,
        "outcome": report.outcome,
        "seconds": round(report.duration, 2),
        "failures": failures,
    }
    with open(os.environ["SQUALL_MUTATIONS_REPORT"], "a", encoding="utf-8") as file:
        file.write(json.dumps(said) + "\n")
    return report


def _leaves(error: BaseException) -> list[BaseException]:
    """What a group holds: several fixtures may fail at the end."""
    if isinstance(error, BaseExceptionGroup):
        return [leaf for one in error.exceptions for leaf in _leaves(one)]
    return [error]


def _failure(error: BaseException) -> dict[str, object]:
    excinfo = pytest.ExceptionInfo.from_exception(error)
    return {
        "error": type(error).__name__,
        "message": str(error)[:2_000],
        "statements": [
            str(entry.statement).strip() for entry in excinfo.traceback if str(entry.path).startswith(TESTS)
        ],
    }
