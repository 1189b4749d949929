"""Who is asked for a base, on machines that have nobody to ask; registries that answer are in tests/kernel."""

from __future__ import annotations

import os
import stat
from dataclasses import replace
from pathlib import Path

import pytest

from squall.agent.image.bases.debian import BaseUnavailable
from squall.agent.image.bases.ensure import ensure_base
from squall.agent.image.layer.store import LayerStore
from squall.agent.image.machine.settings import MachineSettings, read_machine_settings
from squall.agent.image.oci import skopeo as skopeo_module

REGISTRY = MachineSettings(python_image="registry.invalid/python:{series}", registry_env={"HOME": "/nonexistent"})


@pytest.fixture
def skopeo(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder where a test puts the program that is called skopeo."""
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setattr(skopeo_module, "PATH", f"{folder}:/usr/bin:/bin")
    return folder / "skopeo"


def write_program(path: Path, *lines: str) -> None:
    path.write_text("\n".join(("#!/bin/sh", *lines, "")))
    path.chmod(path.stat().st_mode | stat.S_IXUSR)


def refusal(tmp_path: Path, settings: MachineSettings, python_version: str = "3.12") -> str:
    store = LayerStore(tmp_path / "data")
    with pytest.raises(BaseUnavailable) as caught:
        ensure_base(store, settings, python_version, lambda line: None)
    assert store.list() == ()
    assert os.listdir(tmp_path / "data/layers/.scratch") == []
    return str(caught.value)


def test_machine_without_anybody_to_ask_says_what_to_configure(tmp_path: Path) -> None:
    message = refusal(tmp_path, MachineSettings())

    assert "names no Debian or Ubuntu mirror; add one to /etc/apt/sources.list.d" in message
    assert "registry" not in message


def test_words_of_the_registry_are_in_the_error(tmp_path: Path, skopeo: Path) -> None:
    write_program(skopeo, r"""echo 'time="x" level=fatal msg="reading \"it\": toomanyrequests: wait"' >&2; exit 1""")

    message = refusal(tmp_path, REGISTRY)

    assert "no registry served registry.invalid/python:3.12: registry.invalid lets nobody ask this often" in message
    assert '(reading "it": toomanyrequests: wait)' in message
    assert "SQUALL_PYTHON_IMAGE" in message


def test_settings_of_the_machine_reach_skopeo(tmp_path: Path, skopeo: Path) -> None:
    write_program(skopeo, 'echo "said $HOME $REGISTRY_AUTH_FILE $SSL_CERT_FILE $https_proxy $SECRET"; exit 1')
    environ = {
        "HOME": "/h",
        "REGISTRY_AUTH_FILE": "/a",
        "https_proxy": "http://p:1",
        "SECRET": "s",
        "SSL_CERT_FILE": "/c",
    }
    settings = replace(read_machine_settings(environ, str(tmp_path)), python_image=REGISTRY.python_image)

    assert "said /h /a /c http://p:1;" in refusal(tmp_path, settings)


def test_registry_that_has_other_pythons_is_asked_for_them(tmp_path: Path, skopeo: Path) -> None:
    write_program(
        skopeo,
        "for last; do :; done",
        'case "$*" in',
        '*list-tags*) echo "{\\"Tags\\": [\\"3.9\\", \\"3.10\\", \\"latest\\", \\"3.10-rc\\"]}" ;;',
        "*) echo 'level=fatal msg=\"manifest unknown\"' >&2; exit 1 ;;",
        "esac",
    )

    assert "; the registry has 3.9, 3.10;" in refusal(tmp_path, REGISTRY)


def test_skopeo_that_ends_well_without_an_image_makes_no_base(tmp_path: Path, skopeo: Path) -> None:
    write_program(skopeo, "exit 0")

    assert "cannot be used: it is incomplete: manifest.json is missing" in refusal(tmp_path, REGISTRY)


def test_missing_skopeo_names_its_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(skopeo_module, "PATH", str(tmp_path))

    assert "skopeo is not installed (apt-get install skopeo)" in refusal(tmp_path, REGISTRY)
