"""Methods of classes on the command line: what they are called, and which options they have."""

from __future__ import annotations

from types import ModuleType
from typing import Any

import click
import pytest

import squall
from squall.cli.class_method import ClassMethod
from squall.cli.signature import SignatureInvalid, bind
from squall.cli.target import choose, choose_function
from squall.sdk.function import Function

app = squall.App("cli")


@app.cls(serialized=True)
class Model:
    """Thinks."""

    size: int = squall.parameter()
    name: str = squall.parameter(default="n")
    hidden: str = squall.parameter(default="h", init=False)

    @squall.method()
    def think(self, question: str, *, loud: bool = False) -> str:
        return question

    @squall.method()
    def words(self, count: int) -> Any:
        yield from range(count)


@app.cls(serialized=True)
class Single:
    key: bytes = squall.parameter()

    @squall.method()
    def only(self) -> None:
        """The one."""


@app.cls(serialized=True)
class Twice:
    x: int = squall.parameter(default=1)

    @squall.method()
    def run(self, x: int) -> None: ...


def make_module(**content: object) -> ModuleType:
    module = ModuleType("models")
    vars(module).update(content)
    return module


def method(name: str) -> ClassMethod:
    found = choose(make_module(app=app), name, "models.py")[1]
    assert isinstance(found, ClassMethod)
    return found


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("Model.think", "Model.think"),
        ("app.Model.words", "Model.words"),
        ("Single", "Single.only"),
        ("app.Single", "Single.only"),
    ],
)
def test_names_of_methods(name: str, meant: str) -> None:
    assert method(name).name == meant


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("Model", "Model has several methods; name one, as in models.py::Model.think: Model.think, Model.words"),
        ("Model.thinks", "did you mean 'Model.think'"),
        ("", "several to run"),
    ],
)
def test_what_is_not_clear_is_asked(name: str, message: str) -> None:
    with pytest.raises(click.UsageError, match=message):
        method(name)


def test_the_only_method_is_run_without_a_name() -> None:
    alone = squall.App("alone")
    alone.cls(serialized=True)(Single.__wrapped__)  # type: ignore[attr-defined]

    found = choose(make_module(app=alone), "", "x.py")[1]

    assert isinstance(found, ClassMethod)
    assert found.name == "Single.only"


def test_options_are_of_the_class_and_of_the_method() -> None:
    think = method("Model.think")

    bound = bind(think.pooled(), think.name, ["--question", "why", "--size", "3", "--loud"])
    function, kwargs = think.with_parameters(bound.kwargs)

    assert bound.kwargs == {"question": "why", "size": 3, "loud": True}
    assert kwargs == {"question": "why", "loud": True}
    assert isinstance(function, Function)
    assert function.name == "Model.think"
    assert repr(function._owner) == "<Obj Model(size=3)>"


def test_required_parameters_of_the_class_are_required_and_hidden_ones_are_no_options() -> None:
    think = method("Model.think")

    with pytest.raises(click.UsageError) as caught:
        bind(think.pooled(), think.name, ["--question", "why"])
    assert caught.value.format_message() == "Missing option '--size'."
    with pytest.raises(click.UsageError, match="--hidden"):
        bind(think.pooled(), think.name, ["--question", "why", "--size", "1", "--hidden", "x"])


def test_what_cannot_be_typed_is_refused_by_name() -> None:
    with pytest.raises(SignatureInvalid, match="parameter key has type bytes"):
        bind(method("Single").pooled(), "Single.only", [])


def test_one_name_for_two_parameters_is_refused() -> None:
    with pytest.raises(click.UsageError, match=r"Twice\.run .* both have a parameter x"):
        method("Twice").pooled()


def test_generators_are_known() -> None:
    assert method("Model.words").is_generator
    assert not method("Model.think").is_generator


def test_a_class_is_a_function_where_one_is_wanted() -> None:
    assert choose_function(make_module(app=app), "Model", "x.py")[1].name == "Model"
