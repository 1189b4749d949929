"""Classes: what is read of them, what is refused, how their objects are called here and there."""

# mypy: disable-error-code="attr-defined, call-arg, arg-type, type-var"
# To mypy, which does not see through `app.cls`, a decorated class is the one below.

from __future__ import annotations

import asyncio
import inspect
import pickle
import sys
from collections.abc import Iterator
from types import ModuleType
from typing import Any, cast

import cloudpickle
import pytest

import squall
from squall.exception import ExecutionError, InvalidError, NotFoundError
from squall.protocol.function import MethodSpec, ParameterSpec
from squall.protocol.parameters import decode
from squall.sdk._user_class import UserClass
from squall.sdk.cls import Cls
from squall.sdk.function import Function
from tests.sdk.double import ServerDouble

app = squall.App("classes", include_source=False)
LOG: list[str] = []


class Above:
    name: str = squall.parameter(default="n")
    counted = 0

    @squall.enter()
    def first(self) -> None:
        LOG.append("first")
        self.seen = ["first"]

    @squall.enter()
    def replaced(self) -> None:
        LOG.append("not this one")

    @squall.method()
    def who(self) -> str:
        return self.name


@app.cls(scaledown_window=5)
class Model(Above):
    """Multiplies."""

    size: int = squall.parameter()
    raw: bytes = squall.parameter(default=b"\x00")
    hidden: str = squall.parameter(default="h", init=False)

    @squall.enter()
    def replaced(self) -> None:
        LOG.append("replaced")
        self.seen.append("replaced")

    @squall.enter()
    def last(self) -> None:
        LOG.append("last")
        self.seen.append("last")

    @squall.method()
    def times(self, x: int) -> int:
        return x * self.size

    @squall.method()
    def count(self, to: int) -> Iterator[int]:
        yield from range(to)

    @squall.method()
    def within(self, x: int) -> int:
        return self.times.local(x) + 1

    def plain(self) -> str:
        return f"plain {self.size}"

    @squall.exit()
    def leave(self) -> None: ...


@app.cls()
class Plain:
    @squall.method()
    def hello(self) -> str:
        return "hello"


@app.cls()
class Mixed:
    @squall.enter()
    async def load(self) -> None:
        await asyncio.sleep(0)
        self.is_loaded = True

    @squall.method()
    def sync(self) -> bool:
        return self.is_loaded

    @squall.method()
    async def later(self) -> bool:
        return self.is_loaded

    @squall.method()
    async def items(self) -> Any:
        yield self.is_loaded


@pytest.fixture(autouse=True)
def empty_log() -> None:
    LOG.clear()


def define(body: dict[str, Any], bases: tuple[type, ...] = (), **given: Any) -> Any:
    """A class with that body, decorated."""
    annotations = {name: "int" for name, value in body.items() if isinstance(value, type(squall.parameter()))}
    made = type("Made", bases, {"__annotations__": annotations, "__qualname__": "Made", **body})
    return squall.App("x").cls(serialized=True, **given)(made)


def method(**options: Any) -> Any:
    def run(self: Any) -> None: ...

    run.__qualname__ = "Made.run"
    return squall.method(**options)(run)


# Reading


def test_what_is_read_of_a_class_and_of_those_above_it() -> None:
    user_class = Model.user_class

    assert list(user_class.methods.values()) == [
        MethodSpec("who"), MethodSpec("times"), MethodSpec("count", is_generator=True), MethodSpec("within"),
    ]  # fmt: skip
    assert [hook.__qualname__ for hook in user_class.enter_hooks] == ["Above.first", "Model.replaced", "Model.last"]
    assert [hook.__qualname__ for hook in user_class.exit_hooks] == ["Model.leave"]
    assert user_class.givable == (
        ParameterSpec("name", "str"), ParameterSpec("size", "int", is_required=True), ParameterSpec("raw", "bytes"),
    )  # fmt: skip
    assert not user_class.is_async
    assert Mixed.user_class.is_async


