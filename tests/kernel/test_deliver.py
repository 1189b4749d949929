"""Built images go to real registries and into files, and come back as they were."""

from __future__ import annotations

import gzip
import json
import os
import subprocess
import tarfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from squall.agent.image.layer.store import LayerStore
from squall.agent.image.machine.settings import MachineSettings
from squall.agent.image.machine.tool import Output
from squall.agent.image.oci import deliver
from squall.agent.image.oci.credentials import Credentials
from squall.agent.image.oci.deliver import CannotExport, Layout, push_image, write_archive, write_layout
from squall.agent.image.oci.pull import import_archive, pull_image
from squall.agent.image.oci.refusal import RegistryFailure
from squall.protocol.image import ImageConfig
from squall.protocol.image_transfer import COMPRESSIONS, DOCKER, OCI
from tests.agent.image.archives import digest_of
from tests.erofs.trees import facts, make_everything, set_times
from tests.kernel import registries
from tests.kernel.registries import PASSWORD, USER, Registry, gate

CONFIG = ImageConfig(
    env={"PATH": "/bin", "A": "b"},
    workdir="/sub",
    user="app",
    entrypoint=("/entry",),
    cmd=("serve",),
    shell=("/bin/bash", "-c"),
)
CAPABILITY = b"\x01\x00\x00\x02\x00\x04\x00\x00" + bytes(12)


@pytest.fixture(autouse=True)
def _skip_aloud() -> None:
    if registries.missing():
        pytest.skip(registries.missing())


@pytest.fixture
def registry(tmp_path: Path) -> Iterator[Registry]:
    """An empty one."""
    with Registry(tmp_path / "registry") as here:
        yield here


def settings_for(registry: Registry, **more: str) -> MachineSettings:
    return MachineSettings(registry_env={"HOME": str(registry.home), **more})


@pytest.fixture
def layers(tmp_path: Path) -> tuple[Path, Path]:
    """Two layers with one of everything, the upper hiding something of the lower."""
    below, above = tmp_path / "below", tmp_path / "above"
    make_everything(below)
    (below / "socket").unlink()
    (below / "random").write_bytes(os.urandom(3 * 2**20))
    for place in (below / "sub/program", below / "sub/copy"):
        place.write_bytes(b"#!/bin/sh\n")
        os.chown(place, 33, 65_535)
        os.setxattr(place, "security.capability", CAPABILITY)
    set_times(below)
    (above / "many").mkdir(parents=True)
    (above / "many/new").write_bytes(b"new")
    os.setxattr(above / "many", "trusted.overlay.opaque", b"y")
    os.mknod(above / "link", 0o020000, os.makedev(0, 0))
    (above / "etc").mkdir()
    for name in ("resolv.conf", "hosts", "hostname"):
        (above / "etc" / name).touch(mode=0o644)
    set_times(above)
    return below, above


@contextmanager
def laid_out(data_dir: Path, layers: tuple[Path, ...], output: Output | None = None) -> Iterator[Layout]:
    """The image as it is about to leave, after which nothing is left."""
    store = LayerStore(data_dir)
    with store.scratch() as scratch:
        titles = [f"step {number}" for number in range(len(layers))]
        yield write_layout([str(layer) for layer in layers], titles, CONFIG, scratch, output or Output())
    assert os.listdir(data_dir / "layers/.scratch") == []


def shown(layers: tuple[Path, Path]) -> dict[bytes, tuple[object, ...]]:
    """What overlayfs would show of the two: the upper in place of the lower where it has the same."""
    below, above = facts(layers[0]), facts(layers[1])
    found: dict[bytes, tuple[object, ...]] = {
        path: fact for path, fact in below.items() if not path.startswith((b"many", b"link")) or path == b"linked"
    }
    found |= {path: fact for path, fact in above.items() if path not in (b"link", b"many")}
    return found


def compare(root: Path, layers: tuple[Path, Path]) -> None:
    found: dict[bytes, tuple[object, ...]] = dict(facts(root))
    found.pop(b"many")
    # Made empty, with the time of the moment, for what containers have there.
    for name in (b"etc", b"etc/resolv.conf", b"etc/hosts", b"etc/hostname"):
        found.pop(name)
    wanted = {path: fact for path, fact in shown(layers).items() if path in found or not path.startswith(b"etc")}
    # How many directories are in the root is in its count of links.
    (_, *top), (_, *same) = found.pop(b"."), wanted.pop(b".")
    assert (top[:3], top[4:]) == (same[:3], same[4:])
    assert found == wanted


