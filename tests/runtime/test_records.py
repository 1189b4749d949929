"""Records are whole or not there."""

from __future__ import annotations

from pathlib import Path

import pytest

from squall.runtime.errors import RuntimeFailure
from squall.runtime.records import Record, Records, check_name


def test_written_records_are_found_until_forgotten(tmp_path: Path) -> None:
    records = Records(str(tmp_path))
    records.write(Record("ct-1", "/a"))
    records.write(Record("ct-2", "/b"))

    records.forget("ct-1")
    records.forget("ct-1")

    assert list(records.all()) == [Record("ct-2", "/b")]


def test_half_written_record_is_dropped(tmp_path: Path) -> None:
    (tmp_path / "ct-1.json.new").write_text('{"container_id": "ct')

    assert list(Records(str(tmp_path)).all()) == []
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("left", [b"", b'{"container_id": "ct-1", "sta', b"\0" * 40, b"[]"])
def test_record_that_a_crash_has_left_empty_or_half_is_known_by_its_name(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, left: bytes
) -> None:
    records = Records(str(tmp_path))
    records.write(Record("ct-2", "/b"))
    (tmp_path / "ct-1.json").write_bytes(left)

    assert list(records.all()) == [Record("ct-1", ""), Record("ct-2", "/b")]
    assert f"{tmp_path}/ct-1.json said is lost: {len(left)} bytes" in caplog.text
    records.forget("ct-1")
    assert list(records.all()) == [Record("ct-2", "/b")]


def test_no_directory_means_no_records(tmp_path: Path) -> None:
    assert list(Records(str(tmp_path / "missing")).all()) == []


def test_full_or_missing_disk_is_named(tmp_path: Path) -> None:
    with pytest.raises(RuntimeFailure, match=r"cannot write the record .*ct-1.json"):
        Records(str(tmp_path / "missing")).write(Record("ct-1", "/a"))


@pytest.mark.parametrize("name", ["", ".", "..", "a/b", "-x", "a b", "x" * 129, "a\n"])
def test_names_that_could_leave_their_directory_are_refused(name: str) -> None:
    with pytest.raises(RuntimeFailure, match="as a container id"):
        check_name("a container id", name)


def test_what_the_disk_does_not_take_leaves_nothing(tmp_path: Path) -> None:
    records = Records(str(tmp_path))
    (tmp_path / "ct-1.json").mkdir()

    with pytest.raises(RuntimeFailure, match="cannot write the record"):
        records.write(Record("ct-1", "/x"))

    assert [one.name for one in tmp_path.iterdir()] == ["ct-1.json"]
