"""Options come from the signature."""

from __future__ import annotations

import datetime
from typing import Any, Literal, Optional

import click
import pytest

from squall.cli.signature import SignatureInvalid, bind


def test_types_follow_annotations() -> None:
    def main(count: int, rate: float, name: str, is_fast: bool, when: datetime.datetime) -> None: ...

    bound = bind(main, "main", ["--count", "3", "--rate", "0.5", "--name", "x", "--is-fast", "--when", "2026-01-02"])

    assert bound.kwargs == {
        "count": 3,
        "rate": 0.5,
        "name": "x",
        "is_fast": True,
        "when": datetime.datetime(2026, 1, 2),
    }


def test_defaults_are_left_to_the_function() -> None:
    def main(n: int = 10, thing: Any = None) -> None: ...

    assert bind(main, "main", []).kwargs == {}


def test_bool_has_a_negative_form() -> None:
    def main(flag: bool = True) -> None: ...

    assert bind(main, "main", ["--no-flag"]).kwargs == {"flag": False}


def test_optional_and_literal_annotations_convert() -> None:
    def main(size: Optional[int] = None, kind: Literal["a", "b"] = "a", level: Literal[1, 2] = 1) -> None: ...  # noqa: UP045

    bound = bind(main, "main", ["--size", "4", "--kind", "b", "--level", "2"])

    assert bound.kwargs == {"size": 4, "kind": "b", "level": 2}


def test_value_outside_a_literal_is_refused() -> None:
    def main(level: Literal[1, 2]) -> None: ...

    with pytest.raises(click.UsageError, match="not one of 1, 2"):
        bind(main, "main", ["--level", "3"])


def test_hint_can_be_typed_as_it_stands() -> None:
    def main(n: int = 1) -> None: ...

    with pytest.raises(click.UsageError) as caught:
        bind(main, "main", ["--m", "3"], typed="squall run hello.py")

    assert caught.value.ctx is not None
    assert caught.value.ctx.command_path == "squall run hello.py"


def test_missing_option_is_named() -> None:
    def main(prompt: str) -> None: ...

    with pytest.raises(click.UsageError) as caught:
        bind(main, "main", [])

    assert "--prompt" in caught.value.format_message()


def test_unannotated_parameter_is_text() -> None:
    def main(thing):  # type: ignore[no-untyped-def]
        return thing

    assert bind(main, "main", ["--thing", "7"]).kwargs == {"thing": "7"}


def test_arguments_are_never_positional() -> None:
    def main(n: int) -> None: ...

    with pytest.raises(click.UsageError) as caught:
        bind(main, "main", ["3"])

    assert caught.value.message == "unexpected argument '3': write it by name, as in --n 3"


def test_argument_for_a_function_without_parameters_is_refused() -> None:
    with pytest.raises(click.UsageError, match="there are no parameters"):
        bind(lambda: None, "main", ["3"])


def test_date_is_asked_for_in_few_words(capsys: pytest.CaptureFixture[str]) -> None:
    def main(when: datetime.datetime) -> None: ...

    with pytest.raises(click.exceptions.Exit):
        bind(main, "main", ["-h"])

    assert "--when YYYY-MM-DD[THH:MM:SS]" in capsys.readouterr().out


def test_star_args_alone_get_what_was_typed() -> None:
    def main(*args: str) -> None: ...

    assert bind(main, "main", ["--x", "1", "y"]).args == ("--x", "1", "y")


def test_type_that_cannot_be_typed_in_is_named() -> None:
    def main(options: dict[str, int]) -> None: ...

    with pytest.raises(SignatureInvalid, match=r"parameter options has type dict\[str, int\];"):
        bind(main, "main", [])


def test_upper_case_parameter_keeps_its_name() -> None:
    def main(N: int) -> None: ...  # noqa: N803

    assert bind(main, "main", ["--N", "2"]).kwargs == {"N": 2}


def test_parameter_of_another_type_is_left_to_its_default_and_said_to_be(capsys: pytest.CaptureFixture[str]) -> None:
    def main(n: int = 1, xs: list[int] = None) -> None: ...  # type: ignore[assignment]  # noqa: RUF013 - as people write

    assert bind(main, "main", ["--n", "2"]).kwargs == {"n": 2}
    with pytest.raises(SignatureInvalid, match=r"parameter xs has type list\[int\];"):
        bind(main, "main", ["--xs", "3"])
    with pytest.raises(click.exceptions.Exit):
        bind(main, "main", ["--help"])

    assert "Left to their defaults, for their types: --xs." in capsys.readouterr().out
