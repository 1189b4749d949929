"""Directories whose own are put apart on the disk."""

from __future__ import annotations

from pathlib import Path

from squall.agent.image.layer.store import LayerStore
from squall.agent.spread import spread_apart
from tests.agent.parts import is_spread


def test_a_directory_is_marked_and_keeps_what_it_has(tmp_path: Path) -> None:
    assert not is_spread(tmp_path)

    spread_apart(tmp_path)
    spread_apart(tmp_path)

    assert is_spread(tmp_path)
    (tmp_path / "below").mkdir()
    assert not is_spread(tmp_path / "below")


def test_a_file_system_without_it_is_left_alone() -> None:
    spread_apart(Path("/proc"))


def test_what_builds_write_is_apart(tmp_path: Path) -> None:
    LayerStore(tmp_path)

    assert is_spread(tmp_path / "layers/.scratch")
