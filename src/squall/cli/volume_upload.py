"""`squall volume put`: files of this machine into a volume."""

from __future__ import annotations

import os
import sys

import click

from squall.cli import tables
from squall.cli.environment import environment_option
from squall.cli.progress import Progress
from squall.cli.server_calls import require_server
from squall.cli.volume_target import asset_of
from squall.sdk._pending import run
from squall.sdk._terminal_text import size_text
from squall.sdk.volume import Volume, VolumeUpload


@click.command("put", epilog="Example: squall volume put weights model.bin checkpoints/")
@environment_option
@click.argument("name")
@click.argument("local")
@click.argument("remote", default="/")
@click.option("-f", "--force", "is_forced", is_flag=True, help="Replace files that are there.")
def put(name: str, local: str, remote: str, is_forced: bool) -> None:
    """Put a file or directory into volume NAME, all of it or nothing.

    A file comes into REMOTE where that ends with a slash, and is called REMOTE otherwise. Of a directory comes all that
    is in it. LOCAL may be - for what is piped in. Put again what was cut off: what came is not sent twice.
    """
    require_server()
    upload = VolumeUpload(Volume.from_id(asset_of(name).asset_id))
    try:
        _plan(upload, local, remote)
        with Progress(f"Putting into {name}", upload.size_bytes()) as progress:
            version = run(upload.send(is_forced=is_forced, progress=progress.add))
    except OSError as error:
        # Among these are also FileExistsErrors of the volume, which tell all by themselves.
        if error.errno is None:
            raise
        raise click.ClickException(f"cannot read {error.filename or local}: {error.strerror}") from error
    if version is None:
        click.echo(f"There is nothing in {local} to put.", err=True)
        return
    what = f"{tables.counted(upload.file_count, 'file')}, {size_text(progress.done_bytes)}"
    click.echo(f"Uploaded {local} to {remote}: {what}. Volume {name} is at version {version.number}.", err=True)


def _plan(upload: VolumeUpload, local: str, remote: str) -> None:
    if local == "-":
        if not remote.strip("/") or remote.endswith("/"):
            raise click.UsageError("what is piped in has no name: say what it is to be called, as in: put NAME - a.txt")
        upload.put_file(sys.stdin.buffer, remote)
    elif os.path.isdir(local):
        upload.put_directory(local, remote)
    elif os.path.lexists(local):
        name = os.path.basename(local)
        upload.put_file(local, f"{remote.rstrip('/')}/{name}" if remote.endswith("/") else remote)
    else:
        raise click.ClickException(f"there is no {local!r} on this machine")
