"""Images of any kind from a real registry, and each way in which one cannot be had."""

from __future__ import annotations

import base64
import gzip
import json
import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from squall.agent.image.layer.scratch import Scratch
from squall.agent.image.layer.store import LayerStore
from squall.agent.image.machine.settings import MachineSettings
from squall.agent.image.machine.tool import Output
from squall.agent.image.machine.write_limit import WroteTooMuch
from squall.agent.image.oci.credentials import Credentials
from squall.agent.image.oci.image_directory import architecture
from squall.agent.image.oci.pull import pull_image
from squall.agent.image.oci.refusal import RegistryFailure
from tests.agent.image.archives import archive, digest_of, directory, entry
from tests.kernel import registries
from tests.kernel.registries import PASSWORD, USER, Registry, gate

CONFIG: dict[str, object] = {
    "Env": ["PATH=/bin", "A=b"],
    "WorkingDir": "/srv",
    "User": "app",
    "Entrypoint": ["/entry"],
    "Cmd": ["serve", "-v"],
    "Labels": {"made-by": "a test"},
}


@pytest.fixture(autouse=True)
def _skip_aloud() -> None:
    if registries.missing():
        pytest.skip(registries.missing())


@pytest.fixture
def registry(tmp_path: Path) -> Iterator[Registry]:
    """A registry with a small image without a Python, kept in gzip as most are."""
    with Registry(tmp_path / "registry") as here:
        stock(here)
        yield here


def stock(registry: Registry, *options: str, name: str = "small:1", platform: tuple[str, str] = ("linux", "")) -> None:
    tar = registry.folder / "small.tar"
    # Nothing that could be made small: what is torn in the middle is not at its end already.
    tar.write_bytes(archive(directory("srv"), entry("srv/file", os.urandom(3 * 2**20)), entry("etc/os-release", b"x")))
    registry.push(name, [tar], CONFIG, *options, platform=platform)


def settings_for(registry: Registry, **more: str) -> MachineSettings:
    return MachineSettings(registry_env={"HOME": str(registry.home), **more})


@contextmanager
def scratch_of(data_dir: Path) -> Iterator[Scratch]:
    """Something in the making, after which nothing is left."""
    store = LayerStore(data_dir)
    with store.scratch() as scratch:
        yield scratch
    assert os.listdir(data_dir / "layers/.scratch") == []
    assert store.list() == ()


def pull(
    name: str, settings: MachineSettings, data_dir: Path, credentials: Credentials | None = None, **more: bool
) -> dict[str, str]:
    with scratch_of(data_dir) as scratch:
        facts = pull_image(
            name, settings, scratch, scratch.path / "root", Output(), credentials=credentials, needs_python=False
        )
        assert (scratch.path / "root/srv/file").stat().st_size == 3 * 2**20
        # Neither what was downloaded nor a password stays beside the tree.
        assert os.listdir(scratch.path) == ["root"]
        return facts


def refusal(name: str, settings: MachineSettings, data_dir: Path, credentials: Credentials | None = None) -> str:
    with pytest.raises(RegistryFailure) as caught:
        pull(name, settings, data_dir, credentials)
    return str(caught.value)


def test_image_without_python_says_how_it_starts(registry: Registry, tmp_path: Path) -> None:
    facts = pull(f"{registry.place}/small:1", settings_for(registry), tmp_path / "data")

    digest = facts.pop("digest")
    assert digest.startswith("sha256:")
    assert facts == {
        "image": f"{registry.place}/small:1",
        "workdir": "/srv",
        "user": "app",
        "env": json.dumps({"A": "b", "PATH": "/bin"}),
        "labels": json.dumps({"made-by": "a test"}),
        "entrypoint": json.dumps(["/entry"]),
        "cmd": json.dumps(["serve", "-v"]),
    }


@pytest.mark.parametrize("options", [("--dest-compress-format=zstd",), ("--format=v2s2",)])
def test_layers_may_be_kept_in_any_way(registry: Registry, tmp_path: Path, options: tuple[str, ...]) -> None:
    stock(registry, *options, name="packed:1")

    assert pull(f"{registry.place}/packed:1", settings_for(registry), tmp_path / "data")["user"] == "app"


