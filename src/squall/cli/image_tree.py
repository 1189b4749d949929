"""Which images share which layers, as a tree: what is drawn once is on the disk once."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import takewhile
from typing import Any

from squall.cli import tables
from squall.protocol.image import BuiltLayer
from squall.protocol.image_catalog import ImageInfo
from squall.sdk._terminal_text import size_text


@dataclass(slots=True)
class Branch:
    """Layers, one on the other, that the same images have; which images end with them, and what goes on from them."""

    layers: list[BuiltLayer]
    images: list[ImageInfo] = field(default_factory=list)
    branches: list[Branch] = field(default_factory=list)

    @property
    def size_bytes(self) -> int:
        """Of its own layers."""
        return sum(layer.size_bytes for layer in self.layers)

    @property
    def image_count(self) -> int:
        """Of all that stand on its layers."""
        return len(self.images) + sum(branch.image_count for branch in self.branches)

    def to_json(self) -> dict[str, Any]:
        """For programs."""
        return {
            "layers": [layer.layer_id for layer in self.layers],
            "size_bytes": self.size_bytes,
            "images": [image.image_id for image in self.images],
            "branches": [branch.to_json() for branch in self.branches],
        }


def grow(images: Sequence[ImageInfo]) -> list[Branch]:
    """The trees of these images, the one that most stand on first. An image whose layers are not known is one alone."""
    return _grow([(image, image.layers) for image in images])


def _grow(rest: list[tuple[ImageInfo, tuple[BuiltLayer, ...]]]) -> list[Branch]:
    branches = [Branch([], [image]) for image, layers in rest if not layers]
    by_first: dict[str, list[tuple[ImageInfo, tuple[BuiltLayer, ...]]]] = {}
    for image, layers in rest:
        if layers:
            by_first.setdefault(layers[0].layer_id, []).append((image, layers))
    for group in by_first.values():
        count = _shared(group)
        branch = Branch(list(group[0][1][:count]))
        branch.images = [image for image, layers in group if len(layers) == count]
        branch.branches = _grow([(image, layers[count:]) for image, layers in group if len(layers) > count])
        branches.append(branch)
    return sorted(branches, key=lambda branch: (-branch.image_count, -branch.size_bytes))


def _shared(group: Sequence[tuple[ImageInfo, tuple[BuiltLayer, ...]]]) -> int:
    """How many layers all of them begin with."""
    columns = zip(*([layer.layer_id for layer in layers] for _, layers in group), strict=False)
    return sum(1 for _ in takewhile(lambda column: len(set(column)) == 1, columns))


def draw(branches: Sequence[Branch]) -> Iterator[str]:
    """Lines for people."""
    for branch in branches:
        yield _text(branch)
        yield from _below(branch, "")


def _below(branch: Branch, indent: str) -> Iterator[str]:
    children: list[ImageInfo | Branch] = [*branch.images, *branch.branches]
    for child in children:
        is_last = child is children[-1]
        yield f"{indent}{'└── ' if is_last else '├── '}{_text(child)}"
        if isinstance(child, Branch):
            yield from _below(child, indent + ("    " if is_last else "│   "))


def _text(child: ImageInfo | Branch) -> str:
    if isinstance(child, ImageInfo):
        names = f"  {', '.join(child.names)}" if child.names else ""
        return f"{child.image_id}{names}  {size_text(child.size_bytes)} in all"
    if not child.layers:
        return "layers that are not known here"
    first = child.layers[0].layer_id
    what = first if len(child.layers) == 1 else f"{first} and {len(child.layers) - 1} more"
    count = child.image_count
    return f"{what}  {size_text(child.size_bytes)}  {f'({count} images)' if count > 1 else '(1 image)'}"


def totals(images: Sequence[ImageInfo]) -> str:
    """What all of them occupy, and what that would be if they shared nothing."""
    layers = {layer.layer_id: layer.size_bytes for image in images for layer in image.layers}
    alone = sum(image.size_bytes for image in images)
    occupied = f"{tables.counted(len(layers), 'layer')} with {size_text(sum(layers.values()))}"
    return f"{tables.counted(len(images), 'image')}, {occupied}; without sharing {size_text(alone)}"
