"""Which volume and which version of it a command means."""

from __future__ import annotations

from typing import overload

import click

from squall.cli.log import moment_of
from squall.cli.server_calls import ask
from squall.exception import NotFoundError
from squall.protocol.asset import VOLUME, AssetGet, AssetInfo
from squall.protocol.volume import VolumeRetention, VolumeVersion, VolumeVersionGet
from squall.sdk._environment import environment_of

version_option = click.option(
    "--version", type=click.IntRange(min=0), metavar="N", default=None, help="As version N of its history had it."
)


def as_argument(name: str) -> str:
    """A name as it is typed behind all options: one may begin with a dash, and would be taken for an option."""
    return f"-- {name}" if name.startswith("-") else name


@overload
def asset_of(name: str) -> AssetInfo: ...


@overload
def asset_of(name: str, *, may_miss: bool) -> AssetInfo | None: ...


def asset_of(name: str, *, may_miss: bool = False) -> AssetInfo | None:
    """The volume of that name or id; None where there is none and that is fine.

    Raises:
        NotFoundError: there is none.
    """
    try:
        return ask("AssetGet", AssetGet(VOLUME, name, environment_of(None)), AssetInfo)
    except NotFoundError:
        if not may_miss:
            raise
    return None


def version_at(volume_id: str, when: str) -> VolumeVersion:
    """The version of that number, or the one that was the newest at that time.

    Raises:
        NotFoundError: it is not kept, or never was.
        click.UsageError: that is neither.
    """
    if when.isascii() and when.isdigit():
        record = VolumeVersionGet(volume_id, version=int(when))
    else:
        record = VolumeVersionGet(volume_id, at=moment_of(when))
    return ask("VolumeVersionGet", record, VolumeVersion)


def retention_text(kept: VolumeRetention) -> str:
    """Which versions stay, in words."""
    newest = "the newest version" if kept.count == 1 else f"the newest {kept.count:,} versions"
    return f"{newest} and those of the last {kept.days:g} days" if kept.days else newest
