"""Options come from the signature."""

from __future__ import annotations

import datetime
import enum
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, Optional

import click
import pytest

from squall.cli.signature import SignatureInvalid, bind


class Color(enum.Enum):
    RED = 1
    GREEN = 2


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


@pytest.mark.parametrize("hint", [dict[str, int], bytes, int | str, list[dict[str, int]], tuple[int, str], list[bool]])
def test_type_that_cannot_be_typed_in_is_named_with_what_to_do(hint: Any) -> None:
    def main(options: Any) -> None: ...

    main.__annotations__["options"] = hint
    with pytest.raises(SignatureInvalid) as caught:
        bind(main, "main", [])

    message = str(caught.value)
    assert f"parameter options has type {hint.__name__ if hint is bytes else hint};" in message
    assert "or call main from a local entrypoint" in message


def test_upper_case_parameter_keeps_its_name() -> None:
    def main(N: int) -> None: ...  # noqa: N803

    assert bind(main, "main", ["--N", "2"]).kwargs == {"N": 2}


def test_parameter_of_another_type_is_left_to_its_default_and_said_to_be(capsys: pytest.CaptureFixture[str]) -> None:
    def main(n: int = 1, xs: dict[str, int] = None) -> None: ...  # type: ignore[assignment]  # noqa: RUF013 - as people write

    assert bind(main, "main", ["--n", "2"]).kwargs == {"n": 2}
    with pytest.raises(SignatureInvalid, match=r"parameter xs has type dict\[str, int\];"):
        bind(main, "main", ["--xs", "3"])
    with pytest.raises(click.exceptions.Exit):
        bind(main, "main", ["--help"])

    assert "Left to their defaults, for their types: --xs." in capsys.readouterr().out


@pytest.mark.parametrize(
    ("hint", "expected"),
    [
        (list, ["1", "2"]),
        (list[int], [1, 2]),
        (list[str] | None, ["1", "2"]),
        (Sequence[float], [1.0, 2.0]),
        (tuple[int, ...], (1, 2)),
        (set[Path], {Path("1"), Path("2")}),
        (list[Literal[1, 2]], [1, 2]),
    ],
)
def test_option_of_a_list_is_repeated(hint: Any, expected: Any) -> None:
    def main(xs: Any) -> None: ...

    main.__annotations__["xs"] = hint
    bound = bind(main, "main", ["--xs", "1", "--xs=2"])

    assert bound.kwargs == {"xs": expected}
    assert type(bound.kwargs["xs"]) is type(expected)
    with pytest.raises(click.MissingParameter):
        bind(main, "main", [])


def test_list_that_is_not_repeated_is_told_how() -> None:
    def main(xs: list[int], ys: list[str] = ["a"]) -> None: ...  # noqa: B006 - as people write

    assert bind(main, "main", ["--xs", "1"]).kwargs == {"xs": [1]}
    for typed in (["--xs", "1", "2", "3"], ["--xs", "1,2"]):
        with pytest.raises(click.UsageError) as caught:
            bind(main, "main", typed)

        assert "--xs 1 --xs 2" in caught.value.format_message()


def test_path_date_and_member_of_an_enum_are_made_of_what_was_typed() -> None:
    def main(path: Path, day: datetime.date, at: datetime.datetime, color: Color) -> None: ...

    typed = ["--path", "a/b", "--day", "2026-01-02", "--at", "2026-01-02T03:04:05+02:00", "--color", "red"]

    assert bind(main, "main", typed).kwargs == {
        "path": Path("a/b"),
        "day": datetime.date(2026, 1, 2),
        "at": datetime.datetime(2026, 1, 2, 3, 4, 5, tzinfo=datetime.timezone(datetime.timedelta(hours=2))),
        "color": Color.RED,
    }


@pytest.mark.parametrize(
    ("option", "value", "expected"),
    [
        ("--count", "three", "'three' is not a valid integer"),
        ("--rate", "x", "'x' is not a valid float"),
        ("--when", "today", "'today' is no date and time; write 2026-01-31 or 2026-01-31T12:30:00"),
        ("--day", "2026-13-01", "'2026-13-01' is no date; write 2026-01-31"),
        ("--kind", "c", "'c' is not one of 'a', 'b'"),
        ("--color", "blue", "'blue' is not one of 'RED', 'GREEN'"),
        ("--counts", "x", "'x' is not a valid integer"),
    ],
)
def test_value_of_another_type_is_named_with_its_option(option: str, value: str, expected: str) -> None:
    def main(
        count: int = 0,
        rate: float = 0,
        when: datetime.datetime | None = None,
        day: datetime.date | None = None,
        kind: Literal["a", "b"] = "a",
        color: Color = Color.RED,
        counts: tuple[int, ...] = (),
    ) -> None: ...

    with pytest.raises(click.BadParameter) as caught:
        bind(main, "main", [option, value])

    assert caught.value.format_message().startswith(f"Invalid value for '{option}': {expected}")


def test_flag_that_is_given_a_value_is_told_its_forms() -> None:
    def main(is_fast: bool = False, n: int = 1) -> None: ...

    for typed in (["--is-fast", "true"], ["--n", "2", "--is-fast=no"]):
        with pytest.raises(click.UsageError) as caught:
            bind(main, "main", typed)

        assert "--is-fast takes no value: write --is-fast or --no-is-fast" in caught.value.format_message()


def test_default_is_shown_as_it_is_and_never_converted(capsys: pytest.CaptureFixture[str]) -> None:
    def main(
        n: int = "auto",  # type: ignore[assignment]
        kind: Literal["a"] = "",  # type: ignore[assignment]
        xs: list[int] = None,  # type: ignore[assignment]  # noqa: RUF013 - as people write
        flag: bool = True,
        where: Path = Path("/tmp"),
    ) -> None: ...

    assert bind(main, "main", []).kwargs == {}
    with pytest.raises(click.exceptions.Exit):
        bind(main, "main", ["--help"])
    shown = capsys.readouterr().out
    assert "[default: auto]" in shown
    assert "[default: --flag]" in shown
    assert "[default: /tmp]" in shown
    assert "can be given several times" in shown


def test_annotation_that_means_nothing_here_matters_only_where_it_is_needed() -> None:
    def optional(n: int, frame: "pd.DataFrame" = None) -> "pd.DataFrame": ...  # type: ignore  # noqa
    def required(frame: "pd.DataFrame") -> None: ...  # type: ignore  # noqa

    assert bind(optional, "optional", ["--n", "3"]).kwargs == {"n": 3}
    with pytest.raises(SignatureInvalid, match=r"parameter frame has type pd\.DataFrame.*name 'pd' is not defined"):
        bind(required, "required", [])


def test_two_parameters_that_differ_in_case_stay_two() -> None:
    def main(n: int, N: int) -> None: ...  # noqa: N803

    assert bind(main, "main", ["--n", "1", "--N", "2"]).kwargs == {"n": 1, "N": 2}


def test_two_parameters_with_one_option_are_refused() -> None:
    def main(wait: bool = False, no_wait: bool = False) -> None: ...

    with pytest.raises(SignatureInvalid, match="parameters wait and no_wait would both be --no-wait"):
        bind(main, "main", [])
