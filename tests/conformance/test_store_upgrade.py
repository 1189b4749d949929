"""A database of each earlier version, with rows in every table it has, is read and gone on with by this one.

The rows are as they were written: all columns of then, none of later. What a column of later says of them is what it
says where nothing is known.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from alembic import command
from alembic.config import Config
from alembic.script import ScriptDirectory

from squall.protocol.app import DEPLOYED, STOPPED
from squall.protocol.call import FAILED, SPAWN_MAP, SUCCEEDED
from squall.protocol.deployment import Commit
from squall.protocol.function import Definition, FunctionOptions, FunctionSpec, Scaling, Schedule
from squall.protocol.image import BuiltLayer, ImageConfig, ImageSpec
from squall.protocol.image_catalog import ImageRef
from squall.protocol.image_steps import debian_slim
from squall.protocol.mount import MountFile, MountManifest, MountRef
from squall.protocol.records import to_wire
from squall.server.model.asset import StoredAsset
from squall.server.model.dict import EntryKey, StoredEntry
from squall.server.model.flight import StoredFlight, StoredMinute
from squall.server.model.image import StoredImage, StoredImageName
from squall.server.model.queue import PartitionKey
from squall.server.model.schedule import StoredSchedule
from squall.server.model.store import Store, StoredApp, StoredCall, StoredInput, StoredOutput
from squall.server.model.variant import StoredVariant
from squall.server.model.version import StoredVersion
from squall.server.store import migration, sql_versions
from squall.server.store.schema import METADATA
from squall.server.store.sql import SqlStore
from tests.conformance.conftest import POSTGRES, new_postgres_database

pytestmark = pytest.mark.long

SCRIPTS = str(Path(migration.__file__).parent / "migrations")
REVISIONS = sorted(script.revision for script in ScriptDirectory(SCRIPTS).walk_revisions())
EARLIER = REVISIONS[:-1]
BLOB = "ab" * 32
MANY_CALLS = 450
"""More than the migrations write at once."""

MANIFEST = MountManifest((MountFile("hello.py", BLOB, 5),))
FUNCTION = FunctionSpec(
    "fu-1", "ap-1", "square", Definition("file", "hello", "square"), "im-1", (MountRef(MANIFEST.mount_id(), "/app"),)
)
IMAGE = StoredImage(
    "im-1",
    ImageSpec((debian_slim("3.11"),)),
    ImageConfig({"A": "b"}, layers=("ly-1",)),
    (BuiltLayer("ly-1", 5 * 2**30),),
    10.0,
    20.0,
    "ap-1",
)
SCHEDULE = StoredSchedule("fu-1", Schedule("period", seconds=60.0), 1, 30.0, 90.0, 30.0, "fc-9", "succeeded", 2)
VERSION = StoredVersion(
    *("ap-1", 1, 40.0, "dp-1", "rolling", "v1", "0.3.0", "ada"),
    *(Commit("c0ffee", "main", is_dirty=True), 0, 1, ("im-1",), (MANIFEST.mount_id(),), ()),
)
VARIANT = StoredVariant("fu-2", "fu-1", "ap-1", '{"size":3}', FunctionOptions(timeout_s=5.0), 1, 50.0)

Row = Mapping[str, Any]


def wire(record: object) -> str:
    return json.dumps(to_wire(record))


# Of every table that there ever was; values in the order of its columns, those of now or of its end.
COLUMNS = {table.name: tuple(column.name for column in table.columns) for table in METADATA.tables.values()}
COLUMNS["inputs"] = ("call_id", "input_index", "value", "blob_sha256")
VALUES: dict[str, list[tuple[Any, ...]]] = {
    "apps": [
        ("ap-1", "hello", "", DEPLOYED, 1.0, None, '{"team": "blau"}', "[]", "", "ada", "dev"),
        ("ap-2", "child", "", STOPPED, 2.0, 3.0, "{}", '["ap-1"]', "ap-1", "", ""),
    ],
    "functions": [("fu-1", "ap-1", "square", "", wire(FUNCTION), 0)],
    "mounts": [(MANIFEST.mount_id(), wire(MANIFEST), 5.0)],
    "calls": [("fc-1", "fu-1", "ap-1", SPAWN_MAP, "in-1:0", 3, 30.0, 1, 50.0, True, "predict", True)],
    "inputs": [("fc-1", 0, b"one", ""), ("fc-1", 1, b"", BLOB), ("fc-1", 2, b"three", "")],
    "portions": [("fc-1", 0, "fu-1", 30.0, 1, "[3, -1, 5]", json.dumps({"1": BLOB}), b"onethree")],
    "outputs": [
        ("fc-1", 0, SUCCEEDED, b"done", "", 0, 5, 40.0, 31.0, "ct-1"),
        ("fc-1", 2, FAILED, b"", BLOB, 2, 2**31 - 1, 50.0, 32.0, "ct-2"),
    ],
    "images": [("im-1", "ap-1", wire(IMAGE.spec), wire(IMAGE.config), f"[{wire(IMAGE.layers[0])}]", 10.0, 20.0)],
    "image_names": [("", "web", "latest", 1, "im-1", 6.0, True)],
    "settings": [("colour", "blue")],
    "proxy_tokens": [("wk-1", b"\1" * 32, "ci", 12.0, "ada", None, None)],
    "versions": [
        (
            *("ap-1", 1, 40.0, "dp-1", "rolling", "v1", "0.3.0", "ada", wire(VERSION.commit), 0, 1),
            *('["im-1"]', json.dumps([MANIFEST.mount_id()]), "[]", sql_versions.pack((FUNCTION,))),
        )
    ],
    "flights": [("fc-8", "fu-1", "ap-1", 7.0, 8.0, True, 4, "{}", "[]")],
    "failed_inputs": [("fc-8", 0, b"args", "", 4, 8.0)],
    "function_minutes": [("fu-1", 60.0, "{}", ""), ("fu-2", 60.0, "{}", "fu-1")],
    "schedules": [("fu-1", wire(SCHEDULE.schedule), 1, 30.0, 90.0, 30.0, "fc-9", "succeeded", 2)],
    "variants": [("fu-2", "fu-1", "ap-1", '{"size":3}', wire(VARIANT.options), 1, 50.0)],
    "scaling": [("fu-1", "ap-1", wire(Scaling(max_containers=3)))],
    "environments": [("dev", 9.0)],
    "assets": [
        ("vo-1", "volume", "weights", "", 11.0, "ada", "", "vo-1"),
        ("di-1", "dict", "cache", "", 11.0, "ada", "", "di-1"),
        ("qu-1", "queue", "jobs", "", 11.0, "ada", "", "qu-1"),
    ],
    "asset_garbage": [("vo-2", "volume")],
    "volume_versions": [("vo-1", 1, "ab" * 32, "once", 12.0, "created", "ada", 0, 0, 0, 0)],
    "volume_retentions": [("vo-1", "{}")],
    "volume_nodes": [("ab" * 32, b"")],
    "volume_node_blocks": [("ab" * 32, "cd" * 32)],
    "secrets": [("st-1", "ap-1", '["A"]', 1, "key", b"nonce", b"sealed", "mark", 12.0, None)],
    "asset_answers": [("di-1", "rq-2", 13.0, "", b"gone", b"taken")],
    "queues": [("qu-1", 1)],
    "queue_partitions": [("qu-1", b"p", 2, 1, 5, 1e12)],
    "queue_items": [("qu-1", b"p", 1, b"first")],
    "dict_entries": [("di-1", b"\1" * 32, "rq-1", 12.0, "", b"k", b"v")],
}


def rows_of(table: str) -> list[Row]:
    return [dict(zip(COLUMNS[table], values, strict=True)) for values in VALUES[table]]


class Earlier:
    """A database of an earlier version."""

    def __init__(self, url: str, revision: str) -> None:
        self.url = url
        self._engine = sa.create_engine(url)
        config = Config()
        config.set_main_option("script_location", SCRIPTS)
        with self._engine.begin() as connection:
            config.attributes["connection"] = connection
            command.upgrade(config, revision)
            self._tables = sa.MetaData()
            self._tables.reflect(connection)

    def close(self) -> None:
        self._engine.dispose()

    def has(self, table: str, column: str = "") -> bool:
        """Whether there was such a table, or such a column of it."""
        return table in self._tables.tables and (not column or column in self._tables.tables[table].columns)

    def fill(self) -> None:
        """With rows in every table."""
        for table in self._tables.sorted_tables:
            if table.name != "alembic_version":
                self.insert(table.name, rows_of(table.name))

    def insert(self, name: str, rows: list[Row]) -> None:
        """Of these columns those that there are."""
        table = self._tables.tables[name]
        known = [{key: value for key, value in row.items() if key in table.columns} for row in rows]
        with self._engine.begin() as connection:
            connection.execute(sa.insert(table), known)


@pytest.fixture(params=["sqlite", POSTGRES])
def make_earlier(
    request: pytest.FixtureRequest, make_data_dir: Callable[[], Path]
) -> Iterator[Callable[[str], Earlier]]:
    made: list[Earlier] = []

    def make(revision: str) -> Earlier:
        if request.param == "sqlite":
            url = f"sqlite:///{make_data_dir()}/squall.db"
        else:
            url = new_postgres_database(request.getfixturevalue("postgres_socket_dir"))
        made.append(Earlier(url, revision))
        return made[-1]

    yield make
    for one in made:
        one.close()


@pytest.mark.parametrize("revision", EARLIER)
async def test_what_an_earlier_version_kept_is_read_and_gone_on_with(
    make_earlier: Callable[[str], Earlier], revision: str
) -> None:
    earlier = make_earlier(revision)
    earlier.fill()

    async with SqlStore(earlier.url, migration.upgrade) as store:
        await check_apps(store, earlier)
        await check_calls(store, earlier)
        await check_images(store, earlier)
        await check_deployments(store, earlier)
        await check_flights(store, earlier)
        await check_assets(store, earlier)
        assert await store.get_setting("colour") == "blue"
        await go_on(store)

    async with SqlStore(earlier.url, refuse) as store:
        await check_gone_on(store)


def refuse(connection: sa.Connection) -> None:
    raise AssertionError("it is of this version already")


async def check_apps(store: Store, earlier: Earlier) -> None:
    ancestors = ("ap-1",) if earlier.has("apps", "ancestors") else ()
    made_by = "ada" if earlier.has("apps", "created_by") else ""
    suffix = "dev" if earlier.has("apps", "web_suffix") else ""
    app = StoredApp("ap-1", "hello", DEPLOYED, 1.0, None, {"team": "blau"}, created_by=made_by, web_suffix=suffix)
    child = StoredApp("ap-2", "child", STOPPED, 2.0, 3.0, {}, "", ancestors)
    assert await store.list_apps() == (child, app)
    assert await store.find_app("hello") == app
    assert await store.list_functions("ap-1") == (FUNCTION,)
    assert await store.find_function("ap-1", "square") == await store.get_function("fu-1") == FUNCTION
    assert await store.get_mount(MANIFEST.mount_id()) == MANIFEST
    assert BLOB in await store.live_blobs()


async def check_calls(store: Store, earlier: Earlier) -> None:
    call = StoredCall("fc-1", "fu-1", "ap-1", SPAWN_MAP, 30.0, 3, "in-1:0")
    assert (await store.get_call("fc-1")) == StoredCall(
        *(call.call_id, call.function_id, call.app_id, call.kind, call.created_at, call.input_count),
        parent_input_id=call.parent_input_id,
        is_cancelled=earlier.has("calls", "is_cancelled"),
        method="predict" if earlier.has("calls", "method") else "",
        is_growing=earlier.has("calls", "is_growing"),
    )
    (portion,) = await store.unfinished_inputs("fu-1")
    assert (portion.place, portion.inputs) == ((30.0, "fc-1", 0), (StoredInput("fc-1", 1, b"", BLOB),))
    assert await store.unfinished_counts() == {"fu-1": 1}
    assert await store.get_input("fc-1", 2) == StoredInput("fc-1", 2, b"three")
    is_told = earlier.has("outputs", "container_id")
    assert await store.get_output("fc-1", 0) == StoredOutput(
        *("fc-1", 0, SUCCEEDED, b"done", "", 0, 5, 40.0), *((31.0, "ct-1") if is_told else ())
    )
    assert await store.list_outputs("fc-1", 0, 10, failed=True) == (
        StoredOutput("fc-1", 2, FAILED, b"", BLOB, 2, 2**31 - 1, 50.0, *((32.0, "ct-2") if is_told else ())),
    )


async def check_images(store: Store, earlier: Earlier) -> None:
    is_there = earlier.has("images")
    assert await store.list_images() == ((IMAGE,) if is_there else ())
    name = StoredImageName(ImageRef("", "web", "latest"), "im-1", 6.0)
    assert await store.list_image_names() == ((name,) if is_there else ())


async def check_deployments(store: Store, earlier: Earlier) -> None:
    assert await store.list_versions("ap-1") == ((VERSION,) if earlier.has("versions") else ())
    if earlier.has("versions"):
        assert await store.list_version_functions("ap-1", 1) == (FUNCTION,)
    assert await store.list_schedules() == ((SCHEDULE,) if earlier.has("schedules") else ())
    assert await store.list_variants("fu-1", 10) == ((VARIANT,) if earlier.has("variants") else ())
    assert await store.list_scaling("ap-1") == ({"fu-1": Scaling(max_containers=3)} if earlier.has("scaling") else {})
    assert await store.list_environments() == ({"dev": 9.0} if earlier.has("environments") else {})


async def check_flights(store: Store, earlier: Earlier) -> None:
    if not earlier.has("flights"):
        assert await store.list_flights((), 10) == ()
        return
    assert await store.get_flight("fc-8") == StoredFlight("fc-8", "fu-1", "ap-1", 7.0, 8.0, True, "{}", "[]")
    assert await store.get_input("fc-8", 0) == StoredInput("fc-8", 0, b"args")
    # Whose minutes those of a variant are is known as far as the variant is.
    own, variant = StoredMinute("fu-1", 60.0, "{}"), StoredMinute("fu-2", 60.0, "{}", "fu-1")
    expected = (own, variant) if earlier.has("variants") else (own,)
    assert await store.list_minutes(("fu-1",), 0.0, 100.0, 10, base_ids=("fu-1",)) == expected


async def check_assets(store: Store, earlier: Earlier) -> None:
    asset = StoredAsset("di-1", "dict", "cache", "", 11.0, "ada")
    assert await store.assets.get("di-1") == (asset if earlier.has("assets") else None)
    entry = StoredEntry(b"k", b"v", "", 12.0)
    key = EntryKey("di-1", b"\1" * 32)
    items = ((1, b"first"),) if earlier.has("queue_items") else ()
    assert await store.queues.read(PartitionKey("qu-1", b"p"), -1, 10, 100, 0.0) == items
    assert await store.dicts.get(key) == (entry if earlier.has("dict_entries") else None)


LAST_OUTPUT = StoredOutput("fc-1", 1, SUCCEEDED, b"two", run_us=2**40, finished_at=70.0, container_id="ct-3")
NEXT_VERSION = StoredVersion("ap-1", 2, 60.0, function_count=1)


async def go_on(store: Store) -> None:
    assert await store.put_outputs((LAST_OUTPUT,)) == (True,)
    await store.publish_version(await store.get_app("ap-1"), NEXT_VERSION, (FUNCTION,), frozenset(), 10)
    await store.put_variant(VARIANT)
    await store.put_schedules((SCHEDULE,))
    await store.put_image(IMAGE)


async def check_gone_on(store: Store) -> None:
    assert await store.get_output("fc-1", 1) == LAST_OUTPUT
    assert await store.unfinished_counts() == {}
    assert await store.unfinished_inputs("fu-1") == ()
    assert (await store.list_versions("ap-1"))[0] == NEXT_VERSION
    assert await store.list_variants("fu-1", 10) == (VARIANT,)
    assert await store.list_schedules() == (SCHEDULE,)
    # What was changed at run time ends with a publish.
    assert await store.list_scaling("ap-1") == {}
    assert await store.expire(71.0) == 1
    # The function names its files.
    assert await store.prune_mounts(1e12) == 0


async def test_many_calls_of_an_earlier_version_become_portions(make_earlier: Callable[[str], Earlier]) -> None:
    earlier = make_earlier("0008")
    (call,) = rows_of("calls")
    ids = [f"fc-{number:04}" for number in range(MANY_CALLS)]
    earlier.insert("calls", [{**call, "call_id": call_id} for call_id in ids])
    earlier.insert("inputs", [{**row, "call_id": call_id} for call_id in ids for row in rows_of("inputs")])

    async with SqlStore(earlier.url, migration.upgrade) as store:
        portions = await store.unfinished_inputs("fu-1", limit=10 * MANY_CALLS)
        first = await store.get_input(ids[0], 2)
        last = await store.get_input(ids[-1], 0)

    assert [portion.call.call_id for portion in portions] == ids
    assert (first, last) == (StoredInput(ids[0], 2, b"three"), StoredInput(ids[-1], 0, b"one"))


async def test_upgrade_that_fails_leaves_the_database_as_it_was_and_nothing_open(
    make_earlier: Callable[[str], Earlier],
) -> None:
    earlier = make_earlier("0008")
    earlier.fill()
    threads = threading.active_count()

    def fail(connection: sa.Connection) -> None:
        migration.upgrade(connection)
        raise RuntimeError("the power is gone")

    with pytest.raises(RuntimeError):
        async with SqlStore(earlier.url, fail):
            pass

    assert threading.active_count() == threads
    async with SqlStore(earlier.url, migration.upgrade) as store:
        await check_apps(store, earlier)
        await check_calls(store, earlier)
