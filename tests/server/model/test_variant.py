"""What variants are: pure, from what is asked for and the record of the function."""

from __future__ import annotations

from typing import Any

import pytest

from squall.protocol.bucket import BucketMount
from squall.protocol.errors import PlatformError
from squall.protocol.function import (
    BY_FILE,
    GVISOR,
    Batching,
    Definition,
    FunctionBind,
    FunctionOptions,
    FunctionSpec,
    Hosting,
    MethodSpec,
    ParameterSpec,
    Resources,
    RetryPolicy,
    Scaling,
    Schedule,
)
from squall.protocol.ids import is_id
from squall.protocol.parameters import encode
from squall.protocol.records import replace
from squall.protocol.volume import VolumeMount
from squall.server.model.variant import (
    check_asked,
    composed,
    is_plain,
    merged,
    name_of,
    plain_name,
    remade,
    variant_id,
)

MODEL = Definition(
    BY_FILE, "hello", "Model", is_class=True, methods=(MethodSpec("run"),),
    parameters=(ParameterSpec("size", "int", is_required=True), ParameterSpec("name", "str")),
)  # fmt: skip
BASE = FunctionSpec(
    "fu-base", "ap-1", "Model", MODEL, "im-1",
    env={"A": "1"},
    resources=Resources(1_000, 2_000, 512, 1_024, 100),
    scaling=Scaling(2, 10, 1, 60.0, 4, 2),
    retries=RetryPolicy(3),
    timeout_s=30.0,
    batching=Batching(8, 100),
    schedule=Schedule("cron", "* * * * *"),
    version=7,
    hosting=Hosting("aws", ("eu",), None, True),
    volumes=(VolumeMount("vo-1", "/data"),),
    buckets=(BucketMount("bucket", "/bucket"),),
)  # fmt: skip
OTHER = VolumeMount("vo-2", "/other")
BUCKET = BucketMount("of-its-own", "/of-it", secret_id="st-1")

TWO_METHODS = replace(
    BASE, definition=Definition(BY_FILE, "m", "Model", is_class=True, methods=(MethodSpec("one"), MethodSpec("two")))
)


def ask(parameters: dict[str, Any] | None = None, version: int = 0, **options: Any) -> FunctionBind:
    given = FunctionOptions(**options) if options else None
    return FunctionBind("fu-base", encode(parameters or {}), given, version)


@pytest.mark.parametrize(
    ("options", "changed"),
    [
        ({"env": {"B": "2"}}, {"env": {"B": "2"}}),
        ({"env": {}}, {"env": {}}),
        # A request without a limit takes the limit away, and leaves the rest.
        ({"resources": Resources(4_000)}, {"resources": Resources(4_000, None, 512, 1_024, 100)}),
        ({"resources": Resources(memory_mib=64)}, {"resources": Resources(1_000, 2_000, 64, None, 100)}),
        ({"retries": RetryPolicy(0)}, {"retries": RetryPolicy(0)}),
        ({"timeout_s": 5.0}, {"timeout_s": 5.0}),
        ({"volumes": (OTHER,)}, {"volumes": (OTHER,), "buckets": ()}),
        ({"batching": Batching(2, 5)}, {"batching": Batching(2, 5)}),
        ({"hosting": Hosting("gcp", None, "eu")}, {"hosting": Hosting("gcp", ("eu",), "eu", True)}),
        ({"max_containers": 3}, {"scaling": Scaling(0, 3, 1, 60.0, 4, 2)}),
        ({"buffer_containers": 0}, {"scaling": Scaling(0, 10, 0, 60.0, 4, 2)}),
        ({"scaledown_window_s": 9.0}, {"scaling": Scaling(0, 10, 1, 9.0, 4, 2)}),
        ({"max_inputs": 9}, {"scaling": Scaling(0, 10, 1, 60.0, 9, None)}),
        ({"max_inputs": 9, "target_inputs": 5}, {"scaling": Scaling(0, 10, 1, 60.0, 9, 5)}),
    ],
)
def test_options_take_the_place_of_what_the_function_has(options: dict[str, Any], changed: dict[str, Any]) -> None:
    asked = ask(**options)

    found = merged(BASE, asked)

    expected = replace(
        BASE, function_id=variant_id(asked), name=name_of("Model", asked), variant_of="fu-base", options=asked.options,
        schedule=None, **{"scaling": Scaling(0, 10, 1, 60.0, 4, 2), **changed},
    )  # fmt: skip
    assert found == expected


def test_a_variant_keeps_no_containers_waiting_and_has_no_schedule() -> None:
    found = merged(BASE, ask({"size": 3}))

    assert found.scaling.min_containers == 0
    assert found.schedule is None
    assert (found.variant_of, found.parameters, found.version) == ("fu-base", '{"size":3}', 7)
    assert not found.is_pinned


def test_a_variant_starts_like_its_function_and_is_kept_apart_like_it() -> None:
    base = replace(BASE, is_snapshot_enabled=True, isolation=GVISOR)

    made = merged(base, FunctionBind("fu-base", options=FunctionOptions(timeout_s=1.0)))

    assert (made.is_snapshot_enabled, made.isolation) == (True, GVISOR)


def test_the_id_says_what_was_asked_for_and_nothing_else() -> None:
    asks = [ask({"size": 3}), ask({"size": 4}), ask(timeout_s=3.0), ask(version=3), ask({"size": 3}, 3)]
    ids = {variant_id(one) for one in asks}

    assert len(ids) == len(asks)
    assert all(is_id(one, "fu") for one in ids)
    assert variant_id(ask({"size": 3, "name": "x"})) == variant_id(ask({"name": "x", "size": 3}))
    assert variant_id(ask({"size": 3})) == "fu-0NPUpuEuZS30ZuqgFmyH4v"


