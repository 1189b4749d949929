"""Migrations run when something is to be done, and only then; the conformance suite looks at what they make."""

from __future__ import annotations

from pathlib import Path

import pytest
import sqlalchemy as sa
from alembic import command
from alembic.config import Config
from alembic.script import ScriptDirectory
from sqlalchemy import Connection

from squall.protocol.errors import PlatformError
from squall.server.dispatch import SystemClock
from squall.server.model.store import StoredInput
from squall.server.store import migration
from squall.server.store.schema import SCHEMA_VERSION
from squall.server.store.sql import SqlStore


def test_schema_version_is_the_newest_migration() -> None:
    scripts = ScriptDirectory(str(Path(migration.__file__).parent / "migrations"))

    assert scripts.get_current_head() == SCHEMA_VERSION


async def test_database_of_this_version_loads_no_migrations(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/squall.db"
    async with SqlStore(url, migration.upgrade) as store:
        await store.put_setting("colour", "blue")

    def refuse(connection: Connection) -> None:
        raise AssertionError("migrations were loaded")

    async with SqlStore(url, refuse) as store:
        assert await store.get_setting("colour") == "blue"


async def test_database_of_a_newer_version_is_refused(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/squall.db"
    async with SqlStore(url, migration.upgrade):
        engine = sa.create_engine(url)
        with engine.begin() as connection:
            connection.execute(sa.text("UPDATE alembic_version SET version_num = '9999'"))
        engine.dispose()

    with pytest.raises(PlatformError, match="newer version of Squall") as caught:
        async with SqlStore(url, migration.upgrade):
            raise AssertionError("it was opened")

    assert caught.value.code == "conflict"


async def test_database_of_the_first_version_keeps_its_apps(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/squall.db"
    engine = sa.create_engine(url)
    config = Config()
    config.set_main_option("script_location", str(Path(migration.__file__).parent / "migrations"))
    with engine.begin() as connection:
        config.attributes["connection"] = connection
        command.upgrade(config, "0001")
        connection.execute(sa.text("INSERT INTO apps VALUES ('ap-1', 'hello', '', 'deployed', 1.0, NULL, '{}')"))
    engine.dispose()

    async with SqlStore(url, migration.upgrade) as store:
        app = await store.get_app("ap-1")
        found = await store.find_app("hello")

    assert (app.name, app.state, app.ancestors, app.parent_app_id) == ("hello", "deployed", (), "")
    assert found == app


async def test_mounts_and_calls_of_an_older_database_count_as_used_and_as_wanted(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/squall.db"
    engine = sa.create_engine(url)
    config = Config()
    config.set_main_option("script_location", str(Path(migration.__file__).parent / "migrations"))
    with engine.begin() as connection:
        config.attributes["connection"] = connection
        command.upgrade(config, "0004")
        connection.execute(sa.text("INSERT INTO mounts VALUES ('mo-1', '{\"files\": []}')"))
        connection.execute(
            sa.text("INSERT INTO calls VALUES ('fc-1', 'fu-1', 'ap-1', 'spawn', '', 1, 1.0, 1, 1.0)"),
        )
    engine.dispose()

    async with SqlStore(url, migration.upgrade) as store:
        pruned = await store.prune_mounts(SystemClock().now() - 3600.0)
        call = await store.get_call("fc-1")

    assert pruned == 0
    assert not call.is_cancelled


async def test_inputs_of_an_older_database_are_read_as_a_portion(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/squall.db"
    engine = sa.create_engine(url)
    config = Config()
    config.set_main_option("script_location", str(Path(migration.__file__).parent / "migrations"))
    with engine.begin() as connection:
        config.attributes["connection"] = connection
        command.upgrade(config, "0007")
        for call_id, unfinished_count in (("fc-1", 2), ("fc-2", 0)):
            connection.execute(
                sa.text("INSERT INTO calls VALUES (:id, 'fu-1', 'ap-1', 'spawn', '', 3, 1.0, :unfinished, 1.0, 0)"),
                {"id": call_id, "unfinished": unfinished_count},
            )
            for index, (value, blob) in enumerate(((b"one", ""), (b"", "ab" * 32), (b"three", ""))):
                row = {"id": call_id, "index": index, "value": value, "blob": blob}
                connection.execute(sa.text("INSERT INTO inputs VALUES (:id, :index, :value, :blob)"), row)
        connection.execute(sa.text("INSERT INTO outputs VALUES ('fc-1', 0, 0, 'done', '', 0, 5, 2.0)"))
    engine.dispose()

    async with SqlStore(url, migration.upgrade) as store:
        (portion,) = await store.unfinished_inputs("fu-1")

    assert not portion.call.is_growing
    assert portion.place == (1.0, "fc-1", 0)
    assert portion.inputs == (StoredInput("fc-1", 1, b"", "ab" * 32), StoredInput("fc-1", 2, b"three"))
