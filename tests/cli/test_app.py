"""`squall app`, as far as it needs no server."""

from __future__ import annotations

import click
import pytest
from click.testing import CliRunner

from squall.cli import main, tables


@pytest.mark.parametrize("count", ["-3", "0", "some"])
def test_limit_that_is_no_count_is_wrong_usage(count: str) -> None:
    ended = CliRunner().invoke(main.squall, ["app", "list", "--limit", count])

    assert ended.exit_code == 2, ended.output
    assert count in ended.output


@pytest.mark.parametrize(("given", "is_bold"), [([], True), (["--no-color"], False)])
def test_no_color_leaves_bold_letters_out_also_at_a_terminal(given: list[str], is_bold: bool) -> None:
    @click.command()
    @tables.no_color_option
    def show() -> None:
        tables.show(("Name",), [("one",)], is_json=False)

    ended = CliRunner().invoke(show, given, color=True)

    assert ended.exit_code == 0, ended.output
    assert ("\x1b[1m" in ended.output) == is_bold
