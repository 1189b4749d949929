"""`squall volume`: files that outlive containers, with all their versions."""

from __future__ import annotations

import json

import click

from squall.cli import tables
from squall.cli.asset import all_of
from squall.cli.confirmation import confirm
from squall.cli.environment import environment_option
from squall.cli.server_calls import ask, require_server
from squall.cli.volume_download import get
from squall.cli.volume_files import at, copy, ls, remove
from squall.cli.volume_history import diff, gc, history, retention, rollback
from squall.cli.volume_target import as_argument, asset_of, retention_text
from squall.cli.volume_upload import put
from squall.protocol.asset import VOLUME, AssetDelete, AssetInfo, AssetRename
from squall.protocol.empty import Empty
from squall.protocol.volume import VolumeRetention, VolumeRetentionPut, VolumeUsage, VolumeUsageGet
from squall.sdk._asset import check_name, creation
from squall.sdk._environment import environment_of
from squall.sdk._terminal_text import size_text
from squall.sdk.volume import FILE_SYSTEMS

SAMPLE = """Use it in a function, where it is the directory /data:

    @app.function(volumes={{"/data": squall.Volume.from_name("{name}")}})
    def train():
        open("/data/model.bin", "wb").write(b"…")

Put files into it from here: squall volume put {argument} FILE"""


@click.group("volume", epilog="Example: squall volume put weights model.bin")
def volume_group() -> None:
    """Volumes: files that outlive containers."""


@volume_group.command("create", epilog="Example: squall volume create weights")
@environment_option
@click.argument("name")
@click.option(
    "--version",
    type=click.Choice([str(kind) for kind in FILE_SYSTEMS]),
    default=None,
    help="Which kind of volume it is elsewhere; here all are of one kind.",
)
def create(name: str, version: str | None) -> None:
    """Make a volume."""
    record = creation(VOLUME, check_name(name, "NAME"), environment_of(None), may_exist=False)
    info = ask("AssetCreate", record, AssetInfo)
    sample = SAMPLE.format(name=name, argument=as_argument(name))
    click.echo(f"Created volume {info.name} in environment {info.environment}.\n\n{sample}", err=True)


@volume_group.command("list", epilog="Example: squall volume list --json")
@environment_option
@click.option("--json", "is_json", is_flag=True, help="As JSON.")
def list_volumes(is_json: bool) -> None:
    """List volumes, the newest first."""
    rows = [
        (one.name, one.asset_id, tables.local_time(one.created_at), one.created_by or None) for one in all_of(VOLUME)
    ]
    headings = ("Name", "Volume ID", "Created at", "Created by")
    tables.show(headings, rows, is_json=is_json, spare=("Volume ID",), is_of_all=True)


@volume_group.command("info", epilog="Example: squall volume info weights")
@environment_option
@click.argument("name")
@click.option("--json", "is_json", is_flag=True, help="As JSON.")
def info(name: str, is_json: bool) -> None:
    """Show a volume: how much of the disk it takes, and which of its versions stay."""
    require_server()
    asset = asset_of(name)
    usage = ask("VolumeUsageGet", VolumeUsageGet(asset.asset_id), VolumeUsage)
    kept = ask("VolumeRetentionPut", VolumeRetentionPut(asset.asset_id), VolumeRetention)
    if is_json:
        plain = {
            **tables.plain(asset),
            "created_at": tables.local_time(asset.created_at),
            "usage": tables.plain(usage),
            "retention": tables.plain(kept),
        }
        click.echo(json.dumps(plain, indent=2))
        return
    shared = usage.stored_bytes - usage.own_bytes
    facts = [
        ("Name", asset.name),
        ("Volume ID", asset.asset_id),
        ("Environment", asset.environment),
        ("Created at", tables.local_time(asset.created_at)),
        ("Created by", asset.created_by or "-"),
        ("Files now", size_text(usage.head_bytes)),
        ("On disk", f"{size_text(usage.stored_bytes)}, {size_text(shared)} of it shared with other volumes"),
        ("Versions", f"{tables.counted(usage.version_count, 'version')}, the oldest is {usage.oldest}"),
        ("Which stay", retention_text(kept)),
    ]
    if not usage.version_count:
        facts[-2] = ("Versions", "none yet")
    for heading, value in facts:
        click.echo(f"{heading:<12} {value}")


@volume_group.command("rename", epilog="Example: squall volume rename weights old-weights --yes")
@environment_option
@click.argument("old_name")
@click.argument("new_name")
@click.option("-y", "--yes", is_flag=True, help="Do not ask.")
def rename(old_name: str, new_name: str, yes: bool) -> None:
    """Give a volume another name."""
    names = check_name(old_name, "OLD_NAME"), check_name(new_name, "NEW_NAME")
    require_server()
    if not yes:
        asset_of(old_name)
        confirm(f"Rename volume {old_name} to {new_name}? Programs that use the old name will not find it.")
    ask("AssetRename", AssetRename(VOLUME, *names, environment_of(None)), AssetInfo)
    click.echo(f"Renamed {old_name} to {new_name}.", err=True)


@volume_group.command("delete", epilog="Example: squall volume delete weights --yes")
@environment_option
@click.argument("name")
@click.option("--allow-missing", is_flag=True, help="It is no failure if there is none.")
@click.option("-y", "--yes", is_flag=True, help="Do not ask.")
def delete(name: str, allow_missing: bool, yes: bool) -> None:
    """Delete a volume with all of its versions, for good."""
    require_server()
    found = asset_of(name, may_miss=allow_missing)
    if found is None:
        click.echo(f"There is no volume {name}.", err=True)
        return
    if not yes:
        confirm(f"Delete volume {found.name or found.asset_id} with all of its versions, for good?")
    # By its id: another one may have the name by now.
    ask("AssetDelete", AssetDelete(VOLUME, found.asset_id, environment_of(None)), Empty)
    click.echo(f"Deleted volume {found.name or found.asset_id}.", err=True)


for command in (ls, get, put, remove, copy, at, history, rollback, diff, retention, gc):
    volume_group.add_command(command)