def test_asking_of_a_variant_is_asking_of_its_function_for_both() -> None:
    first = merged(BASE, ask({"size": 3}, timeout_s=5.0, resources=Resources(4_000)))
    more = FunctionBind(first.function_id, "", FunctionOptions(timeout_s=9.0, resources=Resources(memory_mib=64)))

    found = composed(first, more)

    assert found == ask({"size": 3}, timeout_s=9.0, resources=Resources(4_000, None, 64, None))
    near, later = FunctionOptions(hosting=Hosting(routing_region="eu")), ask(hosting=Hosting("oci", ("us",)))
    assert composed(merged(BASE, later), FunctionBind("fu-x", "", near)) == ask(hosting=Hosting("oci", ("us",), "eu"))
    assert composed(merged(BASE, ask(version=2)), FunctionBind("fu-x", "", None)) == ask(version=2)


def test_mounts_are_all_replaced_by_those_of_options_buckets_too() -> None:
    first = merged(BASE, ask(volumes=(), buckets=(BUCKET,)))
    again = composed(first, FunctionBind("fu-x", "", FunctionOptions(volumes=(OTHER,))))

    assert (first.volumes, first.buckets) == ((), (BUCKET,))
    assert (merged(BASE, again).volumes, merged(BASE, again).buckets) == ((OTHER,), ())


def test_buckets_without_volumes_say_nothing_of_what_becomes_of_these() -> None:
    with pytest.raises(PlatformError, match="buckets are given together with volumes"):
        check_asked(BASE, ask({"size": 3}, buckets=(BUCKET,)))


def test_what_is_held_to_a_version_says_the_one_that_was_asked_for() -> None:
    found = merged(BASE, ask(version=9))

    assert (found.version, found.is_pinned) == (9, True)
    assert composed(found, FunctionBind(found.function_id, encode({"size": 3}))) == ask({"size": 3}, 9)


def test_a_class_that_needs_parameters_may_be_held_to_a_version_without() -> None:
    check_asked(BASE, ask(version=2))


def test_asking_for_nothing_is_plain() -> None:
    assert is_plain(composed(BASE, ask(env=None)))
    assert is_plain(composed(BASE, FunctionBind("fu-base", "", FunctionOptions())))
    assert not is_plain(ask({"size": 1}))


def test_a_deploy_makes_the_record_anew() -> None:
    variant = merged(BASE, ask({"size": 3}, timeout_s=5.0))
    after = replace(BASE, image_id="im-2", timeout_s=99.0, version=8)

    found = remade(variant, after)

    assert found == replace(variant, image_id="im-2", version=8)


@pytest.mark.parametrize(
    ("asked", "name"),
    [
        (ask({"size": 3, "name": "a"}), "Model(name='a', size=3)"),
        (ask(timeout_s=5.0), "Model[timeout=5]"),
        (ask({"size": 3}, 2, resources=Resources(500)), "Model(size=3)[cpu=0.5, v2]"),
        (ask(env={"SECRET": "x"}), "Model[env]"),
        (ask(volumes=(OTHER, VolumeMount("vo-1", "/data"))), "Model[volumes=/other+/data]"),
        (ask(volumes=(OTHER,), buckets=(BUCKET,)), "Model[volumes=/other, buckets=/of-it]"),
        (ask(volumes=(), buckets=(BUCKET,)), "Model[buckets=/of-it]"),
        (ask(volumes=(OTHER,), buckets=()), "Model[volumes=/other]"),
    ],
)
def test_names_are_for_people(asked: FunctionBind, name: str) -> None:
    found = merged(BASE, asked)

    assert found.name == name
    assert plain_name(found) == "Model"


def test_long_parameters_make_no_long_name() -> None:
    assert len(merged(BASE, ask({"size": 1, "name": "x" * 10_000})).name) < 100


@pytest.mark.parametrize(
    ("base", "asked", "message"),
    [
        (BASE, ask({"size": "3"}), "parameter size of class Model must be int, not str"),
        (BASE, ask({"size": True}), "parameter size of class Model must be int, not bool"),
        (BASE, ask({"height": 3}), "class Model has no parameter 'height'; it has: size, name"),
        (BASE, ask({"name": "x"}), "class Model needs size="),
        (BASE, FunctionBind("fu-base", '{"size": 3}'), "not written as they are compared"),
        (BASE, FunctionBind("fu-base", '{"size":{"bytes":"?"}}'), "cannot be read"),
        (BASE, FunctionBind("fu-base", "[" * 9_000), "cannot be read"),
        (BASE, ask({"size": 1, "name": "x" * 20_000}), "longer than 16384"),
        (BASE, ask({"size": 1}, target_inputs=5, max_inputs=3), "target_inputs must be from 1 to max_inputs"),
        (TWO_METHODS, ask(batching=Batching(2, 1)), "cannot be given lists"),
        (
            replace(BASE, definition=Definition(BY_FILE, "m", "f", is_generator=True)),
            ask(batching=Batching(2, 1)),
            "cannot be given lists",
        ),
        (replace(BASE, scaling=Scaling(is_single_use=True)), ask({"size": 1}, max_inputs=2), "for a single input"),
        (replace(BASE, definition=Definition(BY_FILE, "m", "f")), ask({"size": 1}), "is no class"),
        (BASE, ask({"size": 1}, env={"A": "x" * 70_000}), "options are longer"),
    ],
)
def test_what_cannot_be_is_refused_by_name(base: FunctionSpec, asked: FunctionBind, message: str) -> None:
    with pytest.raises(PlatformError) as caught:
        check_asked(base, asked)

    assert caught.value.code == "invalid"
    assert message in caught.value.message
