"""`squall shell`: a shell in a container of an image, or of one as it was before a step of its build."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from squall.cli import reference
from squall.cli.environment import environment_option
from squall.cli.server_calls import is_terminal, open_stream
from squall.cli.target import choose_function
from squall.cli.terminal import carry, size
from squall.protocol.image_shell import ImageShell
from squall.sdk import _output
from squall.sdk._environment import environment_of
from squall.sdk.image import Image

_RUNNING = ("ct-", "ta-", "sb-")


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
@click.option("--pty/--no-pty", "has_pty", default=None, help="With a terminal (default: if there is one here).")
@click.option("-m", "is_module", is_flag=True, help="REF begins with a dotted module name.")
@click.argument("ref", required=False, type=click.Path(allow_dash=True))
def shell(
    command: str, image_step: tuple[str, int] | None, has_pty: bool | None, is_module: bool, ref: str | None
) -> None:
    """Open a shell in a container of an image; what is changed there is thrown away at the end.

    REF is an image by its id (im-…) or published name, or a function as in `squall run`, for its image; without it the
    default image.
    """
    if image_step is not None and ref:
        raise click.UsageError(f"name an image's step or {ref!r}, not both")
    if ref and ref.startswith(_RUNNING):
        raise click.UsageError(f"{ref} is no image; for a container that runs: squall container exec {ref} -- sh")
    image, step = image_step or (_image_of(ref, is_module), 0)
    with_pty = is_terminal() if has_pty is None else has_pty
    rows, columns = size()
    request = ImageShell(image, step, command, with_pty, rows, columns, environment=environment_of(None))
    sys.exit(carry(open_stream("ImageShell", request), is_raw=with_pty and sys.stdin.isatty()))


def _image_of(ref: str | None, is_module: bool) -> str:
    """The id or name of the image that is meant, built if need be."""
    if ref and (ref.startswith("im-") or not (is_module or ref.endswith(".py") or "::" in ref or Path(ref).is_file())):
        return ref
    image = Image.debian_slim()
    if ref:
        parsed = reference.parse(ref, is_module=is_module)
        app, function = choose_function(reference.load(parsed), parsed.name, parsed.source)
        assert function.definition is not None
        image = function.definition.image or function.app.image or app.image or image
    with _output.use(_output.PlainOutput()):
        image.build()
    return image.object_id