def test_layers_that_are_not_compressed_are_read(registry: Registry, tmp_path: Path) -> None:
    folder = tmp_path / "plain"
    command = ["skopeo", "copy", "-q", "--dest-decompress", f"docker://{registry.place}/small:1", f"dir:{folder}"]
    environ = {"PATH": "/usr/bin:/bin", "HOME": str(registry.home)}
    subprocess.run(command, check=True, env=environ, timeout=60)
    manifest = json.loads((folder / "manifest.json").read_text())
    subprocess.run(
        ["skopeo", "copy", "-q", "--preserve-digests", f"dir:{folder}", f"docker://{registry.place}/plain:1"],
        check=True,
        env=environ,
        timeout=60,
    )

    assert manifest["layers"][0]["mediaType"].endswith(".tar")
    assert pull(f"{registry.place}/plain:1", settings_for(registry), tmp_path / "data")["user"] == "app"


def test_tag_and_digest_together_are_the_digest(registry: Registry, tmp_path: Path) -> None:
    body, _ = registry.ask("GET", "/v2/small/manifests/1", accept=registries.OCI_MANIFEST)
    digest = digest_of(body)

    name = f"{registry.place}/small:other@{digest}"
    assert pull(name, settings_for(registry), tmp_path / "data")["image"] == name


def test_missing_tag_and_missing_repository_are_told_apart(registry: Registry, tmp_path: Path) -> None:
    tag = refusal(f"{registry.place}/small:2", settings_for(registry), tmp_path / "data")
    repository = refusal(f"{registry.place}/none:2", settings_for(registry), tmp_path / "data")
    digest = refusal(f"{registry.place}/small@sha256:{'0' * 64}", settings_for(registry), tmp_path / "data")

    assert "there is no such image" in tag
    assert tag.endswith(f"{registry.place}/small has 1")
    assert f"there is no repository {registry.place}/none" in repository
    assert "there is no such image" in digest


def test_password_is_asked_for_refused_and_taken(registry: Registry, tmp_path: Path) -> None:
    name, data_dir = f"{registry.place}/small:1", tmp_path / "data"
    registry.stop()
    registry.has_password = True
    registry.start()
    plain = settings_for(registry)

    none = refusal(name, plain, data_dir)
    wrong = refusal(name, plain, data_dir, Credentials(USER, "wr0ng"))
    machines = refusal(name, settings_for(registry, REGISTRY_AUTH_FILE=registry.log_in("wr0ng")), data_dir)
    right = pull(name, plain, data_dir, Credentials(USER, PASSWORD))
    # Those that are given count, whatever the machine has.
    again = pull(
        name, settings_for(registry, REGISTRY_AUTH_FILE=registry.log_in("wr0ng")), data_dir, Credentials(USER, PASSWORD)
    )

    assert "no user and password were given" in none
    assert f"check the password of '{USER}'" in wrong
    assert f"the password that this machine has for '{USER}'" in machines
    assert "wr0ng" not in wrong + machines
    assert right == again


def test_password_is_seen_by_nobody_and_kept_nowhere(registry: Registry, tmp_path: Path) -> None:
    seen: list[bytes] = []

    def look() -> bool:
        for process in Path("/proc").glob("[0-9]*"):
            try:
                if b"skopeo" in (arguments := (process / "cmdline").read_bytes()):
                    seen.append(arguments + (process / "environ").read_bytes())
            except OSError:
                continue
        return False

    data_dir = tmp_path / "data"
    with gate(registry, "stall") as place, scratch_of(data_dir) as scratch:
        seen_files: list[bytes] = []

        def look_and_leave() -> bool:
            look()
            if not place.has_torn.is_set():
                return False
            seen_files.extend(path.read_bytes() for path in data_dir.rglob("*") if path.is_file())
            return True

        with pytest.raises(RegistryFailure, match="cancelled"):
            pull_image(
                f"{place.place}/small:1",
                settings_for(registry),
                scratch,
                scratch.path / "root",
                Output(is_cancelled=look_and_leave),
                credentials=Credentials(USER, PASSWORD),
            )

    auth = base64.b64encode(f"{USER}:{PASSWORD}".encode())
    assert seen
    assert not [found for found in [*seen, *seen_files] if PASSWORD.encode() in found or auth in found]


