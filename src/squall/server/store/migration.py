"""Bring a database to the newest schema, with Alembic.

A module of its own because Alembic takes a fifth of a second to load: `main` hands `upgrade` to the store, which calls
it only for a database of another version.
"""

from __future__ import annotations

from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.util.exc import CommandError
from sqlalchemy import Connection

from squall.protocol.errors import CONFLICT, PlatformError


def upgrade(connection: Connection) -> None:
    """Apply, in the connection's transaction, every migration that the database lacks.

    Raises:
        PlatformError: `conflict` when a newer version of Squall made the database.
    """
    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent / "migrations"))
    config.attributes["connection"] = connection
    try:
        command.upgrade(config, "head")
    except CommandError as error:
        raise PlatformError(
            CONFLICT,
            f"cannot open the database: {error}; it was made by a newer version of Squall: install that version,"
            " or start with another data directory",
        ) from error
