"""A database of the store: opened once, read by a few threads, written by one in group commits.

SQLite runs with a write-ahead log and `synchronous=FULL`: a commit is on disk when it returns, but for those that need
not wait. Those who read see what is committed.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any, TypeVar

import sqlalchemy as sa
from sqlalchemy import Connection, Engine
from sqlalchemy.exc import DataError, DBAPIError, InterfaceError, OperationalError

from squall.protocol.errors import EXHAUSTED, INVALID, UNAVAILABLE, PlatformError
from squall.server.store.room import check_room
from squall.server.store.schema import METADATA, SCHEMA_VERSION, complete_for
from squall.server.store.writes import Apply, GroupCommit, is_disk_full

R = TypeVar("R")

BUSY_TIMEOUT_MS = 10_000
READ_THREADS = 2
WALK_THREADS = 2
CONNECTIONS = READ_THREADS + WALK_THREADS + 1


class Database:
    """One database. Entering opens it and brings it to the newest schema."""

    def __init__(self, url: str, migrate: Callable[[Connection], None]) -> None:
        """`url` as SQLAlchemy has it; `migrate` is `migration.upgrade`, called when the schema is an older one."""
        self._engine = _engine(url)
        path = self._engine.url.database if self._engine.dialect.name == "sqlite" else None
        self._directory = os.path.dirname(os.path.abspath(path)) if path else ""
        """Of the database's file; empty when it is somebody else's."""
        self._migrate = migrate
        self._readers = ThreadPoolExecutor(READ_THREADS, "store-read")
        self._walkers = ThreadPoolExecutor(WALK_THREADS, "store-walk")
        self._writes = GroupCommit(self._engine, (lambda: _sync(f"{path}-wal")) if path else None)

    async def __aenter__(self) -> Database:
        """Open the database.

        Raises:
            PlatformError: `unavailable` when it cannot be, `conflict` when it is of a newer version.
        """
        try:
            await asyncio.get_running_loop().run_in_executor(self._readers, self._open)
        except BaseException:
            await self._close()
            raise
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        """Commit what waits and close."""
        await self._close()

    async def _close(self) -> None:
        await self._writes.close()
        self._readers.shutdown()
        self._walkers.shutdown()
        self._engine.dispose()

    def _open(self) -> None:
        with _our_errors():
            with self._engine.begin() as connection:
                version = _schema_version(connection)
                if version is None:
                    _create(connection)
                elif version != SCHEMA_VERSION:
                    self._migrate(connection)

    async def read(self, read: Callable[[Connection], R]) -> R:
        """What a look at the database says, by a thread that looks."""

        def run() -> R:
            with _our_errors(), self._engine.connect() as connection:
                return read(connection)

        return await self.aside(run)

    async def walk(self, read: Callable[[Connection], R]) -> R:
        """As `read`, for what reads much: by threads that nobody else waits for."""

        def run() -> R:
            with _our_errors(), self._engine.connect() as connection:
                return read(connection)

        return await asyncio.get_running_loop().run_in_executor(self._walkers, run)

    async def aside(self, work: Callable[[], R]) -> R:
        """What takes too long for the event loop, by the same threads."""
        return await asyncio.get_running_loop().run_in_executor(self._readers, work)

    async def write(self, apply: Apply, value: Any, *, is_waiting: bool = True) -> Any:
        """The result of one write, once it is on disk; see `GroupCommit`. A database that is somebody else's always
        waits for its own."""
        with _our_errors():
            return await self._writes.write(apply, value, is_waiting=is_waiting)

    def check_room(self, what: str, size_bytes: int, *, part: float = 1.0) -> None:
        """As `room.check_room`; a database that is somebody else's looks after its own disk."""
        if self._directory:
            check_room(self._directory, what, size_bytes, part=part)


def _engine(url: str) -> Engine:
    complete_for(url)
    if not url.startswith("sqlite"):
        # A plan that was kept from when a table was small reads the whole of it ever after.
        plans = {"prepare_threshold": None}
        return sa.create_engine(url, pool_size=CONNECTIONS, max_overflow=0, pool_pre_ping=True, connect_args=plans)
    engine = sa.create_engine(url, pool_size=CONNECTIONS, max_overflow=0)

    @sa.event.listens_for(engine, "connect")
    def set_up(connection: Any, _: object) -> None:
        # The driver's own idea of when transactions begin leaves table definitions outside; we say BEGIN ourselves.
        connection.isolation_level = None
        for pragma in ("journal_mode=WAL", "synchronous=FULL", f"busy_timeout={BUSY_TIMEOUT_MS}", "foreign_keys=ON"):
            connection.execute(f"PRAGMA {pragma}")

    @sa.event.listens_for(engine, "begin")
    def begin(connection: Connection) -> None:
        connection.exec_driver_sql("BEGIN")

    return engine


def _sync(path: str) -> None:
    """What is in a file is on the disk. One that is not there was taken over into the database, and synced for that."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return
    try:
        os.fdatasync(fd)
    finally:
        os.close(fd)


def _schema_version(connection: Connection) -> str | None:
    if not sa.inspect(connection).has_table("alembic_version"):
        return None
    return connection.execute(sa.text("SELECT version_num FROM alembic_version")).scalar()


def _create(connection: Connection) -> None:
    """Make the tables of a new database at once: the migrations would make the same ones, and take longer to load."""
    METADATA.create_all(connection)
    connection.execute(sa.text("CREATE TABLE alembic_version (version_num VARCHAR(32) NOT NULL PRIMARY KEY)"))
    connection.execute(sa.text("INSERT INTO alembic_version VALUES (:version)"), {"version": SCHEMA_VERSION})


@contextmanager
def _our_errors() -> Iterator[None]:
    try:
        yield
    except DBAPIError as error:
        reason = str(error.orig).strip()
        if is_disk_full(error):
            raise PlatformError(
                EXHAUSTED,
                f"cannot write the database: {reason}; free space in the data directory's file system, or move it",
            ) from error
        if isinstance(error, (OperationalError, InterfaceError)):
            raise PlatformError(UNAVAILABLE, f"cannot use the database: {reason}; see that it runs") from error
        if isinstance(error, DataError):
            # Such as a number of more than 64 bits, or in PostgreSQL a NUL in a text.
            raise PlatformError(INVALID, f"a value is none that the database can keep: {reason}") from error
        raise
    except OverflowError as error:
        # SQLite's driver says so itself, of numbers.
        raise PlatformError(INVALID, f"a value is none that the database can keep: {error}") from error
