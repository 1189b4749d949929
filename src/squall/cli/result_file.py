"""`squall run --write-result`: a result that is text or bytes goes to a file, as it is.

What cannot work is refused before anything runs, as far as it can be known: the place, and what the function says it
returns. The rest is told afterwards, with the result itself, so that nothing has run in vain.
"""

from __future__ import annotations

import os
import types
import typing
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from squall.cli import result_view
from squall.cli.annotations import annotations_of

_ADVICE = "return str(…), json.dumps(…) or pickle.dumps(…) of it"


def check(path: Path, function: Callable[..., Any], name: str, *, is_generator: bool) -> None:
    """Look at what is known before `function`, called `name`, has run.

    Raises:
        click.UsageError: its result can never be written there.
    """
    if is_generator:
        message = f"--write-result: {name} is a generator: it yields items and has no result to write"
        raise click.UsageError(f"{message}; leave the option out, or collect the items in a local entrypoint")
    reason = obstacle(path)
    if reason:
        raise click.UsageError(f"--write-result: cannot write {path}: {reason}")
    hint = annotations_of(function).get("return", Any)
    if not _can_be_written(hint):
        says = "None" if hint is type(None) else hint.__name__ if isinstance(hint, type) else str(hint)
        raise click.UsageError(
            f"--write-result: {name} returns {says}, and only str and bytes can be written; {_ADVICE}, or leave the "
            "option out"
        )


def write(path: Path, result: Any) -> None:
    """Write the result.

    Raises:
        click.ClickException: it is neither str nor bytes, or the file cannot be written; it has been printed then.
    """
    if not isinstance(result, (str, bytes)):
        result_view.show(result)
        kind = type(result).__name__
        raise click.ClickException(f"cannot write the result to {path}: it is {kind}, not str or bytes; {_ADVICE}")
    try:
        path.write_bytes(result.encode("utf-8", "surrogateescape") if isinstance(result, str) else result)
    except OSError as error:
        result_view.show(result)
        raise click.ClickException(f"cannot write the result to {path}: {error.strerror}") from error
    click.echo(f"Result written to {path}", err=True)


def obstacle(path: Path) -> str:
    """What stands in the way of the file, or nothing."""
    if path.is_dir():
        return "it is a directory"
    if not path.parent.is_dir():
        return f"there is no directory {path.parent}"
    if not os.access(path if path.exists() else path.parent, os.W_OK):
        return "permission denied"
    return ""


def _can_be_written(hint: Any) -> bool:
    """Whether a value of this type may be str or bytes. What is no class is given the benefit of the doubt."""
    kind = typing.get_origin(hint) or hint
    if kind in (typing.Union, types.UnionType):
        return any(_can_be_written(member) for member in typing.get_args(hint))
    if hint is Any or not isinstance(kind, type):
        return True
    try:
        return issubclass(kind, (str, bytes)) or issubclass(str, kind) or issubclass(bytes, kind)
    except TypeError:
        return True  # a protocol that cannot be asked
