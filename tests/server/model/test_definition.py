"""Which calls a definition allows."""

from __future__ import annotations

import pytest

from squall.protocol.call import GENERATOR, MAP, REMOTE, SPAWN
from squall.protocol.errors import INVALID, PlatformError
from squall.protocol.function import BY_FILE, ISOLATIONS, Definition, FunctionSpec, MethodSpec, ParameterSpec
from squall.protocol.records import replace
from squall.server.model.definition import check_isolation, check_method, is_generator

FUNCTION = Definition(BY_FILE, "hello", "count", is_generator=True)
CLASS = Definition(
    BY_FILE, "hello", "Model", is_class=True, methods=(MethodSpec("predict"), MethodSpec("stream", is_generator=True))
)
SIZED = replace(CLASS, parameters=(ParameterSpec("size", "int", is_required=True), ParameterSpec("name", "str")))


def make_spec(definition: Definition) -> FunctionSpec:
    return FunctionSpec("fu-1", "ap-1", definition.qualname, definition, "im-1")


@pytest.mark.parametrize(
    ("definition", "method", "expected"),
    [
        (FUNCTION, "", True),
        (CLASS, "predict", False),
        (CLASS, "stream", True),
        (CLASS, "gone", False),
        (CLASS, "", False),
    ],
)
def test_methods_say_for_themselves_whether_they_yield(definition: Definition, method: str, expected: bool) -> None:
    assert is_generator(definition, method) is expected


@pytest.mark.parametrize(
    ("definition", "method", "kind"),
    [
        (FUNCTION, "", GENERATOR),
        (CLASS, "predict", REMOTE),
        (CLASS, "predict", MAP),
        (CLASS, "predict", SPAWN),
        (CLASS, "stream", GENERATOR),
    ],
)
def test_what_there_is_can_be_called(definition: Definition, method: str, kind: str) -> None:
    check_method("CallOpen", make_spec(definition), method, kind)


@pytest.mark.parametrize(
    ("definition", "method", "kind", "message"),
    [
        (SIZED, "predict", REMOTE, "an object of class Model needs size="),
        (CLASS, "gone", REMOTE, "CallOpen: class Model has no method 'gone'; it has: predict, stream"),
        (CLASS, "", REMOTE, "class Model has methods, and the call names none; it has: predict, stream"),
        (CLASS, "stream", SPAWN, "method stream of class Model is a generator: call .remote_gen()"),
        (CLASS, "predict", GENERATOR, "method predict of class Model is no generator: call .remote()"),
        (FUNCTION, "predict", REMOTE, "function count is no class: it has no method 'predict'"),
    ],
)
def test_what_there_is_not_is_refused_by_name(definition: Definition, method: str, kind: str, message: str) -> None:
    with pytest.raises(PlatformError) as caught:
        check_method("CallOpen", make_spec(definition), method, kind)

    assert caught.value.code == INVALID
    assert message in caught.value.message


@pytest.mark.parametrize("isolation", ISOLATIONS)
def test_containers_are_kept_apart_in_one_of_these_ways(isolation: str) -> None:
    check_isolation("AppPublish", [replace(make_spec(FUNCTION), isolation=isolation)])


def test_another_isolation_is_refused_and_not_taken_for_none() -> None:
    wrong = replace(make_spec(FUNCTION), isolation="gVisor")

    with pytest.raises(
        PlatformError, match="AppPublish: function 'count': isolation 'gVisor' must be namespaces or gvis"
    ):
        check_isolation("AppPublish", [make_spec(FUNCTION), wrong])
