"""The public names are a decision: a name appears or goes only together with its line in exported_names.txt."""

from __future__ import annotations

import types
from pathlib import Path

import squall
from tests.tree import SRC

DECIDED = (Path(__file__).parent / "exported_names.txt").read_text().split()


def test_exported_names_are_the_decided_ones() -> None:
    exported = list(getattr(squall, "__all__", []))

    added, missing = sorted(set(exported) - set(DECIDED)), sorted(set(DECIDED) - set(exported))

    assert not added, (
        f"squall exports more than was decided: {added}; add them to tests/exported_names.txt, or hide them"
    )
    assert not missing, f"squall no longer exports {missing}; removing a public name breaks programs"
    assert len(exported) == len(set(exported)), "squall.__all__ names something twice"
    assert sorted(DECIDED) == DECIDED, "exported_names.txt is in alphabetical order (capitals first)"


def test_every_exported_name_can_be_imported() -> None:
    absent = [name for name in DECIDED if getattr(squall, name, None) is None]

    assert not absent


def test_nothing_public_is_exported_by_accident() -> None:
    folders = {path.name for path in SRC.iterdir()} | {"annotations"}
    reachable = {
        name
        for name in dir(squall)
        if not name.startswith("_") and not (isinstance(getattr(squall, name), types.ModuleType) and name in folders)
    }

    assert reachable - {"annotations"} <= set(DECIDED)
