"""What was done to assets that must not be done twice, under the ids of the requests that asked for it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import sqlalchemy as sa
from sqlalchemy import Connection

from squall.server.store.many import for_rows, insert_rows, present_together
from squall.server.store.schema import ASSET_ANSWERS

_KEYS = (ASSET_ANSWERS.c.asset_id, ASSET_ANSWERS.c.request_id)
_ANSWERS = sa.select(*_KEYS, ASSET_ANSWERS.c.key, ASSET_ANSWERS.c.value, ASSET_ANSWERS.c.blob_sha256)
_ONE = _ANSWERS.where(_KEYS[0] == sa.bindparam("asset_id"), _KEYS[1] == sa.bindparam("request_id"))
_TYPES = {"given_asset": ASSET_ANSWERS.c.asset_id.type, "given_request": ASSET_ANSWERS.c.request_id.type}


class Asked(NamedTuple):
    """A request about an asset."""

    asset_id: str
    request_id: str


class Answer(NamedTuple):
    """What it took out, if it was to take something."""

    key: bytes = b""
    value: bytes = b""
    blob_sha256: str = ""


def answered(connection: Connection, asked: Sequence[Asked]) -> dict[Asked, Answer]:
    """Those that were carried out already, with what they took."""
    if len(asked) == 1:
        rows: Iterable[Any] = connection.execute(_ONE, asked[0]._asdict())
    else:
        rows = present_together(connection, _ANSWERS, _KEYS, frozenset(asked))
    return {
        Asked(row.asset_id, row.request_id): Answer(bytes(row.key), bytes(row.value), row.blob_sha256) for row in rows
    }


def remember(connection: Connection, answers: dict[Asked, Answer], now: float) -> None:
    """They are carried out now."""
    rows = [
        {
            "asset_id": asked.asset_id,
            "request_id": asked.request_id,
            "answered_at": now,
            "blob_sha256": answer.blob_sha256,
            "key": answer.key,
            "value": answer.value,
        }
        for asked, answer in answers.items()
    ]
    insert_rows(connection, ASSET_ANSWERS, rows)


def forget(connection: Connection, done: Iterable[Asked]) -> None:
    """Their answers have come."""
    rows = [{"given_asset": one.asset_id, "given_request": one.request_id} for one in dict.fromkeys(done)]
    for_rows(
        connection,
        lambda given: sa.delete(ASSET_ANSWERS).where(
            _KEYS[0] == given["given_asset"], _KEYS[1] == given["given_request"]
        ),
        _TYPES,
        rows,
    )


def forget_before(connection: Connection, times: Sequence[float]) -> list[None]:
    """Nobody asks these any more."""
    connection.execute(sa.delete(ASSET_ANSWERS).where(ASSET_ANSWERS.c.answered_at < max(times)))
    return [None] * len(times)


def live_blobs(connection: Connection) -> frozenset[str]:
    """Those that an answer names."""
    column = ASSET_ANSWERS.c.blob_sha256
    return frozenset(connection.execute(sa.select(column).where(column != "")).scalars())
