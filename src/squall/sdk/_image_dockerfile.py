"""What a Dockerfile stands for, in steps that a node knows. It and the files it copies are read when an image is used.

The stage that is wanted becomes steps, a stage that others take files from an image of its own. ARG needs no step: its
values are in the environment of the RUN lines after it, and nowhere else.
"""

from __future__ import annotations

import difflib
import os
import posixpath
import warnings
from collections.abc import Iterator
from typing import Any

from squall.protocol.image import BUILD_FILES, StepMount
from squall.protocol.records import replace
from squall.sdk import _image_lowering, _mount
from squall.sdk._image_steps import Reading, Step
from squall.sdk._mount import Content, LocalFile
from squall.sdk._shipped import took_file
from squall.sdk.dockerfile import parse, parse_lines, read_text
from squall.sdk.dockerfile.context import Context, Found, ignore_of
from squall.sdk.dockerfile.copy import ends_as_directory
from squall.sdk.dockerfile.error import Line, shown
from squall.sdk.dockerfile.pattern import has_wildcard
from squall.sdk.dockerfile.records import (
    Cmd,
    Copy,
    Dockerfile,
    Entrypoint,
    Env,
    Instruction,
    Run,
    RunMount,
    Shell,
    Stage,
    User,
    Workdir,
)
from squall.sdk.dockerfile.text import Text
from squall.sdk.image import Image

_PLATFORMS = ("", "linux/amd64", "linux/x86_64", "amd64", "x86_64")
_SCRIPT = "script"
"""Of a RUN line that is a whole script, among the files of its step."""


def read_file(path: str, reading: Reading) -> tuple[Step, ...]:
    """The steps of a Dockerfile.

    Raises:
        InvalidError: it cannot be read or built; the message has the line.
    """
    took_file(path)
    found = parse(read_text(path), name=path, build_args=reading.build_args)
    return _Lowering(found, reading, path).steps()


def read_lines(lines: tuple[str, ...], reading: Reading) -> tuple[Step, ...]:
    """The steps of lines without a FROM, for the image so far.

    Raises:
        InvalidError: as `read_file`.
    """
    found = parse_lines(lines, name=reading.place, build_args=reading.build_args)
    return _Lowering(found, reading, "").steps()


