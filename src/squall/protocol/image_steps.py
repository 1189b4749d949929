"""The steps of images: makers of valid ones, and what no machine could build."""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable

from squall.protocol import image
from squall.protocol.bucket import BucketMount, buckets_problem
from squall.protocol.image import ImageInvalid, ImageSpec, ImageStep, StepMount
from squall.protocol.volume import VolumeMount, mount_problem

_PYTHON = r"^3\.\d{1,2}(?:\.\d{1,3})?\Z"
_PACKAGE = r"^[a-z0-9][a-z0-9.+-]*(?::[a-z0-9-]+)?(?:=[A-Za-z0-9.+:~*_-]+|/[A-Za-z0-9.+:~_-]+)?(?<!-)\Z"
"""apt takes a hyphen at the end for the wish to remove the package."""
_VARIABLE = r"^[A-Za-z_][A-Za-z0-9_]*\Z"
_REFERENCE = r"^[A-Za-z0-9][A-Za-z0-9._:/@-]{0,511}\Z"
_IMAGE_ID = r"^im-[A-Za-z0-9]+\Z"
_VERSION = r"^[A-Za-z0-9.!+*<>=~,-]*\Z"
_USER = r"^[A-Za-z0-9_.${}:-]*\Z"


def debian_slim(python_version: str, *, force_build: bool = False) -> ImageStep:
    """A base of a minimal Debian with Python of this series."""
    return ImageStep(image.DEBIAN_SLIM, python_version=python_version, force_build=force_build)


def from_registry(tag: str, *, secrets: tuple[str, ...] = (), force_build: bool = False) -> ImageStep:
    """A base from a registry: its files, variables, directory, user and commands."""
    return ImageStep(image.FROM_REGISTRY, tag=tag, secrets=secrets, force_build=force_build)


def from_archive(mount_id: str, name: str, *, force_build: bool = False) -> ImageStep:
    """A base from one file of OCI's form or of Docker's, with what a base from a registry has; `name` is the file's."""
    return ImageStep(image.FROM_ARCHIVE, mount_id=mount_id, tag=name, force_build=force_build)


def from_image(image_id: str) -> ImageStep:
    """An image that was built before, as the base of another."""
    return ImageStep(image.FROM_IMAGE, image_id=image_id)


def from_scratch(*, force_build: bool = False) -> ImageStep:
    """A base without a file."""
    return ImageStep(image.FROM_SCRATCH, force_build=force_build)


def add_python(python_version: str, *, force_build: bool = False) -> ImageStep:
    """A Python that needs nothing of the image but its C library."""
    return ImageStep(image.ADD_PYTHON, python_version=python_version, force_build=force_build)


def apt_install(
    packages: tuple[str, ...],
    *,
    env: dict[str, str] | None = None,
    secrets: tuple[str, ...] = (),
    force_build: bool = False,
) -> ImageStep:
    """Debian packages, without what they merely recommend."""
    return ImageStep(
        image.APT_INSTALL, packages=packages, env=dict(env or {}), secrets=secrets, force_build=force_build
    )


def pip_install(
    packages: tuple[str, ...],
    *,
    requirements: tuple[str, ...] = (),
    mount_id: str = "",
    find_links: str = "",
    index_url: str = "",
    extra_index_url: str = "",
    pre: bool = False,
    extra_options: str = "",
    uv_version: str = "",
    env: dict[str, str] | None = None,
    secrets: tuple[str, ...] = (),
    force_build: bool = False,
    title: str = "",
) -> ImageStep:
    """Python packages into the image's own Python; `requirements` are files of the mount."""
    return ImageStep(
        image.PIP_INSTALL,
        packages=packages,
        requirements=requirements,
        mount_id=mount_id,
        find_links=find_links,
        index_url=index_url,
        extra_index_url=extra_index_url,
        pre=pre,
        extra_options=extra_options,
        uv_version=uv_version,
        env=dict(env or {}),
        secrets=secrets,
        force_build=force_build,
        title=title,
    )


def run_commands(
    commands: tuple[str, ...] = (),
    *,
    arguments: tuple[str, ...] = (),
    mount_id: str = "",
    mounts: tuple[StepMount, ...] = (),
    env: dict[str, str] | None = None,
    secrets: tuple[str, ...] = (),
    volumes: tuple[VolumeMount, ...] = (),
    buckets: tuple[BucketMount, ...] = (),
    force_build: bool = False,
    title: str = "",
) -> ImageStep:
    """Shell commands, in order, until one fails; or one program with `arguments`, by no shell."""
    return ImageStep(
        image.RUN_COMMANDS,
        commands=commands,
        arguments=arguments,
        mount_id=mount_id,
        mounts=mounts,
        env=dict(env or {}),
        secrets=secrets,
        volumes=volumes,
        buckets=buckets,
        force_build=force_build,
        title=title,
    )


