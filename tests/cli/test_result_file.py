"""Which results can be written to a file, and what is said of the others."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NewType

import click
import pytest

from squall.cli import result_file

Name = NewType("Name", str)


def function(returned: Any) -> Callable[[], Any]:
    def made() -> None:
        return

    made.__annotations__["return"] = returned
    return made


def check(path: Path, returned: Any, *, is_generator: bool = False) -> None:
    result_file.check(path, function(returned), "made", is_generator=is_generator)


@pytest.mark.parametrize("returned", [int, None, list[int], dict, int | None, tuple[str, bytes], float])
def test_what_can_never_be_written_is_refused_before_it_runs(tmp_path: Path, returned: Any) -> None:
    with pytest.raises(click.UsageError, match=r"made returns .*only str and bytes.*json\.dumps"):
        check(tmp_path / "out", returned)


@pytest.mark.parametrize(
    "returned", [str, bytes, object, Any, str | None, list[int] | bytes, Name, Sequence[str], "no_such_name"]
)
def test_what_may_be_written_is_let_through(tmp_path: Path, returned: Any) -> None:
    check(tmp_path / "out", returned)


def test_a_place_that_takes_no_file_is_refused_before_anything_runs(tmp_path: Path) -> None:
    with pytest.raises(click.UsageError, match="it is a directory"):
        check(tmp_path, str)
    with pytest.raises(click.UsageError, match=r"there is no directory .*/missing"):
        check(tmp_path / "missing" / "out", str)


def test_a_generator_has_no_result(tmp_path: Path) -> None:
    with pytest.raises(click.UsageError, match="made is a generator"):
        check(tmp_path / "out", str, is_generator=True)


def test_text_and_bytes_are_written_as_they_are(tmp_path: Path) -> None:
    result_file.write(tmp_path / "text", "größe\r\n")
    result_file.write(tmp_path / "bytes", b"\xff\r\n")

    assert (tmp_path / "text").read_bytes() == "größe\r\n".encode()
    assert (tmp_path / "bytes").read_bytes() == b"\xff\r\n"


def test_what_cannot_be_written_after_all_is_shown(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(click.ClickException, match=r"it is int, not str or bytes; return str\(…\)"):
        result_file.write(tmp_path / "out", 49)
    with pytest.raises(click.ClickException, match="Is a directory"):
        result_file.write(tmp_path, "text")

    assert capsys.readouterr().out == "49\ntext\n"
    assert not (tmp_path / "out").exists()
