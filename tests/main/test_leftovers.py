"""What an earlier server left is counted, told and taken away."""

from __future__ import annotations

from pathlib import Path

from squall.main.leftovers import Leftovers, find, take_away


def test_what_is_left_is_told_in_words() -> None:
    left = Leftovers(containers=1, templates=2, spawners=1, slots=8, networks=1, layers=0, records=2, directories=1)

    assert str(left) == (
        "1 running container, 2 templates and clones that wait, 1 process that makes containers, 8 network slots, "
        "1 bridge with rules, 2 records of containers, 1 directory of a container"
    )


def test_empty_directory_has_nothing_left(tmp_path: Path) -> None:
    assert not find(tmp_path)
    assert take_away(tmp_path) == []
    assert list(tmp_path.iterdir()) == []


def test_files_of_containers_and_layers_in_the_making_go_and_the_rest_stays(tmp_path: Path) -> None:
    for place in ("containers/ct-1/rw/upper", "removed/1/ct-2.0a", "layers/.scratch/5eed/inside", "layers/ly-1/fs"):
        (tmp_path / place).mkdir(parents=True)
    (tmp_path / "server.json").write_text("{}")
    (tmp_path / "squall.db").write_text("kept")
    before = find(tmp_path)

    failures = take_away(tmp_path)

    assert (before.layers, before.directories) == (1, 2)
    assert failures == []
    assert not find(tmp_path)
    assert (tmp_path / "layers/ly-1/fs").is_dir()
    assert (tmp_path / "squall.db").exists()
    assert not (tmp_path / "server.json").exists()