def run_function(
    mount_id: str,
    digest: str,
    *,
    env: dict[str, str] | None = None,
    secrets: tuple[str, ...] = (),
    volumes: tuple[VolumeMount, ...] = (),
    buckets: tuple[BucketMount, ...] = (),
    cpu_milli: int = 0,
    memory_mib: int = 0,
    timeout_s: float = 0.0,
    force_build: bool = False,
    title: str = "",
) -> ImageStep:
    """A Python function of the user's, run by the image's Python; the call is among the files of the mount."""
    return ImageStep(
        image.RUN_FUNCTION,
        mount_id=mount_id,
        digest=digest,
        env=dict(env or {}),
        secrets=secrets,
        volumes=volumes,
        buckets=buckets,
        cpu_milli=cpu_milli,
        memory_mib=memory_mib,
        timeout_s=timeout_s,
        force_build=force_build,
        title=title,
    )


def copy(
    mount_id: str,
    path: str,
    *,
    sources: tuple[str, ...] = (),
    is_archive: bool = False,
    links: dict[str, str] | None = None,
    directories: tuple[str, ...] = (),
    user: str = "",
    mode: int = 0,
    is_template: bool = False,
    force_build: bool = False,
    title: str = "",
) -> ImageStep:
    """The files of a mount, its root laid over the directory `path`; with one source it is what `path` becomes.

    A source that is a file goes into `path` where the image has a directory there.
    """
    return ImageStep(
        image.COPY,
        mount_id=mount_id,
        path=path,
        sources=sources,
        is_archive=is_archive,
        links=dict(links or {}),
        directories=directories,
        user=user,
        mode=mode,
        is_template=is_template,
        force_build=force_build,
        title=title,
    )


def copy_from(
    image_id: str,
    sources: tuple[str, ...],
    path: str,
    *,
    is_directory: bool = False,
    user: str = "",
    mode: int = 0,
    is_template: bool = False,
    force_build: bool = False,
    title: str = "",
) -> ImageStep:
    """Files of another image: `path` is what one source becomes, or the directory that all go into.

    A source that is a directory stands for what is in it.
    """
    return ImageStep(
        image.COPY,
        image_id=image_id,
        sources=sources,
        path=path,
        is_directory=is_directory,
        user=user,
        mode=mode,
        is_template=is_template,
        force_build=force_build,
        title=title,
    )


def env(variables: dict[str, str], *, is_template: bool = False) -> ImageStep:
    """Variables for everything after."""
    return ImageStep(image.ENV, vars=dict(variables), is_template=is_template)


def workdir(path: str, *, is_template: bool = False) -> ImageStep:
    """The directory that later steps and containers start in, made if missing; relative to the one before."""
    return ImageStep(image.WORKDIR, path=path, is_template=is_template)


def user(name: str, *, is_template: bool = False) -> ImageStep:
    """Who later steps and containers run as: a name or a number, with a group behind a colon."""
    return ImageStep(image.USER, user=name, is_template=is_template)


def shell(words: tuple[str, ...]) -> ImageStep:
    """What later steps run shell lines with."""
    return ImageStep(image.SHELL, arguments=words)


def entrypoint(words: tuple[str, ...]) -> ImageStep:
    """What runs what containers are to run."""
    return ImageStep(image.ENTRYPOINT, arguments=words)


def cmd(words: tuple[str, ...]) -> ImageStep:
    """What containers run when nothing is said; functions do not heed it."""
    return ImageStep(image.CMD, arguments=words)


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


def options_problem(extra_options: str) -> str:
    """Why options cannot be taken apart as a shell would; empty when they can."""
    try:
        shlex.split(extra_options)
    except ValueError as error:
        ends = "it ends in a backslash" if "escape" in str(error) else "a quote in it is not closed"
        return f"{ends}; write it as on a command line"
    return ""


