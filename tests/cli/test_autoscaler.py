"""`squall function autoscaler`, as far as it needs no server."""

from __future__ import annotations

import pytest
from click.testing import CliRunner

from squall.cli import main

UPDATE = ["function", "autoscaler", "update", "app/f"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ([], "nothing to change"),
        (["--min-containers", "-1"], "'-1' is neither a number of containers nor 'none'"),
        (["--max-containers", "many"], "'many' is neither a number of containers nor 'none'"),
        (["--scaledown-window", "1"], "1 is not in the range 2<=x<=3600"),
    ],
)
def test_what_cannot_be_is_wrong_usage(options: list[str], message: str) -> None:
    ended = CliRunner().invoke(main.squall, [*UPDATE, *options])

    assert ended.exit_code == 2, ended.output
    assert message in ended.output


@pytest.mark.parametrize("command", ["settings", "update"])
def test_the_function_is_looked_for_in_the_environment_that_is_named(command: str) -> None:
    ended = CliRunner().invoke(main.squall, ["function", "autoscaler", command, "--help"])

    assert "-e, --env" in ended.output
