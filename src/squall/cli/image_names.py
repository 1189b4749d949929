"""`squall image names`: what images are published as."""

from __future__ import annotations

import click

from squall.cli import tables
from squall.cli.confirmation import confirm
from squall.cli.environment import environment_option
from squall.cli.server_calls import ask, is_list_empty, require_server
from squall.protocol.empty import Empty
from squall.protocol.image_catalog import ImageNameDelete, ImageNameList, ImageNameListing
from squall.sdk._environment import environment_of


@click.group("names", epilog="Example: squall image names list --prefix web")
def names_group() -> None:
    """Names: what images are published as."""


@names_group.command("list", epilog="Example: squall image names list --prefix web:")
@environment_option
@click.option("--prefix", default="", help="Only names that begin so.")
@click.option("--all", "is_all", is_flag=True, help="Also what they pointed to before, the newest first.")
@click.option("--json", "is_json", is_flag=True, help="As JSON.")
def list_names(prefix: str, is_all: bool, is_json: bool) -> None:
    """List names and the images they point to."""
    if is_list_empty():
        listing = ImageNameListing(())
    else:
        query = ImageNameList(prefix, environment_of(None), include_earlier=is_all, limit=tables.LIST_MAX)
        listing = ask("ImageNameList", query, ImageNameListing)
    rows = [
        (
            one.name,
            one.image_id,
            tables.local_time(one.published_at),
            one.is_current if is_json else _now(one.is_current),
        )
        for one in listing.names
    ]
    headings = ("Name", "Image ID", "Published at", "Is current" if is_json else "Now")
    shown = len(headings) if is_all or is_json else len(headings) - 1
    tables.show(headings[:shown], [row[:shown] for row in rows], is_json=is_json, is_of_all=True)


def _now(is_current: bool) -> str | None:
    return "yes" if is_current else None


@names_group.command("delete", epilog="Example: squall image names delete web:old --yes")
@environment_option
@click.argument("name")
@click.option("-y", "--yes", is_flag=True, help="Do not ask.")
def delete(name: str, yes: bool) -> None:
    """Take NAME away.

    Its image stays for as long as something else needs it.
    """
    require_server()
    if not yes:
        confirm(f"Delete the name {name}?")
    ask("ImageNameDelete", ImageNameDelete(name, environment_of(None)), Empty)
    click.echo(f"Deleted {name}.", err=True)
