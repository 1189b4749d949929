"""The examples of image builders do what they say, with the real command and server."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from squall.runtime.removal import remove_tree
from tests.e2e.installation import Installation, link_layers
from tests.kernel import registries
from tests.kernel.registries import PASSWORD, USER, Registry, stock
from tests.kernel.rootfs import ensure_rootfs, missing

EXAMPLES = Path(__file__).parent.parent.parent / "examples" / "images"
PRINTS = {
    "debian_slim_and_apt": "jq found [1,2,3]",
    "pip_packages": "packages found 1.16.0 xn--bcher-kva.example True",
    "requirements_file": "six 1.16.0 as limits.txt has it, idna 3",
    "uv_project": "the project's packages are idna six",
    "poetry_project": "the project's packages are idna six",
    "local_files": "counted 8 words in all.txt notes.txt words/english.txt words/german.txt",
    "run_function": "predicted [2.5, 4.5, 6.5]",
    "environment": "hello from /srv/app | /srv/app | hello | /usr/local/bin/enter",
    "pyproject": "installed are idna six",
    "published": "read hello from the recipe",
    "from_scratch_and_copy": "built im- and found it again: True",
}
ELSEWHERE = {"registry", "micromamba", "dockerfile"}
"""They have tests of their own, below or beside those of the feature."""


def run(installation: Installation, name: str, **environ: str) -> str:
    """The last line that an example prints."""
    ended = installation.command("run", str(EXAMPLES / f"{name}.py"), timeout_s=240, environ=environ)
    assert ended.code == 0, ended
    lines = [line for line in ended.out.splitlines() if line and not line.startswith("App completed")]
    return lines[-1]


def test_every_example_is_run() -> None:
    assert {path.stem for path in EXAMPLES.glob("*.py")} <= PRINTS.keys() | ELSEWHERE


@pytest.mark.timeout(300)
@pytest.mark.parametrize("name", PRINTS)
def test_an_example_does_what_it_says(squall: Installation, name: str) -> None:
    assert run(squall, name) == PRINTS[name]


@pytest.mark.timeout(300)
def test_conda_packages_are_installed_where_a_channel_answers(squall: Installation) -> None:
    ended = squall.command("run", str(EXAMPLES / "micromamba.py"), timeout_s=240)
    if ended.code and ("(from_registry" in ended.err or "conda" in ended.err):
        pytest.skip(f"no registry has micromamba's image here, or no conda channel answers: …{ended.err[-300:]}")

    assert ended.code == 0, ended
    assert "conda packages in /opt/conda /opt/conda/bin/zstd 6" in ended.out


@pytest.fixture
def private_registry(tmp_path: Path) -> Iterator[Registry]:
    """A registry with an image of Debian, which it gives to those alone who know the password."""
    if missing() or registries.missing():
        pytest.skip(missing() or registries.missing())
    filling = Registry(tmp_path / "registry")
    filling.start()
    try:
        stock(filling, ensure_rootfs(), filling.folder)
    finally:
        filling.stop()
    running = Registry(filling.folder, has_password=True)
    running.start()
    try:
        yield running
    finally:
        running.stop()
        # Larger than what pytest should keep of its last runs.
        remove_tree(str(running.folder))


@pytest.mark.timeout(300)
def test_a_private_registrys_image_gets_a_python(
    private_registry: Registry, make_data_dir: Callable[[], Path], session_installation: Installation
) -> None:
    data_dir = make_data_dir()
    link_layers(session_installation.data_dir, data_dir)
    installation = Installation(data_dir, {"HOME": str(private_registry.home), "SQUALL_NETWORK_SLOTS": "2"})
    image = {"SQUALL_EXAMPLE_IMAGE": f"{private_registry.place}/python:3.11-slim", "SQUALL_EXAMPLE_PYTHON": ""}
    # The machine may reach no place that Pythons come from; Debian has this one.
    own = {"SQUALL_EXAMPLE_PYTHON": "3.11"} if sys.version_info[:2] == (3, 11) else {}
    login = {"REGISTRY_USERNAME": USER, "REGISTRY_PASSWORD": PASSWORD}
    try:
        printed = run(installation, "registry", **{**image, **own, **login})
        kept = [path for path in data_dir.glob("*") if path.is_file() and PASSWORD.encode() in path.read_bytes()]
    finally:
        installation.stop()

    assert printed == "runs in debian and does not know the password"
    assert not kept, "the password is in no file of the server"
