"""Image definitions: a chain of steps as plain data, and the keys that address what each step makes.

A step's key is the hash of the key before it and of the step itself, so equal beginnings of two images are one set of
layers. What a step reads from the user's machine is in its definition: file contents by the id of the mount they
travel in, which is a hash of them. What the world says at build time (package versions on a mirror) is not;
`force_build` is for that.
"""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import replace
from typing import Any

from squall.protocol.records import field, record, to_wire

RECIPE = 1
"""Part of every key; raised when the same definition is to be built in another way, so that no old layer is taken."""

DEBIAN_SLIM = "debian_slim"
APT_INSTALL = "apt_install"
PIP_INSTALL = "pip_install"
RUN_COMMANDS = "run_commands"
ENV = "env"
WORKDIR = "workdir"
COPY = "copy"

BASE_KINDS = frozenset({DEBIAN_SLIM})
_KINDS = BASE_KINDS | {APT_INSTALL, PIP_INSTALL, RUN_COMMANDS, ENV, WORKDIR, COPY}

_PYTHON = re.compile(r"^3\.\d{1,2}(?:\.\d{1,3})?\Z")
_PACKAGE = re.compile(r"^[a-z0-9][a-z0-9.+-]*(?::[a-z0-9-]+)?(?:[=/][A-Za-z0-9.+:~_-]+)?\Z")
_VARIABLE = re.compile(r"^[A-Za-z_][A-Za-z0-9_]*\Z")


@record
class ImageStep:
    """One step; `kind` decides which other fields mean something. The functions of this module make valid ones."""

    kind: str
    python_version: str = ""
    """debian_slim: a series such as 3.11."""
    packages: tuple[str, ...] = ()
    """apt_install, pip_install."""
    find_links: str = ""
    index_url: str = ""
    extra_index_url: str = ""
    pre: bool = False
    extra_options: str = ""
    """pip_install: five options as pip knows them; empty takes the building machine's setting."""
    commands: tuple[str, ...] = ()
    """run_commands: shell lines, each in a shell of its own."""
    vars: dict[str, str] = field(default_factory=dict)
    """env: variables of every later step and of the containers."""
    path: str = ""
    """workdir: the directory; copy: where the root of the mount lands."""
    mount_id: str = ""
    """copy: the files."""
    env: dict[str, str] = field(default_factory=dict)
    """Variables of this step alone, not of the image."""
    force_build: bool = False
    """Do not take this step, or any after it, from the cache. No part of the key."""


@record
class ImageSpec:
    """An image as its steps, the base first."""

    steps: tuple[ImageStep, ...]


@record
class ImageConfig:
    """What containers of a built image start with."""

    env: dict[str, str] = field(default_factory=dict)
    workdir: str = ""
    """Empty when the image names none."""
    python_path: str = ""
    python_version: str = ""
    """In full: 3.11.2."""
    layers: tuple[str, ...] = ()
    """Layer ids, bottom first."""


@record
class BuildEvent:
    """Something to tell whoever waits for a build.

    kind: `step` (one begins), `cached` (one was there already), `line` (a line of its output), `done` (one ended well),
    `built` (the last event: the image is there).
    """

    kind: str
    step: int = 0
    """Counted from 1."""
    steps: int = 0
    text: str = ""
    duration_s: float = 0.0
    image_id: str = ""
    """built: the image."""
    config: ImageConfig | None = None
    """built: what its containers start with."""


@record
class ImageBuild:
    """Build an image, or find it built: a stream of `BuildEvent` that ends with `built`, or with an error."""

    spec: ImageSpec
    app_id: str = ""


class ImageInvalid(ValueError):
    """An image definition cannot be built by anyone; the message says which step and why."""


def debian_slim(python_version: str, *, force_build: bool = False) -> ImageStep:
    """A base of a minimal Debian with Python of this series."""
    return ImageStep(DEBIAN_SLIM, python_version=python_version, force_build=force_build)


def apt_install(
    packages: tuple[str, ...], *, env: dict[str, str] | None = None, force_build: bool = False
) -> ImageStep:
    """Debian packages, without what they merely recommend."""
    return ImageStep(APT_INSTALL, packages=packages, env=dict(env or {}), force_build=force_build)


