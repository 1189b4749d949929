"""A question is answered, or it is said how to go without."""

from __future__ import annotations

import subprocess
import sys

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


PROGRAM = """
import click
from squall.cli import main
from squall.cli.confirmation import confirm
from squall.cli.result_view import show

@click.command()
def end():
    show("before")
    confirm("End it?")

main.squall.add_command(end, "end")
main._COMMANDS["end"] = ("__main__", "end", "")
main.main(["end"])
"""


def test_no_is_no_interrupt() -> None:
    ended = subprocess.run(
        [sys.executable, "-c", PROGRAM], input="n\n", capture_output=True, text=True, timeout=60, check=False
    )

    assert (ended.returncode, ended.stderr.splitlines()[-1]) == (1, "Aborted."), ended


@pytest.mark.parametrize("closed", ["<&-", "<&- >&-"])
def test_nobody_answers_where_there_is_no_terminal_and_no_input(closed: str) -> None:
    ended = subprocess.run(
        ["sh", "-c", f'exec "$@" {closed}', "sh", sys.executable, "-c", PROGRAM],
        stderr=subprocess.PIPE, text=True, timeout=60, check=False,
    )  # fmt: skip

    assert ended.returncode == 1
    assert "nobody answered; with --yes there is no question" in ended.stderr
    assert "Traceback" not in ended.stderr
