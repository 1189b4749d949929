"""The commands there are, for the tests that look at all of them."""

from __future__ import annotations

from collections.abc import Iterator

import click

from squall.cli import main


def _walk(command: click.Command, path: tuple[str, ...]) -> Iterator[tuple[str, click.Command]]:
    if not isinstance(command, click.Group):
        yield " ".join(path), command
        return
    context = click.Context(command)
    for name in command.list_commands(context):
        found = command.get_command(context, name)
        assert found is not None
        yield from _walk(found, (*path, name))


COMMANDS = dict(_walk(main.squall, ()))
"""Every command that does something, by what is typed for it."""
