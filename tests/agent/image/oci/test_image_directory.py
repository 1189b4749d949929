"""An image is believed as far as its digests go, and not a file further."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from squall.agent.image.oci.image_directory import BadImage, architecture, read_image
from tests.agent.image.archives import archive, digest_of, entry, write_image

LAYERS = (archive(entry("a")), archive(entry("b")))


def test_image_says_how_programs_start_and_which_layers_it_has(tmp_path: Path) -> None:
    config = {"Env": ["PATH=/bin", "A=b=c", "bad-name=1", "EMPTY="], "WorkingDir": "/srv", "User": "x", "Cmd": ["y"]}
    write_image(tmp_path, LAYERS, config)

    found = read_image(tmp_path)

    assert found.env == {"PATH": "/bin", "A": "b=c", "EMPTY": ""}
    assert found.workdir == "/srv"
    assert [digest for _, digest in found.layers] == [digest_of(one) for one in LAYERS]
    assert [path.read_bytes() for path, _ in found.layers] == list(LAYERS)


@pytest.mark.parametrize("config", [{}, {"WorkingDir": "/", "Env": None}, {"WorkingDir": 3, "Env": "x"}])
def test_image_that_says_nothing_leaves_everything_to_us(tmp_path: Path, config: dict[str, object]) -> None:
    write_image(tmp_path, LAYERS, config)

    found = read_image(tmp_path)

    assert (dict(found.env), found.workdir) == ({}, "")


def test_image_says_as_whom_and_with_what_it_starts(tmp_path: Path) -> None:
    config = {
        "User": "app:33",
        "Entrypoint": ["/entry", "-x"],
        "Cmd": ["serve"],
        "Shell": ["/bin/bash", "-c"],
        "Labels": {"a": "b", "bad": 3},
    }
    write_image(tmp_path, LAYERS, config)

    found = read_image(tmp_path)

    assert (found.user, found.entrypoint, found.cmd) == ("app:33", ("/entry", "-x"), ("serve",))
    assert (found.shell, found.labels) == (("/bin/bash", "-c"), {"a": "b"})
    assert found.digest == json.loads((tmp_path / "manifest.json").read_text())["config"]["digest"]


@pytest.mark.parametrize("wrong", [7, ["a", 7], ["a\0b"], {"a": "b"}, ["x"] * 1_001])
def test_command_that_is_none_is_left_out_whole(tmp_path: Path, wrong: object) -> None:
    write_image(tmp_path, LAYERS, {"Entrypoint": wrong, "Cmd": wrong, "User": ["x"], "Labels": ["x"]})

    found = read_image(tmp_path)

    assert (found.entrypoint, found.cmd, found.user, found.labels) == ((), (), "", {})


@pytest.mark.parametrize(
    "platform", [{"os": "windows"}, {"architecture": "s390x"}, {"os": "windows", "architecture": "amd64"}]
)
def test_image_of_other_machines_is_refused(tmp_path: Path, platform: dict[str, str]) -> None:
    write_image(tmp_path, LAYERS, {}, platform)

    with pytest.raises(BadImage, match=f"and this machine is linux/{architecture()}"):
        read_image(tmp_path)


def test_image_of_this_machine_is_taken(tmp_path: Path) -> None:
    write_image(tmp_path, LAYERS, {}, {"os": "linux", "architecture": architecture()})

    assert len(read_image(tmp_path).layers) == 2


def change_manifest(folder: Path, change: Callable[[dict[str, Any]], object]) -> None:
    manifest = json.loads((folder / "manifest.json").read_text())
    change(manifest)
    (folder / "manifest.json").write_text(json.dumps(manifest))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda manifest: manifest["layers"].pop(), "not those that its configuration names"),
        (lambda manifest: manifest["layers"].reverse(), "not those that its configuration names"),
        (lambda manifest: manifest.update(layers=7), "no list of layers"),
        (lambda manifest: manifest.update(layers=[{}] * 501), "no list of layers"),
        (lambda manifest: manifest["layers"][0].update(digest="sha256:../../etc/passwd"), "is no SHA-256 digest"),
        (lambda manifest: manifest["config"].update(digest="../../etc/passwd"), "is no SHA-256 digest"),
        (lambda manifest: manifest["config"].update(digest="sha256:" + "0" * 64 + "\n"), "is no SHA-256 digest"),
        (lambda manifest: manifest["config"].update(digest="sha256:" + "0" * 64), "is incomplete"),
        (lambda manifest: manifest.pop("config"), "only images of OCI's form"),
    ],
)
def test_manifest_that_is_not_proper_is_refused(
    tmp_path: Path, change: Callable[[dict[str, Any]], object], message: str
) -> None:
    write_image(tmp_path, LAYERS)
    change_manifest(tmp_path, change)

    with pytest.raises(BadImage, match=message):
        read_image(tmp_path)


def test_configuration_that_was_changed_is_refused(tmp_path: Path) -> None:
    write_image(tmp_path, LAYERS)
    digest = json.loads((tmp_path / "manifest.json").read_text())["config"]["digest"]
    (tmp_path / digest.removeprefix("sha256:")).write_text('{"config": {"Env": ["PATH=/attack"]}}')

    with pytest.raises(BadImage, match=f"should be {digest}"):
        read_image(tmp_path)


@pytest.mark.parametrize("text", ["", "no json", "[]", "[" * 100_000])
def test_manifest_that_is_no_record_is_refused(tmp_path: Path, text: str) -> None:
    write_image(tmp_path, LAYERS)
    (tmp_path / "manifest.json").write_text(text)

    with pytest.raises(BadImage, match="its manifest is"):
        read_image(tmp_path)
