"""`squall shell`: a shell in a container of an image, of one as it was before a step of its build, or in a container
that runs."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

import click

from squall.cli import reference
from squall.cli.environment import environment_option
from squall.cli.server_calls import is_terminal, open_stream, require_server
from squall.cli.target import choose_function
from squall.cli.terminal import carry, size
from squall.protocol.container import ContainerExec
from squall.protocol.image_shell import ImageShell
from squall.sdk import _output
from squall.sdk._environment import environment_of
from squall.sdk.image import Image

_RUNNING = ("ct-", "ta-")
_ANY_SHELL = '[ -x /bin/bash ] && exec /bin/bash "$@"; exec /bin/sh "$@"'
"""Of a container that runs: whatever its image has."""


class _ImageStep(click.ParamType[tuple[str, int]]):
    """`IMAGE/N`."""

    name = "image/n"

    def convert(
        self, value: str | tuple[str, int], param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[str, int]:
        if isinstance(value, tuple):
            return value
        image, _, number = value.rpartition("/")
        if not image or not number.isdecimal() or int(number) < 1:
            self.fail(f"{value!r} names no step; write im-…/N, with the N that the build shows as [N/M]", param, ctx)
        return image, int(number)


@click.command("shell", epilog="Example: squall shell im-… -c 'pip list'")
@environment_option
@click.option("-c", "--cmd", "command", default="", help="Run this instead; its exit code becomes ours.")
@click.option(
    "--image-step", type=_ImageStep(), help="Before step N of an image, for one that fails to be tried by hand."
)
@click.option("--image", "tag", default="", metavar="TAG", help="An image of a registry.")
@click.option("--add-python", "python", metavar="VERSION", help="With --image: this Python as well.")
@click.option(
    "--add-local", "local_paths", multiple=True, type=click.Path(exists=True), metavar="PATH",
    help="A file or directory, copied to /mnt/NAME; may be given again.",
)  # fmt: skip
@click.option(
    "--secret", "secrets", multiple=True, metavar="NAME", help="Set the variables of this secret; may be given again."
)
@click.option(
    "--volume", "volumes", multiple=True, metavar="NAME", help="Mount this volume at /mnt/NAME; may be given again."
)
@click.option("--pty/--no-pty", "has_pty", default=None, help="With a terminal (default: if there is one here).")
@click.option("-m", "is_module", is_flag=True, help="REF begins with a dotted module name.")
@click.argument("ref", required=False, type=click.Path(allow_dash=True))
def shell(
    command: str,
    image_step: tuple[str, int] | None,
    tag: str,
    python: str | None,
    local_paths: tuple[str, ...],
    secrets: tuple[str, ...],
    volumes: tuple[str, ...],
    has_pty: bool | None,
    is_module: bool,
    ref: str | None,
) -> None:
    """Open a shell in a container of an image; what is changed there is thrown away at the end, but in volumes.

    REF is an image by its id (im-…) or published name, or a function as in `squall run`, for its image; without it the
    default image. With the id of a container that runs (ct-…) the shell is in that one.
    """
    named = [text for text in (image_step and "--image-step", tag and "--image", ref) if text]
    if len(named) > 1:
        raise click.UsageError(f"name one thing to open a shell in, and not both {named[0]} and {named[1]!r}")
    if ref and ref.startswith("sb-"):
        raise click.UsageError(f"{ref}: sandboxes are not in this version of Squall yet")
    is_running = bool(ref and ref.startswith(_RUNNING))
    if local_paths and (is_running or image_step is not None):
        raise click.UsageError("--add-local is for images: put files into what runs by the shell itself")
    if secrets and is_running:
        raise click.UsageError("--secret is for images: a shell in what runs has the variables of its function")
    if volumes and is_running:
        raise click.UsageError("--volume is for images: what runs has the volumes of its function")
    if python and not tag:
        raise click.UsageError("--add-python is for an image of a registry: give that by --image")
    with_pty = is_terminal() if has_pty is None else has_pty
    rows, columns = size()
    if ref and is_running:
        require_server()
        words = ("/bin/sh", "-c", _ANY_SHELL, "sh", *(("-c", command) if command else ()))
        stream = open_stream("ContainerExec", ContainerExec(ref, words, with_pty, rows, columns))
    else:
        image, step = image_step or (_image_of(ref, is_module, tag, python, local_paths), 0)
        request = ImageShell(
            image,
            step,
            command,
            with_pty,
            rows,
            columns,
            environment=environment_of(None),
            secrets=secrets,
            volumes=volumes,
        )
        stream = open_stream("ImageShell", request)
    sys.exit(carry(stream, is_raw=with_pty and sys.stdin.isatty()))


def _image_of(ref: str | None, is_module: bool, tag: str, python: str | None, local_paths: Sequence[str]) -> str:
    """The id or name of the image that is meant, built if need be."""
    if ref and (ref.startswith("im-") or not (is_module or ref.endswith(".py") or "::" in ref or Path(ref).is_file())):
        if not local_paths:
            return ref
        image = Image.from_id(ref) if ref.startswith("im-") else Image.from_name(ref)
    elif ref:
        parsed = reference.parse(ref, is_module=is_module)
        app, function = choose_function(reference.load(parsed), parsed.name, parsed.source)
        assert function.definition is not None
        image = function.definition.image or function.app.image or app.image or Image.debian_slim()
    else:
        image = Image.from_registry(tag, add_python=python) if tag else Image.debian_slim()
    for path in local_paths:
        target = f"/mnt/{Path(path).resolve().name}"
        add = image.add_local_dir if Path(path).is_dir() else image.add_local_file
        image = add(path, target, copy=True)
    with _output.use(_output.PlainOutput()):
        image.build()
    return image.object_id
