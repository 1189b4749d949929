"""What autoscalers go by, of every store: kept until the function is put again."""

from __future__ import annotations

from squall.protocol.app import DEPLOYED
from squall.protocol.function import Definition, FunctionSpec, Scaling
from squall.server.model.store import Store, StoredApp
from squall.server.model.version import StoredVersion


def make_function(function_id: str = "fu-1", name: str = "square") -> FunctionSpec:
    return FunctionSpec(function_id, "ap-1", name, Definition("file", "hello", "square"), "im-1")


async def test_scaling_is_kept_until_the_function_is_put_again(store: Store) -> None:
    await store.put_app(StoredApp("ap-1", "hello"))
    await store.put_functions((make_function(), make_function("fu-2", name="cube")))

    await store.set_scaling("ap-1", "fu-1", Scaling(min_containers=2))
    await store.set_scaling("ap-1", "fu-2", Scaling(max_containers=3))
    await store.set_scaling("ap-1", "fu-1", Scaling(min_containers=4))
    assert await store.list_scaling("ap-1") == {"fu-1": Scaling(min_containers=4), "fu-2": Scaling(max_containers=3)}
    await store.put_functions((make_function(),))

    assert await store.list_scaling("ap-1") == {"fu-2": Scaling(max_containers=3)}
    assert await store.get_function("fu-1") == make_function()
    assert await store.list_scaling("ap-9") == {}


async def test_a_version_resets_the_scaling_of_variants_too(store: Store) -> None:
    app = StoredApp("ap-1", "hello", DEPLOYED)
    await store.put_app(app)
    await store.set_scaling("ap-1", "fu-variant", Scaling(min_containers=2))

    version = StoredVersion("ap-1", 1, 100.0)
    await store.publish_version(app, version, (make_function(),), frozenset(), 9)

    assert await store.list_scaling("ap-1") == {}