class _Lowering:
    """A Dockerfile on its way to steps."""

    def __init__(self, dockerfile: Dockerfile, reading: Reading, path: str) -> None:
        self._dockerfile = dockerfile
        self._reading = reading
        self._path = path
        self._steps: dict[int, tuple[Step, ...]] = {}
        """Of each stage that is needed, by its number."""
        self._images: dict[int | str, Image] = {}
        """That files are taken from, by the number of the stage or by name."""
        self._contexts: dict[bool, Context] = {}

    def steps(self) -> tuple[Step, ...]:
        """The steps of the stage that is wanted."""
        if self._dockerfile.unused_args:
            names = ", ".join(self._dockerfile.unused_args)
            warnings.warn(f"{self._reading.place}: build_args that no ARG asks for: {names}", stacklevel=2)
        for stage in self._dockerfile.order():
            self._steps[stage.index] = tuple(self._stage(stage))
        return self._steps[self._dockerfile.image.index]

    def _stage(self, stage: Stage) -> Iterator[Step]:
        if stage.platform.lower() not in _PLATFORMS:
            raise stage.line.error(f"--platform={stage.platform} cannot be had; nodes are {_PLATFORMS[1]}")
        if stage.base_stage is not None:
            yield from self._steps[stage.base_stage]
        elif stage.is_scratch:
            yield Step("from_scratch", {"force_build": self._reading.force_build})
        elif stage.base:
            yield self._registry_step(stage.base)
        for instruction in stage.instructions:
            yield from self._instruction(instruction)

    def _registry_step(self, name: str) -> Step:
        """An image of a registry; the secret is for the registry of the base alone: others are not to see it."""
        is_of_base = _registry(name) == _registry(self._base())
        secret = self._reading.registry_secret if is_of_base else None
        return _image_lowering.registry_step(name, secret, self._reading.force_build)

    def _base(self) -> str:
        """The image that the wanted stage begins with."""
        stage = self._dockerfile.image
        while stage.base_stage is not None:
            stage = self._dockerfile.stages[stage.base_stage]
        return stage.base

    def _instruction(self, one: Instruction) -> Iterator[Step]:
        if isinstance(one, Env):
            is_template = any(not value.is_plain for value in one.variables.values())
            variables = {name: _written(value, is_template) for name, value in one.variables.items()}
            yield Step("env", {"variables": variables, "is_template": is_template})
        elif isinstance(one, Run):
            yield self._run(one)
        elif isinstance(one, Copy):
            yield from self._copy(one)
        elif isinstance(one, Workdir):
            is_template = not one.path.is_plain
            yield Step("workdir", {"path": _written(one.path, is_template), "is_template": is_template})
        elif isinstance(one, User):
            is_template = not one.name.is_plain
            yield Step("user", {"name": _written(one.name, is_template), "is_template": is_template})
        elif isinstance(one, Shell):
            yield Step("shell", {"words": one.words})
        elif isinstance(one, Entrypoint):
            yield Step("entrypoint", {"words": one.words})
        elif isinstance(one, Cmd):
            yield Step("cmd", {"words": one.words})

    # RUN

    def _run(self, run: Run) -> Step:
        files: list[LocalFile] = []
        mounts = tuple(self._mount(run, mount, number, files) for number, mount in enumerate(run.mounts))
        contents: list[Content] = []
        what: dict[str, Any] = {"commands": (run.command,)}
        if run.arguments:
            what = {"arguments": run.arguments}
        elif run.script:
            contents.append(Content(run.script.encode(), _SCRIPT))
            what = {"arguments": (*_interpreter(run), f"{BUILD_FILES}/{_SCRIPT}")}
        return Step(
            "run_commands",
            {
                **what,
                "mounts": mounts,
                "env": {**run.args, **self._reading.env},
                "force_build": self._reading.force_build,
                "title": _title(run.line),
            },
            files=(lambda: _mount.make_mount(files, _what(run.line), contents)) if files or contents else None,
            secrets=self._reading.secrets,
        )

    def _mount(self, run: Run, mount: RunMount, number: int, files: list[LocalFile]) -> StepMount:
        """What a command sees besides the image; `files` gets those of the context."""
        if mount.kind == "secret":
            raise run.line.error(
                "--mount=type=secret cannot be had: give secrets=, whose variables every RUN line has, and no layer"
            )
        if not mount.target.is_plain:
            raise run.line.error(f"the target of --mount needs {mount.target.names[0]}, which only the image knows")
        target = posixpath.join(run.workdir, mount.target.plain)
        if mount.kind != "bind":
            # Nothing of it is kept for the next build; what a package index serves, the machine may cache.
            return StepMount(target)
        if mount.from_stage is not None or mount.from_image:
            raise run.line.error("--mount=type=bind with from= cannot be had: take the files by COPY --from")
        if mount.is_writable:
            raise run.line.error("--mount=type=bind cannot be written to here: take the files by COPY")
        found = self._context(follows_links=True).bind(run, mount)
        if not found.files:
            raise run.line.error("--mount=type=bind shows no file: all are left out of the context")
        place = f"bind-{number}"
        files += [LocalFile(file.local_path, f"{place}/{file.remote_path}") for file in found.files]
        return StepMount(target, f"{place}/{found.files[0].remote_path}" if found.may_be_directory else place)

    # COPY and ADD

    def _copy(self, copy: Copy) -> Iterator[Step]:
        if copy.urls:
            raise copy.line.error("ADD of a URL cannot be had: fetch it in a RUN line, or add a file of this machine")
        if not copy.is_from_context:
            yield self._copy_from(copy)
            return
        found = self._context(follows_links=False).find(copy)
        if found.archives:
            yield self._unpack(copy, found)
        if not found.archives or found.files or found.contents or found.links or found.empty_directories:
            yield self._copy_from_context(copy, found)

    def _copy_from(self, copy: Copy) -> Step:
        if copy.keeps_parents or copy.excludes:
            raise copy.line.error("--parents and --exclude cannot be had with --from: name what is to be copied")
        is_template = not (copy.target.is_plain and copy.owner.is_plain)
        arguments = {
            "sources": tuple(_node_pattern(source) for source in copy.sources),
            "path": _written(copy.target, is_template),
            "is_directory": ends_as_directory(copy.target) or len(copy.sources) > 1,
        }
        return Step("copy_from", {**arguments, **self._copy_options(copy, is_template)}, image=self._image(copy))

    def _copy_from_context(self, copy: Copy, found: Found) -> Step:
        files, contents, directory = list(found.files), list(found.contents), found.directory
        more: dict[str, Any] = {
            "links": {link.path: link.leads_to for link in found.links},
            "directories": found.empty_directories,
        }
        if found.may_be_directory:
            # Whether the target is a file, or the directory that the file goes into, is for the image to say.
            name = _only_name(copy, found)
            directory = _below(directory, files[0].remote_path if files else contents[0].remote_path)
            files = [replace(file, remote_path=name) for file in files]
            contents = [replace(content, remote_path=name) for content in contents]
            more = {"sources": (_literal(name),)}
        return self._copy_step(copy, directory, files, contents, more)

    def _unpack(self, copy: Copy, found: Found) -> Step:
        if copy.keeps_parents:
            raise copy.line.error("--parents cannot be had for an archive that is unpacked")
        # Named by their order, in which they are unpacked.
        files = [LocalFile(one.local_path, f"{number:06}") for number, one in enumerate(found.archives)]
        return self._copy_step(copy, found.directory, files, [], {"is_archive": True})

    def _copy_step(
        self, copy: Copy, directory: Text, files: list[LocalFile], contents: list[Content], more: dict[str, Any]
    ) -> Step:
        is_known = directory.is_plain and directory.plain.startswith("/")
        is_template = not (is_known and copy.owner.is_plain)
        return Step(
            "copy",
            {"path": _written(directory, is_template), **more, **self._copy_options(copy, is_template)},
            files=lambda: _mount.make_mount(files, _what(copy.line), contents),
        )

    def _copy_options(self, copy: Copy, is_template: bool) -> dict[str, Any]:
        return {
            "user": _written(copy.owner, is_template),
            "mode": copy.mode,
            "is_template": is_template,
            "force_build": self._reading.force_build,
            "title": _title(copy.line),
        }

    def _image(self, copy: Copy) -> Image:
        """What `--from` names."""
        key: int | str = copy.from_image if copy.from_stage is None else copy.from_stage
        if isinstance(key, str):
            self._check_image(key, copy)
        if key not in self._images:
            steps = (self._registry_step(key),) if isinstance(key, str) else self._steps[key]
            self._images[key] = Image._make(steps)
        return self._images[key]

    def _check_image(self, name: str, copy: Copy) -> None:
        """Refuse what is the name of a stage, misspelt: a registry would be asked for it."""
        stages = [stage.name for stage in self._dockerfile.stages if stage.name]
        near = difflib.get_close_matches(name.lower(), stages, n=1, cutoff=0.75)
        if near and not set(name) & set("/:@"):
            raise copy.line.error(
                f"there is no stage {shown(name, 40)}; did you mean {near[0]}? An image of that name is {name}:latest"
            )

    def _context(self, *, follows_links: bool) -> Context:
        """The context; where nothing is copied from it, it need not be there."""
        if follows_links not in self._contexts:
            reading = self._reading
            directory = os.path.abspath(reading.context_dir or ".")
            ignore = ignore_of(self._path, directory, reading.ignore)
            self._contexts[follows_links] = Context(
                directory, ignore, reading.context_files, follows_links=follows_links
            )
        return self._contexts[follows_links]


