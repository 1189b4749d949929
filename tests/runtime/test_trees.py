"""Copies of trees, as they are and in time."""

from __future__ import annotations

from pathlib import Path

import pytest

from squall.runtime.errors import RuntimeFailure
from squall.runtime.trees import copy_tree


def test_a_copy_is_of_the_same_files_where_it_is_to_be(tmp_path: Path) -> None:
    (tmp_path / "from").mkdir()
    (tmp_path / "from" / "file").write_text("it")

    copy_tree(str(tmp_path / "from"), str(tmp_path / "linked"), is_linked=True, timeout_s=10.0)
    copy_tree(str(tmp_path / "from"), str(tmp_path / "copied"))

    assert (tmp_path / "linked" / "file").samefile(tmp_path / "from" / "file")
    assert not (tmp_path / "copied" / "file").samefile(tmp_path / "from" / "file")
    assert (tmp_path / "copied" / "file").read_text() == "it"


def test_a_copy_that_takes_too_long_is_given_up(tmp_path: Path) -> None:
    (tmp_path / "from").mkdir()

    with pytest.raises(RuntimeFailure, match=r"took longer than 0 s"):
        copy_tree(str(tmp_path / "from"), str(tmp_path / "to"), timeout_s=0.0)
