"""`squall image push` and `export`: images to registries and into files."""

from __future__ import annotations

import os
import secrets
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

import click

from squall.cli.environment import environment_option
from squall.cli.registry_login import from_env_option, login_variables
from squall.cli.server_calls import follow, require_server
from squall.protocol.image_transfer import COMPRESSIONS, FORMS, GZIP, OCI, ImageExport, ImagePush, TransferEvent
from squall.sdk._environment import environment_of


@click.command("push", epilog="Example: squall image push registry.example.com/team/app:1 --image im-…")
@environment_option
@click.argument("name")
@click.option("--image", required=True, help="Its id, or the name it is published by.")
@click.option("--username", default="", help="Who pushes (default: whom the node's machine is logged in as).")
@click.option("--password-stdin", "is_password_piped", is_flag=True, help="Read the password from standard input.")
@from_env_option
@click.option("--compression", type=click.Choice(COMPRESSIONS), default=GZIP, show_default=True, help="Of the layers.")
def push(name: str, image: str, username: str, is_password_piped: bool, has_secret: bool, compression: str) -> None:
    """Bring a built image to a registry under NAME.

    Its name there is printed, with its digest.
    """
    if has_secret and (username or is_password_piped):
        raise click.UsageError("--registry-secret-from-env is in place of --username and --password-stdin")
    secret = {variable: os.environ[variable] for variable in login_variables()} if has_secret else {}
    require_server()
    password = _password(username, is_password_piped)
    record = ImagePush(image, name, username, password, compression, secret=secret, environment=environment_of(None))
    for event, _ in follow("ImagePush", record, TransferEvent):
        if event.kind == "line":
            click.echo(event.text, err=True)
        elif event.kind == "done":
            click.echo(f"{name}@{event.digest}")


def _password(username: str, is_piped: bool) -> str:
    """Never an argument, which everybody on the machine can read."""
    if is_piped and not username:
        raise click.UsageError("--password-stdin is of a --username")
    if not username:
        return ""
    if is_piped:
        return sys.stdin.readline().rstrip("\r\n")
    return str(click.prompt(f"Password of {username}", hide_input=True, err=True))


@click.command("export", epilog="Example: squall image export im-… --output app.tar")
@environment_option
@click.argument("image")
@click.option("-o", "--output", "path", type=click.Path(path_type=Path), required=True, help="The new file.")
@click.option(
    "--form", type=click.Choice(FORMS), default=OCI, show_default=True, help="docker: as `docker load` reads."
)
@click.option("--tag", default="", help="What the image is called in the file, such as app:1.")
@click.option("--compression", type=click.Choice(COMPRESSIONS), default=GZIP, show_default=True, help="Of the layers.")
def export(image: str, path: Path, form: str, tag: str, compression: str) -> None:
    """Write a built image into one file.

    Docker, podman and skopeo can read it.
    """
    require_server()
    with _written(path) as file:
        for event, body in follow(
            "ImageExport", ImageExport(image, form, tag, compression, environment=environment_of(None)), TransferEvent
        ):
            if event.kind == "line":
                click.echo(event.text, err=True)
            elif event.kind == "data":
                file.write(body)
            elif event.kind == "done" and file.tell() != event.size_bytes:
                raise click.ClickException(f"{file.tell()} bytes came, and the file has {event.size_bytes}")


@contextmanager
def _written(path: Path) -> Iterator[BinaryIO]:
    """A file that has its name when it is whole."""
    new = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    try:
        with new.open("xb") as file:
            yield file
        os.replace(new, path)
    except OSError as error:
        raise click.ClickException(f"cannot write {path}: {error.strerror}") from error
    finally:
        new.unlink(missing_ok=True)
