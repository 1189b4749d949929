"""The command line of each kind of step, run in a container of the image so far."""

from __future__ import annotations

import shlex
from collections.abc import Sequence

from squall.agent.image.inherit import BUILD_DIR, UV
from squall.agent.image.package.compiling import AFTER_INSTALL, IN_CACHE
from squall.protocol import image
from squall.protocol.guest import CODE_DIR, ENV_IS_REMOTE, LIBRARY_DIR
from squall.protocol.image import ImageConfig, ImageStep

_SHELL = ("/bin/sh", "-c")

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

# Lists and archives that builds share are not there before the first of them.
_ROOM = """eval "$(apt-config shell lists Dir::State::lists/d archives Dir::Cache::archives/d)"
mkdir -p "$lists/partial" "$archives/partial"
"""

# A mirror that does not answer is an error: without its lists, packages are not found or are old ones. What
# is older than Debian 11's apt takes no notice of the option.
# What dpkg and ldconfig note about the hour of the build is left out of the layer.
_APT = (
    _SOURCES
    + _ROOM
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

_BEGAN = f"{BUILD_DIR}/tmp/began"
_SETTLE = f"""exec "$python" -I -c {shlex.quote(AFTER_INSTALL)} {_BEGAN}
"""

_PIP = f"""{_PYTHON}: > {_BEGAN}
{UV} pip install --python "$python" --break-system-packages "$@" || exit
{_SETTLE}"""

# Links, because only the cache is wanted. Nothing that a package brings may run: no build of a source distribution, no
# start of an interpreter that would see the packages; compiling only reads them.
_FETCH = f"""{_PYTHON}{UV} pip install --python "$python" --break-system-packages \
    --target {BUILD_DIR}/tmp/fetched --link-mode symlink --no-build "$@" || exit
exec "$python" -I -S -c {shlex.quote(IN_CACHE)} {BUILD_DIR}/tmp/fetched
"""

# Another version of the installer runs out of its own throw-away environment.
_OTHER_PIP = f"""{_PYTHON}version=$1; shift; : > {_BEGAN}
{UV} tool run --from "uv==$version" uv pip install --python "$python" --break-system-packages "$@" || exit
{_SETTLE}"""

_FETCH_DEBIAN = (
    _ROOM
    + """
apt-get -qq -o APT::Update::Error-Mode=any update && apt-get -q install --download-only "$@"
"""
)

_FUNCTION = "squall.guest.build_function"


def command(step: ImageStep, config: ImageConfig) -> tuple[str, ...]:
    """What to execute for a step that runs in a container of an image with this configuration."""
    if step.kind == image.APT_INSTALL:
        return _shell(_APT, *step.packages)
    if step.kind == image.PIP_INSTALL:
        options = (*_pip_options(step), "--", *step.packages)
        return _shell(_OTHER_PIP, step.uv_version, *options) if step.uv_version else _shell(_PIP, *options)
    if step.kind == image.RUN_FUNCTION:
        return (config.python_path, "-u", "-B", "-m", _FUNCTION, f"/{image.CALL_PATH}")
    if step.arguments:
        return step.arguments
    if config.shell and len(step.commands) == 1:
        return (*config.shell, step.commands[0])
    return _shell(_lines(step.commands, config.shell or _SHELL))


def shown(step: ImageStep, config: ImageConfig) -> tuple[str, ...]:
    """What somebody types in a container of a step to do what the step does; nothing where no container does it."""
    if step.kind == image.APT_INSTALL:
        return ("apt-get update", shlex.join(("apt-get", "install", *step.packages)))
    if step.kind == image.PIP_INSTALL:
        version = f"tool run --from uv=={step.uv_version} uv " if step.uv_version else ""
        python = '--python "$(command -v python3 || command -v python)" --break-system-packages'
        words = shlex.join((*_pip_options(step), "--", *step.packages))
        return (f"{UV} {version}pip install {python} {words}",)
    if step.kind == image.RUN_FUNCTION or step.arguments:
        return (shlex.join(command(step, config)),) if runs_in_container(step) else ()
    return step.commands


def runs_in_container(step: ImageStep) -> bool:
    """Whether a step runs a program of the image."""
    return step.kind in (image.APT_INSTALL, image.PIP_INSTALL, image.RUN_COMMANDS, image.RUN_FUNCTION)


def _lines(commands: Sequence[str], shell: Sequence[str]) -> str:
    """Each command in a shell of its own, like RUN lines of a Dockerfile, until one fails."""
    started = shlex.join(shell)
    lines = (f"echo {shlex.quote(f'+ {line}')}\n{started} {shlex.quote(line)} || exit" for line in commands)
    return "\n".join(lines)


def fetch_command(kind: str, words: Sequence[str]) -> tuple[str, ...]:
    """What to execute to have the packages of a kind of step in the cache."""
    return _shell(_FETCH_DEBIAN if kind == image.APT_INSTALL else _FETCH, *words)


def fetch_env() -> dict[str, str]:
    """Variables of a fetch, above everything else."""
    # Retrying is left to the step. The option that overrules UV_COMPILE_BYTECODE is refused beside it.
    return {"UV_COMPILE_BYTECODE": "0", "UV_HTTP_RETRIES": "1", "TMPDIR": f"{BUILD_DIR}/tmp"}


def step_env(step: ImageStep) -> dict[str, str]:
    """Variables a kind of step needs, below the image's and the step's own."""
    if step.kind == image.APT_INSTALL:
        return {"DEBIAN_FRONTEND": "noninteractive", "TMPDIR": f"{BUILD_DIR}/tmp"}
    if step.kind == image.PIP_INSTALL:
        # Links into the shared cache: the files themselves come into the layer when it is packed, with no copy before.
        return {"TMPDIR": f"{BUILD_DIR}/tmp", "UV_COMPILE_BYTECODE": "0", "UV_LINK_MODE": "symlink"}
    if step.kind == image.RUN_FUNCTION:
        return {"PYTHONPATH": f"{CODE_DIR}:{LIBRARY_DIR}", ENV_IS_REMOTE: "1"}
    return {
        "DEBIAN_FRONTEND": "noninteractive",
        "SQUALL_BUILD_UV": UV,
        "SQUALL_BUILD_FILES": image.BUILD_FILES,
        "SQUALL_BUILD_TMP": f"{BUILD_DIR}/tmp",
    }


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
    for path in step.requirements:
        options += ["--requirements", f"{image.BUILD_FILES}/{path}"]
    return (*options, *shlex.split(step.extra_options))
