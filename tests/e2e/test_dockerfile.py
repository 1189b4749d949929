"""A Dockerfile of several stages on an image of a registry, from the command line to the result of a function in it."""

from __future__ import annotations

import json
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from squall.runtime.removal import remove_tree
from tests.e2e.installation import Installation
from tests.kernel import registries
from tests.kernel.registries import Registry, stock
from tests.kernel.rootfs import ensure_rootfs, missing

EXAMPLE = Path(__file__).parent.parent.parent / "examples/images/dockerfile.py"
DOCKERFILE = r"""# syntax=docker/dockerfile:1
ARG BASE
FROM ${BASE} AS build
USER root
ARG VERSION=0
SHELL ["/bin/bash", "-o", "pipefail", "-c"]
WORKDIR /build
COPY . .
RUN --mount=type=cache,target=/var/cache/own \
    # what is in there is no part of the image
    touch /var/cache/own/left && \

    [[ -f src/app.txt ]] && find . -type f | sort > /listing && echo "version $VERSION" > version
RUN <<EOF
mkdir out
cp version /listing out/
ln -s version out/latest
ls /var/cache/own > out/cached 2> /dev/null || true
EOF

FROM ${BASE}
USER root
ENV PATH=/opt/tool/bin:$PATH GREETING="$GREETING, again"
RUN useradd --create-home --uid 1234 app && ! printenv VERSION
WORKDIR /srv/work
COPY --from=build --chown=app:app /build/out ./
COPY --chmod=755 entry.sh /usr/local/bin
COPY --chown=app src ${GREETING:+/srv/data}/
ADD --chown=app more.tar.gz /srv/data/
RUN --mount=type=bind,source=src/app.txt,target=/seen ["cp", "/seen", "copied"]
RUN <<EOF
#!/usr/bin/env python3
open("by_python", "w").write("yes")
EOF
RUN chown app .
LABEL of=nothing
EXPOSE 80
USER app
ENTRYPOINT ["/usr/local/bin/entry.sh"]
CMD ["not", "heeded"]
"""
FILES = {
    "entry.sh": '#!/bin/sh\nexport ENTERED=yes\nexec "$@"\n',
    "src/app.txt": "app",
    "src/deep/kept.log": "x",
    "src/noise.log": "x",
    "secret/key": "x",
    ".dockerignore": "**/*.log\n!src/deep/kept.log\nsecret\nDockerfile\n.dockerignore\nprogram.py\n",
}
PROGRAM = """
import json
import os

import squall

image = squall.Image.from_dockerfile(
    "Dockerfile", context_dir=".", build_args={{"BASE": "{place}", "VERSION": "7"}}
).dockerfile_commands(["RUN id -un > who"])
app = squall.App("where", image=image)

@app.function()
def look():
    return {{
        "entered": os.environ.get("ENTERED"),
        "greeting": os.environ["GREETING"],
        "path": os.environ["PATH"].split(":")[0],
        "version": os.environ.get("VERSION"),
        "cwd": os.getcwd(),
        "uid": os.getuid(),
        "read": {{name: open(name).read().split() for name in sorted(os.listdir())}},
        "link": os.readlink("latest"),
        "owners": [
            os.stat(path).st_uid for path in ("version", "copied", "/srv/data/app.txt", "/srv/data/packed/app.txt")
        ],
        "data": sorted(os.path.join(place, name) for place, _, names in os.walk("/srv/data") for name in names),
        "left": [path for path in ("/var/cache/own", "/seen", "/build", "/listing") if os.path.exists(path)],
    }}

@app.local_entrypoint()
def main():
    print("found", json.dumps(look.remote()), sep="|")
"""


@pytest.fixture
def registry(tmp_path: Path) -> Iterator[Registry]:
    """A registry with an image as the official ones are: of a user without rights, with variables of its own."""
    if missing() or registries.missing():
        pytest.skip(missing() or registries.missing())
    with Registry(tmp_path / "registry") as running:
        stock(running, ensure_rootfs(), running.folder)
        yield running
    # Larger than what pytest should keep of its last runs.
    remove_tree(str(running.folder))


@pytest.mark.timeout(240)
def test_function_runs_in_the_image_of_a_dockerfile(
    registry: Registry, make_data_dir: Callable[[], Path], tmp_path: Path
) -> None:
    project = tmp_path / "project"
    for name, content in FILES.items():
        (project / name).parent.mkdir(parents=True, exist_ok=True)
        (project / name).write_text(content)
    with tarfile.open(project / "more.tar.gz", "w:gz") as archive:
        archive.add(project / "src/app.txt", "packed/app.txt")
    (project / "Dockerfile").write_text(DOCKERFILE)
    (project / "program.py").write_text(PROGRAM.format(place=f"{registry.place}/python:3.11-slim"))
    installation = Installation(make_data_dir(), {"HOME": str(registry.home), "SQUALL_NETWORK_SLOTS": "2"})
    place = f"BASE={registry.place}/python:3.11-slim"
    build = ("image", "build", ".", "-t", "web:1", "--build-arg", place, "--build-arg", "VERSION=7", "--json")
    try:
        ended = installation.command("run", "program.py", timeout_s=200, cwd=project)
        built = installation.command(*build, timeout_s=60, cwd=project)
        shown = installation.command("image", "history", "web:1", "--json")
        by_name = installation.command("shell", "web:1", "-c", "cat version; id -un", timeout_s=60)
        refused = installation.command("image", "build", ".", "-f", "src/app.txt", cwd=project)
        missed = installation.command("image", "build", "src", cwd=project)
    finally:
        installation.stop()

    assert ended.code == 0, ended
    (found,) = [line for line in ended.out.splitlines() if line.startswith("found|")]
    assert json.loads(found.partition("|")[2]) == {
        "entered": "yes",
        "greeting": "hello there, again",
        "path": "/opt/tool/bin",
        "version": None,
        "cwd": "/srv/work",
        "uid": 1234,
        "read": {
            "by_python": ["yes"],
            "cached": [],
            "copied": ["app"],
            "latest": ["version", "7"],
            "listing": ["./entry.sh", "./more.tar.gz", "./src/app.txt", "./src/deep/kept.log"],
            "version": ["version", "7"],
            "who": ["app"],
        },
        "link": "version",
        "owners": [1234, 0, 1234, 1234],
        "data": ["/srv/data/app.txt", "/srv/data/deep/kept.log", "/srv/data/packed/app.txt"],
        "left": [],
    }
    # The same lines are the same layers, whoever asks.
    assert (built.code, json.loads(built.out)["name"]) == (0, "web:1"), built
    assert "[1/" not in built.err, built
    assert len(json.loads(shown.out)) > 10, shown
    assert by_name.out == "version 7\napp\n", by_name
    assert (refused.code, missed.code) == (1, 1)
    assert "src/app.txt, line 1" in refused.err, refused
    assert "src/Dockerfile" in missed.err, missed


@pytest.mark.timeout(240)
def test_the_example_does_what_it_says(registry: Registry, make_data_dir: Callable[[], Path]) -> None:
    installation = Installation(make_data_dir(), {"HOME": str(registry.home), "SQUALL_NETWORK_SLOTS": "2"})
    environ = {"SQUALL_EXAMPLE_IMAGE": f"{registry.place}/python:3.11-slim"}
    try:
        ended = installation.command("run", str(EXAMPLE), timeout_s=200, environ=environ)
    finally:
        installation.stop()

    assert ended.code == 0, ended
    assert "reader has 8 words; by the entrypoint: yes" in ended.out