def pull_back(name: str, registry: Registry, data_dir: Path, layers: tuple[Path, Path]) -> dict[str, str]:
    with LayerStore(data_dir).scratch() as scratch:
        said = pull_image(name, settings_for(registry), scratch, scratch.path / "root", Output())
        compare(scratch.path / "root", layers)
    return said


@pytest.mark.parametrize("compression", COMPRESSIONS)
def test_image_that_was_pushed_comes_back_as_it_was(
    registry: Registry, tmp_path: Path, layers: tuple[Path, Path], compression: str
) -> None:
    name = f"{registry.place}/team/app:1"
    with laid_out(tmp_path / "data", layers) as layout:
        digest = push_image(layout, name, settings_for(registry), Output(), compression=compression)
        again = push_image(layout, name, settings_for(registry), Output(), compression=compression)

    raw, _ = registry.ask("GET", f"/v2/team/app/manifests/{digest}", accept=registries.OCI_MANIFEST)
    inspected = inspect(registry, name)
    facts_of_it = pull_back(name, registry, tmp_path / "back", layers)
    assert digest == again == digest_of(raw)
    assert [layer["mediaType"].rpartition("+")[2] for layer in json.loads(raw)["layers"]] == [compression] * 2
    assert inspected["Digest"] == digest
    assert inspected["Os"] == "linux"
    assert facts_of_it["user"] == "app"
    assert json.loads(facts_of_it["entrypoint"]) == ["/entry"]
    assert json.loads(facts_of_it["cmd"]) == ["serve"]
    assert json.loads(facts_of_it["shell"]) == ["/bin/bash", "-c"]
    assert json.loads(facts_of_it["env"]) == CONFIG.env
    assert facts_of_it["workdir"] == "/sub"


def inspect(registry: Registry, name: str) -> dict[str, object]:
    command = ["skopeo", "inspect", f"docker://{name}"]
    environ = {"PATH": "/usr/bin:/bin", "HOME": str(registry.home)}
    said = subprocess.run(command, capture_output=True, check=True, timeout=60, env=environ).stdout
    return dict(json.loads(said))


@pytest.mark.parametrize(("form", "tag"), [(OCI, ""), (OCI, "app:1"), (DOCKER, "app:1"), (DOCKER, "")])
@pytest.mark.parametrize("is_zipped", [False, True])
def test_file_of_an_image_comes_back_as_it_was(
    tmp_path: Path, layers: tuple[Path, Path], form: str, tag: str, is_zipped: bool
) -> None:
    settings = MachineSettings(registry_env={"HOME": str(tmp_path)})
    kept = tmp_path / "kept.tar"
    with laid_out(tmp_path / "data", layers) as layout:
        archive = write_archive(layout, form, tag, settings, Output())
        kept.write_bytes(gzip.compress(archive.read_bytes(), 1) if is_zipped else archive.read_bytes())

    with LayerStore(tmp_path / "back").scratch() as scratch:
        said = import_archive(kept, settings, scratch, scratch.path / "root", Output(), name="kept.tar")
        compare(scratch.path / "root", layers)

    assert (said["image"], said["user"], said["workdir"]) == ("kept.tar", "app", "/sub")
    assert json.loads(said["shell"]) == ["/bin/bash", "-c"]


def test_python_of_an_exported_image_is_found_again_where_no_path_leads(rootfs: str, tmp_path: Path) -> None:
    layer = tmp_path / "python"
    subprocess.run(["cp", "-a", "--reflink=auto", rootfs, str(layer)], check=True, timeout=120)
    (layer / "opt").mkdir(exist_ok=True)
    for path in (layer / "usr/bin/python3", layer / "usr/bin/python"):
        path.unlink(missing_ok=True)
    (layer / "opt/interpreter").symlink_to("/usr/bin/python3.11")
    settings = MachineSettings(registry_env={"HOME": str(tmp_path)})
    config = ImageConfig(python_path="/opt/interpreter")
    with LayerStore(tmp_path / "data").scratch() as scratch:
        layout = write_layout([str(layer)], ["all"], config, scratch, Output())
        # Of the forms the one without annotations.
        archive = write_archive(layout, DOCKER, "", settings, Output())
        with LayerStore(tmp_path / "back").scratch() as other:
            said = import_archive(archive, settings, other, other.path / "root", Output(), name="archive")

    assert said["python_path"] == "/opt/interpreter"
    assert said["python_version"].startswith("3.11.")


