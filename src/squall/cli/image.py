"""`squall image`: which images there are, what is in them, and their way to registries and files."""

from __future__ import annotations

import json

import click

from squall.cli import tables
from squall.cli.environment import environment_option
from squall.cli.image_build import build, import_file, pull
from squall.cli.image_gc import gc
from squall.cli.image_names import names_group
from squall.cli.image_rm import remove
from squall.cli.image_transfer import export, push
from squall.cli.image_tree import draw, grow, totals
from squall.cli.log import show_entry
from squall.cli.server_calls import ask, ask_pages, follow, is_list_empty, require_server
from squall.protocol.image import step_title
from squall.protocol.image_catalog import ImageGet, ImageInfo, ImageList, ImageListing, ImageLogRead
from squall.protocol.log import LogBatch
from squall.protocol.records import to_wire
from squall.sdk._environment import environment_of
from squall.sdk._terminal_text import size_text


@click.group("image", epilog="Example: squall image list --json")
def image_group() -> None:
    """Images: what containers start from."""


@image_group.command("list", epilog="Example: squall image list --limit 5")
@click.option(
    "-n",
    "--limit",
    type=click.IntRange(min=1),
    metavar="N",
    default=20,
    show_default=True,
    help="At most N, the last used first.",
)
@click.option("--json", "is_json", is_flag=True, help="As JSON.")
def list_images(limit: int, is_json: bool) -> None:
    """List images, the last used first, with who needs them."""
    rows = [
        (
            image.image_id,
            tables.several(image.names, is_json=is_json),
            tables.size(image.size_bytes, is_json=is_json),
            len(image.layers),
            tables.local_time(image.built_at),
            tables.local_time(image.used_at),
            tables.several(image.users, is_json=is_json),
        )
        for image in _listed(limit)
    ]
    size = "Size bytes" if is_json else "Size"
    tables.show(("Image ID", "Names", size, "Layers", "Built at", "Used at", "Used by"), rows, is_json=is_json)


def _listed(limit: int) -> list[ImageInfo]:
    pages = () if is_list_empty() else ask_pages("ImageList", ImageList(limit), ImageListing)
    return [image for page in pages for image in page.images]


@image_group.command("show", epilog="Example: squall image show web:latest")
@environment_option
@click.argument("image")
@click.option("--json", "is_json", is_flag=True, help="As JSON.")
def show(image: str, is_json: bool) -> None:
    """Show all that is known of IMAGE, its id or name."""
    require_server()
    info = ask("ImageGet", ImageGet(image, environment_of(None)), ImageInfo)
    if is_json:
        click.echo(json.dumps({**to_wire(info), "size_bytes": info.size_bytes}, indent=2))
        return
    config = info.config
    assert config is not None, "a single image comes with it"
    python = f"{config.python_path} {config.python_version}".strip()
    facts: list[tuple[str, object]] = [
        ("Image ID", info.image_id),
        ("Names", tables.several(info.names, is_json=False)),
        (
            "Size",
            f"{size_text(info.size_bytes)} in {tables.counted(len(info.layers), 'layer')}",
        ),
        ("Built at", tables.local_time(info.built_at)),
        ("Used at", tables.local_time(info.used_at)),
        ("Built for", info.app_id or None),
        ("Used by", tables.several(info.users, is_json=False)),
        ("Python", python or None),
        ("Directory", config.workdir or None),
        ("User", config.user or None),
        ("Entrypoint", " ".join(config.entrypoint) or None),
        ("Command", " ".join(config.cmd) or None),
        *(("Variable", f"{name}={value}") for name, value in sorted(config.env.items())),
    ]
    width = max(len(name) for name, _ in facts)
    for name, value in facts:
        click.echo(f"{name.ljust(width)}  {'-' if value is None else value}")


@image_group.command("history", epilog="Example: squall image history im-…")
@environment_option
@click.argument("image")
@click.option("--json", "is_json", is_flag=True, help="As JSON.")
def history(image: str, is_json: bool) -> None:
    """Show the steps of IMAGE, its id or name, with what each added."""
    require_server()
    info = ask("ImageGet", ImageGet(image, environment_of(None)), ImageInfo)
    assert info.spec is not None, "a single image comes with it"
    rows = []
    for number, step in enumerate(info.spec.steps, start=1):
        layers = [layer for layer in info.layers if layer.step == number]
        size_bytes = sum(layer.size_bytes for layer in layers)
        made = tables.several([layer.layer_id for layer in layers], is_json=is_json)
        rows.append((number, step_title(step), tables.size(size_bytes, is_json=is_json) if layers else None, made))
    tables.show(("Step", "What", "Size bytes" if is_json else "Size", "Layers"), rows, is_json=is_json)


@image_group.command("tree", epilog="Example: squall image tree")
@click.option("--json", "is_json", is_flag=True, help="As JSON.")
def tree(is_json: bool) -> None:
    """Draw which images share which layers."""
    images = _listed(tables.LIST_MAX)
    branches = grow(images)
    if is_json:
        click.echo(json.dumps([branch.to_json() for branch in branches], indent=2))
        return
    for line in draw(branches):
        click.echo(line)
    click.echo(totals(images), err=True)
    tables.say_if_cut(len(images))


@image_group.command("logs", epilog="Example: squall image logs im-… --all")
@click.argument("image_id")
@click.option("--layers", type=click.IntRange(min=1), metavar="N", default=None, help="Of the last N [default: 1].")
@click.option("--all", "is_all", is_flag=True, help="Of all layers.")
@click.option("--timestamps", "is_timestamped", is_flag=True, help="Begin each log line with its time.")
def logs(image_id: str, layers: int | None, is_all: bool, is_timestamped: bool) -> None:
    """Show what the steps of an image printed.

    Also those of an image that could not be built.
    """
    if is_all and layers is not None:
        raise click.UsageError("--all and --layers say different things; give one of them")
    require_server()
    for batch, _ in follow("ImageLogRead", ImageLogRead(image_id, 0 if is_all else layers or 1), LogBatch):
        for entry in batch.entries:
            show_entry(entry, is_timestamped)


image_group.add_command(build)
image_group.add_command(remove)
image_group.add_command(gc)
image_group.add_command(names_group)
image_group.add_command(push)
image_group.add_command(export)
image_group.add_command(pull)
image_group.add_command(import_file)
