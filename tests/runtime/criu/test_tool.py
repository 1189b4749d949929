"""Which CRIU is used, and that it is told to read nothing on its own."""

from __future__ import annotations

import os
from pathlib import Path

from squall.runtime.checks.check import Check
from squall.runtime.checks.criu import check_criu
from squall.runtime.criu.tool import argv_through, find_tool


def install(place: Path, said: str) -> Path:
    """A loader that says something, whatever it is to load."""
    place.mkdir()
    (place / "criu.bin").touch()
    loader = place / "ld.so"
    loader.write_text(f"#!/bin/sh\necho '{said}'\n")
    loader.chmod(0o755)
    return place


def test_only_a_whole_one_is_found(tmp_path: Path) -> None:
    assert find_tool(str(tmp_path)) is None
    (tmp_path / "criu.bin").touch()
    assert find_tool(str(tmp_path)) is None

    assert find_tool(str(install(tmp_path / "criu", ""))) is not None


def test_version_is_what_it_says(tmp_path: Path) -> None:
    tool = find_tool(str(install(tmp_path / "criu", "Version: 4.1.1")))
    broken = find_tool(str(install(tmp_path / "broken", "cannot load")))

    assert tool is not None
    assert broken is not None
    assert tool.version() == "4.1.1"
    assert broken.version() == ""
    os.unlink(f"{tmp_path}/criu/ld.so")
    assert tool.version() == ""


def test_doctor_says_which_one_there_is_and_how_to_get_one_where_that_can_be(tmp_path: Path) -> None:
    good = check_criu(str(install(tmp_path / "criu", "Version: 4.1.1")))
    broken = check_criu(str(install(tmp_path / "broken", "cannot load")))
    missing = [check_criu(str(tmp_path / "nowhere"), system) for system in ("debian", "ubuntu", "")]

    assert good == Check("criu", "ok", f"{tmp_path}/criu, version 4.1.1")
    assert (broken.status, broken.fix) == ("warn", "make criu")
    assert broken.finding.startswith(f"{tmp_path}/broken does not run: without it templates are made anew")
    for one in missing:
        assert (one.status, one.fix) == ("ok", ""), "nothing is wrong on a machine without it"
        assert one.finding.startswith("not installed (optional): without it templates are made anew")
    assert ["make criu" in one.finding for one in missing] == [True, False, False], "where there is a package for it"


def test_everything_is_reached_through_descriptors() -> None:
    argv = argv_through(7, 8, "dump", "--tree", "3")

    assert argv[0] == "/proc/self/fd/7/ld.so"
    assert {"--inhibit-cache", "--no-default-config", "--manage-cgroups=ignore"} <= set(argv)
    assert argv[argv.index("--libdir") + 1] == "/proc/self/fd/7/plugins"
    assert argv[argv.index("--images-dir") + 1] == "/proc/self/fd/8"
    assert [word for word in argv if word.startswith("/") and not word.startswith("/proc/self/fd/")] == []
