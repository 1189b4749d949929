"""`squall volume ls`, `at`, `cp` and `rm`: what is in a volume, and changes within it."""

from __future__ import annotations

import sys
from collections.abc import Iterator

import click

from squall.cli import tables
from squall.cli.environment import environment_option
from squall.cli.server_calls import ask, ask_pages, require_server
from squall.cli.volume_target import as_argument, asset_of, version_at, version_option
from squall.protocol.ids import new_id
from squall.protocol.volume import (
    DIRECTORY,
    SYMLINK,
    VolumeCommitted,
    VolumeCopy,
    VolumeEntry,
    VolumeList,
    VolumeListing,
    VolumeRemove,
    from_wire,
    to_wire,
)
from squall.sdk._terminal_text import for_stream
from squall.sdk._user import user_name

_KINDS = {DIRECTORY: "dir", SYMLINK: "link"}


@click.command("ls", epilog="Example: squall volume ls weights checkpoints")
@environment_option
@click.argument("name")
@click.argument("path", default="/")
@click.option("-r", "--recursive", "is_deep", is_flag=True, help="Also what is deeper.")
@version_option
@click.option("--json", "is_json", is_flag=True, help="As JSON.")
def ls(name: str, path: str, is_deep: bool, version: int | None, is_json: bool) -> None:
    """List what is in a directory of volume NAME, or one file."""
    require_server()
    _show(asset_of(name).asset_id, path, is_deep=is_deep, version=version, is_json=is_json)


@click.command("at", epilog="Example: squall volume at weights 2h checkpoints")
@environment_option
@click.argument("name")
@click.argument("when", metavar="VERSION_OR_TIME")
@click.argument("path", default="/")
@click.option("-r", "--recursive", "is_deep", is_flag=True, help="Also what is deeper.")
@click.option("--json", "is_json", is_flag=True, help="As JSON.")
def at(name: str, when: str, path: str, is_deep: bool, is_json: bool) -> None:
    """List what was in volume NAME then.

    That is a version's number, a time as 2026-01-31T12:00, or how long ago: 2h, 1d.
    """
    require_server()
    volume_id = asset_of(name).asset_id
    found = version_at(volume_id, when)
    made = f", made at {tables.local_time(found.created_at)}" if found.number else ": empty"
    click.echo(
        f"Version {found.number}{made}. Get files of it: "
        f"squall volume get --version {found.number} {as_argument(name)} PATH",
        err=True,
    )
    _show(volume_id, path, is_deep=is_deep, version=found.number, is_json=is_json)


def entries(volume_id: str, path: str, *, is_deep: bool, version: int | None) -> Iterator[VolumeEntry]:
    """What is in a directory, all of one version; of a file, itself."""
    wanted = VolumeList(volume_id, to_wire(path), is_deep=is_deep, version=version)
    for page in ask_pages("VolumeList", wanted, VolumeListing):
        yield from page.entries


def _show(volume_id: str, path: str, *, is_deep: bool, version: int | None, is_json: bool) -> None:
    rows = [
        (
            shown_path(one.path, is_json=is_json),
            one.kind if is_json else _KINDS.get(one.kind, one.kind),
            tables.local_time(one.mtime_ns / 1e9),
            tables.size(one.size, is_json=is_json),
            from_wire(one.target) or None,
        )
        for one in entries(volume_id, path, is_deep=is_deep, version=version)
    ]
    # Links are few: people see what they point to where there are any.
    shown = 5 if is_json or any(row[4] for row in rows) else 4
    size = "Size bytes" if is_json else "Size"
    headings = ("Filename", "Type", "Modified", size, "Target")
    tables.show(headings[:shown], [row[:shown] for row in rows], is_json=is_json)


def shown_path(path: str, *, is_json: bool = False) -> str:
    """A path as it is printed: nothing that a terminal would obey, and what is no UTF-8 as that character."""
    text = from_wire(path)
    if is_json:
        return text
    return for_stream(sys.stdout, text.encode("utf-8", "surrogateescape").decode("utf-8", "replace"))


@click.command("rm", epilog="Example: squall volume rm weights checkpoints/1 --recursive")
@environment_option
@click.argument("name")
@click.argument("path")
@click.option("-r", "--recursive", "is_deep", is_flag=True, help="A directory with all that is in it.")
def remove(name: str, path: str, is_deep: bool) -> None:
    """Remove a path of volume NAME.

    Versions that had it still have it.
    """
    require_server()
    record = VolumeRemove(asset_of(name).asset_id, new_id("rq"), to_wire(path), is_deep, user_name())
    version = ask("VolumeRemove", record, VolumeCommitted).version
    assert version is not None, "there are no pages"
    what = f"{tables.counted(version.removed_count, 'path')} of volume {name}"
    click.echo(f"Removed {what}, which is at version {version.number}.", err=True)


@click.command("cp", epilog="Example: squall volume cp weights best.bin backup/")
@environment_option
@click.argument("name")
@click.argument("paths", metavar="SOURCE... TARGET", nargs=-1, required=True)
@click.option("-r", "--recursive", "is_deep", is_flag=True, help="Directories with all that is in them.")
def copy(name: str, paths: tuple[str, ...], is_deep: bool) -> None:
    """Copy within volume NAME, as cp does; no byte is stored twice."""
    *sources, target = paths
    if not sources:
        raise click.UsageError("name at least one source, and the target")
    require_server()
    wired = tuple(map(to_wire, sources))
    record = VolumeCopy(asset_of(name).asset_id, new_id("rq"), wired, to_wire(target), is_deep, user_name())
    version = ask("VolumeCopy", record, VolumeCommitted).version
    assert version is not None, "there are no pages"
    click.echo(f"Copied to {target} of volume {name}, which is at version {version.number}.", err=True)
