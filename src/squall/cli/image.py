"""`squall image`: images, and their way to registries and files."""

from __future__ import annotations

import click

from squall.cli.image_transfer import export, push


@click.group("image", epilog="Example: squall image push registry.example.com/team/app:1 --image im-…")
def image_group() -> None:
    """Images: what containers start from."""


image_group.add_command(push)
image_group.add_command(export)
