"""One suite for every store: in memory, in SQLite, in PostgreSQL."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy.exc import OperationalError

from squall.protocol.app import DEPLOYED, EPHEMERAL, STOPPED
from squall.protocol.call import FAILED, SPAWN, SUCCEEDED
from squall.protocol.errors import PlatformError
from squall.protocol.function import CRON, PERIOD, Definition, FunctionSpec, Scaling, Schedule
from squall.protocol.image import BuiltLayer, ImageConfig, ImageSpec
from squall.protocol.image_catalog import ImageRef
from squall.protocol.image_steps import debian_slim, run_commands
from squall.protocol.mount import MountFile, MountManifest, MountRef
from squall.server.model.image import EARLIER_NAMES_MAX, StoredImage, StoredImageName
from squall.server.model.schedule import StoredSchedule
from squall.server.model.store import BEGINNING, Portion, Store, StoredApp, StoredCall, StoredInput, StoredOutput
from squall.server.store.migration import upgrade
from squall.server.store.schema import METADATA, SCHEMA_VERSION
from squall.server.store.sql import SqlStore
from squall.server.store.writes import GroupCommit
from tests.conformance.conftest import POSTGRES, new_postgres_database


def make_app(app_id: str = "ap-1", name: str = "hello", **changes: object) -> StoredApp:
    return replace(StoredApp(app_id, name, created_at=100.0), **changes)  # type: ignore[arg-type]


def make_function(function_id: str = "fu-1", app_id: str = "ap-1", name: str = "square") -> FunctionSpec:
    return FunctionSpec(function_id, app_id, name, Definition("file", "hello", "square"), "im-1")


def make_call(call_id: str, created_at: float = 100.0, input_count: int = 1) -> StoredCall:
    return StoredCall(call_id, "fu-1", "ap-1", SPAWN, created_at, input_count, "in-parent:0", method="predict")


def make_inputs(call_id: str, count: int = 1, first: int = 0) -> tuple[StoredInput, ...]:
    return tuple(StoredInput(call_id, index, b"args %d" % index) for index in range(first, first + count))


def first_portion(call: StoredCall, inputs: tuple[StoredInput, ...]) -> Portion:
    return Portion(call, 0, call.created_at, inputs)


# Schema


@pytest.mark.long
@pytest.mark.parametrize("way", ["created", "migrated"])
@pytest.mark.parametrize("database", ["sqlite", POSTGRES])
async def test_new_and_migrated_databases_have_the_same_schema(
    request: pytest.FixtureRequest, make_data_dir: Callable[[], Path], database: str, way: str
) -> None:
    if database == "sqlite":
        url = f"sqlite:///{make_data_dir()}/squall.db"
    else:
        url = new_postgres_database(request.getfixturevalue("postgres_socket_dir"))
    engine = sa.create_engine(url)

    if way == "created":
        async with SqlStore(url, upgrade):
            pass
    else:
        with engine.begin() as connection:
            upgrade(connection)

    with engine.connect() as connection:
        context = MigrationContext.configure(connection)
        assert compare_metadata(context, METADATA) == []
        assert context.get_current_revision() == SCHEMA_VERSION
        # Options of one database alone, which the comparison passes over.
        indexes = sa.inspect(connection).get_indexes("portions")
        (waiting,) = [one for one in indexes if one["name"] == "portions_waiting"]
        assert "unfinished_count > 0" in str(waiting["dialect_options"][f"{connection.dialect.name}_where"])
    engine.dispose()


# Apps


async def test_app_is_read_back_as_it_was_put(store: Store) -> None:
    app = make_app(
        state=DEPLOYED, tags={"team": "blau"}, environment="dev", stopped_at=None, created_by="ada", web_suffix="a"
    )

    await store.put_app(app)

    assert await store.get_app("ap-1") == app


async def test_apps_are_read_many_at_once_without_those_that_there_are_not(store: Store) -> None:
    apps = [make_app(app_id=f"ap-{number}", name=f"app {number}") for number in range(3)]
    for app in apps:
        await store.put_app(app)

    found = await store.get_apps({"ap-0", "ap-2", *(f"ap-{number}" for number in range(9_000, 10_200))})

    assert sorted(found, key=lambda app: app.app_id) == [apps[0], apps[2]]
    assert await store.get_apps(()) == ()


async def test_putting_an_app_again_replaces_all_but_its_birth(store: Store) -> None:
    await store.put_app(make_app())

    await store.put_app(make_app(name="other", created_at=999.0, tags={"a": "b"}))

    assert await store.get_app("ap-1") == make_app(name="other", tags={"a": "b"})


async def test_unknown_app_is_not_found(store: Store) -> None:
    for attempt in (store.get_app("ap-9"), store.set_app_state("ap-9", STOPPED)):
        with pytest.raises(PlatformError, match="ap-9") as caught:
            await attempt

        assert caught.value.code == "not_found"


async def test_app_is_found_by_name_while_it_is_not_stopped(store: Store) -> None:
    await store.put_app(make_app("ap-1", created_at=1.0))
    await store.put_app(make_app("ap-2", created_at=2.0))
    await store.put_app(make_app("ap-3", created_at=3.0, environment="dev"))

    newest = await store.find_app("hello")
    await store.set_app_state("ap-2", STOPPED, 50.0)
    next_newest = await store.find_app("hello")
    await store.set_app_state("ap-1", "stopping")

    assert newest is not None
    assert newest.app_id == "ap-2"
    assert next_newest is not None
    assert next_newest.app_id == "ap-1"
    assert await store.find_app("hello") is None
    assert await store.find_app("hello", "dev") is not None


async def test_state_changes_keep_the_time_an_app_stopped(store: Store) -> None:
    await store.put_app(make_app())

    await store.set_app_state("ap-1", STOPPED, 50.0)
    await store.set_app_state("ap-1", STOPPED)

    assert await store.get_app("ap-1") == make_app(state=STOPPED, stopped_at=50.0)


async def test_apps_are_listed_newest_first(store: Store) -> None:
    for number in range(5):
        state = DEPLOYED if number % 2 else EPHEMERAL
        await store.put_app(make_app(f"ap-{number}", created_at=float(number), state=state))

    everything = await store.list_apps()
    deployed = await store.list_apps(limit=1, states=(DEPLOYED,))

    assert [app.app_id for app in everything] == ["ap-4", "ap-3", "ap-2", "ap-1", "ap-0"]
    assert [app.app_id for app in deployed] == ["ap-3"]


async def test_apps_are_listed_a_page_at_a_time(store: Store) -> None:
    for number in range(7):
        # Some at the same time, and times that no text has exactly.
        await store.put_app(make_app(f"ap-{number}", created_at=(number // 3) / 3))

    found: list[StoredApp] = []
    while page := await store.list_apps(2, before=(found[-1].created_at, found[-1].app_id) if found else None):
        found += page

    assert [app.app_id for app in found] == [f"ap-{number}" for number in reversed(range(7))]
    assert await store.list_apps(states=(DEPLOYED,), before=(9.0, "")) == ()


async def test_child_is_read_back_with_the_apps_above_it(store: Store) -> None:
    root, child = make_app("ap-1"), make_app("ap-2", ancestors=("ap-1",))
    grandchild = make_app("ap-3", ancestors=("ap-1", "ap-2"))
    for app in (root, child, grandchild):
        await store.put_app(app)

    assert await store.get_app("ap-3") == grandchild
    assert (grandchild.parent_app_id, grandchild.root_app_id) == ("ap-2", "ap-1")
    assert (root.parent_app_id, root.root_app_id) == ("", "ap-1")
    assert {app.app_id: app.ancestors for app in await store.list_apps()} == {
        "ap-1": (),
        "ap-2": ("ap-1",),
        "ap-3": ("ap-1", "ap-2"),
    }


async def test_child_is_not_found_by_name(store: Store) -> None:
    await store.put_app(make_app("ap-1", "hello", created_at=1.0))
    await store.put_app(make_app("ap-2", "hello", created_at=2.0, ancestors=("ap-9",)))

    found = await store.find_app("hello")

    assert found is not None
    assert found.app_id == "ap-1"


async def test_ended_children_but_the_newest_are_forgotten_with_their_functions(store: Store) -> None:
    await store.put_app(make_app("ap-r", state=STOPPED))
    await store.put_app(make_app("ap-o", state=STOPPED, ancestors=("ap-other",)))
    for number in range(4):
        app_id = f"ap-{number}"
        await store.put_app(make_app(app_id, created_at=float(number), ancestors=("ap-r",), state=STOPPED))
        await store.put_functions((make_function(f"fu-{number}", app_id),))
    await store.put_app(make_app("ap-live", created_at=-1.0, ancestors=("ap-r", "ap-0")))

    gone = await store.forget_children("ap-r", 2)

    assert set(gone) == {"ap-0", "ap-1"}
    assert {app.app_id for app in await store.list_apps()} == {"ap-r", "ap-o", "ap-2", "ap-3", "ap-live"}
    assert await store.list_functions("ap-1") == ()
    assert len(await store.list_functions("ap-2")) == 1
    assert await store.forget_children("ap-r", 2) == ()


# Functions


async def test_function_is_read_back_as_it_was_put(store: Store) -> None:
    await store.put_app(make_app())
    function = replace(
        make_function(), mounts=(MountRef("mo-1", "/root"),), scaling=Scaling(max_inputs=7), env={"Ä": "ß"}
    )

    await store.put_functions((function,))

    assert await store.get_function("fu-1") == function
    assert await store.find_function("ap-1", "square") == function
    assert await store.find_function("ap-1", "cube") is None


async def test_functions_may_be_put_again_and_change(store: Store) -> None:
    await store.put_app(make_app())
    await store.put_functions((make_function(),))
    changed = replace(make_function(), timeout_s=1.5)

    await store.put_functions((changed, make_function("fu-2", name="Alpha")))
    await store.put_functions((changed,))

    assert await store.list_functions("ap-1") == (make_function("fu-2", name="Alpha"), changed)
    (first,) = await store.page_functions("ap-1", "", 1)
    (second,) = await store.page_functions("ap-1", first.name, 2)
    assert sorted((first, second), key=lambda one: one.name) == [make_function("fu-2", name="Alpha"), changed]
    assert await store.page_functions("ap-1", second.name, 2) == ()


async def test_two_functions_of_one_name_are_refused_and_none_is_kept(store: Store) -> None:
    await store.put_app(make_app())

    with pytest.raises(PlatformError, match="square") as caught:
        await store.put_functions((make_function("fu-1", name="cube"), make_function("fu-2"), make_function("fu-3")))

    assert caught.value.code == "conflict"
    assert await store.list_functions("ap-1") == ()


async def test_functions_need_their_app(store: Store) -> None:
    with pytest.raises(PlatformError, match="ap-1") as caught:
        await store.put_functions((make_function(),))

    assert caught.value.code == "not_found"


async def test_unknown_function_is_not_found(store: Store) -> None:
    with pytest.raises(PlatformError, match="fu-9") as caught:
        await store.get_function("fu-9")

    assert caught.value.code == "not_found"


# Mounts


async def test_mount_is_read_back_by_the_id_of_its_content(store: Store) -> None:
    manifest = MountManifest((MountFile("a.py", "ab" * 32, 3), MountFile("b/ü.sh", "cd" * 32, 0, 0o755)))

    mount_id = await store.put_mount(manifest, 1.0)

    assert mount_id == manifest.mount_id() == await store.put_mount(manifest, 2.0)
    assert await store.get_mount(mount_id) == manifest


async def test_unknown_mount_is_not_found(store: Store) -> None:
    with pytest.raises(PlatformError, match="mo-9") as caught:
        await store.get_mount("mo-9")

    assert caught.value.code == "not_found"


async def put_mounts(store: Store, *names: str, now: float = 1.0) -> list[str]:
    manifests = [MountManifest((MountFile(name, "ab" * 32, 3),)) for name in names]
    return list(await asyncio.gather(*(store.put_mount(manifest, now) for manifest in manifests)))


async def are_there(store: Store, mount_ids: list[str]) -> list[bool]:
    there = []
    for mount_id in mount_ids:
        try:
            there.append(bool(await store.get_mount(mount_id)))
        except PlatformError:
            there.append(False)
    return there


async def test_mounts_are_forgotten_with_what_they_belong_to(store: Store) -> None:
    mount_ids = await put_mounts(store, "a", "b", "c", "d", "e")
    for number, state in enumerate((DEPLOYED, "stopping", STOPPED)):
        await store.put_app(make_app(f"ap-{number}", state=state))
        function = make_function(f"fu-{number}", f"ap-{number}")
        await store.put_functions((replace(function, mounts=(MountRef(mount_ids[number], "/root"),)),))
    await store.use_mounts(frozenset(mount_ids[3:4]), 10.0)

    early = await store.prune_mounts(1.0)
    count = await store.prune_mounts(10.0)

    assert (early, count) == (0, 2)
    assert await are_there(store, mount_ids) == [True, True, False, True, False]
    await store.set_app_state("ap-0", STOPPED)
    assert await store.prune_mounts(11.0) == 2
    assert await are_there(store, mount_ids) == [False, True, False, False, False]


async def test_mount_that_is_made_again_is_used_again(store: Store) -> None:
    mount_ids = await put_mounts(store, "a")
    await put_mounts(store, "a", "a", "a", now=9.0)

    assert await store.prune_mounts(9.0) == 0
    assert await are_there(store, mount_ids) == [True]


async def test_mount_that_there_is_not_cannot_be_used(store: Store) -> None:
    mount_ids = await put_mounts(store, "a")

    with pytest.raises(PlatformError, match="mo-9") as caught:
        await store.use_mounts(frozenset({*mount_ids, "mo-9"}), 9.0)

    assert caught.value.code == "not_found"


@pytest.mark.long
async def test_many_mounts_are_forgotten_at_once(store: Store) -> None:
    await put_mounts(store, *(f"file-{number}" for number in range(1_100)))

    assert await store.prune_mounts(2.0) == 1_100


# Images


def make_image(image_id: str = "im-1", **changes: object) -> StoredImage:
    spec = ImageSpec((debian_slim("3.11"), run_commands(("echo Ä",))))
    layers = (BuiltLayer("ly-1", 5 * 2**30), BuiltLayer("ly-2", 7, 2))
    image = StoredImage(image_id, spec, ImageConfig({"A": "b"}, layers=("ly-1", "ly-2")), layers, 10.0, 20.0, "ap-1")
    return replace(image, **changes)  # type: ignore[arg-type]


def make_name(image_id: str, text: str = "web:latest", at: float = 1.0, environment: str = "") -> StoredImageName:
    name, _, tag = text.partition(":")
    return StoredImageName(ImageRef(environment, name, tag), image_id, at)


async def test_image_is_read_back_as_it_was_put(store: Store) -> None:
    await store.put_image(make_image(built_at=1.0))
    await store.put_image(make_image())

    assert await store.get_image("im-1") == make_image()
    with pytest.raises(PlatformError, match="im-2") as caught:
        await store.get_image("im-2")
    assert caught.value.code == "not_found"


async def test_images_are_listed_by_their_last_use(store: Store) -> None:
    for number in range(3):
        await store.put_image(make_image(f"im-{number}", used_at=float(number)))
    await store.use_images(frozenset({"im-0", "im-unknown"}), 9.0)

    listed = await store.list_images()

    assert [(one.image_id, one.used_at) for one in listed] == [("im-0", 9.0), ("im-2", 2.0), ("im-1", 1.0)]
    assert await store.list_images(1) == listed[:1]
    assert await store.list_images(before=(9.0, "im-0")) == listed[1:]
    assert await store.list_images(1, (2.0, "im-3")) == listed[1:2]


async def test_name_points_to_one_image_and_keeps_those_before_in_mind(store: Store) -> None:
    for number in range(2):
        await store.put_image(make_image(f"im-{number}"))

    first = await store.publish_image(make_name("im-0", at=1.0))
    again = await store.publish_image(make_name("im-0", at=2.0))
    second = await store.publish_image(make_name("im-1", at=3.0))

    assert first == again == make_name("im-0", at=1.0)
    assert await store.find_image_name(ImageRef("", "web")) == second == make_name("im-1", at=3.0)
    assert await store.list_image_names() == (second,)
    assert await store.list_image_names(earlier=True) == (second, replace(first, is_current=False))


async def test_only_an_image_that_is_there_gets_a_name(store: Store) -> None:
    with pytest.raises(PlatformError, match="im-9") as caught:
        await store.publish_image(make_name("im-9"))

    assert caught.value.code == "not_found"
    assert await store.list_image_names(earlier=True) == ()


async def test_names_are_listed_by_beginning_and_environment(store: Store) -> None:
    await store.put_image(make_image())
    for text, environment in (("web:a", ""), ("web:b", ""), ("Web:a", ""), ("w_b:a", ""), ("web:a", "dev")):
        await store.publish_image(make_name("im-1", text, environment=environment))

    async def listed(environment: str | None, prefix: str) -> list[str]:
        return [str(one.ref) for one in await store.list_image_names(environment, prefix)]

    assert await listed("", "web") == ["web:a", "web:b"]
    assert await listed("", "web:b") == ["web:b"]
    assert await listed("", "w_") == ["w_b:a"]
    assert await listed("dev", "") == ["dev/web:a"]
    assert await listed(None, "w") == ["dev/web:a", "w_b:a", "web:a", "web:b"]


async def test_deleted_name_points_nowhere_and_may_be_given_again(store: Store) -> None:
    await store.put_image(make_image())
    await store.publish_image(make_name("im-1", at=1.0))

    deleted = [await store.delete_image_name(ImageRef("", "web")) for _ in range(2)]
    between = await store.find_image_name(ImageRef("", "web"))
    again = await store.publish_image(make_name("im-1", at=2.0))

    assert deleted == [True, False]
    assert between is None
    assert again == make_name("im-1", at=2.0)
    assert [one.published_at for one in await store.list_image_names(earlier=True)] == [2.0, 1.0]


@pytest.mark.long
async def test_what_a_name_pointed_to_long_ago_is_forgotten(store: Store) -> None:
    count = EARLIER_NAMES_MAX + 5
    for number in range(count):
        await store.put_image(make_image(f"im-{number:03}"))
        await store.publish_image(make_name(f"im-{number:03}", at=float(number)))

    kept = [one.published_at for one in await store.list_image_names(earlier=True)]

    assert kept == [float(number) for number in range(count - 1, 3, -1)]


async def test_image_with_a_name_is_not_forgotten(store: Store) -> None:
    for image_id in ("im-1", "im-2", "im-3"):
        await store.put_image(make_image(image_id))
        await store.publish_image(make_name(image_id, f"{image_id[3:]}:latest"))
    await store.publish_image(make_name("im-3", "2:latest"))
    await store.delete_image_name(ImageRef("", "3"))

    gone = await store.forget_images(frozenset({"im-1", "im-2", "im-3", "im-9"}))

    assert gone == {"im-2"}
    assert {one.image_id for one in await store.list_images()} == {"im-1", "im-3"}


# Durable calls


async def test_call_is_unfinished_until_every_input_has_its_output(store: Store) -> None:
    call, inputs = make_call("fc-1", input_count=2), make_inputs("fc-1", 2)
    await store.put_call(call, inputs)
    await store.put_call(make_call("fc-0", created_at=99.0), make_inputs("fc-0"))

    before = await store.unfinished_inputs("fu-1")
    await store.put_outputs((StoredOutput("fc-1", 0, SUCCEEDED, b"49"),))
    between = await store.unfinished_inputs("fu-1")
    await store.put_outputs((StoredOutput("fc-1", 1, FAILED), StoredOutput("fc-0", 0, SUCCEEDED)))

    older = first_portion(make_call("fc-0", created_at=99.0), make_inputs("fc-0"))
    assert before == (older, first_portion(call, inputs))
    assert between[1] == first_portion(call, inputs[1:])
    assert await store.unfinished_inputs("fu-1") == ()
    assert await store.get_call("fc-1") == call


async def test_unfinished_inputs_come_page_by_page_of_one_function(store: Store) -> None:
    for number in range(6):
        await store.put_call(make_call(f"fc-{number}", 100.0 + number // 2, 2), make_inputs(f"fc-{number}", 2))
    await store.put_call(replace(make_call("fc-other"), function_id="fu-2"), make_inputs("fc-other"))
    await store.put_outputs((StoredOutput("fc-1", 0, SUCCEEDED), StoredOutput("fc-1", 1, SUCCEEDED)))
    await store.put_outputs((StoredOutput("fc-2", 1, SUCCEEDED),))

    counts = await store.unfinished_counts()
    found, after = [], BEGINNING
    while page := await store.unfinished_inputs("fu-1", after, 3):
        found.append([(one.call.call_id, len(one.inputs)) for one in page])
        after = page[-1].place

    assert counts == {"fu-1": 9, "fu-2": 1}
    assert found == [[("fc-0", 2), ("fc-2", 1)], [("fc-3", 2), ("fc-4", 2)], [("fc-5", 2)]]


async def test_a_page_of_unfinished_inputs_ends_with_so_many_bytes(store: Store) -> None:
    for number in range(6):
        call_id = f"fc-{number}"
        inputs = tuple(StoredInput(call_id, index, b"x" * 500) for index in range(2))
        await store.put_call(make_call(call_id, 100.0 + number, 2), inputs)
    await store.put_outputs((StoredOutput("fc-1", 0, SUCCEEDED),))

    found, after = [], BEGINNING
    while page := await store.unfinished_inputs("fu-1", after, 1_000, 2_000):
        found.append([(one.call.call_id, one.size_bytes) for one in page])
        after = page[-1].place

    assert found == [
        [("fc-0", 1_000), ("fc-1", 500), ("fc-2", 1_000)],
        [("fc-3", 1_000), ("fc-4", 1_000)],
        [("fc-5", 1_000)],
    ]
    assert [one.place for one in await store.unfinished_inputs("fu-1", BEGINNING, 1_000, 1)] == [(100.0, "fc-0", 0)]


async def test_call_put_again_stays_as_it_was(store: Store) -> None:
    await store.put_call(make_call("fc-1"), make_inputs("fc-1"))

    await store.put_call(make_call("fc-1", created_at=7.0, input_count=3), make_inputs("fc-1", 3))

    assert await store.unfinished_inputs("fu-1") == (first_portion(make_call("fc-1"), make_inputs("fc-1")),)


async def test_call_is_new_once(store: Store) -> None:
    first = await store.put_call(make_call("fc-1"), make_inputs("fc-1"))
    again = await store.put_call(make_call("fc-1"), make_inputs("fc-1"))
    together = await asyncio.gather(*(store.put_call(make_call("fc-2"), make_inputs("fc-2")) for _ in range(3)))

    assert (first, again) == (True, False)
    assert sorted(together) == [False, False, True]


async def test_cancelled_call_is_read_back_as_such_until_it_is_over(store: Store) -> None:
    await store.put_call(make_call("fc-1", input_count=2), make_inputs("fc-1", 2))
    await store.put_call(make_call("fc-2"), make_inputs("fc-2"))
    await store.put_outputs((StoredOutput("fc-1", 0, SUCCEEDED), StoredOutput("fc-2", 0, SUCCEEDED)))

    cancelled = await store.cancel_call("fc-1")
    over = await store.cancel_call("fc-2")

    assert cancelled == await store.get_call("fc-1") == replace(make_call("fc-1", input_count=2), is_cancelled=True)
    assert over == make_call("fc-2")
    assert [one.call.is_cancelled for one in await store.unfinished_inputs("fu-1")] == [True]
    with pytest.raises(PlatformError, match="fc-9") as caught:
        await store.cancel_call("fc-9")
    assert caught.value.code == "not_found"


async def test_input_has_one_output_the_first(store: Store) -> None:
    await store.put_call(make_call("fc-1"), make_inputs("fc-1"))
    first = StoredOutput("fc-1", 0, SUCCEEDED, b"\x00\xff" * 10, "ab" * 32, 2, 1_500, 200.0)
    second = replace(first, value=b"other")

    accepted = await store.put_outputs((first, second))
    accepted_later = await store.put_outputs((second,))

    assert accepted == (True, False)
    assert accepted_later == (False,)
    assert await store.get_output("fc-1", 0) == first


async def test_output_of_a_long_run_is_kept(store: Store) -> None:
    await store.put_call(make_call("fc-1"), make_inputs("fc-1"))
    output = StoredOutput("fc-1", 0, SUCCEEDED, b"late", run_us=7 * 24 * 3600 * 1_000_000)

    await store.put_outputs((output,))

    assert await store.get_output("fc-1", 0) == output


async def test_equal_output_in_one_batch_is_accepted_once(store: Store) -> None:
    await store.put_call(make_call("fc-1"), make_inputs("fc-1"))
    output = StoredOutput("fc-1", 0, SUCCEEDED)

    assert await store.put_outputs((output, output)) == (True, False)


async def test_output_of_no_call_is_not_kept(store: Store) -> None:
    assert await store.put_outputs((StoredOutput("fc-9", 0, SUCCEEDED),)) == (False,)
    for attempt in (store.get_output("fc-9", 0), store.get_call("fc-9")):
        with pytest.raises(PlatformError, match="fc-9") as caught:
            await attempt

        assert caught.value.code == "not_found"


async def test_calls_and_first_outputs_are_found_together(store: Store) -> None:
    for call_id in ("fc-1", "fc-2", "fc-3"):
        await store.put_call(make_call(call_id, input_count=2), make_inputs(call_id, 2))
    first = [StoredOutput(call_id, 0, SUCCEEDED, b"x" * 10) for call_id in ("fc-1", "fc-2")]
    await store.put_outputs((*first, StoredOutput("fc-3", 1, SUCCEEDED, b"not the first")))

    asked = ("fc-9", "fc-2", "fc-3", "fc-1")
    assert sorted(one.call_id for one in await store.get_calls(asked)) == ["fc-1", "fc-2", "fc-3"]
    assert sorted(await store.first_outputs(asked), key=lambda one: one.call_id) == first
    assert len(await store.first_outputs(asked, bytes_max=10)) == 1
    assert (await store.get_calls(()), await store.first_outputs(())) == ((), ())


async def test_output_is_none_while_there_is_none(store: Store) -> None:
    await store.put_call(make_call("fc-1"), make_inputs("fc-1"))

    assert await store.get_output("fc-1", 0) is None


@pytest.mark.long
async def test_statuses_are_those_of_the_first_inputs(store: Store) -> None:
    await store.put_call(make_call("fc-1", input_count=1_500), make_inputs("fc-1", 1_500))
    done = tuple(StoredOutput("fc-1", index, index % 2) for index in (0, 3, 999, 1_400))
    await store.put_outputs(done)

    assert await store.output_statuses("fc-1") == {0: 0, 3: 1, 999: 1}
    assert await store.output_statuses("fc-1", limit=1) == {0: 0}


@pytest.mark.long
async def test_calls_of_many_callers_at_once_are_all_kept(store: Store) -> None:
    call_ids = [f"fc-{number:04}" for number in range(1_200)]

    await asyncio.gather(*(store.put_call(make_call(call_id), make_inputs(call_id)) for call_id in call_ids))
    accepted = await asyncio.gather(
        *(store.put_outputs((StoredOutput(call_id, 0, SUCCEEDED, call_id.encode()),)) for call_id in call_ids * 2)
    )

    assert await store.unfinished_inputs("fu-1") == ()
    assert sum(one for (one,) in accepted) == len(call_ids)
    output = await store.get_output("fc-0777", 0)
    assert output is not None
    assert output.value == b"fc-0777"


async def test_refused_write_does_not_take_its_neighbours_with_it(store: Store) -> None:
    await store.put_app(make_app())
    writes = [
        store.put_call(make_call("fc-1"), make_inputs("fc-1")),
        store.put_functions((make_function("fu-1"), make_function("fu-2"))),
        store.put_setting("colour", "grün"),
    ]

    _, refused, _ = await asyncio.gather(*writes, return_exceptions=True)

    assert isinstance(refused, PlatformError)
    assert await store.get_call("fc-1") == make_call("fc-1")
    assert await store.get_setting("colour") == "grün"


async def test_blobs_that_something_names_are_live(store: Store) -> None:
    names = [character * 64 for character in "abcdef"]
    await store.put_app(make_app())
    large = MountFile("b.bin", "0" * 64, 12 * 2**20, blocks=(names[4], names[5]))
    await store.put_mount(MountManifest((MountFile("a.py", names[0], 1), large)), 1.0)
    definition = Definition("serialized", blob_sha256=names[1])
    await store.put_functions((replace(make_function(), definition=definition), make_function("fu-2", name="cube")))
    await store.put_call(make_call("fc-1"), (StoredInput("fc-1", 0, blob_sha256=names[2]),))
    await store.put_outputs((StoredOutput("fc-1", 0, SUCCEEDED, blob_sha256=names[3]),))

    assert await store.live_blobs() == frozenset(names)
    await store.expire(1e12)
    assert await store.live_blobs() == frozenset([*names[:2], *names[4:]])


# Schedules


DAILY = StoredSchedule("fu-1", Schedule(CRON, cron="0 9 * * *", timezone="Europe/Berlin"), 3, 100.0, 200.5)


async def test_schedules_are_kept_as_they_were_put_last(store: Store) -> None:
    ran = replace(DAILY, next_at=300.0, last_at=200.5, last_call_id="fc-1", last_outcome="failed", skipped_count=2)
    other = StoredSchedule("fu-2", Schedule(PERIOD, months=1, seconds=0.5), began_at=100.25)
    await store.put_schedules((DAILY, other))
    await store.put_schedules((ran,))
    await store.put_schedules(())

    assert set(await store.list_schedules()) == {ran, other}


async def test_forgotten_schedule_is_gone(store: Store) -> None:
    await store.put_schedules((DAILY, replace(DAILY, function_id="fu-2")))
    await store.forget_schedules(frozenset({"fu-1", "fu-unknown"}))
    await store.forget_schedules(frozenset())

    assert [one.function_id for one in await store.list_schedules()] == ["fu-2"]


async def test_schedules_of_many_functions_are_put_at_once(store: Store) -> None:
    many = tuple(replace(DAILY, function_id=f"fu-{number}", next_at=float(number)) for number in range(2_000))
    later = [(replace(one, next_at=one.next_at + 1.0),) for one in many if one.next_at is not None]

    await store.put_schedules(many)
    await asyncio.gather(*map(store.put_schedules, later))

    assert {one.next_at for one in await store.list_schedules()} == {number + 1.0 for number in range(2_000)}
    await store.forget_schedules(frozenset(one.function_id for one in many))
    assert await store.list_schedules() == ()


# Settings


async def test_setting_is_the_last_value_put(store: Store) -> None:
    nothing = await store.get_setting("colour")
    await store.put_setting("colour", "red")
    await store.put_setting("colour", "blue")

    assert nothing is None
    assert await store.get_setting("colour") == "blue"


# Writes that share a transaction


@pytest.mark.parametrize("database", ["sqlite", POSTGRES])
async def test_write_that_the_database_fails_takes_none_of_its_group_with_it(
    request: pytest.FixtureRequest, make_data_dir: Callable[[], Path], database: str
) -> None:
    if database == "sqlite":
        url, broken = f"sqlite:///{make_data_dir()}/squall.db", "json('broken')"
    else:
        url, broken = new_postgres_database(request.getfixturevalue("postgres_socket_dir")), "repeat('x', 1100000000)"

    def put(connection: sa.Connection, values: Sequence[Any]) -> list[Any]:
        for value in values:
            text = broken if value == 70 else "''"
            connection.execute(sa.text(f"INSERT INTO kept VALUES ({value}, {text})"))
        return list(values)

    engine = sa.create_engine(url)
    with engine.begin() as connection:
        connection.execute(sa.text("CREATE TABLE kept (value INTEGER, text TEXT)"))
    commits = GroupCommit(engine)
    results = await asyncio.gather(*(commits.write(put, number) for number in range(100)), return_exceptions=True)
    await commits.close()
    with engine.connect() as connection:
        kept = connection.execute(sa.text("SELECT value FROM kept ORDER BY value")).scalars().all()
    engine.dispose()

    assert [number for number in range(100) if results[number] != number] == [70]
    assert isinstance(results[70], OperationalError)
    assert list(kept) == [number for number in range(100) if number != 70]
