"""Removal of single images, by id or by name, from every node that is connected.

First everybody is asked, the server and the nodes, whether something needs one of them. Only when nothing does, names
and layers go; what comes to need one in between keeps it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from squall.protocol.errors import CONFLICT, INVALID, NOT_FOUND, PlatformError
from squall.protocol.image import FROM_IMAGE
from squall.protocol.image_catalog import ImageDelete, ImageDeleteDone, ImageRef, NodeGc, NodeImageDelete, parse_name
from squall.server.dispatch.image.catalog import LIST_MAX
from squall.server.dispatch.image.garbage import ask_node

if TYPE_CHECKING:
    from squall.server.dispatch.control_plane import ControlPlane
    from squall.server.dispatch.fleet.node import Node
    from squall.server.model.image import StoredImage

LOOKS_MAX = 20
LOOK_AGAIN_S = 0.5
"""How often, and after how long, nodes are asked again whether they still use an image: a container lets go of it a
moment after its end, and so does what is done behind a build."""


@dataclass(slots=True)
class _Wanted:
    """What is to go."""

    refs: dict[ImageRef, str] = field(default_factory=dict)
    """Names, with the image that each points to."""
    image_ids: list[str] = field(default_factory=list)
    other_names: dict[str, tuple[str, ...]] = field(default_factory=dict)
    """Of images that stay because they have these."""


async def delete_images(plane: ControlPlane, record: ImageDelete) -> ImageDeleteDone:
    """See `ImageDelete`.

    Raises:
        PlatformError: `conflict`, `not_found` or `invalid`; nothing was removed.
    """
    async with plane.image_users.steady:
        images = {image.image_id: image for image in await plane.store.list_images(LIST_MAX)}
        wanted = await _resolve(plane, record, images)
        _refuse_needed(plane, wanted, images)
        nodes = [node for node in plane.fleet.nodes.values() if node.peer is not None]
        looked = await _look(plane, nodes, wanted)
        names = tuple(str(ref) for ref in wanted.refs)
        away = tuple(
            node.node_id
            for node in plane.fleet.nodes.values()
            if node.peer is None and not node.image_ids.isdisjoint(wanted.image_ids)
        )
        if record.is_dry_run:
            return ImageDeleteDone(names, tuple(wanted.image_ids), wanted.other_names, {}, tuple(looked), away)
        for ref in wanted.refs:
            await plane.store.delete_image_name(ref)
        done = await _ask(plane, nodes, wanted, is_dry_run=False)
        kept = _kept(plane, wanted, done)
        for node, result in zip(nodes, done, strict=True):
            for image_id in result.gone_image_ids:
                node.lacks_image(image_id)
        gone = tuple(one for one in wanted.image_ids if one not in kept)
        # Also of those that a node has which is away: there it is one that nobody needs.
        await plane.catalog.forget(frozenset(gone))
    return ImageDeleteDone(names, gone, wanted.other_names, kept, tuple(done), away)


async def _resolve(plane: ControlPlane, record: ImageDelete, images: Mapping[str, StoredImage]) -> _Wanted:
    named = await plane.store.list_image_names()
    wanted = _Wanted()
    by_id: list[str] = []
    for text in record.images:
        if text.startswith("im-"):
            by_id.append(_by_id(text, images))
            continue
        ref = parse_name(text, record.environment)
        found = next((name for name in named if name.ref == ref), None)
        if found is None:
            message = f"ImageDelete: no image is published as {ref}; `squall image names list` shows the names"
            raise PlatformError(NOT_FOUND, message)
        wanted.refs[ref] = found.image_id
    for image_id in dict.fromkeys((*by_id, *wanted.refs.values())):
        others = tuple(str(name.ref) for name in named if name.image_id == image_id and name.ref not in wanted.refs)
        if others and image_id in by_id:
            names = ", ".join(others)
            remedy = f"remove it by its name, or take that away: `squall image names delete {others[0]}`"
            raise PlatformError(CONFLICT, f"ImageDelete: {image_id} is published as {names}; {remedy}")
        if others:
            wanted.other_names[image_id] = others
        else:
            wanted.image_ids.append(image_id)
    return wanted


def _by_id(text: str, images: Mapping[str, StoredImage]) -> str:
    """The image whose id this is, or begins with this."""
    if text in images:
        return text
    found = [image_id for image_id in images if image_id.startswith(text)] if text != "im-" else []
    if len(found) > 1:
        some = ", ".join(sorted(found)[:3])
        more = f" and {len(found) - 3} more" if len(found) > 3 else ""
        message = f"ImageDelete: {len(found)} ids begin with {text[:100]}: {some}{more}; write more of the one you mean"
        raise PlatformError(INVALID, message)
    if not found:
        message = f"ImageDelete: no image {text[:100]} is known here; `squall image list` shows those that are"
        raise PlatformError(NOT_FOUND, message)
    return found[0]


def _refuse_needed(plane: ControlPlane, wanted: _Wanted, images: Mapping[str, StoredImage]) -> None:
    """Raises PlatformError `conflict` for an image that an app, a container or another image needs."""
    users = plane.image_users.now()
    for image_id in wanted.image_ids:
        if image_id in users:
            remedy = "end these first, with `squall app stop` or `squall container stop`"
            names = [ref for ref, named in wanted.refs.items() if named == image_id]
            only = f"; only its name goes with `squall image names delete {names[0]}`" if names else ""
            raise PlatformError(CONFLICT, f"ImageDelete: {_used(image_id, users[image_id])}; {remedy}{only}")
        above = [
            one.image_id
            for one in images.values()
            if one.image_id not in wanted.image_ids
            and any(step.kind == FROM_IMAGE and step.image_id == image_id for step in one.spec.steps)
        ]
        if above:
            message = f"ImageDelete: image {', '.join(above)} begins with {image_id}; remove that one with it, or first"
            raise PlatformError(CONFLICT, message)


async def _look(plane: ControlPlane, nodes: Sequence[Node], wanted: _Wanted) -> list[NodeGc]:
    """What the nodes would remove.

    Raises:
        PlatformError: `conflict`: something on a node needs one of the images.
    """
    for looks_left in range(LOOKS_MAX, 0, -1):
        looked = await _ask(plane, nodes, wanted, is_dry_run=True)
        # A node that cannot answer says nothing of who uses what.
        kept = _kept(plane, wanted, [node for node in looked if not node.error])
        if not kept:
            return looked
        if looks_left > 1:
            await asyncio.sleep(LOOK_AGAIN_S)
    said = "; ".join(_used(image_id, users) for image_id, users in kept.items())
    raise PlatformError(CONFLICT, f"ImageDelete: {said}; end that, or try again when it is over")


async def _ask(plane: ControlPlane, nodes: Sequence[Node], wanted: _Wanted, *, is_dry_run: bool) -> list[NodeGc]:
    if not wanted.image_ids:
        return [NodeGc(node.node_id) for node in nodes]

    def request() -> NodeImageDelete:
        return NodeImageDelete(tuple(wanted.image_ids), is_dry_run, plane.image_users.now())

    return list(await asyncio.gather(*(ask_node(node, "NodeImageDelete", request) for node in nodes)))


def _kept(plane: ControlPlane, wanted: _Wanted, done: Sequence[NodeGc]) -> dict[str, tuple[str, ...]]:
    """Images that are not gone from a node that was asked, and why in words."""
    kept: dict[str, dict[str, None]] = {}
    for node in done:
        for image_id in set(wanted.image_ids) - set(node.gone_image_ids):
            layers = [use for use in node.layers if image_id in use.image_ids]
            users = [user for use in layers for user in use.users]
            users += [f"node {node.node_id}: {node.error}"] if node.error else []
            users += plane.image_users.now().get(image_id, ())
            kept.setdefault(image_id, {}).update(dict.fromkeys(users or ["who has used it a moment ago"]))
    return {image_id: tuple(users) for image_id, users in kept.items()}


def _used(image_id: str, users: Sequence[str]) -> str:
    return f"image {image_id} is used by {', '.join(users)}"
