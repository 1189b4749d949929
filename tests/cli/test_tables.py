"""Tables for people are as wide as their terminal; programs get all columns."""

from __future__ import annotations

import json
import sys

import pytest

from squall.cli import tables

HEADINGS = ("Call ID", "Function", "Made at", "Status")
ROWS = [("fc-1", "f", "2026-11-30 04:00:00+0000", "succeeded")]


def shown(capsys: pytest.CaptureFixture[str], *, is_json: bool = False) -> str:
    tables.show(HEADINGS, ROWS, is_json=is_json, spare=("Made at", "Function"))
    return capsys.readouterr().out


def test_narrow_terminal_goes_without_the_columns_that_can_be_spared(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True, raising=False)

    for columns, kept in (
        (80, "fc-1     f         2026-11-30 04:00:00+0000  succeeded"),
        (30, "fc-1     f         succeeded"),
        (20, "fc-1     succeeded"),
        (5, "fc-1     succeeded"),
    ):
        monkeypatch.setenv("COLUMNS", str(columns))
        assert shown(capsys).splitlines()[1] == kept


def test_programs_get_all_columns_whatever_the_terminal(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "5")

    assert "2026-11-30" in shown(capsys)
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True, raising=False)
    assert json.loads(shown(capsys, is_json=True))[0]["made_at"] == ROWS[0][2]
