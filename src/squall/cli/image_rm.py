"""`squall image rm`: remove single images, by id or by name."""

from __future__ import annotations

import click

from squall.cli.confirmation import confirm
from squall.cli.environment import environment_option
from squall.cli.server_calls import ask, require_server
from squall.protocol.image_catalog import ImageDelete, ImageDeleteDone, LayerUse
from squall.sdk._environment import environment_of
from squall.sdk._terminal_text import size_text


@click.command("rm", epilog="Example: squall image rm web:old --yes")
@environment_option
@click.argument("images", metavar="NAME_OR_ID...", nargs=-1, required=True)
@click.option("-y", "--yes", is_flag=True, help="Do not ask.")
def remove(images: tuple[str, ...], yes: bool) -> None:
    """Remove images that nothing needs, by name or id.

    An id may be shortened. A name is taken away, and its image goes with the last name it has. Layers that other images
    have as well stay.
    """
    require_server()
    if not yes:
        query = ImageDelete(images, is_dry_run=True, environment=environment_of(None))
        confirm(_question(ask("ImageDelete", query, ImageDeleteDone)))
    # Layers may have to be deleted, which takes as long as it takes: the server has a limit of its own.
    _tell(ask("ImageDelete", ImageDelete(images, environment=environment_of(None)), ImageDeleteDone))


def _question(dry: ImageDeleteDone) -> str:
    what = [f"the name {name}" for name in dry.names]
    what += [f"image {image_id}" for image_id in dry.image_ids]
    freed = f" and free {size_text(_freed_bytes(dry))}" if dry.image_ids else ""
    return f"Remove {', '.join(what)}{freed}?"


def _tell(done: ImageDeleteDone) -> None:
    """What was removed, and what was not.

    Raises:
        click.ClickException: an image stays that was to go.
    """
    for name in done.names:
        click.echo(f"Deleted the name {name}.", err=True)
    for image_id in done.image_ids:
        click.echo(f"Removed {image_id}.", err=True)
    for image_id, names in done.named.items():
        click.echo(f"{image_id} stays: it is also called {', '.join(names)}.", err=True)
    layers = _layers(done)
    if layers:
        removed, stay = sum(use.is_removed for use in layers), sum(not use.is_removed for use in layers)
        click.echo(f"Freed {size_text(_freed_bytes(done))}: {removed} layers removed, {stay} stay.", err=True)
    if done.away_node_ids:
        nodes = ", ".join(done.away_node_ids)
        click.echo(f"Not connected: {nodes}. What is there goes with `squall image gc` when it is back.", err=True)
    if done.kept:
        said = "; ".join(f"{image_id} stays: {', '.join(why)}" for image_id, why in done.kept.items())
        raise click.ClickException(f"{said}; try again with the id when that is over")


def _layers(done: ImageDeleteDone) -> list[LayerUse]:
    return [use for node in done.nodes for use in node.layers]


def _freed_bytes(done: ImageDeleteDone) -> int:
    return sum(node.freed_bytes for node in done.nodes)
