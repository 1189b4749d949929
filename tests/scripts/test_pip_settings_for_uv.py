"""uv gets the settings pip has on this machine, with pip's own precedence."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from tests.tree import ROOT

SCRIPT = ROOT / "scripts" / "pip-settings-for-uv"


def make_python(path: Path, config_list: str) -> str:
    """A Python whose pip prints this."""
    path.write_text(f"#!/bin/sh\ncat <<'END'\n{config_list}END\n")
    path.chmod(0o755)
    return str(path)


def exports(python: str, **env: str) -> dict[str, str]:
    command = [sys.executable, str(SCRIPT), python]
    kept = {"PATH": os.environ["PATH"], **env}
    ran = subprocess.run(command, capture_output=True, text=True, timeout=30, env=kept, check=True)
    pairs = (line.removeprefix("export ").partition("=") for line in ran.stdout.splitlines())
    return {name: value.strip("'") for name, _, value in pairs}


def test_indexes_folders_and_constraints_are_handed_on(tmp_path: Path) -> None:
    python = make_python(
        tmp_path / "python",
        "global.index-url='https://mirror.example/simple'\n"
        "global.extra-index-url='\\nfile:///a/simple\\nfile:///b/simple'\n"
        "global.find-links='/wheels /more'\n"
        "global.constraint='/etc/constraints.txt'\n",
    )

    found = exports(python)

    assert found["UV_DEFAULT_INDEX"] == "https://mirror.example/simple"
    assert found["UV_INDEX"] == "file:///a/simple file:///b/simple"
    assert found["UV_FIND_LINKS"] == "/wheels,/more"
    assert found["UV_CONSTRAINT"] == "/etc/constraints.txt"


def test_environment_wins_over_install_and_install_over_global(tmp_path: Path) -> None:
    lines = ["global.index-url='https://one.example'", "install.index-url='https://two.example'"]
    python = make_python(tmp_path / "python", "\n".join(lines) + "\n")
    asked = make_python(tmp_path / "asked", "\n".join([":env:.index-url='https://three.example'", *lines]) + "\n")

    assert exports(python)["UV_DEFAULT_INDEX"] == "https://two.example"
    assert exports(asked)["UV_DEFAULT_INDEX"] == "https://three.example"


def test_setting_of_uv_itself_is_left_alone(tmp_path: Path) -> None:
    python = make_python(tmp_path / "python", "global.index-url='https://one.example'\n")

    assert "UV_DEFAULT_INDEX" not in exports(python, UV_DEFAULT_INDEX="https://mine.example")


def test_machine_without_pip_settings_gets_pips_habits_only(tmp_path: Path) -> None:
    found = exports(make_python(tmp_path / "python", ""))

    assert found == {"UV_INDEX_STRATEGY": "unsafe-best-match", "UV_SYSTEM_CERTS": "1", "UV_NATIVE_TLS": "1"}
