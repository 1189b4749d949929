"""Image definitions: a chain of steps as plain data, and the keys that address what each step makes.

A step's key is the hash of the key before it and of the step itself, so equal beginnings of two images are one set of
layers. What a step reads from the user's machine is in its definition: file contents by the id of the mount they
travel in, which is a hash of them. What the world says at build time (package versions on a mirror) is not;
`force_build` is for that.
"""

from __future__ import annotations

import json
from typing import Any

from squall.protocol.bucket import BucketMount
from squall.protocol.hashing import sha256_hex
from squall.protocol.records import field, record, to_wire
from squall.protocol.volume import VolumeMount

RECIPE = 1
"""Part of every key; raised when the same definition is to be built in another way, so that no old layer is taken."""

DEBIAN_SLIM = "debian_slim"
FROM_REGISTRY = "from_registry"
FROM_ARCHIVE = "from_archive"
FROM_IMAGE = "from_image"
FROM_SCRATCH = "from_scratch"
APT_INSTALL = "apt_install"
PIP_INSTALL = "pip_install"
RUN_COMMANDS = "run_commands"
RUN_FUNCTION = "run_function"
ADD_PYTHON = "add_python"
COPY = "copy"
ENV = "env"
WORKDIR = "workdir"
USER = "user"
SHELL = "shell"
ENTRYPOINT = "entrypoint"
CMD = "cmd"

BASE_KINDS = frozenset({DEBIAN_SLIM, FROM_REGISTRY, FROM_ARCHIVE, FROM_IMAGE, FROM_SCRATCH})
CONFIG_KINDS = frozenset({ENV, USER, SHELL, ENTRYPOINT, CMD})
"""Steps that change how containers start, and no file."""

BUILD_FILES = "/.squall-build/copy"
"""Where a step sees the files of its mount."""
CALL_PATH = "root/.squall-call"
"""Of the call among the files of run_function, from the root."""
ARCHIVE_PATH = "archive"
"""Of the one file that from_archive is about, in its mount."""


@record
class StepMount:
    """What one step sees at a path, and the image does not get."""

    target: str
    """Relative to the working directory unless it begins with a slash."""
    source: str = ""
    """A path in the mount of the step, to read only; empty for a directory that is empty and can be written to."""


@record
class ImageStep:
    """One step; `kind` decides which other fields mean something. The functions of this module make valid ones."""

    kind: str
    python_version: str = ""
    """debian_slim, add_python: a series such as 3.11."""
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
    """workdir: the directory; copy: where the root of the files lands."""
    mount_id: str = ""
    """copy: the files. pip_install, run_commands: files that the step sees at `BUILD_FILES`. run_function: files that
    are laid over the root while it runs, with `CALL_PATH` among them; no part of the key, `digest` is. from_archive:
    the archive, at `ARCHIVE_PATH`."""
    env: dict[str, str] = field(default_factory=dict)
    """Variables of this step alone, not of the image."""
    force_build: bool = False
    """Do not take this step, or any after it, from the cache: see `ImageBuild.run_id`. No part of the key."""
    secrets: tuple[str, ...] = ()
    """Names under which `ImageBuild.secrets` has variables for this step alone, or for the registry. No part of the
    key."""
    title: str = ""
    """What to call the step in place of what its kind and arguments say. No part of the key."""
    tag: str = ""
    """from_registry: the name of an image of a registry, with a tag or a digest. from_archive: what its user calls the
    file; no part of the key."""
    image_id: str = ""
    """from_image, copy: an image that was built before."""
    sources: tuple[str, ...] = ()
    """copy: paths or patterns in that image, or in the mount; none means its root."""
    is_directory: bool = False
    """copy with sources: `path` is a directory that they go into."""
    is_archive: bool = False
    """copy of a mount: its files are tar archives, compressed or not, and what is in them is copied."""
    links: dict[str, str] = field(default_factory=dict)
    """copy of a mount: symbolic links, which none of its files can be, and what they lead to."""
    directories: tuple[str, ...] = ()
    """copy of a mount: directories that have no file."""
    mounts: tuple[StepMount, ...] = ()
    """run_commands."""
    requirements: tuple[str, ...] = ()
    """pip_install: requirement files of the mount."""
    uv_version: str = ""
    """pip_install: of the installer; empty for the building machine's."""
    arguments: tuple[str, ...] = ()
    """shell, entrypoint, cmd: the words. run_commands: a program and its arguments, run in place of a shell."""
    user: str = ""
    """user: `name`, `name:group`, or numbers. copy: the owner of the files, root when empty."""
    mode: int = 0
    """copy: the permissions of the files; 0 leaves them."""
    is_template: bool = False
    """env, workdir, user, copy: texts name variables of the image as `${NAME}`; a dollar sign is `$$`."""
    digest: str = ""
    """run_function: a hash of what the result depends on."""
    cpu_milli: int = 0
    memory_mib: int = 0
    timeout_s: float = 0.0
    """run_function, run_commands: limits; 0 for the node's."""
    volumes: tuple[VolumeMount, ...] = ()
    """run_function, run_commands: mounted while the step runs. What is in them is no part of the key."""
    buckets: tuple[BucketMount, ...] = ()
    """The same. What they call the id of their secret is one of the names of `secrets`, and no part of the key."""


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
    """Empty when it has none."""
    python_version: str = ""
    """In full: 3.11.2. Empty where it was not asked."""
    user: str = ""
    """As its author wrote it; empty for root."""
    uid: int = 0
    gid: int = 0
    home: str = ""
    """Of the user; empty when it is not known."""
    shell: tuple[str, ...] = ()
    """What later steps run shell lines with; empty for `/bin/sh -c`."""
    entrypoint: tuple[str, ...] = ()
    """What runs what a container is to run, which it gets as arguments."""
    cmd: tuple[str, ...] = ()
    layers: tuple[str, ...] = ()
    """Layer ids, bottom first."""


