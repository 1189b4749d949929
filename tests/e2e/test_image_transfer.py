"""An image that an app has built goes to a registry and into a file, by the command."""

from __future__ import annotations

import json
import subprocess
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from squall.runtime.removal import remove_tree
from tests.e2e.installation import SQUALL, Installation, take_layers_from_cache
from tests.kernel import registries
from tests.kernel.registries import PASSWORD, USER, Registry
from tests.kernel.rootfs import missing

PROGRAM = """
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


@pytest.fixture
def registry(tmp_path: Path) -> Iterator[Registry]:
    """An empty registry that wants a password."""
    if missing() or registries.missing():
        pytest.skip(missing() or registries.missing())
    with Registry(tmp_path / "registry", has_password=True) as running:
        yield running
    # Larger than what pytest should keep of its last runs.
    remove_tree(str(running.folder))


@pytest.mark.timeout(300)
def test_built_image_goes_to_a_registry_and_into_a_file(
    registry: Registry, make_data_dir: Callable[[], Path], tmp_path: Path
) -> None:
    data_dir = make_data_dir()
    take_layers_from_cache(data_dir)
    installation = Installation(data_dir, {"HOME": str(registry.home), "SQUALL_PYTHON_IMAGE": "none"})
    (tmp_path / "made.py").write_text(PROGRAM)
    name, file = f"{registry.place}/team/made:1", tmp_path / "made.tar"
    try:
        ran = installation.command("run", str(tmp_path / "made.py"), timeout_s=120)
        (image_id,) = [path.stem for path in (data_dir / "images").glob("im-*.json")]
        refused = push(installation, name, image_id, "wr0ng")
        pushed = push(installation, name, image_id, PASSWORD)
        exported = installation.command("image", "export", image_id, "--output", str(file), "--tag", "made:1")
        nothing = installation.command("image", "export", "im-" + "0" * 32, "--output", str(tmp_path / "none.tar"))
        log = (data_dir / "server.log").read_text(errors="replace")
    finally:
        installation.stop()

    assert ran.code == 0, ran
    assert (refused.returncode, "check the password" in refused.stderr) == (1, True), refused
    assert pushed.returncode == 0, pushed
    assert pushed.stdout.startswith(f"{name}@sha256:")
    assert exported.code == 0, exported
    with tarfile.open(file) as tar:
        assert "oci-layout" in tar.getnames()
    assert (nothing.code, "no node has the image" in nothing.err) == (1, True), nothing
    assert [path.name for path in tmp_path.iterdir() if "none.tar" in path.name] == []
    secrets = [PASSWORD, "wr0ng"]
    assert not [secret for secret in secrets if secret in log + refused.stderr + pushed.stderr + pushed.stdout]
    config = inspect(registry, name)
    assert "GREETING=hello" in config["config"]["Env"]
    assert [one["created_by"].partition(" ")[0] for one in config["history"]] == ["debian_slim", "run_commands"]


def push(installation: Installation, name: str, image_id: str, password: str) -> subprocess.CompletedProcess[str]:
    options = ("--image", image_id, "--username", USER, "--password-stdin")
    return subprocess.run(
        [SQUALL, "image", "push", name, *options],
        input=f"{password}\n",
        env=installation.environ(),
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def inspect(registry: Registry, name: str) -> dict[str, Any]:
    auth = registry.log_in(PASSWORD)
    command = ["skopeo", "inspect", "--config", f"docker://{name}"]
    environ = {"PATH": "/usr/bin:/bin", "HOME": str(registry.home), "REGISTRY_AUTH_FILE": auth}
    return dict(json.loads(subprocess.run(command, env=environ, check=True, capture_output=True, timeout=60).stdout))
