"""What the longer methods of `Image` stand for, in steps that a node knows. Files are read here, when an image is used.

Shell lines of these steps find in variables what a build lends them: `SQUALL_BUILD_UV` a program, `SQUALL_BUILD_FILES`
the files of the step, `SQUALL_BUILD_TMP` a directory that is no part of the image.
"""

from __future__ import annotations

import glob
import os
import re
import shlex
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from squall.exception import InvalidError
from squall.protocol.records import record, replace
from squall.sdk import _mount
from squall.sdk._image_steps import Step

if TYPE_CHECKING:
    from squall.sdk.secret import Secret

VENV = "/.venv"
MAMBA_IMAGE = "mambaorg/micromamba:2-debian12-slim"
"""A short name: the machine's own settings for registries complete it."""
_MAMBA_ROOT = "/opt/conda"
_PLAIN = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*(\[[A-Za-z0-9._, -]*\])?\s*([=<>!~][^@#\\]*)?(;.*)?")
_INCLUDE = re.compile(r"(?:(?:-r|-c)\s*|(?:--requirement|--constraint)(?:\s+|=))(?P<path>\S+)")
_LOCAL = re.compile(
    r"(-e|--editable)\b|\.|/|~|.*@\s*file:|(-f|--find-links)(\s+|=)(?!\w+://)"
    r"|[^@:\s-][^@:\s]*(/|\.(whl|zip|tar\.gz|tgz|tar\.bz2))",
    re.IGNORECASE,
)
"""Lines of requirement files that are about this machine's own files."""
_OWN_EXTRAS = re.compile(r"\s*(?P<name>[A-Za-z0-9._-]+)\s*\[(?P<extras>[^\]]+)\]\s*")
_REPOSITORY = re.compile(r"(?P<host>[A-Za-z0-9.-]+)/(?P<path>[A-Za-z0-9_.~/-]+)(?P<ref>@[A-Za-z0-9_./-]+)?")
_TOKENS = {"github.com": "GITHUB_TOKEN", "gitlab.com": "GITLAB_TOKEN"}
"""Whose password is in which variable; no other host is sent one."""


# Bases


def registry_step(tag: str, secret: Secret | None, force_build: bool) -> Step:
    """A base from a registry.

    Raises:
        InvalidError: impossible arguments.
    """
    if not isinstance(tag, str) or not tag.strip() or any(character.isspace() for character in tag):
        raise InvalidError(f"Image.from_registry({tag!r}): give the name of an image, such as 'ubuntu:24.04'")
    if secret is not None:
        from squall.sdk.secret import Secret  # cold start: images with secrets only

        if not isinstance(secret, Secret):
            raise InvalidError(f"Image.from_registry(secret=a {type(secret).__name__}): it must be a squall.Secret")
    return Step(
        "from_registry",
        {"tag": tag.removeprefix("docker://"), "force_build": force_build},
        secrets=(secret,) if secret is not None else (),
    )


def micromamba_base(python_version: str, force_build: bool) -> tuple[Step, ...]:
    """A base with micromamba and a Python that it has installed."""
    python = shlex.quote(f"python={python_version}")
    return (
        registry_step(MAMBA_IMAGE, None, force_build),
        Step("user", {"name": "root"}),
        Step("env", {"variables": {"MAMBA_ROOT_PREFIX": _MAMBA_ROOT}}),
        Step("env", {"variables": {"PATH": f"{_MAMBA_ROOT}/bin:${{PATH}}"}, "is_template": True}),
        # Its own entrypoint does what PATH does here.
        Step("entrypoint", {"words": ()}),
        Step(
            "run_commands",
            {
                "commands": (f"micromamba install --yes --name base --channel conda-forge {python}",),
                "title": f"micromamba {python_version}",
                "force_build": force_build,
            },
        ),
    )


def micromamba(names: Sequence[str], spec_file: str | None, channels: Sequence[str], step: Step) -> tuple[Step, ...]:
    """Conda packages into the image's own environment."""
    words = ["micromamba", "install", "--yes", "--name", "base"]
    for channel in channels:
        words += ["--channel", channel]
    line = shlex.join([*words, *names])
    if spec_file is None:
        return (_with(step, commands=(line,)),)
    path = _existing("Image.micromamba_install", "spec_file", spec_file)
    name = os.path.basename(path)
    line += f' --file "$SQUALL_BUILD_FILES"/{shlex.quote(name)}'
    return (replace(_with(step, commands=(line,)), files=lambda: _files([(path, name)], spec_file)),)


# Python packages


def requirements(paths: Sequence[str], packages: Sequence[str], step: Step) -> tuple[Step, ...]:
    """Packages of requirement files, and others."""
    what = f"Image.{step.arguments['title']}"
    plain: list[str] = []
    files: dict[str, str] = {}
    is_plain = True
    for path in paths:
        for place, line in _requirement_lines(_existing(what, "the file", path), what, files):
            _refuse_local(line, place, what)
            # An option, such as a hash, is of no use beside a package by name.
            if _PLAIN.fullmatch(line) and " --" not in line:
                plain.append(line)
            else:
                is_plain = False
    title = _title(step, " ".join(os.path.basename(path) for path in paths))
    if is_plain:
        # As packages by name they are downloaded once for all images that want them.
        return (_with(step, packages=(*packages, *plain), title=title),) if packages or plain else ()
    top = os.path.commonpath([os.path.dirname(place) for place in files])
    named = {place: os.path.relpath(place, top) for place in files}
    wanted = tuple(named[_existing(what, "the file", path)] for path in paths)
    made = _with(step, packages=tuple(packages), requirements=wanted, title=title)
    return (replace(made, files=lambda: _files(list(named.items()), ", ".join(paths))),)


def _requirement_lines(path: str, what: str, seen: dict[str, str]) -> Iterator[tuple[str, str]]:
    """The lines of a requirements file and of those it includes, each with the file and line it is from."""
    if path in seen:
        return
    seen[path] = ""
    try:
        with open(path, encoding="utf-8") as file:
            text = file.read()
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidError(f"{what}: cannot read {path}: {error}") from error
    for number, raw in _joined(text):
        line = re.sub(r"(^|\s)#.*$", "", raw).strip()
        included = _INCLUDE.fullmatch(line)
        if included:
            inner = os.path.normpath(os.path.join(os.path.dirname(path), included["path"]))
            yield from _requirement_lines(_existing(what, f"{path} line {number}:", inner), what, seen)
            if line.startswith(("-c", "--constraint")):
                yield f"{path} line {number}", line
        elif line:
            yield f"{path} line {number}", line


def _joined(text: str) -> Iterator[tuple[int, str]]:
    """Lines with those that continue them, each with the number of its first."""
    begun, first = "", 1
    for number, line in enumerate(text.splitlines(), start=1):
        first = first if begun else number
        # A comment ends with its line.
        if line.endswith("\\") and not re.search(r"(^|\s)#", line):
            begun += line[:-1] + " "
            continue
        yield first, begun + line
        begun = ""
    if begun:
        yield first, begun


def _refuse_local(line: str, place: str, what: str) -> None:
    if _LOCAL.match(line):
        raise InvalidError(
            f"{what}: {place}: {line!r} is of this machine, and the image does not have it; add it with "
            "add_local_dir(..., copy=True) or add_local_python_source(...) and leave it out here"
        )


def pyproject(path: str, extras: Sequence[str], step: Step) -> tuple[Step, ...]:
    """The dependencies of a project and of some of its extras."""
    what = "Image.pip_install_from_pyproject"
    project = _toml(what, _existing(what, "the file", path)).get("project")
    if not isinstance(project, dict) or not isinstance(project.get("dependencies"), list):
        raise InvalidError(f"{what}({path!r}): it has no [project] with dependencies")
    packages = [str(package) for package in project["dependencies"]]
    for extra in extras:
        packages += _of_extra(f"{what}({path!r})", project, extra, frozenset())
    for package in packages:
        _refuse_local(package, path, what)
    if not packages:
        return ()
    return (_with(step, packages=tuple(packages), title=_title(step, " ".join(packages))),)


def _of_extra(what: str, project: dict[str, Any], extra: str, above: frozenset[str]) -> list[str]:
    """The packages of an extra, and those of extras of the same project that it names."""
    optional = project.get("optional-dependencies", {})
    names = {_normal(name): name for name in optional}
    if _normal(extra) not in names:
        raise InvalidError(f"{what}: it has no optional dependencies {extra!r}; it has {', '.join(names) or 'none'}")
    packages: list[str] = []
    for package in optional[names[_normal(extra)]]:
        own = _OWN_EXTRAS.fullmatch(package)
        if own is None or _normal(own["name"]) != _normal(project.get("name", "")):
            packages.append(package)
            continue
        for inner in own["extras"].split(","):
            if _normal(inner.strip()) not in above:
                packages += _of_extra(what, project, inner.strip(), above | {_normal(extra)})
    return packages


def _normal(name: str) -> str:
    """As package indexes compare names."""
    return re.sub(r"[-_.]+", "-", name).lower()


@record
class PrivateRepositories:
    """Repositories as packages, and the variables that make git ask for no password."""

    arguments: dict[str, Any]
    env: dict[str, str]


def private_repositories(
    repositories: Sequence[str], git_user: str, options: dict[str, Any], has_secrets: bool
) -> PrivateRepositories:
    """The arguments of the step that installs them.

    Raises:
        InvalidError: a repository of another host, or no token.
    """
    what = "Image.pip_install_private_repos"
    if not repositories:
        raise InvalidError(f"{what}(...): name a repository, such as 'github.com/owner/name@main'")
    if not has_secrets:
        raise InvalidError(f"{what}(...): give the token in secrets=, as GITHUB_TOKEN or GITLAB_TOKEN")
    packages: list[str] = []
    env: dict[str, str] = {"GIT_TERMINAL_PROMPT": "0"}
    hosts: dict[str, str] = {}
    for repository in repositories:
        found = _REPOSITORY.fullmatch(repository) if isinstance(repository, str) else None
        token = _TOKENS.get(found["host"].lower(), "") if found else ""
        if found is None or not token:
            raise InvalidError(f"{what}({repository!r}): write it as github.com/owner/name@ref or gitlab.com/…")
        packages.append(f"git+https://{found['host']}/{found['path']}{found['ref'] or ''}")
        hosts[found["host"]] = token
    for number, (host, token) in enumerate(sorted(hosts.items())):
        # Git asks this for the password; in the URL it would be kept with the package.
        helper = f'!f() {{ echo username={shlex.quote(git_user)}; echo "password=${token}"; }}; f'
        env[f"GIT_CONFIG_KEY_{number}"] = f"credential.https://{host}.helper"
        env[f"GIT_CONFIG_VALUE_{number}"] = helper
    env["GIT_CONFIG_COUNT"] = str(len(hosts))
    return PrivateRepositories({"packages": tuple(packages), **options}, env)


# Projects


@record
class UvProject:
    """What `uv_sync` is asked for."""

    directory: str
    groups: tuple[str, ...]
    extras: tuple[str, ...]
    is_frozen: bool
    extra_options: str
    uv_version: str


def uv_sync(project: UvProject, step: Step) -> tuple[Step, ...]:
    """The dependencies of a project into an environment that functions then use."""
    what = f"Image.uv_sync({project.directory!r})"
    top = os.path.abspath(project.directory)
    files = [("pyproject.toml", _existing(what, "its", os.path.join(top, "pyproject.toml")))]
    lock = os.path.join(top, "uv.lock")
    if os.path.isfile(lock):
        files.append(("uv.lock", lock))
    elif project.is_frozen:
        raise InvalidError(f"{what}: there is no uv.lock; make one with `uv lock`, or say frozen=False")
    workspace = _toml(what, files[0][1]).get("tool", {}).get("uv", {}).get("workspace", {})
    members = _members(top, workspace.get("members", ())) - _members(top, workspace.get("exclude", ()))
    files += [(os.path.relpath(member, top), member) for member in sorted(members)]
    words = ["sync", "--no-install-workspace", "--python", "python3", "--project", "."]
    words += ["--frozen"] if project.is_frozen else []
    for option, names in (("--group", project.groups), ("--extra", project.extras)):
        for name in names:
            words += [option, name]
    line = f"{_uv(project.uv_version)} {shlex.join([*words, *shlex.split(project.extra_options)])}"
    # uv writes beside the project, if only an empty directory; the files of the step cannot be written to.
    copied = 'cp -R "$SQUALL_BUILD_FILES" "$SQUALL_BUILD_TMP"/project && cd "$SQUALL_BUILD_TMP"/project'
    command = f"{copied} && UV_PROJECT_ENVIRONMENT={VENV} {line}"
    made = _with(step, commands=(command,))
    return (
        replace(made, files=lambda: _files([(path, name) for name, path in files], project.directory)),
        Step("env", {"variables": {"VIRTUAL_ENV": VENV, "PATH": f"{VENV}/bin:${{PATH}}"}, "is_template": True}),
    )


def _members(top: str, patterns: Sequence[str]) -> set[str]:
    """The files of the projects that patterns of a workspace mean."""
    found = (glob.glob(os.path.join(top, pattern, "pyproject.toml"), recursive=True) for pattern in patterns)
    return {path for paths in found for path in paths}


def _uv(version: str) -> str:
    if not version:
        return '"$SQUALL_BUILD_UV"'
    return f'"$SQUALL_BUILD_UV" tool run --from {shlex.quote(f"uv=={version}")} uv'


@record
class PoetryProject:
    """What `poetry_install_from_file` is asked for."""

    pyproject: str
    lock: str | None
    ignores_lock: bool
    with_groups: tuple[str, ...]
    without_groups: tuple[str, ...]
    only_groups: tuple[str, ...]
    version: str | None


def poetry(project: PoetryProject, step: Step) -> tuple[Step, ...]:
    """The dependencies of a project: Poetry says which, uv installs them."""
    what = f"Image.poetry_install_from_file({project.pyproject!r})"
    path = _existing(what, "the file", project.pyproject)
    files = [(path, "pyproject.toml")]
    if not project.ignores_lock:
        lock = project.lock or os.path.join(os.path.dirname(path), "poetry.lock")
        if not os.path.isfile(lock):
            raise InvalidError(f"{what}: there is no {lock}; make it with `poetry lock`, or say ignore_lockfile=True")
        files.append((os.path.abspath(lock), "poetry.lock"))
    options: list[str] = []
    groups = (("--with", project.with_groups), ("--without", project.without_groups), ("--only", project.only_groups))
    for option, names in groups:
        options += [option, ",".join(names)] if names else []
    run = "poetry"
    if project.version is not None:
        wanted = "poetry" if project.version == "latest" else f"poetry=={project.version}"
        run = f'"$SQUALL_BUILD_UV" tool run --from {shlex.quote(wanted)} --with poetry-plugin-export poetry'
    run = f'POETRY_CACHE_DIR="$SQUALL_BUILD_TMP"/poetry {run}'
    lines = ['cp -R "$SQUALL_BUILD_FILES" "$SQUALL_BUILD_TMP"/project', 'cd "$SQUALL_BUILD_TMP"/project']
    if project.ignores_lock:
        # Of the machine's settings for packages Poetry knows nothing.
        add = f'{run} source add --priority primary machine "$UV_DEFAULT_INDEX"'
        lines.append(f'{{ [ -z "$UV_DEFAULT_INDEX" ] || {add}; }}')
        lines.append(f"{run} lock")
        options.append("--without-urls")
    lines.append(f"{run} export --format requirements.txt --output ../requirements.txt {shlex.join(options)}".rstrip())
    install = '"$SQUALL_BUILD_UV" pip install --python "$(command -v python3)" --break-system-packages'
    lines.append(f"{install} --requirements ../requirements.txt")
    made = _with(step, commands=(" && ".join(lines),))
    return (replace(made, files=lambda: _files(files, project.pyproject)),)


# Files


def _with(step: Step, **more: Any) -> Step:
    return replace(step, arguments={**step.arguments, **more})


def _title(step: Step, words: str) -> str:
    return f"{step.arguments['title']} {words}"


def _existing(what: str, name: str, path: str) -> str:
    place = os.path.abspath(os.path.expanduser(path))
    if not os.path.isfile(place):
        raise InvalidError(f"{what}: {name} {path} does not exist here, or is no file")
    return place


def _toml(what: str, path: str) -> dict[str, Any]:
    import tomli  # cold start: only where a project is read, which no container does

    try:
        with open(path, "rb") as file:
            return tomli.load(file)
    except (tomli.TOMLDecodeError, UnicodeDecodeError) as error:
        raise InvalidError(f"{what}: {path} is no TOML: {error}") from error


def _files(files: Sequence[tuple[str, str]], what: str) -> _mount.Mount:
    """Local paths and their names in the step."""
    return _mount.make_mount([_mount.LocalFile(path, name) for path, name in files], what)
