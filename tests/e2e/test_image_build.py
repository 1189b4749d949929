"""Images come in by the command, from files and registries, and functions run in them."""

from __future__ import annotations

import gzip
import json
import os
import subprocess
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path
from textwrap import dedent

import pytest

from squall.runtime.removal import remove_tree
from tests.agent.image.archives import archive, digest_of, entry
from tests.e2e.installation import SQUALL, Ended, Installation, take_layers_from_cache
from tests.kernel import registries
from tests.kernel.registries import PASSWORD, USER, Registry
from tests.kernel.rootfs import missing

MADE = """
import squall

app = squall.App("made")
image = squall.Image.debian_slim("3.11").run_commands("echo built > /made-here").env({"GREETING": "hello"})

@app.function(image=image)
def look():
    return open("/made-here").read()

@app.local_entrypoint()
def main():
    print("found", look.remote())
"""
TAKEN = """
import sys

import squall

app = squall.App("taken")

@app.function(image=squall.Image.from_name(sys.argv[-1]))
def look():
    import os

    return open("/made-here").read().strip(), os.environ["GREETING"], sys.version_info[:2]

@app.local_entrypoint()
def main(name: str):
    print("found", *look.remote())
"""


@pytest.fixture(autouse=True)
def _skip_aloud() -> None:
    if missing() or registries.missing():
        pytest.skip(missing() or registries.missing())


@pytest.fixture
def registry(tmp_path: Path) -> Iterator[Registry]:
    """An empty registry that wants a password."""
    with Registry(tmp_path / "registry", has_password=True) as running:
        yield running
    # Larger than what pytest should keep of its last runs.
    remove_tree(str(running.folder))


@pytest.fixture
def empty(make_data_dir: Callable[[], Path], tmp_path: Path) -> Iterator[Installation]:
    """A machine that has no image, no base and no registry to take one from."""
    (tmp_path / "registry/home").mkdir(parents=True, exist_ok=True)
    settings = {"HOME": str(tmp_path / "registry/home"), "SQUALL_PYTHON_IMAGE": "none"}
    installation = Installation(make_data_dir(), settings)
    yield installation
    installation.stop()
    assert (installation.left_behind(), installation.undeleted()) == ([], [])


@pytest.fixture
def made(make_data_dir: Callable[[], Path], registry: Registry, tmp_path: Path) -> Iterator[tuple[Installation, str]]:
    """Another machine, and the id of an image it has built."""
    data_dir = make_data_dir()
    take_layers_from_cache(data_dir)
    installation = Installation(data_dir, {"HOME": str(registry.home), "SQUALL_PYTHON_IMAGE": "none"})
    (tmp_path / "made.py").write_text(MADE)
    try:
        ran = installation.command("run", str(tmp_path / "made.py"), timeout_s=120)
        assert ran.code == 0, ran
        (image_id,) = [path.stem for path in (data_dir / "images").glob("im-*.json")]
        yield installation, image_id
    finally:
        installation.stop()


def look_in(installation: Installation, name: str, tmp_path: Path) -> str:
    (tmp_path / "taken.py").write_text(TAKEN)
    ran = installation.command("run", str(tmp_path / "taken.py"), "--name", name, timeout_s=120)
    assert ran.code == 0, f"{ran}\n{installation.server_log()}"
    return ran.out.strip()


@pytest.mark.timeout(300)
def test_exported_image_is_imported_where_there_is_nothing_else(
    made: tuple[Installation, str], empty: Installation, tmp_path: Path
) -> None:
    there, image_id = made
    plain, zipped = tmp_path / "made.tar", tmp_path / "made-docker.tar.gz"
    options = ("--form", "docker", "--tag", "made:1")
    for command in (("--output", str(plain)), ("--output", str(tmp_path / "docker.tar"), *options)):
        exported = there.command("image", "export", image_id, *command, timeout_s=120)
        assert exported.code == 0, exported
    zipped.write_bytes(gzip.compress((tmp_path / "docker.tar").read_bytes(), 1))

    first = empty.command("image", "import", str(plain), "--name", "made:1", timeout_s=120)
    second = empty.command("image", "import", str(zipped), "--json", timeout_s=120)
    again = empty.command("image", "import", str(plain), timeout_s=120)
    found = look_in(empty, "made:1", tmp_path)

    assert first.code == 0, first
    assert first.out.splitlines() == [again.out.strip(), "made:1"]
    assert "[1/1] from_archive made.tar" in first.err
    assert "done in" in first.err
    assert "done in" not in again.err
    assert json.loads(second.out)["image_id"].startswith("im-"), second
    assert json.loads(second.out)["name"] is None
    assert found == "found built hello (3, 11)"