def push_refusal(
    registry: Registry,
    name: str,
    data_dir: Path,
    layers: tuple[Path, Path],
    settings: MachineSettings | None = None,
    credentials: Credentials | None = None,
) -> str:
    with laid_out(data_dir, layers) as layout, pytest.raises(RegistryFailure) as caught:
        push_image(layout, name, settings or settings_for(registry), Output(), credentials=credentials)
    return str(caught.value)


def test_password_is_asked_for_refused_and_taken(registry: Registry, tmp_path: Path, layers: tuple[Path, Path]) -> None:
    registry.stop()
    registry.has_password = True
    registry.start()
    name, data_dir = f"{registry.place}/app:1", tmp_path / "data"

    none = push_refusal(registry, name, data_dir, layers)
    wrong = push_refusal(registry, name, data_dir, layers, credentials=Credentials(USER, "wr0ng"))
    with laid_out(data_dir, layers) as layout:
        digest = push_image(layout, name, settings_for(registry), Output(), credentials=Credentials(USER, PASSWORD))

    assert "no user and password were given" in none
    assert f"check the password of '{USER}'" in wrong
    assert "wr0ng" not in wrong
    assert digest.startswith("sha256:")


def test_push_asks_for_tls_and_a_known_certificate(tmp_path: Path, layers: tuple[Path, Path]) -> None:
    with Registry(tmp_path / "registry", has_tls=True) as registry:
        name = f"{registry.place}/app:1"
        unknown = push_refusal(registry, name, tmp_path / "data", layers)
        known = replace(settings_for(registry), ca_bundle=registry.authority)
        with laid_out(tmp_path / "data", layers) as layout:
            digest = push_image(layout, name, known, Output())
        registry.stop()
        registry.has_tls = False
        registry.start()
        stranger = MachineSettings(registry_env={"HOME": str(tmp_path)})
        plain = push_refusal(registry, name, tmp_path / "data", layers, stranger)

    assert f"does not know the certificate of {registry.place}" in unknown
    assert digest.startswith("sha256:")
    assert f"{registry.place} speaks no TLS" in plain


def test_registry_that_dies_half_way_has_no_such_image(
    registry: Registry, tmp_path: Path, layers: tuple[Path, Path]
) -> None:
    with gate(registry, "kill") as place:
        message = push_refusal(registry, f"{place.place}/app:1", tmp_path / "data", layers)
        registry.start()

    with LayerStore(tmp_path / "back").scratch() as scratch, pytest.raises(RegistryFailure, match="no such image"):
        pull_image(f"{registry.place}/app:1", settings_for(registry), scratch, scratch.path / "root", Output())
    assert f"{place.place} broke off half-way" in message or "cannot be reached" in message


def test_registry_that_takes_nothing_any_more_is_given_up(
    registry: Registry, tmp_path: Path, layers: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(deliver, "_STALL_S", 1.5)

    with gate(registry, "stall") as place:
        message = push_refusal(registry, f"{place.place}/app:1", tmp_path / "data", layers)

    assert "no progress for 1.5 s" in message or "no answer within 1.5 s" in message


def test_file_that_is_no_image_is_refused(tmp_path: Path) -> None:
    settings = MachineSettings(registry_env={"HOME": str(tmp_path)})
    (tmp_path / "text").write_text("no archive" * 1_000)
    with tarfile.open(tmp_path / "other.tar", "w") as tar:
        tar.add(tmp_path / "text", "text")
    with tarfile.open(tmp_path / "empty.tar", "w") as tar:
        tar.add(tmp_path / "text", "oci-layout")

    messages = []
    for name in ("text", "other.tar", "empty.tar", "none"):
        with LayerStore(tmp_path / "data").scratch() as scratch, pytest.raises(RegistryFailure) as caught:
            import_archive(tmp_path / name, settings, scratch, scratch.path / "root", Output(), name=name)
        messages.append(str(caught.value))

    assert [message.partition(":")[0] for message in messages] == ["text", "other.tar", "empty.tar", "none"]
    assert "no archive of an image" in messages[0]
    assert "neither oci-layout nor manifest.json" in messages[1]
    assert "No such file" in messages[3]


def test_what_cannot_be_exported_is_said(tmp_path: Path) -> None:
    (tmp_path / "layer").mkdir()
    (tmp_path / "layer/.wh.x").touch()
    lines: list[str] = []

    with (
        pytest.raises(CannotExport, match=r"\.wh\.x' begins with"),
        laid_out(tmp_path / "data", (tmp_path / "layer",), Output(lines.append)),
    ):
        pass