def test_app_has_classes_apart_from_functions() -> None:
    assert set(app.registered_classes) == {"Model", "Plain", "Mixed"}
    assert app.registered_functions == {}
    other = squall.App("other").include(app)
    assert other.registered_classes == app.registered_classes


def test_a_decorated_class_says_whose_it_is() -> None:
    made: Any = Model
    assert isinstance(made, Cls)
    assert repr(made) == "<Cls Model>"
    assert Model.__doc__ == "Multiplies."
    assert Model.__name__ == "Model"
    assert repr(Model(size=3)) == "<Obj Model(size=3)>"
    assert Model.counted == 0


def test_deriving_from_a_decorated_class_derives_from_the_users() -> None:
    class Derived(Model):
        pass

    assert Derived.__mro__[1].__name__ == "Model"
    assert not hasattr(Derived, "service_function")


# Refusals


def test_constructors_are_refused_also_inherited_ones() -> None:
    with pytest.raises(InvalidError, match="class Made has an __init__, which is not called"):
        define({"__init__": lambda self: None, "run": method()})
    above = type("Above", (), {"__init__": lambda self: None})
    with pytest.raises(InvalidError, match="has an __init__, from Above"):
        define({"run": method()}, (above,))


@pytest.mark.parametrize(
    ("annotations", "message"),
    [
        ({}, "parameter x of class Made has no annotation"),
        ({"x": float}, "parameter x of class Made is annotated as float: it can be str, int, bool or bytes"),
        ({"x": "list[int]"}, "is annotated as list"),
        ({"x": str}, "parameter x of class Made: default=3 must be of type str"),
        ({"x": bool}, "default=3 must be of type bool"),
    ],
)
def test_parameters_that_cannot_be(annotations: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidError, match=message):
        define({"x": squall.parameter(default=3), "__annotations__": annotations, "run": method()})


def test_a_class_needs_something_to_call() -> None:
    with pytest.raises(InvalidError, match="class Made has nothing to call"):
        define({"run": lambda self: None})


def test_a_batched_method_is_alone() -> None:
    def many(self: Any, xs: list[int]) -> list[int]:
        return xs

    many.__qualname__ = "Made.many"
    batched = squall.batched(max_batch_size=2, wait_ms=10)(many)

    assert define({"many": batched}).user_class.batching.max_batch_size == 2
    with pytest.raises(InvalidError, match="has a batched method, so it can have no other one: it has many, run"):
        define({"many": batched, "run": method()})


def test_hooks_take_nothing_and_yield_nothing() -> None:
    def takes(self: Any, x: int) -> None: ...

    def yields(self: Any) -> Iterator[int]:
        yield 1

    for hook, message in ((takes, "a hook takes no arguments but self"), (yields, "a hook cannot yield")):
        with pytest.raises(InvalidError, match=message):
            define({"run": method(), "hook": squall.enter()(hook)})


def load(self: Any) -> None: ...


def warm_up(self: Any) -> None: ...


def test_hooks_before_a_snapshot_need_one() -> None:
    hook = squall.enter(snap=True)(load)

    with pytest.raises(
        InvalidError, match=r"enter\(snap=True\) on Made.load needs a memory snapshot: write @app.cls\(en"
    ):
        define({"run": method(), "load": hook})
    with pytest.raises(InvalidError, match=r"on Made.load needs a memory snapshot"):
        define({"run": method(), "load": hook}, enable_memory_snapshot=False)

    assert define({"run": method(), "load": hook}, enable_memory_snapshot=True)


def test_hooks_before_a_snapshot_are_run_before_the_others() -> None:
    parts = {"warm_up": squall.enter()(warm_up), "load": squall.enter(snap=True)(load), "run": method()}

    user_class = define(parts, enable_memory_snapshot=True).user_class

    assert user_class.snap_hooks == (load,)
    assert user_class.enter_hooks == (load, warm_up)


