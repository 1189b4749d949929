"""What people and scripts type is there, by its decided names: `modal app logs -f` is `squall app logs -f`.

The decisions on running, deploying, apps, containers, functions, environments and volumes are in
`surface_commands.json`: for each command its arguments (`?` may be left out, `...` may be several) and its options with
their short names. It is changed when the reference is, and never to make a test pass. What is still to come is in
`TO_COME`, with the part that brings it; who brings it takes it out.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TypedDict

import click
import pytest

from tests.commands import COMMANDS


class Decided(TypedDict):
    """Of one command."""

    arguments: list[str]
    options: list[str]


DECIDED: dict[str, Decided] = json.loads((Path(__file__).parent / "surface_commands.json").read_text())

DASHBOARD = "the dashboard"
GPUS = "GPUs"
LOGS = "logs and metrics of the past"
USERS = "users and roles"
SHELLS = "shells with resources of their own"
BILLING = "not ours: nobody is billed"
HOSTING = "not ours: a shell is opened on one's own machines"

TO_COME: dict[str, str] = {
    "app dashboard": DASHBOARD,
    "volume dashboard": DASHBOARD,
    "function metrics": LOGS,
    "environment billing report": BILLING,
    "environment billing summary": BILLING,
    "environment roles list": USERS,
    "environment roles update": USERS,
    "environment update": USERS,
    "environment create --restricted": USERS,
    "environment create --default-role": USERS,
    "shell --gpu": GPUS,
    "shell --cpu": SHELLS,
    "shell --memory": SHELLS,
    "shell --runtime": SHELLS,
    "shell --cloud": HOSTING,
    "shell --region": HOSTING,
}
"""Each command, or option of one, that is not there yet."""


OPTIONS = [(path, option) for path, decided in DECIDED.items() for option in decided["options"]]


def options_of(command: click.Command) -> set[str]:
    """What may be typed."""
    options = [one for one in command.params if isinstance(one, click.Option)]
    return {text for one in options for text in (*one.opts, *one.secondary_opts)}


def is_here(name: str) -> bool:
    """Whether there is such a command, or such an option of one."""
    path, dashes, option = name.partition(" --")
    command = COMMANDS.get(path)
    return command is not None and (not dashes or f"--{option}" in options_of(command))


def names_of(path: str, option: str) -> str:
    """As `TO_COME` calls it: by its longest name."""
    return f"{path} {max(option.split('/'), key=len)}"


@pytest.mark.parametrize("name", sorted(TO_COME))
def test_what_is_to_come_was_decided_and_is_not_there(name: str) -> None:
    assert name in {*DECIDED, *(names_of(*one) for one in OPTIONS)}
    assert not is_here(name), f"squall {name} is here: take it out of TO_COME, with its reason"


@pytest.mark.parametrize("path", DECIDED)
def test_commands_take_their_arguments(path: str) -> None:
    if path in TO_COME:
        pytest.skip(f"squall {path} comes with {TO_COME[path]}")

    assert path in COMMANDS, f"squall {path} was decided; until it is there, name it in TO_COME"
    arguments = [one for one in COMMANDS[path].params if isinstance(one, click.Argument)]
    decided = DECIDED[path]["arguments"]
    assert len(arguments) == len(decided)
    for argument, name in zip(arguments, decided, strict=True):
        assert argument.required == ("?" not in name), f"squall {path} {name}"
        assert (argument.nargs == -1) == name.endswith("..."), f"squall {path} {name}"


@pytest.mark.parametrize(("path", "option"), OPTIONS)
def test_commands_take_their_options(path: str, option: str) -> None:
    for name in (path, names_of(path, option)):
        if name in TO_COME:
            pytest.skip(f"squall {name} comes with {TO_COME[name]}")

    missing = set(option.split("/")) - options_of(COMMANDS[path])
    assert not missing, f"squall {path} {option} was decided; until it is there, name it in TO_COME"