def _written(value: Text, is_template: bool) -> str:
    return value.template if is_template else value.plain


def _below(directory: Text, name: str) -> Text:
    *parts, end = directory.parts or ("",)
    if not isinstance(end, str):
        return Text((*parts, end, f"/{name}"))
    return Text((*parts, posixpath.join(end, name)))


def _only_name(copy: Copy, found: Found) -> str:
    """The name of the one file that is copied, before it gets that of the target."""
    if copy.inline:
        return copy.inline[0].name
    name = posixpath.basename(posixpath.normpath(copy.sources[0]))
    return os.path.basename(found.files[0].local_path) if has_wildcard(name) else name


def _literal(name: str) -> str:
    """A pattern for a node that this name alone matches."""
    return "".join(f"[{char}]" if char in "*?[" else char for char in name)


def _node_pattern(source: str) -> str:
    """A pattern of a Dockerfile as nodes read them: no backslashes, and `!` for what is not to match."""
    found: list[str] = []
    characters = iter(source)
    for char in characters:
        found.append(_literal(next(characters, "")) if char == "\\" else char)
    return "".join(found).replace("[^", "[!")


def _interpreter(run: Run) -> tuple[str, ...]:
    """What runs a script, as the kernel reads its first line: a path, and all that follows as one argument."""
    words = run.script.partition("\n")[0].removeprefix("#!").strip().split(maxsplit=1)
    if not words or not words[0].startswith("/"):
        raise run.line.error("the first line of the script must name a program by its whole path: #!/bin/sh")
    return tuple(words)


def _registry(name: str) -> str:
    """The host in the name of an image; empty where the machine's settings complete it."""
    host, has_path, _ = name.partition("/")
    return host if has_path and ("." in host or ":" in host or host == "localhost") else ""


def _title(line: Line) -> str:
    return f"line {line.number}: {line.written}"


def _what(line: Line) -> str:
    return f"{line.file}, line {line.number} ({line.written})"