@pytest.mark.timeout(300)
def test_private_image_is_pulled_by_those_who_are_let_in(
    made: tuple[Installation, str], empty: Installation, registry: Registry, tmp_path: Path
) -> None:
    there, image_id = made
    name = f"{registry.place}/team/made:1"
    pushed = subprocess.run(
        [SQUALL, "image", "push", name, "--image", image_id, "--username", USER, "--password-stdin"],
        input=f"{PASSWORD}\n",
        env=there.environ(),
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert pushed.returncode == 0, pushed

    def pull(reference: str, *options: str, password: str = "") -> Ended:
        environ = {"REGISTRY_USERNAME": USER, "REGISTRY_PASSWORD": password} if password else {}
        return empty.command("image", "pull", reference, *options, environ=environ, timeout_s=120)

    from_env = "--registry-secret-from-env"
    stranger = pull(name)
    unset = pull(name, from_env)
    wrong = pull(name, from_env, password="wr0ng-one")
    no_tag = pull(f"{registry.place}/team/made:2", from_env, password=PASSWORD)
    taken = pull(name, from_env, "--name", "made", password=PASSWORD)
    registry.stop()
    cached = pull(name)
    forced = pull(name, "--force-build")

    assert (stranger.code, "no user and password were given" in stranger.err) == (1, True), stranger
    assert (unset.code, "REGISTRY_USERNAME and REGISTRY_PASSWORD not set" in unset.err) == (2, True), unset
    assert (wrong.code, "check the password of" in wrong.err) == (1, True), wrong
    assert (no_tag.code, "team/made has 1" in no_tag.err) == (1, True), no_tag
    assert taken.code == 0, taken
    assert taken.out.splitlines() == [cached.out.strip(), "made:latest"]
    assert (forced.code, "cannot be reached" in forced.err) == (1, True), forced
    assert look_in(empty, "made", tmp_path) == "found built hello (3, 11)"
    empty.stop()
    for secret in (PASSWORD, "wr0ng-one"):
        said = [one for one in (stranger, wrong, no_tag, taken) if secret in one.out + one.err]
        assert not said, said
        kept = [path for path in files_of(empty.data_dir) if secret.encode() in path.read_bytes()]
        assert not kept, kept


@pytest.mark.timeout(300)
def test_a_secret_with_a_name_lets_into_a_registry(
    made: tuple[Installation, str], empty: Installation, registry: Registry, tmp_path: Path
) -> None:
    there, image_id = made
    name = f"{registry.place}/team/named:1"
    pushed = subprocess.run(
        [SQUALL, "image", "push", name, "--image", image_id, "--username", USER, "--password-stdin"],
        input=f"{PASSWORD}\n", env=there.environ(), capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert pushed.returncode == 0, pushed
    program = tmp_path / "private.py"
    program.write_text(
        dedent(f"""
        import squall
        image = squall.Image.from_registry({name!r}, secret=squall.Secret.from_name("registry"))
        app = squall.App("private", image=image)

        @app.function()
        def look(): return "let in"

        @app.local_entrypoint()
        def main(): print(look.remote())
    """)
    )

    def run(password: str) -> Ended:
        made = subprocess.run(
            [SQUALL, "secret", "create", "registry", f"REGISTRY_USERNAME={USER}", "REGISTRY_PASSWORD=-", "-f"],
            input=f"{password}\n", env=empty.environ(), capture_output=True, text=True, timeout=60, check=False,
        )  # fmt: skip
        assert made.returncode == 0, made
        return empty.command("run", str(program), timeout_s=120)

    missing = empty.command("run", str(program))
    wrong, right = run("wr0ng-one"), run(PASSWORD)

    assert (missing.code, "there is no secret 'registry'" in missing.err) == (1, True), missing
    assert (wrong.code, "check the password of" in wrong.err) == (1, True), wrong
    assert (right.code, "let in" in right.out) == (0, True), right
    empty.stop()
    for secret in (PASSWORD, "wr0ng-one"):
        assert not [one for one in (missing, wrong, right) if secret in one.out + one.err]
        kept = [path for path in files_of(empty.data_dir) if secret.encode() in path.read_bytes()]
        assert not kept, kept


def files_of(data_dir: Path) -> list[Path]:
    """What may have been written down; not the layers."""
    found = [path for path in data_dir.rglob("*") if path.is_file() and not path.is_symlink()]
    return [path for path in found if not path.is_relative_to(data_dir / "layers")]


def write_docker_archive(path: Path, layer: bytes, architecture: str = "") -> None:
    described = {
        "architecture": architecture,
        "os": "linux",
        "rootfs": {"type": "layers", "diff_ids": [digest_of(layer)]},
    }
    config = json.dumps({key: value for key, value in described.items() if value}).encode()
    manifest = json.dumps([{"Config": "config.json", "RepoTags": None, "Layers": ["layer.tar"]}]).encode()
    files = (("config.json", config), ("layer.tar", layer), ("manifest.json", manifest))
    path.write_bytes(archive(*(entry(name, content) for name, content in files)))


def test_file_without_a_usable_image_is_refused_and_leaves_nothing(empty: Installation, tmp_path: Path) -> None:
    layer = archive(entry("etc/motd", b"m" * 200_000))
    write_docker_archive(tmp_path / "good.tar", layer)
    whole = (tmp_path / "good.tar").read_bytes()
    (tmp_path / "half.tar").write_bytes(whole[: len(whole) // 2])
    with tarfile.open(tmp_path / "good.tar") as tar:
        entries = tar.getmembers()
    (tmp_path / "ends-early.tar").write_bytes(whole[: entries[1].offset] + whole[entries[2].offset :])
    (tmp_path / "half.tar.gz").write_bytes(gzip.compress(os.urandom(100_000))[:50_000])
    (tmp_path / "text.tar").write_text("nothing of the kind\n" * 1_000)
    (tmp_path / "empty.tar").touch()
    write_docker_archive(tmp_path / "other.tar", layer, "riscv64")
    write_docker_archive(tmp_path / "hostile.tar", archive(entry("../../escaped", b"attack")))
    causes = {
        "half.tar": "no archive of an image",
        "half.tar.gz": "cannot be decompressed",
        "ends-early.tar": "ends-early.tar: Some layer tarfiles are missing",
        "text.tar": "no archive of an image",
        "empty.tar": "it is empty",
        "other.tar": "it is for linux/riscv64",
        "hostile.tar": "escaped",
        "none.tar": "there is no such file",
        ".": "it is no regular file",
        "-": "cannot be read twice",
    }

    ended = {name: empty.command("image", "import", name, cwd=tmp_path, timeout_s=60) for name in causes}
    named = empty.command("image", "import", "good.tar", "--name", "no name", cwd=tmp_path)
    layers = list((empty.data_dir / "layers").glob("ly-*"))
    good = empty.command("image", "import", "good.tar", "--name", "tiny", cwd=tmp_path)

    for name, cause in causes.items():
        assert cause in ended[name].err, ended[name]
        assert (ended[name].code, ended[name].out) == (2 if name == "-" else 1, ""), ended[name]
        assert "Traceback" not in ended[name].err
    assert (named.code, "is no name of an image" in named.err) == (2, True), named
    assert layers == []
    assert good.out.splitlines()[1:] == ["tiny:latest"], good
