"""Questions before something is ended or deleted."""

from __future__ import annotations

import sys

import click


def confirm(question: str) -> None:
    """Go on only after a yes.

    Raises:
        Exit: (of `click`) the answer was no: with code 1, as nothing was done; Ctrl-C's code is another.
        Abort: (of `click`) by Ctrl-C.
        ClickException: nobody is there to answer.
    """
    try:
        is_wanted = click.confirm(question)
    except click.Abort:
        if sys.stdin.isatty():
            raise
        click.echo(err=True)
        raise click.ClickException("nobody answered; with --yes there is no question, as a script needs it") from None
    if not is_wanted:
        click.echo("Aborted.", err=True)
        raise click.exceptions.Exit(1)