def test_registry_without_tls_is_refused_with_the_lines_that_allow_it(registry: Registry, tmp_path: Path) -> None:
    settings = MachineSettings(registry_env={"HOME": str(tmp_path)})

    message = refusal(f"{registry.place}/small:1", settings, tmp_path / "data")

    assert f"{registry.place} speaks no TLS" in message
    assert f'location = "{registry.place}", insecure = true' in message


def test_certificate_of_an_unknown_authority_is_refused_and_of_a_known_one_taken(tmp_path: Path) -> None:
    with Registry(tmp_path / "registry", has_tls=True, has_password=True) as registry:
        stock_through_tls(registry)
        name, credentials = f"{registry.place}/small:1", Credentials(USER, PASSWORD)
        message = refusal(name, settings_for(registry), tmp_path / "data", credentials)
        known = replace(settings_for(registry), ca_bundle=registry.authority)
        facts = pull(name, known, tmp_path / "data", credentials)

    assert f"does not know the certificate of {registry.place}" in message
    assert facts["user"] == "app"


def stock_through_tls(registry: Registry) -> None:
    """As `stock`, by the same files without TLS and password: pushing is another test's."""
    with Registry(registry.folder) as plain:
        stock(plain)
    (registry.home / ".config/containers/registries.conf").unlink()


def test_image_for_other_machines_is_refused(registry: Registry, tmp_path: Path) -> None:
    stock(registry, name="windows:1", platform=("windows", "amd64"))
    registry.put_index("small", "1", ("windows", "amd64"), ("linux", "s390x"))

    alone = refusal(f"{registry.place}/windows:1", settings_for(registry), tmp_path / "data")
    listed = refusal(f"{registry.place}/small:list", settings_for(registry), tmp_path / "data")

    assert f"it is for windows/amd64, and this machine is linux/{architecture()}" in alone
    assert "it is made for other machines only" in listed
    assert listed.endswith(": linux/s390x, windows/amd64")


def test_list_gives_the_image_of_this_machine(registry: Registry, tmp_path: Path) -> None:
    registry.put_index("small", "1", ("windows", "amd64"), ("linux", architecture()))

    assert pull(f"{registry.place}/small:list", settings_for(registry), tmp_path / "data")["user"] == "app"


def test_what_is_damaged_in_the_registry_is_refused(registry: Registry, tmp_path: Path) -> None:
    largest = max(registry.folder.rglob("data"), key=lambda path: path.stat().st_size)
    content = largest.read_bytes()
    other = gzip.compress(archive(entry("srv/file", b"other")))

    for damaged, words in (
        (content[: len(content) // 2], "broke off|damaged"),
        (content[:-100] + bytes(100), "damaged"),
        (other, "damaged"),
    ):
        largest.write_bytes(damaged)
        message = refusal(f"{registry.place}/small:1", settings_for(registry), tmp_path / "data")
        assert any(word in message for word in words.split("|")), message


def test_registry_that_dies_half_way_is_told(registry: Registry, tmp_path: Path) -> None:
    with gate(registry, "kill") as place:
        message = refusal(f"{place.place}/small:1", settings_for(registry), tmp_path / "data")

    assert f"{place.place} broke off half-way" in message


def test_disk_that_is_full_is_told(registry: Registry, tmp_path: Path) -> None:
    small = tmp_path / "small-disk"
    small.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", str(small)], check=True, timeout=20)
    try:
        fetched = refusal(f"{registry.place}/small:1", settings_for(registry), small / "data")
        # Large enough for the archive, and not for the tree besides.
        subprocess.run(["mount", "-o", "remount,size=5m", str(small)], check=True, timeout=20)
        with pytest.raises(WroteTooMuch) as unpacked:
            pull(f"{registry.place}/small:1", settings_for(registry), small / "data")
    finally:
        subprocess.run(["umount", str(small)], check=True, timeout=20)

    assert "the disk is full" in fetched
    assert "small:1 would have filled the machine's disk (" in str(unpacked.value)
