"""What commands have in common: an option of one name is the same everywhere, in all that people learn once."""

from __future__ import annotations

from collections import defaultdict

import click
import pytest

from tests.commands import COMMANDS


def _options(command: click.Command) -> list[click.Option]:
    return [one for one in command.params if isinstance(one, click.Option)]


OPTIONS = [(path, option) for path, command in COMMANDS.items() for option in _options(command)]


def _long_name(option: click.Option) -> str:
    return max(option.opts, key=len)


SHORT = {
    "--env": "-e",
    "--environment": "-e",
    "--limit": "-n",
    "--tail": "-n",
    "--count": "-n",
    "--yes": "-y",
    "--follow": "-f",
    "--source": "-s",
    "--cmd": "-c",
    "--detach": "-d",
    "--interactive": "-i",
    "--quiet": "-q",
    "--write-result": "-w",
    "--output": "-o",
    "--file": "-f",
    "--name": "-n",
    "--recursive": "-r",
    "--force": "-f",
    "--partition": "-p",
    "--repr": "-r",
    "--total": "-t",
}
"""The short name of an option, where it has one."""
OTHER_SHORT = {
    # As other programs that build images have it: `-t NAME:TAG`.
    ("image build", "--name"): "-t",
    ("image import", "--name"): "-t",
    ("image pull", "--name"): "-t",
    ("call replay", "--file"): "",
    ("server stop", "--force"): "",
    ("workspace proxy-tokens create", "--name"): "",
    ("dict items", "--all"): "-a",
    ("queue clear", "--all"): "-a",
}
HELP = {
    "--env": "The environment that names are of",
    "--limit": "At most N",
    "--tail": "Start with the last N lines",
    "--yes": "Do not ask",
    "--json": "As JSON",
    "--allow-missing": "It is no failure if there is none.",
    "--follow": "Go on until",
    "--since": "From then on: 2h, 1d, or a date and time",
    "--until": "Up to then: 2h, 1d, or a date and time",
    "--timestamps": "Begin each log line with its time.",
    "--app": "Only this app's, by name or id",
    "--all-variants": "With its variants.",
    "--strategy": "Containers of the version before finish what they run",
    "--show-function-id": "Begin each line with the id of its function",
    "--show-function-call-id": "Begin each line with the id of its call",
    "--show-container-id": "Begin each line with the id of its container",
    "--search": "Only lines with this text.",
    "--source": "Only lines of this source.",
    "--force-build": "Do not take it from the cache.",
    "--compression": "Of the layers.",
    "--registry-secret-from-env": "Log in to the registry with",
    "--pty": "With a terminal",
    "--partition": "The partition of that key.",
    "--no-color": "Without colours and bold letters.",
}
"""How the help of options begins that several commands have; what follows is the command's own."""
HELP_OF_ITS_OWN = {
    "--all",
    "--container",
    "--count",
    "--dry-run",
    "--failed",
    "--file",
    "--force",
    "--function",
    "--function-call",
    "--image",
    "--name",
    "--recursive",
    "--tag",
    "--tail",
    "--version",
    "-m",
}
"""What they are of is another thing in each command."""


@pytest.mark.parametrize(("path", "option"), OPTIONS, ids=lambda one: one if isinstance(one, str) else _long_name(one))
def test_an_option_has_one_short_name_and_says_what_it_does(path: str, option: click.Option) -> None:
    name = _long_name(option)
    short = OTHER_SHORT.get((path, name), SHORT.get(name, ""))

    assert option.help, f"squall {path} {name} has no help"
    assert [one for one in option.opts if one != name] == [short][: bool(short)]


def test_options_of_several_commands_are_told_in_the_same_words() -> None:
    helps = defaultdict(list)
    for path, option in OPTIONS:
        helps[_long_name(option)].append((path, option.help or ""))

    for name, told in helps.items():
        if len(told) > 1 and name not in HELP_OF_ITS_OWN:
            assert name in HELP, f"{name} is an option of {len(told)} commands: say here how its help begins"
            assert not [path for path, text in told if not text.startswith(HELP[name])], name


def test_lists_show_as_many_unless_told_otherwise() -> None:
    assert {(option.default, option.metavar) for _, option in OPTIONS if _long_name(option) == "--limit"} == {(20, "N")}


@pytest.mark.parametrize("path", [path for path in COMMANDS if path.split()[-1] in ("list", "history", "show", "info")])
def test_what_is_listed_or_shown_can_be_read_by_programs(path: str) -> None:
    assert "--json" in {_long_name(option) for option in _options(COMMANDS[path])}


@pytest.mark.parametrize(
    "path", [path for path in COMMANDS if path.split()[-1] in ("stop", "delete", "rm", "rollback", "rollover")]
)
def test_what_ends_or_replaces_something_can_be_told_not_to_ask(path: str) -> None:
    """`server stop` asks nothing: it is refused while something runs, but for --force."""
    if path in ("volume rm", "volume rollback"):
        return  # a version is made, and those before stay
    expected = "--force" if path == "server stop" else "--yes"

    assert expected in {_long_name(option) for option in _options(COMMANDS[path])}


@pytest.mark.parametrize("path", COMMANDS)
def test_every_command_says_what_it_does_and_gives_an_example(path: str) -> None:
    command = COMMANDS[path]

    assert command.help
    assert (command.epilog or "").startswith("Example: "), path
