"""A question is answered, or it is said how to go without."""

from __future__ import annotations

import click
import pytest
from click.testing import CliRunner

from squall.cli.confirmation import confirm


@click.command()
def end() -> None:
    confirm("End it?")
    click.echo("ended")


@pytest.mark.parametrize(
    ("answer", "code", "shown"),
    [("y\n", 0, "ended"), ("n\n", 1, "Aborted"), ("\n", 1, "Aborted"), ("", 1, "with --yes there is no question")],
)
def test_only_yes_goes_on(answer: str, code: int, shown: str) -> None:
    ended = CliRunner().invoke(end, input=answer)

    assert ended.exit_code == code
    assert shown in ended.output
    assert ("ended" in ended.output) == (code == 0)
