"""Which base a machine can have, on settings made up for the purpose; the real thing is in tests/kernel."""

from __future__ import annotations

from pathlib import Path

import pytest

from squall.agent.image.bases.debian import BaseUnavailable, find_base, known_bases, sources_of_suite
from squall.agent.image.bases.ensure import ensure_base
from squall.agent.image.layer.store import LayerStore
from squall.agent.image.machine.settings import AptSettings, AptSource, MachineSettings
from squall.protocol.image import cache_key
from squall.protocol.image_steps import debian_slim

SIGNED = (("signed-by", "/keys.gpg"),)


def make_settings(*suites: str, distribution: str = "debian", codename: str = "bookworm") -> MachineSettings:
    sources = tuple(AptSource("http://mirror.example/d", suite, ("main", "contrib"), SIGNED) for suite in suites)
    return MachineSettings(distribution, codename, AptSettings(sources))


def test_other_suites_are_asked_of_the_same_mirror_with_the_same_keys() -> None:
    settings = make_settings("bookworm", "bookworm-updates", "bookworm-security")

    base = find_base("3.13", settings)

    assert base is not None
    assert base.suite == "trixie"
    assert [source.line() for source in base.sources] == [
        "deb [signed-by=/keys.gpg] http://mirror.example/d trixie main",
        "deb [signed-by=/keys.gpg] http://mirror.example/d trixie-updates main",
        "deb [signed-by=/keys.gpg] http://mirror.example/d trixie-security main",
    ]


def test_suite_named_by_its_role_is_understood() -> None:
    base = find_base("3.11", make_settings("stable"))

    assert base is not None
    assert base.sources[0].suite == "bookworm"


def test_ubuntu_machine_has_the_pythons_of_ubuntu() -> None:
    settings = make_settings("noble", "noble-updates", distribution="ubuntu", codename="noble")

    assert [(base.suite, base.python_version) for base in known_bases(settings)] == [
        ("jammy", "3.10"),
        ("noble", "3.12"),
    ]
    assert sources_of_suite("noble", settings)[0].components == ("main", "universe")


def test_sources_of_others_make_no_base(tmp_path: Path) -> None:
    pockets_only = make_settings("bookworm-pgdg", "nodistro", "bookworm-updates")

    with pytest.raises(BaseUnavailable, match="names no Debian or Ubuntu mirror"):
        ensure_base(LayerStore(tmp_path), pockets_only, "3.11", print)


def test_python_that_cannot_be_had_lists_what_can(tmp_path: Path) -> None:
    with pytest.raises(BaseUnavailable, match=r"with Python 3\.12.*have 3\.11 \(bookworm\), 3\.13 \(trixie\)"):
        ensure_base(LayerStore(tmp_path), make_settings("bookworm"), "3.12", print)


def test_base_that_is_there_needs_no_mirror(tmp_path: Path) -> None:
    store = LayerStore(tmp_path)
    lines: list[str] = []
    with pytest.raises(BaseUnavailable):
        ensure_base(store, MachineSettings(), "3.11", lines.append)
    made = make_base(store, "3.11")

    assert ensure_base(store, MachineSettings(), "3.11", lines.append) == made
    assert lines == []


def make_base(store: LayerStore, python_version: str) -> object:
    from_scratch = cache_key("", debian_slim(python_version))
    with store.scratch() as scratch:
        (scratch.path / "fs").mkdir()
        return store.commit(scratch, scratch.path / "fs", from_scratch, {"suite": "bookworm"}, replaces=False)
