"""Statements of images and of what they are called."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import sqlalchemy as sa
from sqlalchemy import Connection

from squall.protocol.image import BuiltLayer, ImageConfig, ImageSpec
from squall.protocol.image_catalog import ImageRef
from squall.protocol.records import from_wire, to_wire
from squall.server.model.image import EARLIER_NAMES_MAX, StoredImage, StoredImageName
from squall.server.store.schema import IMAGE_NAMES, IMAGES
from squall.server.store.upsert import upsert


def image_of(row: Mapping[Any, Any]) -> StoredImage:
    """A row of the table as the store's own record."""
    return StoredImage(
        row["image_id"],
        from_wire(ImageSpec, json.loads(row["spec"])),
        from_wire(ImageConfig, json.loads(row["config"])),
        tuple(from_wire(BuiltLayer, layer) for layer in json.loads(row["layers"])),
        row["built_at"],
        row["used_at"],
        row["app_id"],
    )


def name_of(row: Mapping[Any, Any]) -> StoredImageName:
    """The same of a name."""
    ref = ImageRef(row["environment"], row["name"], row["tag"])
    return StoredImageName(ref, row["image_id"], row["published_at"], row["is_current"])


def put_images(connection: Connection, images: Sequence[StoredImage]) -> list[None]:
    """See `Store.put_image`; several of them."""
    rows = [
        {
            "image_id": image.image_id,
            "app_id": image.app_id,
            "spec": json.dumps(to_wire(image.spec)),
            "config": json.dumps(to_wire(image.config)),
            "layers": json.dumps([to_wire(layer) for layer in image.layers]),
            "built_at": image.built_at,
            "used_at": image.used_at,
        }
        for image in images
    ]
    upsert(connection, IMAGES, rows)
    return [None] * len(rows)


def use_images(connection: Connection, uses: Sequence[tuple[frozenset[str], float]]) -> list[None]:
    """See `Store.use_images`; several of them."""
    for image_ids, now in uses:
        connection.execute(sa.update(IMAGES).where(IMAGES.c.image_id.in_(sorted(image_ids))).values(used_at=now))
    return [None] * len(uses)


def forget_images(connection: Connection, requests: Sequence[frozenset[str]]) -> list[frozenset[str]]:
    """See `Store.forget_images`; several of them."""
    return [_forget(connection, image_ids) for image_ids in requests]


def _forget(connection: Connection, image_ids: frozenset[str]) -> frozenset[str]:
    named = sa.select(IMAGE_NAMES.c.image_id).where(IMAGE_NAMES.c.is_current)
    is_it = IMAGES.c.image_id.in_(sorted(image_ids)) & IMAGES.c.image_id.not_in(named)
    gone = frozenset(connection.execute(sa.select(IMAGES.c.image_id).where(is_it)).scalars())
    connection.execute(sa.delete(IMAGES).where(IMAGES.c.image_id.in_(sorted(gone))))
    return gone


def publish(connection: Connection, requests: Sequence[StoredImageName]) -> list[StoredImageName | None]:
    """See `Store.publish_image`; several of them, in order. None where there is no such image."""
    return [_publish(connection, wanted) for wanted in requests]


def _publish(connection: Connection, wanted: StoredImageName) -> StoredImageName | None:
    # Shares a transaction with whoever forgets images: one of them comes first.
    if connection.execute(sa.select(IMAGES.c.image_id).where(IMAGES.c.image_id == wanted.image_id)).first() is None:
        return None
    is_it = _is_it(wanted.ref)
    rows = connection.execute(sa.select(IMAGE_NAMES).where(is_it).order_by(IMAGE_NAMES.c.sequence)).mappings().all()
    if rows and rows[-1]["is_current"] and rows[-1]["image_id"] == wanted.image_id:
        return name_of(rows[-1])
    sequence = rows[-1]["sequence"] + 1 if rows else 1
    connection.execute(sa.update(IMAGE_NAMES).where(is_it).values(is_current=False))
    row = {
        "environment": wanted.ref.environment,
        "name": wanted.ref.name,
        "tag": wanted.ref.tag,
        "sequence": sequence,
        "image_id": wanted.image_id,
        "published_at": wanted.published_at,
        "is_current": True,
    }
    connection.execute(sa.insert(IMAGE_NAMES), row)
    connection.execute(sa.delete(IMAGE_NAMES).where(is_it & (IMAGE_NAMES.c.sequence < sequence - EARLIER_NAMES_MAX)))
    return name_of(row)


def delete_names(connection: Connection, refs: Sequence[ImageRef]) -> list[bool]:
    """See `Store.delete_image_name`; several of them."""
    return [
        connection.execute(
            sa.update(IMAGE_NAMES).where(_is_it(ref) & IMAGE_NAMES.c.is_current).values(is_current=False)
        ).rowcount
        > 0
        for ref in refs
    ]


def list_names(connection: Connection, environment: str | None, prefix: str, earlier: bool) -> list[StoredImageName]:
    """See `Store.list_image_names`."""
    # By a part of the text, not LIKE: that takes capitals for small letters in SQLite.
    text = IMAGE_NAMES.c.name + ":" + IMAGE_NAMES.c.tag
    query = sa.select(IMAGE_NAMES).where(sa.func.substr(text, 1, len(prefix)) == prefix)
    if environment is not None:
        query = query.where(IMAGE_NAMES.c.environment == environment)
    if not earlier:
        query = query.where(IMAGE_NAMES.c.is_current)
    rows = connection.execute(query.order_by(IMAGE_NAMES.c.sequence.desc())).mappings().all()
    # Sorted here: PostgreSQL would sort by the rules of its locale.
    return sorted((name_of(row) for row in rows), key=lambda one: str(one.ref))


def find_name(connection: Connection, ref: ImageRef) -> StoredImageName | None:
    """See `Store.find_image_name`."""
    query = sa.select(IMAGE_NAMES).where(_is_it(ref) & IMAGE_NAMES.c.is_current)
    row = connection.execute(query).mappings().first()
    return name_of(row) if row is not None else None


def _is_it(ref: ImageRef) -> sa.ColumnElement[bool]:
    names = IMAGE_NAMES.c
    return (names.environment == ref.environment) & (names.name == ref.name) & (names.tag == ref.tag)