def pip_install(
    packages: tuple[str, ...],
    *,
    find_links: str = "",
    index_url: str = "",
    extra_index_url: str = "",
    pre: bool = False,
    extra_options: str = "",
    env: dict[str, str] | None = None,
    force_build: bool = False,
) -> ImageStep:
    """Python packages into the image's own Python."""
    return ImageStep(
        PIP_INSTALL,
        packages=packages,
        find_links=find_links,
        index_url=index_url,
        extra_index_url=extra_index_url,
        pre=pre,
        extra_options=extra_options,
        env=dict(env or {}),
        force_build=force_build,
    )


def run_commands(
    commands: tuple[str, ...], *, env: dict[str, str] | None = None, force_build: bool = False
) -> ImageStep:
    """Shell commands, in order, until one fails."""
    return ImageStep(RUN_COMMANDS, commands=commands, env=dict(env or {}), force_build=force_build)


def env(variables: dict[str, str]) -> ImageStep:
    """Variables for everything after."""
    return ImageStep(ENV, vars=dict(variables))


def workdir(path: str) -> ImageStep:
    """The directory that later steps and containers start in, made if missing; relative to the one before."""
    return ImageStep(WORKDIR, path=path)


def copy(mount_id: str, path: str) -> ImageStep:
    """The files of a mount, its root laid over the directory `path`."""
    return ImageStep(COPY, mount_id=mount_id, path=path)


def check(spec: ImageSpec) -> None:
    """Refuse what no machine could build.

    Raises:
        ImageInvalid: the message names the step.
    """
    if not spec.steps:
        raise ImageInvalid("image has no steps; begin with a base such as debian_slim()")
    for number, step in enumerate(spec.steps, start=1):
        problem = _problem(step, is_first=number == 1)
        if problem:
            raise ImageInvalid(f"image step {number} ({step.kind}): {problem}")


def _problem(step: ImageStep, *, is_first: bool) -> str:
    if step.kind not in _KINDS:
        return f"unknown kind of step {step.kind!r}; the client may be newer than the server"
    if is_first != (step.kind in BASE_KINDS):
        return "the first step, and no other, is a base such as debian_slim()"
    for name, value in {**step.env, **step.vars}.items():
        if not _VARIABLE.match(name) or "\0" in value:
            return f"{name!r} is not a possible name of a variable, or its value has a zero byte"
    if any("\0" in text for text in (*step.commands, *step.packages, step.path, step.extra_options)):
        return "a command, package or path has a zero byte"
    return _problem_of_kind(step)


def _problem_of_kind(step: ImageStep) -> str:
    if step.kind == DEBIAN_SLIM and not _PYTHON.match(step.python_version):
        return f"{step.python_version!r} is no Python version; write it as 3.11"
    if step.kind == APT_INSTALL:
        wrong = [name for name in step.packages if not _PACKAGE.match(name)]
        if wrong or not step.packages:
            return f"{wrong[0]!r} is no name of a Debian package" if wrong else "names no package"
    if step.kind == PIP_INSTALL:
        options = [name for name in step.packages if name.startswith("-") or not name.strip()]
        if options:
            return f"{options[0]!r} is no package; options go in extra_options"
        if not step.packages and not step.extra_options:
            return "names no package"
    if step.kind == RUN_COMMANDS and not step.commands:
        return "has no command"
    if step.kind == COPY and not step.mount_id:
        return "names no mount"
    if step.kind == COPY and not step.path.startswith("/"):
        return f"target {step.path!r} is no absolute path"
    if step.kind == WORKDIR and not step.path:
        return "names no directory"
    return ""


def cache_key(previous_key: str, step: ImageStep) -> str:
    """The key of a step that follows the step with `previous_key` (empty for the base): 64 hexadecimal digits."""
    # Fields at their default are left out of the wire form, so a field added later leaves old keys as they are.
    definition: dict[str, Any] = to_wire(replace(step, force_build=False))
    text = json.dumps([RECIPE, previous_key, definition], sort_keys=True, separators=(",", ":"), ensure_ascii=True)
    return hashlib.sha256(text.encode()).hexdigest()


def step_keys(spec: ImageSpec) -> tuple[str, ...]:
    """The key of each step."""
    keys: list[str] = []
    for step in spec.steps:
        keys.append(cache_key(keys[-1] if keys else "", step))
    return tuple(keys)


def image_id(spec: ImageSpec) -> str:
    """The id of the image a definition describes, the same on every machine."""
    return "im-" + step_keys(spec)[-1][:32]
