"""`squall image build`, `pull` and `import`: images that no app describes, built and given a name."""

from __future__ import annotations

import json
import os
from pathlib import Path

import click

from squall.cli.environment import environment_option
from squall.cli.registry_login import from_env_option, login_variables
from squall.cli.server_calls import ask
from squall.protocol.errors import PlatformError
from squall.protocol.image_catalog import ImageName, ImagePublish, parse_name
from squall.sdk._environment import environment_of
from squall.sdk._image_archive import image_of_archive
from squall.sdk._output import enable_output
from squall.sdk._terminal_text import size_text
from squall.sdk.image import Image
from squall.sdk.secret import Secret


def _checked_name(ctx: click.Context, parameter: click.Parameter, name: str) -> str:
    """Refused before anything is built: that may take long."""
    if name:
        try:
            parse_name(name)
        except PlatformError as error:
            raise click.BadParameter(error.message, ctx, parameter) from error
    return name


_name = click.option(
    "-t", "--name", default="", metavar="NAME[:TAG]", callback=_checked_name, help="Publish it, for Image.from_name."
)
_force_build = click.option("--force-build", is_flag=True, help="Do not take it from the cache.")
_json = click.option("--json", "is_json", is_flag=True, help="As JSON.")


def _build_arguments(ctx: click.Context, parameter: click.Parameter, given: tuple[str, ...]) -> dict[str, str]:
    """As docker's: a name without a value takes that of the environment."""
    found: dict[str, str] = {}
    for text in given:
        name, is_given, value = text.partition("=")
        if not name or not (is_given or name in os.environ):
            raise click.BadParameter(f"{text!r} has no value here; write NAME=VALUE", ctx, parameter)
        found[name] = value if is_given else os.environ[name]
    return found


@click.command("build", epilog="Example: squall image build . --name app:1")
@environment_option
@click.argument("context", metavar="CONTEXT_DIR", type=click.Path(exists=True, file_okay=False, path_type=Path))
@_name
@click.option(
    "-f",
    "--file",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="[default: CONTEXT_DIR/Dockerfile]",
)
@click.option(
    "--build-arg",
    "build_args",
    multiple=True,
    metavar="NAME[=VALUE]",
    callback=_build_arguments,
    help="For an ARG; no place for a secret, it is kept with the image. May be given again.",
)
@_force_build
@from_env_option
@_json
def build(
    context: Path,
    name: str,
    file: Path | None,
    build_args: dict[str, str],
    force_build: bool,
    has_secret: bool,
    is_json: bool,
) -> None:
    """Build what a Dockerfile describes, and print its id and name."""
    image = Image.from_dockerfile(
        file or context / "Dockerfile",
        context_dir=context,
        build_args=build_args,
        registry_secret=_secret(has_secret),
        force_build=force_build,
    )
    _build(image, name, is_json)


@click.command("pull", epilog="Example: squall image pull registry.example.com/team/app:1 --name app:1")
@environment_option
@click.argument("reference", metavar="REF")
@_name
@_force_build
@from_env_option
@_json
def pull(reference: str, name: str, force_build: bool, has_secret: bool, is_json: bool) -> None:
    """Bring the image REF from a registry, and print its id and name.

    What was pulled once is not asked for again, also when its tag has moved: --force-build does.
    """
    _build(Image.from_registry(reference, _secret(has_secret), force_build=force_build), name, is_json)


@click.command("import", epilog="Example: squall image import app.tar --name app:1")
@environment_option
@click.argument("path", metavar="FILE", type=click.Path(path_type=Path))
@_name
@_json
def import_file(path: Path, name: str, is_json: bool) -> None:
    """Bring an image from FILE, and print its id and name.

    FILE is an archive of OCI's form or of Docker's, compressed or not: `squall image export`, `docker save` and
    `podman save` write such. No registry and no network is asked, so this is the way to machines that have none. It is
    read twice, and so cannot be standard input.
    """
    if str(path) == "-":
        raise click.UsageError("standard input cannot be read twice; write the archive into a file first")
    image = image_of_archive(path)
    click.echo(f"Reading {path} ({size_text(path.stat().st_size)}); sent is what the server lacks …", err=True)
    _build(image, name, is_json)


def _secret(is_wanted: bool) -> Secret | None:
    return Secret.from_local_environ(login_variables()) if is_wanted else None


def _build(image: Image, name: str, is_json: bool) -> None:
    """Build it, let the name stand for it, and print both; what happens meanwhile goes to stderr."""
    with enable_output():
        image.build()
    image_id, published = image.object_id, None
    if name:
        published = ask("ImagePublish", ImagePublish(image_id, name, environment_of(None)), ImageName).name
    if is_json:
        click.echo(json.dumps({"image_id": image_id, "name": published}))
        return
    click.echo(image_id)
    if published is not None:
        click.echo(published)
