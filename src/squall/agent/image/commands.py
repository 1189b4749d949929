"""The command line of each kind of step, run in a container of the image so far."""

from __future__ import annotations

import shlex
from collections.abc import Sequence

from squall.agent.image.inherit import BUILD_DIR, COPY_DIR, UV
from squall.protocol import image
from squall.protocol.image import ImageStep

# Each command in a shell of its own, like RUN lines of a Dockerfile; `exit` passes on the status of a failed one.
_RUN = 'for line do echo "+ $line"; /bin/sh -c "$line" || exit; done'

# Sources the user added count beside this machine's mirrors, but not those an image from a registry brings for its own
# distribution: the mirrors are in their place.
_SOURCES = f"""parts=/etc/apt/sources.list.d
if [ -s {BUILD_DIR}/apt/sources.list ]; then
    for file in "$parts"/*; do
        case $file in */debian.sources | */ubuntu.sources) continue ;; esac
        [ ! -e "$file" ] || ln -s "$file" {BUILD_DIR}/apt/sources.list.d/
    done
    parts={BUILD_DIR}/apt/sources.list.d
fi
"""

# What dpkg and ldconfig note about the hour of the build is left out of the layer.
_APT = (
    _SOURCES
    + """
apt-get -qq -o Dir::Etc::sourceparts="$parts" update &&
    apt-get -q -o Dir::Etc::sourceparts="$parts" install "$@" || exit
rm -f /var/log/alternatives.log /var/log/dpkg.log /var/log/apt/*.log* /var/log/apt/eipp* \
    /var/cache/ldconfig/aux-cache /var/lib/dpkg/*-old /var/cache/debconf/*-old
"""
)

_PYTHON = """python=$(command -v python3 || command -v python) || {
    echo 'this image has no Python on its PATH: install one in an earlier step' >&2; exit 127; }
"""

_PIP = f"""{_PYTHON}exec {UV} pip install --python "$python" --break-system-packages "$@"
"""

# Links, because only the cache is wanted. Nothing that a package brings may run: no build of a source distribution, no
# start of an interpreter that would see the packages.
_FETCH = f"""{_PYTHON}exec {UV} pip install --python "$python" --break-system-packages \
    --target {BUILD_DIR}/tmp/fetched --link-mode symlink --no-build "$@"
"""

_COPY = f"""mkdir -p "$1" && exec cp -R --preserve=mode,timestamps,links --no-target-directory {COPY_DIR} "$1"
"""


def title(step: ImageStep) -> str:
    """The step in a few words, for logs and errors."""
    words = {
        image.DEBIAN_SLIM: step.python_version,
        image.APT_INSTALL: " ".join(step.packages),
        image.PIP_INSTALL: " ".join(step.packages),
        image.RUN_COMMANDS: " && ".join(step.commands),
        image.ENV: " ".join(step.vars),
        image.WORKDIR: step.path,
        image.COPY: f"files to {step.path}",
    }[step.kind]
    text = f"{step.kind} {' '.join(words.split())}".rstrip()
    return text if len(text) <= 120 else text[:117] + "..."


def command(step: ImageStep, workdir: str) -> tuple[str, ...]:
    """What to execute for a step that runs in a container; `workdir` is the image's directory after the step."""
    if step.kind == image.APT_INSTALL:
        return _shell(_APT, *step.packages)
    if step.kind == image.PIP_INSTALL:
        return _shell(_PIP, *_pip_options(step), "--", *step.packages)
    if step.kind == image.COPY:
        return _shell(_COPY, step.path)
    if step.kind == image.WORKDIR:
        return _shell('mkdir -p "$1"', workdir)
    return _shell(_RUN, *step.commands)


def fetch_command(options: Sequence[str]) -> tuple[str, ...]:
    """What to execute to have packages in the cache."""
    return _shell(_FETCH, *options)


def fetch_env() -> dict[str, str]:
    """Variables of a fetch, above everything else."""
    # Retrying is left to the step. The option that overrules UV_COMPILE_BYTECODE is refused beside it.
    return {"UV_COMPILE_BYTECODE": "0", "UV_HTTP_RETRIES": "1", "TMPDIR": f"{BUILD_DIR}/tmp"}


def step_env(step: ImageStep) -> dict[str, str]:
    """Variables a kind of step needs, below the image's and the step's own."""
    if step.kind == image.APT_INSTALL:
        return {"DEBIAN_FRONTEND": "noninteractive", "TMPDIR": f"{BUILD_DIR}/tmp"}
    if step.kind == image.PIP_INSTALL:
        return {"TMPDIR": f"{BUILD_DIR}/tmp"}
    return {"DEBIAN_FRONTEND": "noninteractive"}


def _shell(script: str, *arguments: str) -> tuple[str, ...]:
    return ("/bin/sh", "-c", script, "sh", *arguments)


def _pip_options(step: ImageStep) -> tuple[str, ...]:
    options: list[str] = []
    if step.index_url:
        options += ["--default-index", step.index_url]
    if step.extra_index_url:
        options += ["--extra-index-url", step.extra_index_url]
    if step.find_links:
        options += ["--find-links", step.find_links]
    if step.pre:
        options += ["--prerelease", "allow"]
    return (*options, *shlex.split(step.extra_options))