def _problem(step: ImageStep, *, is_first: bool) -> str:
    if step.kind not in _PROBLEMS:
        return f"unknown kind of step {step.kind!r}; the client may be newer than the server"
    if is_first != (step.kind in image.BASE_KINDS):
        return "the first step, and no other, is a base such as debian_slim()"
    for name, value in {**step.env, **step.vars}.items():
        if not re.match(_VARIABLE, name) or "\0" in value:
            return f"{name!r} is not a possible name of a variable, or its value has a zero byte"
    texts = (
        *(*step.commands, *step.packages, *step.arguments, *step.sources, *step.requirements),
        *(step.path, step.extra_options, step.find_links, step.index_url, step.extra_index_url),
        *(*step.directories, *(text for link in step.links.items() for text in link)),
        *(text for mount in step.mounts for text in (mount.source, mount.target)),
    )
    if any("\0" in text for text in texts):
        return "a command, package or path has a zero byte"
    if not re.match(_USER, step.user):
        return f"{step.user!r} is no user"
    if not 0 <= step.mode <= 0o7777:
        return f"{step.mode:o} are no permissions"
    if (step.volumes or step.buckets) and step.kind not in (image.RUN_COMMANDS, image.RUN_FUNCTION):
        return "volumes and buckets are mounted in commands and functions only"
    problem = mount_problem(step.volumes) or buckets_problem(step.buckets, step.volumes)
    if problem:
        return problem
    return _PROBLEMS[step.kind](step)


def _of_python(step: ImageStep) -> str:
    is_right = re.match(_PYTHON, step.python_version)
    return "" if is_right else f"{step.python_version!r} is no Python version; write it as 3.11"


def _of_registry(step: ImageStep) -> str:
    return "" if re.match(_REFERENCE, step.tag) else f"{step.tag!r} is no name of an image"


def _of_archive(step: ImageStep) -> str:
    return "" if step.mount_id else "names no mount"


def _of_image(step: ImageStep) -> str:
    return "" if re.match(_IMAGE_ID, step.image_id) else f"{step.image_id!r} is no id of an image"


def _of_apt(step: ImageStep) -> str:
    wrong = [name for name in step.packages if not re.match(_PACKAGE, name)]
    if wrong:
        return f"{wrong[0]!r} is no name of a Debian package"
    return "" if step.packages else "names no package"


def _of_pip(step: ImageStep) -> str:
    options = [name for name in step.packages if name.startswith("-") or not name.strip()]
    if options:
        return f"{options[0]!r} is no package; options go in extra_options"
    if not re.match(_VERSION, step.uv_version):
        return f"{step.uv_version!r} is no version of uv"
    problem = options_problem(step.extra_options)
    if problem:
        return f"extra_options {step.extra_options!r}: {problem}"
    if any(not _is_inside(path) for path in step.requirements) or (step.requirements and not step.mount_id):
        return "its requirement files are not in its mount"
    return "" if step.packages or step.extra_options or step.requirements else "names no package"


def _of_run(step: ImageStep) -> str:
    if bool(step.commands) == bool(step.arguments):
        return "has no command, or two kinds of them"
    for mount in step.mounts:
        if not mount.target or (mount.source and (not step.mount_id or not _is_inside(mount.source))):
            return f"mounts {mount.source!r} at {mount.target!r}, which cannot be"
    return ""


def _of_function(step: ImageStep) -> str:
    if not step.mount_id or not step.digest:
        return "has no call"
    return "" if min(step.cpu_milli, step.memory_mib, step.timeout_s) >= 0 else "has a limit below nothing"


def _of_copy(step: ImageStep) -> str:
    if bool(step.mount_id) == bool(step.image_id):
        return "names no mount"
    if step.image_id and not step.sources:
        return "names no file"
    if step.image_id and _of_image(step):
        return _of_image(step)
    inner = (*step.directories, *step.links)
    if (inner or step.is_archive) and (step.image_id or step.sources):
        return "has links, directories or archives beside sources"
    if not all(_is_inside(path) for path in inner) or not all(step.links.values()):
        return "has a link or a directory that is not below its target, or a link to nothing"
    # Of a template only the node knows where it leads.
    if not step.path.startswith("/") and not (step.is_template or step.image_id):
        return f"target {step.path!r} is no absolute path"
    return ""


def _of_workdir(step: ImageStep) -> str:
    return "" if step.path else "names no directory"


def _is_inside(path: str) -> bool:
    return bool(path) and not path.startswith("/") and ".." not in path.split("/")


def _nothing(step: ImageStep) -> str:
    return ""


_PROBLEMS: dict[str, Callable[[ImageStep], str]] = {
    image.DEBIAN_SLIM: _of_python,
    image.FROM_REGISTRY: _of_registry,
    image.FROM_ARCHIVE: _of_archive,
    image.FROM_IMAGE: _of_image,
    image.FROM_SCRATCH: _nothing,
    image.ADD_PYTHON: _of_python,
    image.APT_INSTALL: _of_apt,
    image.PIP_INSTALL: _of_pip,
    image.RUN_COMMANDS: _of_run,
    image.RUN_FUNCTION: _of_function,
    image.COPY: _of_copy,
    image.ENV: _nothing,
    image.WORKDIR: _of_workdir,
    image.USER: _nothing,
    image.SHELL: _nothing,
    image.ENTRYPOINT: _nothing,
    image.CMD: _nothing,
}
