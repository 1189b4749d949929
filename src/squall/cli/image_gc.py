"""`squall image gc`: remove layers that nothing needs, from nodes or from their store."""

from __future__ import annotations

import re
from collections.abc import Sequence

import click

from squall.cli import tables
from squall.cli.server_calls import ask, follow, require_server
from squall.protocol.image_catalog import ImageGc, ImageGcDone, LayerUse, NodeGc
from squall.protocol.image_store import ImageStoreGc, StoreGcEvent
from squall.sdk._terminal_text import size_text

_SPAN = re.compile(r"^(\d+(?:\.\d+)?)(s|m|h|d)?$")
_SECONDS = {"s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_DAYS = int(ImageGc().older_than_s / _SECONDS["d"])


@click.command("gc", epilog="Example: squall image gc --dry-run")
@click.option(
    "--older-than", default=None, metavar="TIME", help=f"Not used for so long: 12h, 7d, or days [default: {_DAYS}d]."
)
@click.option("--all", "is_all", is_flag=True, help="However lately it was used.")
@click.option("--dry-run", "is_dry_run", is_flag=True, help="Only show each layer, and whether it would go.")
@click.option("--store", "is_store", is_flag=True, help="From the store that nodes share, not from the nodes.")
@click.option("--json", "is_json", is_flag=True, help="As JSON: every layer; of a store what is there of each kind.")
def gc(older_than: str | None, is_all: bool, is_dry_run: bool, is_store: bool, is_json: bool) -> None:
    """Remove layers that nothing needs.

    Those are layers that no container, build, app or name needs and that were not used lately. From a store go images
    that were not used for 30 days, and 7 days later what only they had.
    """
    if is_all and older_than is not None:
        raise click.UsageError("--all and --older-than say different things; give one of them")
    if is_store:
        if is_all:
            raise click.UsageError("--all is of nodes; what was used in the last 7 days stays in a store")
        span_s = ImageStoreGc().older_than_s if older_than is None else _span(older_than)
        _collect_store(ImageStoreGc(span_s, is_dry_run), is_json=is_json)
        return
    older_than_s = 0.0 if is_all else ImageGc().older_than_s if older_than is None else _span(older_than)
    require_server()
    # Layers may have to be deleted, which takes as long as it takes: the server has a limit of its own.
    done = ask("ImageGc", ImageGc(older_than_s, is_dry_run), ImageGcDone)
    rows = [
        _row(node, layer, is_dry_run=is_dry_run, is_json=is_json)
        for node in done.nodes
        for layer in node.layers
        if is_dry_run or is_json or layer.is_removed
    ]
    headings = ["Node ID", "Layer ID", "Size", "Made", "Used", "Images", "Used by", "Fate"]
    if is_json:
        headings = ["Node ID", "Layer ID", "Size bytes", "Made at", "Used at", "Images", "Used by", "Is removed"]
    # One node is what most have.
    first = 0 if is_json or len(done.nodes) > 1 else 1
    if rows or is_json:
        tables.show(headings[first:], [row[first:] for row in rows], is_json=is_json)
    _tell(done.nodes, is_dry_run=is_dry_run)


def _collect_store(record: ImageStoreGc, *, is_json: bool) -> None:
    require_server()
    for event, _ in follow("ImageStoreGc", record, StoreGcEvent):
        if event.kind == "line":
            click.echo(event.text, err=True)
        elif event.kind == "done":
            _show_store(event, record, is_json=is_json)


def _show_store(done: StoreGcEvent, record: ImageStoreGc, *, is_json: bool) -> None:
    kinds = {"images": done.images, "removed images": done.waiting, "layers": done.layers, "blocks": done.blocks}
    size = (lambda size_bytes: size_bytes) if is_json else size_text
    removed = "Would go" if record.is_dry_run and not is_json else "Removed"
    headings = ["Kind", "Objects", "Size bytes" if is_json else "Size", removed, "Freed bytes" if is_json else "Frees"]
    rows = [
        (kind, found.count, size(found.size_bytes), found.removed, size(found.removed_bytes))
        for kind, found in kinds.items()
    ]
    tables.show(headings, rows, is_json=is_json)
    freed = size_text(sum(found.removed_bytes for found in kinds.values()))
    click.echo(f"{'Would free' if record.is_dry_run else 'Freed'} {freed} of {done.store}.", err=True)
    if done.images.removed:
        goes = "would go 7 days later" if record.is_dry_run else "goes with the first run in 7 days"
        click.echo(f"What only the {done.images.removed} removed images have {goes}.", err=True)


def _row(node: NodeGc, layer: LayerUse, *, is_dry_run: bool, is_json: bool) -> tuple[object, ...]:
    images = tables.several(layer.image_ids, is_json=is_json)
    users = tables.several(layer.users, is_json=is_json)
    if is_json:
        times = (tables.local_time(layer.made_at), tables.local_time(layer.used_at))
        return (node.node_id, layer.layer_id, layer.size_bytes, *times, images, users, layer.is_removed)
    if layer.is_removed:
        fate = "would go" if is_dry_run else "removed"
    else:
        fate = "stays" if layer.users else "stays, used lately"
    ages = (tables.ago(layer.made_at), tables.ago(layer.used_at))
    return (node.node_id, layer.layer_id, size_text(layer.size_bytes), *ages, images, users, fate)


def _tell(nodes: Sequence[NodeGc], *, is_dry_run: bool) -> None:
    """The sum of it, and what could not be done.

    Raises:
        click.ClickException: a node removed nothing.
    """
    removed = sum(layer.is_removed for node in nodes for layer in node.layers)
    stay = sum(not layer.is_removed for node in nodes for layer in node.layers)
    freed = size_text(sum(node.freed_bytes for node in nodes))
    said = f"Would free {freed}: {removed} would go" if is_dry_run else f"Freed {freed}: {removed} removed"
    click.echo(f"{said}, {stay} stay.", err=True)
    failed = [f"node {node.node_id}: {node.error}" for node in nodes if node.error]
    if failed:
        raise click.ClickException("nothing was removed from " + "; ".join(failed))


def _span(text: str) -> float:
    found = _SPAN.match(text)
    if not found:
        raise click.UsageError(f"{text!r} is no time; write 12h, 7d, or a number of days")
    return float(found.group(1)) * _SECONDS[found.group(2) or "d"]