def test_static_methods_cannot_be_called() -> None:
    with pytest.raises(InvalidError, match="@staticmethod on Made"):
        define({"run": staticmethod(method()), "other": method()})


def test_decorating_twice_and_on_the_wrong_thing() -> None:
    with pytest.raises(InvalidError, match="<Cls Plain>: it is decorated by an app already"):
        squall.App("x").cls()(Plain)
    with pytest.raises(InvalidError, match="it takes a class; functions have"):
        squall.App("x").cls()(define)
    with pytest.raises(InvalidError, match="it goes on a plain function, below"):
        squall.concurrent(max_inputs=2)(Plain)
    with pytest.raises(InvalidError, match="with parentheses"):
        squall.App("x").cls(Plain)


def test_nested_classes_need_to_be_serialized() -> None:
    class Nested:
        run = method()

    with pytest.raises(InvalidError, match="where a container cannot import it"):
        squall.App("x").cls()(Nested)


def test_min_containers_of_a_class_that_needs_parameters_is_told_to_mean_nothing() -> None:
    with pytest.warns(UserWarning, match="min_containers= means nothing for a class whose objects need x"):
        made = define({"x": squall.parameter(), "run": method()}, min_containers=2)

    assert made.service_function.definition.options.min_containers == 0


@pytest.mark.parametrize(
    ("args", "kwargs", "message"),
    [
        ((), {}, r"Model\(\): class Model needs size="),
        ((3,), {}, r"Model\(\): parameters are given by name: name=…, size=…, raw=…"),
        ((), {"size": "3"}, "parameter size of class Model must be int, not str"),
        ((), {"size": True}, "parameter size of class Model must be int, not bool"),
        ((), {"size": 3, "depth": 1}, "class Model has no parameter 'depth'; it has: name, size, raw"),
        ((), {"size": 3, "hidden": "x"}, "class Model has no parameter 'hidden'"),
        ((), {"size": 3, "name": "x" * 20_000}, "its parameters are 20,0.. characters"),
    ],
)
def test_wrong_parameters_are_refused_by_name(args: tuple[Any, ...], kwargs: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidError, match=message):
        Model(*args, **kwargs)


def test_an_object_is_refused_what_its_class_has_not() -> None:
    with pytest.raises(InvalidError, match="has no parameter 'depth'"):
        Model(size=3, depth=1)


def test_a_method_needs_an_object() -> None:
    with pytest.raises(AttributeError, match=r"Plain\.hello\.remote: instantiate the class first, as in Plain\(\)"):
        Plain.hello.remote()
    with pytest.raises(TypeError, match="is not callable"):
        Plain.hello()


def test_a_serialized_class_is_read_as_before() -> None:
    cloudpickle.register_pickle_by_value(sys.modules[__name__])
    try:
        copy = pickle.loads(cloudpickle.dumps(Single))
    finally:
        cloudpickle.unregister_pickle_by_value(sys.modules[__name__])

    found = UserClass(copy)

    assert found.givable == (ParameterSpec("size", "int", is_required=True), ParameterSpec("name", "str"))
    assert found.make({"size": 3}).name == "n"
    assert [hook.__name__ for hook in found.enter_hooks] == ["load"]


class Single:
    size: int = squall.parameter()
    name: str = squall.parameter(default="n")

    @squall.enter()
    def load(self) -> None: ...

    @squall.method()
    def run(self) -> None: ...


# Here


def test_local_calls_enter_once_and_attributes_do_not() -> None:
    model = Model(size=3, name="x")

    assert (model.size, model.hidden, model.plain(), model.name) == (3, "h", "plain 3", "x")
    assert LOG == []
    assert model.times.local(5) == 15
    assert model.within.local(5) == 16
    assert list(model.count.local(2)) == [0, 1]
    assert LOG == ["first", "replaced", "last"]
    assert model.seen == LOG


