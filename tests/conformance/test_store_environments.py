"""One suite for every store: environments."""

from __future__ import annotations

from squall.server.model.store import Store, StoredApp


async def test_environments_are_kept_with_their_age_until_they_are_deleted(store: Store) -> None:
    await store.put_environment("dev", 1.0)
    await store.put_environment("staging", 2.0)
    await store.put_environment("dev", 3.0)

    assert await store.list_environments() == {"dev": 1.0, "staging": 2.0}

    await store.delete_environment("dev")
    await store.delete_environment("unknown")
    assert await store.list_environments() == {"staging": 2.0}


async def test_apps_are_listed_by_environment(store: Store) -> None:
    for number, environment in enumerate(("", "dev", "dev")):
        await store.put_app(StoredApp(f"ap-{number}", "hello", created_at=float(number), environment=environment))

    assert [app.app_id for app in await store.list_apps(environment="dev")] == ["ap-2", "ap-1"]
    assert [app.app_id for app in await store.list_apps(environment="")] == ["ap-0"]
    assert len(await store.list_apps()) == 3


async def test_apps_are_listed_by_name(store: Store) -> None:
    for number, name in enumerate(("hello", "other", "hello")):
        await store.put_app(StoredApp(f"ap-{number}", name, created_at=float(number)))

    assert [app.app_id for app in await store.list_apps(name="hello")] == ["ap-2", "ap-0"]
    assert [app.app_id for app in await store.list_apps(1, name="hello", environment="")] == ["ap-2"]
    assert await store.list_apps(name="none") == ()