@record
class BuiltLayer:
    """A layer of a built image."""

    layer_id: str
    size_bytes: int
    step: int = 1
    """The step that made it, counted from 1; layers of an image it is based on count as the base's."""


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
    size_bytes: int = 0
    """cached, done: of the step's layer; 0 when it has none."""
    image_id: str = ""
    """built: the image."""
    config: ImageConfig | None = None
    """built: what its containers start with."""
    layers: tuple[BuiltLayer, ...] = ()
    """built: its layers, bottom first; none where the image came from elsewhere."""


@record
class ImageBuild:
    """Build an image, or find it built: a stream of `BuildEvent` that ends with `built`, or with an error."""

    spec: ImageSpec
    app_id: str = ""
    secrets: dict[str, dict[str, str]] = field(default_factory=dict, repr=False)
    """Variables and their values, by the name that steps have for them. Kept nowhere."""
    run_id: str = ""
    """Any text. What a forced build of this run has made, the others of the run take; empty: from no other build."""
    named_secrets: dict[str, str] = field(default_factory=dict)
    """More of them, by the names that steps have for them: the ids of secrets that the server has. A node is told what
    is in these as the others are."""


class ImageInvalid(ValueError):
    """An image definition cannot be built by anyone; the message says which step and why."""


def step_title(step: ImageStep) -> str:
    """A step in a few words, for logs and errors."""
    words = step.title or f"{step.kind} {_words(step)}"
    text = " ".join(words.split())
    return text if len(text) <= 120 else text[:117] + "..."


def _words(step: ImageStep) -> str:
    if step.kind == COPY:
        return f"files to {step.path}"
    lists = (*step.packages, *step.requirements, *step.vars, *step.arguments)
    commands = " && ".join(step.commands)
    return " ".join([step.python_version, step.tag, step.image_id, *lists, commands, step.path, step.user])


_UNKEYED = ("force_build", "secrets", "title")
_UNKEYED_OF_KIND = {RUN_FUNCTION: ("mount_id",), FROM_ARCHIVE: ("tag",)}


def cache_key(previous_key: str, step: ImageStep) -> str:
    """The key of a step that follows the step with `previous_key` (empty for the base): 64 hexadecimal digits."""
    # Fields at their default are left out of the wire form, so a field added later leaves old keys as they are.
    definition: dict[str, Any] = to_wire(step)
    for name in _UNKEYED + _UNKEYED_OF_KIND.get(step.kind, ()):
        definition.pop(name, None)
    for bucket in definition.get("buckets", ()):
        bucket.pop("secret_id", None)
    text = json.dumps([RECIPE, previous_key, definition], sort_keys=True, separators=(",", ":"), ensure_ascii=True)
    return sha256_hex(text.encode())


def step_keys(spec: ImageSpec) -> tuple[str, ...]:
    """The key of each step."""
    keys: list[str] = []
    for step in spec.steps:
        keys.append(cache_key(keys[-1] if keys else "", step))
    return tuple(keys)


def image_id(spec: ImageSpec) -> str:
    """The id of the image a definition describes, the same on every machine."""
    return "im-" + step_keys(spec)[-1][:32]
