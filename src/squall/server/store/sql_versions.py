"""Statements of versions of deployed apps: one is published as a whole, or not at all."""

from __future__ import annotations

import json
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa
from sqlalchemy import Connection

from squall.protocol.app import STOPPED
from squall.protocol.deployment import Commit
from squall.protocol.errors import CONFLICT, NOT_FOUND, PlatformError
from squall.protocol.function import FunctionSpec, secrets_named
from squall.protocol.records import from_wire, to_wire
from squall.server.model.store import StoredApp
from squall.server.model.version import StoredVersion, superseded
from squall.server.store import sql_apps, sql_functions, sql_scaling, sql_variants
from squall.server.store.schema import APPS, FUNCTIONS, VERSIONS

_INFO = [column for column in VERSIONS.columns if column.name != "functions"]


@dataclass(frozen=True, slots=True)
class Publication:
    """One publish on its way to the database."""

    app: StoredApp
    version: StoredVersion
    functions: tuple[FunctionSpec, ...]
    gone_ids: frozenset[str]
    keep: int
    packed: bytes
    """The functions as they are stored."""


def pack(functions: Sequence[FunctionSpec]) -> bytes:
    """The records of many functions, which are much alike, in little room."""
    return zlib.compress(json.dumps([to_wire(one) for one in functions], separators=(",", ":")).encode(), 6)


def unpack(packed: bytes) -> tuple[FunctionSpec, ...]:
    """The other way round."""
    return tuple(from_wire(FunctionSpec, one) for one in json.loads(zlib.decompress(packed)))


def publish(connection: Connection, publications: Sequence[Publication]) -> list[None]:
    """See `Store.publish_version`; several of them, in order."""
    for one in publications:
        _publish(connection, one)
    return [None] * len(publications)


def _publish(connection: Connection, one: Publication) -> None:
    version = one.version
    known = set(connection.execute(sa.select(VERSIONS.c.version).where(VERSIONS.c.app_id == version.app_id)).scalars())
    if version.version in known:
        raise PlatformError(CONFLICT, f"app {version.app_id} has a version {version.version} already")
    sql_apps.put_apps(connection, (one.app,))
    gone = sorted(one.gone_ids)
    for start in range(0, len(gone), sql_apps.FORGOTTEN_MAX):
        some = gone[start : start + sql_apps.FORGOTTEN_MAX]
        connection.execute(sa.delete(FUNCTIONS).where(FUNCTIONS.c.function_id.in_(some)))
    sql_functions.put_functions(connection, (one.functions,))
    sql_scaling.reset_apps(connection, (one.app.app_id,))
    connection.execute(sa.insert(VERSIONS).values(_row(version, one.packed)))
    pinned = connection.execute(
        sa.select(FUNCTIONS.c.pinned_version).where(
            (FUNCTIONS.c.app_id == version.app_id) & (FUNCTIONS.c.pinned_version > 0)
        )
    ).scalars()
    held = {*pinned, *sql_variants.pinned_versions(connection, version.app_id)}
    for old in superseded({*known, version.version}, one.keep, held):
        connection.execute(
            sa.delete(VERSIONS).where((VERSIONS.c.app_id == version.app_id) & (VERSIONS.c.version == old))
        )


def _row(version: StoredVersion, packed: bytes) -> dict[str, Any]:
    return {
        "app_id": version.app_id,
        "version": version.version,
        "deployed_at": version.deployed_at,
        "deploy_id": version.deploy_id,
        "strategy": version.strategy,
        "tag": version.tag,
        "client_version": version.client_version,
        "deployed_by": version.deployed_by,
        "git_commit": json.dumps(to_wire(version.commit)) if version.commit is not None else "",
        "restored_version": version.restored_version,
        "function_count": version.function_count,
        "image_ids": json.dumps(version.image_ids),
        "mount_ids": json.dumps(version.mount_ids),
        "blob_sha256s": json.dumps(version.blob_sha256s),
        "functions": packed,
    }


def version_of(row: Mapping[Any, Any]) -> StoredVersion:
    """A row as the store's own record."""
    return StoredVersion(
        row["app_id"],
        row["version"],
        row["deployed_at"],
        row["deploy_id"],
        row["strategy"],
        row["tag"],
        row["client_version"],
        row["deployed_by"],
        from_wire(Commit, json.loads(row["git_commit"])) if row["git_commit"] else None,
        row["restored_version"],
        row["function_count"],
        tuple(json.loads(row["image_ids"])),
        tuple(json.loads(row["mount_ids"])),
        tuple(json.loads(row["blob_sha256s"])),
    )


def list_versions(connection: Connection, app_id: str) -> tuple[StoredVersion, ...]:
    """See `Store.list_versions`."""
    query = sa.select(*_INFO).where(VERSIONS.c.app_id == app_id).order_by(VERSIONS.c.version.desc())
    return tuple(version_of(row) for row in connection.execute(query).mappings())


def functions_of(connection: Connection, app_id: str, version: int) -> tuple[FunctionSpec, ...]:
    """See `Store.list_version_functions`."""
    is_it = (VERSIONS.c.app_id == app_id) & (VERSIONS.c.version == version)
    packed = connection.execute(sa.select(VERSIONS.c.functions).where(is_it)).scalar()
    if not packed:
        raise PlatformError(NOT_FOUND, f"app {app_id} has no version {version}, or no longer")
    return unpack(packed)


def named_mounts(connection: Connection) -> Iterator[str]:
    """Mounts that versions of apps name that have not stopped."""
    yield from _named(connection, VERSIONS.c.mount_ids)


def named_blobs(connection: Connection) -> Iterator[str]:
    """The same of blobs."""
    yield from _named(connection, VERSIONS.c.blob_sha256s)


def named_secrets(connection: Connection, app_id: str) -> set[str]:
    """Secrets that the versions of an app name."""
    packed = connection.execute(sa.select(VERSIONS.c.functions).where(VERSIONS.c.app_id == app_id)).scalars()
    return {secret_id for one in packed if one for spec in unpack(one) for secret_id in secrets_named(spec)}


def _named(connection: Connection, column: sa.ColumnElement[str]) -> Iterator[str]:
    is_living = (VERSIONS.c.app_id == APPS.c.app_id) & (APPS.c.state != STOPPED)
    for names in connection.execute(sa.select(column).where(is_living)).scalars():
        yield from json.loads(names)