def test_attributes_can_be_set_and_missing_ones_are_missing() -> None:
    model = Model(size=3)
    model.size = 4

    assert model.times.local(2) == 8
    with pytest.raises(AttributeError):
        _ = model.nothing
    with pytest.raises(AttributeError):
        _ = Model.nothing


def test_async_hooks_run_before_methods_of_either_kind() -> None:
    assert Mixed().sync.local() is True
    assert asyncio.run(Mixed().later.local()) is True

    async def items() -> list[Any]:
        return [item async for item in Mixed().items.local()]

    assert asyncio.run(items()) == [True]


def test_async_hooks_cannot_run_within_a_loop_for_a_plain_method() -> None:
    async def call() -> None:
        Mixed().sync.local()

    with pytest.raises(InvalidError, match="class Mixed has async enter hooks"):
        asyncio.run(call())


def test_without_its_app_nothing_is_remote() -> None:
    with pytest.raises(ExecutionError, match="function Plain cannot be called: its app does not run"):
        Plain().hello.remote()


# There


def test_objects_are_called_with_their_parameters(server: ServerDouble) -> None:
    with app.run():
        three = Model(size=3)

        assert three.times.remote(5) == 15
        assert list(three.times.map([1, 2])) == [3, 6]
        assert list(three.times.starmap([(1,), (2,)])) == [3, 6]
        assert list(three.count.remote_gen(3)) == [0, 1, 2]
        assert asyncio.run(_awaited(three)) == 12
        three.times.for_each([1])
        assert Model(size=4, name="b").who.remote() == "b"

    assert [one.parameters for one in server.bound] == ['{"size":3}', '{"name":"b","size":4}']
    assert {one.method for one in server.opened} == {"times", "count", "who"}


async def _awaited(model: Any) -> Any:
    return await model.times.remote.aio(4)


def test_an_object_without_parameters_is_the_class_itself(server: ServerDouble) -> None:
    with app.run():
        assert Plain().hello.remote() == "hello"

    assert server.bound == []


def test_equal_objects_ask_the_server_once(server: ServerDouble) -> None:
    with app.run():
        for _ in range(3):
            assert Model(size=7).times.remote(1) == 7

    assert len(server.bound) == 1


def test_a_value_that_is_the_default_is_asked_for_all_the_same(server: ServerDouble) -> None:
    # A later version may have another default: who left it out is to have that one, who gave it is not.
    with app.run():
        assert Model(size=7).times.remote(1) == Model(size=7, raw=b"\x00").times.remote(1) == 7

    assert [decode(one.parameters) for one in server.bound] == [{"size": 7}, {"size": 7, "raw": b"\x00"}]


def test_generators_are_told_from_others(server: ServerDouble) -> None:
    with app.run():
        with pytest.raises(InvalidError, match=r"function Model\.count is a generator"):
            Model(size=1).count.remote(1)
        with pytest.raises(InvalidError, match=r"function Model\.times is no generator"):
            list(Model(size=1).times.remote_gen(1))


def test_definition_says_what_the_server_has_to_know(server: ServerDouble) -> None:
    with app.run():
        spec = next(one for one in server.functions.values() if one.name == "Model")

    assert spec.definition.is_class
    assert spec.definition.has_exit_hooks
    assert [one.name for one in spec.definition.methods] == ["who", "times", "count", "within"]
    assert [one.name for one in spec.definition.parameters] == ["name", "size", "raw"]
    assert spec.scaling.scaledown_window_s == 5


def test_options_make_another_pool_and_add_up(server: ServerDouble) -> None:
    with app.run():
        slow = Model.with_options(timeout=9, cpu=2.0).with_options(memory=64).with_concurrency(max_inputs=3)
        assert slow(size=2).times.remote(1) == 2

    (asked,) = server.bound
    assert asked.options is not None
    assert (asked.options.timeout_s, asked.options.max_inputs, asked.options.target_inputs) == (9, 3, 3)
    assert asked.options.resources is not None
    assert (asked.options.resources.cpu_milli, asked.options.resources.memory_mib) == (2000, 64)


