"""`squall volume history`, `rollback`, `diff`, `retention` and `gc`: the versions of a volume."""

from __future__ import annotations

import json

import click

from squall.cli import tables
from squall.cli.environment import environment_option
from squall.cli.server_calls import ask, ask_pages, require_server
from squall.cli.volume_files import shown_path
from squall.cli.volume_target import asset_of, retention_text, version_at
from squall.protocol.ids import new_id
from squall.protocol.records import replace
from squall.protocol.volume import (
    DIRECTORY,
    VolumeCollected,
    VolumeCommitted,
    VolumeDiff,
    VolumeDifference,
    VolumeDifferences,
    VolumeEntry,
    VolumeGc,
    VolumeHistory,
    VolumeHistoryGet,
    VolumeRetention,
    VolumeRetentionPut,
    VolumeRollback,
    from_wire,
)
from squall.sdk._terminal_text import size_text
from squall.sdk._user import user_name


@click.command("history", epilog="Example: squall volume history weights")
@environment_option
@click.argument("name")
@click.option(
    "-n",
    "--limit",
    type=click.IntRange(min=1),
    metavar="N",
    default=20,
    show_default=True,
    help="At most N, the newest first.",
)
@click.option("--json", "is_json", is_flag=True, help="As JSON.")
def history(name: str, limit: int, is_json: bool) -> None:
    """List the versions of volume NAME, and what made each."""
    require_server()
    wanted = VolumeHistoryGet(asset_of(name).asset_id, limit)
    rows = [
        (
            one.number,
            tables.local_time(one.created_at),
            one.created_by or None,
            one.cause or None,
            one.entry_count,
            tables.size(one.size, is_json=is_json),
            one.put_count,
            one.removed_count,
        )
        for page in ask_pages("VolumeHistoryGet", wanted, VolumeHistory)
        for one in page.versions
    ]
    size = "Size bytes" if is_json else "Size"
    headings = ("Version", "Created at", "By", "Cause", "Paths", size, "Put", "Removed")
    tables.show(headings, rows, is_json=is_json, spare=("By", "Removed", "Put"))


@click.command("rollback", epilog="Example: squall volume rollback weights 3")
@environment_option
@click.argument("name")
@click.argument("version", type=click.IntRange(min=0))
def rollback(name: str, version: int) -> None:
    """Make an earlier version of volume NAME the newest again.

    It becomes a new version: nothing of the history goes. 0 is the empty volume.
    """
    require_server()
    record = VolumeRollback(asset_of(name).asset_id, new_id("rq"), version, user_name())
    made = ask("VolumeRollback", record, VolumeCommitted).version
    assert made is not None, "there are no pages"
    click.echo(f"Volume {name} is as in version {version}: that is version {made.number} now.", err=True)


@click.command("diff", epilog="Example: squall volume diff weights 3 5")
@environment_option
@click.argument("name")
@click.argument("before", metavar="VERSION_OR_TIME")
@click.argument("after", metavar="[VERSION_OR_TIME]", required=False)
@click.option("--json", "is_json", is_flag=True, help="As JSON.")
def diff(name: str, before: str, after: str | None, is_json: bool) -> None:
    """Show how two versions of volume NAME differ, the second being the newest where none is named.

    One path a line: + was put, - was removed, ~ was changed.
    """
    require_server()
    volume_id = asset_of(name).asset_id
    second = None if after is None else version_at(volume_id, after).number
    wanted = VolumeDiff(volume_id, version_at(volume_id, before).number, second)
    pages = ask_pages("VolumeDiff", wanted, VolumeDifferences)
    found = sorted((one for page in pages for one in page.paths), key=lambda one: from_wire(_entry(one).path))
    if is_json:
        click.echo(json.dumps([_plain(one) for one in found], indent=2))
        return
    for one in found:
        click.echo(f"{_sign(one)} {_path(one)}")
    counts = {sign: sum(_sign(one) == sign for one in found) for sign in "+-~"}
    click.echo(f"{counts['+']} put, {counts['-']} removed, {counts['~']} changed.", err=True)


def _sign(one: VolumeDifference) -> str:
    return "+" if one.before is None else "-" if one.after is None else "~"


def _entry(one: VolumeDifference) -> VolumeEntry:
    entry = one.after or one.before
    assert entry is not None, "one of them is there"
    return entry


def _path(one: VolumeDifference) -> str:
    entry = _entry(one)
    return shown_path(entry.path) + ("/" if entry.kind == DIRECTORY else "")


def _plain(one: VolumeDifference) -> dict[str, object]:
    return {
        "change": _sign(one),
        "path": from_wire(_entry(one).path),
        "before": None if one.before is None else tables.plain(one.before),
        "after": None if one.after is None else tables.plain(one.after),
    }


@click.command("retention", epilog="Example: squall volume retention weights --count 50 --days 30")
@environment_option
@click.argument("name")
@click.option("-n", "--count", type=click.IntRange(min=1), metavar="N", default=None, help="The N newest stay.")
@click.option("--days", type=click.FloatRange(min=0), metavar="D", default=None, help="Those of the last D days stay.")
@click.option("--json", "is_json", is_flag=True, help="As JSON.")
def retention(name: str, count: int | None, days: float | None, is_json: bool) -> None:
    """Show which versions of volume NAME stay, or say which."""
    require_server()
    volume_id = asset_of(name).asset_id
    kept = ask("VolumeRetentionPut", VolumeRetentionPut(volume_id), VolumeRetention)
    if count is not None or days is not None:
        wanted = replace(kept, count=kept.count if count is None else count, days=kept.days if days is None else days)
        kept = ask("VolumeRetentionPut", VolumeRetentionPut(volume_id, wanted), VolumeRetention)
    if is_json:
        click.echo(json.dumps(tables.plain(kept), indent=2))
        return
    click.echo(f"Of volume {name} stay {retention_text(kept)}.", err=True)


@click.command("gc", epilog="Example: squall volume gc --dry-run")
@environment_option
@click.argument("name", required=False)
@click.option("--dry-run", "is_dry_run", is_flag=True, help="Only say what would go.")
@click.option("--json", "is_json", is_flag=True, help="As JSON.")
def gc(name: str | None, is_dry_run: bool, is_json: bool) -> None:
    """Forget versions that need not stay, of volume NAME or of all, and free what only they had.

    The server does that by itself, too, every now and then.
    """
    require_server()
    volume_id = "" if name is None else asset_of(name).asset_id
    # Much may have to be looked through: that takes as long as it takes.
    done = ask("VolumeGc", VolumeGc(volume_id, is_dry_run), VolumeCollected)
    if is_json:
        click.echo(json.dumps(tables.plain(done), indent=2))
        return
    versions = tables.counted(done.version_count, "version")
    freed = size_text(done.freed_bytes)
    said = f"Would forget {versions} and free {freed}." if is_dry_run else f"Forgot {versions} and freed {freed}."
    if done.unheard_count:
        stay = tables.counted(done.unheard_count, "version")
        said += f" {stay} more may go when the server has been up for an hour: until then a node may yet need them."
    click.echo(said, err=True)