def test_options_are_checked_when_they_are_given() -> None:
    for wrong, message in (
        ({"timeout": 0}, r"Model.with_options\(\): timeout=0 must be from 1"),
        ({"cpu": "two"}, "cpu='two'"),
        ({"gpu": "A100"}, "gpu= is not in this version"),
        ({"max_containers": 0}, "max_containers=0"),
        ({"volumes": {"/x": 1}}, r"Model.with_options\(\): volumes=.* must be a squall.Volume"),
    ):
        with pytest.raises(InvalidError, match=message):
            Model.with_options(**wrong)
    with pytest.raises(InvalidError, match="max_inputs"):
        Model.with_concurrency(max_inputs=0)
    with pytest.raises(InvalidError, match="options are given to the class"):
        Model(size=1).times.with_options(timeout=3)


def test_an_object_has_an_autoscaler_of_its_own(server: ServerDouble) -> None:
    with app.run():
        three = Model(size=3)
        three.update_autoscaler(min_containers=1, scaledown_window=20)
        three.times.autoscaler.update(max_containers=None)

    (spec,) = [one for one in server.functions.values() if one.variant_of]
    first, second = server.rescaled
    assert {first.function_id, second.function_id} == {spec.function_id}
    assert (first.min_containers, first.max_containers, first.is_unbounded) == (1, None, False)
    assert (first.scaledown_window_s, second.is_unbounded, second.min_containers) == (20.0, True, None)


def test_functions_have_options_too(server: ServerDouble) -> None:
    functions = squall.App("functions", include_source=False)
    made = functions.function(name="asked_size")(asked_size)
    more = made.with_options(env={"A": "1"}).with_options(env={"B": "2"})
    with functions.run():
        assert more.remote() == made.remote() == 1
    with pytest.raises(InvalidError, match="it takes nothing that there could be a list of"):
        made.with_batching(max_batch_size=2, wait_ms=1)

    assert more.local() == 1
    assert [one.options.env for one in server.bound if one.options is not None] == [{"B": "2"}]


def asked_size() -> int:
    return 1


def test_objects_and_methods_travel_as_handles(server: ServerDouble) -> None:
    with app.run():
        model = Model(size=6)
        for copy in (pickle.loads(pickle.dumps(model)), pickle.loads(pickle.dumps(Model))(size=6)):
            assert copy.times.remote(2) == 12
            with pytest.raises(NotFoundError, match="was looked up: of its objects only methods are here"):
                copy.size = 7
        times = pickle.loads(pickle.dumps(model.times))
        assert times.remote(3) == 18
    with pytest.raises(InvalidError, match="cannot be pickled, as it has no id yet: its app does not run"):
        pickle.dumps(Plain())


# Looked up


def test_classes_are_found_by_name(server: ServerDouble) -> None:
    with app.run():
        found = Cls.from_name("classes", "Model")
        model = found(size=3)

        assert model.times.remote(2) == 6
        assert list(model.count.remote_gen(2)) == [0, 1]
        early = Cls.from_name("classes", "Model")(size=3)
        with pytest.raises(NotFoundError, match="class Model has no method 'nothing'; it has: who, times"):
            early.nothing.remote()  # what there is, is known with the first call
        with pytest.raises(ExecutionError, match="its code is not in this program"):
            model.times.local(2)


def test_looked_up_class_refuses_what_it_has_not_as_soon_as_that_is_known(server: ServerDouble) -> None:
    with app.run():
        found = Cls.from_name("classes", "Model")
        model = found(size=3)
        unknown = model.nothing
        found.hydrate()

        for one in (model, found(size=4)):
            with pytest.raises(NotFoundError, match="class Model has no method 'nothing'; it has: who, times"):
                one.nothing  # noqa: B018
            assert not hasattr(one, "nothing")
            assert hasattr(one, "times")
        with pytest.raises(NotFoundError, match="no method 'nothing'"):
            unknown.remote()


@pytest.mark.parametrize("is_hydrated", [False, True])
def test_method_of_a_looked_up_class_without_an_object_is_told_how(server: ServerDouble, is_hydrated: bool) -> None:
    with app.run():
        found: Any = Cls.from_name("classes", "Model")
        if is_hydrated:
            assert found.hydrate() is found

        with pytest.raises(AttributeError, match=r"instantiate the class first, as in Model\(\)\.times\.remote"):
            found.times.remote(2)
        with pytest.raises(TypeError, match=r"Model\.times is not callable: write Model\(\)\.times\.remote"):
            found.times(2)
        assert hasattr(found, "nothing") is not is_hydrated
        assert not hasattr(found, "_repr_html_")


def test_class_has_the_id_of_what_serves_it_once_that_is_known(server: ServerDouble) -> None:
    with pytest.raises(AttributeError, match="class Model has no id yet: its app does not run"):
        cast("Any", Model).object_id  # noqa: B018
    with app.run():
        found = Cls.from_name("classes", "Model")
        with pytest.raises(AttributeError, match=r"class Model has no id yet: it has not been looked up"):
            found.object_id  # noqa: B018

        asyncio.run(found.hydrate.aio())

        assert found.object_id == cast("Any", Model).object_id in server.functions
        with pytest.raises(AttributeError, match="get_dashboard_url is not in this version of Squall yet"):
            found.get_dashboard_url()
        with pytest.raises(NotFoundError, match="no function Nothing"):
            Cls.from_name("classes", "Nothing").hydrate()


def test_what_is_looked_up_as_the_other_kind_is_told_how(server: ServerDouble) -> None:
    functions = squall.App("functions", include_source=False)
    functions.function(name="asked_size")(asked_size)
    with app.run(), functions.run():
        for wrong, hint in (
            (Function.from_name("classes", "Model"), r"is a class: use Cls.from_name\('classes', 'Model'\)"),
            (Function.from_name("classes", "Model.times"), r"use|Cls.from_name\('classes', 'Model'\)\(\).times"),
        ):
            with pytest.raises(NotFoundError, match=hint):
                wrong.remote(1)
        with pytest.raises(NotFoundError, match="is a function: use Function"):
            Cls.from_name("functions", "asked_size")().run.remote()


def test_looking_up_asks_nothing_and_needs_names() -> None:
    assert repr(Cls.from_name("nowhere", "Nothing")) == "<Cls Nothing>"
    with pytest.raises(InvalidError, match="the class's name must be a string"):
        Cls.from_name("nowhere", "")
    with pytest.raises(InvalidError, match="cannot be made directly"):
        Cls()


# Types of annotations


@pytest.mark.parametrize("future", ["from __future__ import annotations\n", ""])
def test_annotations_are_read_as_text_and_as_types(future: str) -> None:
    module = ModuleType("annotated")
    sys.modules["annotated"] = module
    source = f"{future}import squall\nclass Two:\n  a: int = squall.parameter()\n  b: 'bool' = squall.parameter()\n"
    exec(source + "  @squall.method()\n  def run(self): pass\n", vars(module))
    try:
        made: Any = squall.App("x").cls(serialized=True)(module.Two)
        assert [one.kind for one in made.user_class.givable] == ["int", "bool"]
    finally:
        del sys.modules["annotated"]


def test_cls_takes_what_function_takes_but_what_is_not_for_classes() -> None:
    of_functions = inspect.signature(squall.App.function).parameters
    of_classes = inspect.signature(squall.App.cls).parameters

    assert of_functions.keys() - of_classes.keys() == {"schedule", "name", "is_generator"}
    assert of_classes.keys() <= of_functions.keys()
