"""A Dockerfile, or lines of one, as a record."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

from squall.sdk.dockerfile.error import DockerfileError, Line, shown
from squall.sdk.dockerfile.expansion import Expansion, ExpansionProblem
from squall.sdk.dockerfile.flags import Flags, nearest
from squall.sdk.dockerfile.lines import CHARS_MAX, Lines, Written
from squall.sdk.dockerfile.records import SCRATCH, Dockerfile, NoEffect, Stage
from squall.sdk.dockerfile.scope import OF_BUILDER, PROXIES, Scope, Work, platform_args
from squall.sdk.dockerfile.stage import KEYWORDS, Build, StageReader, arg_names
from squall.sdk.dockerfile.text import Text

PLATFORM = "linux/amd64"

_IMAGE = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:/@+-]{0,511}\Z", re.ASCII)
_STAGE_NAME = re.compile(r"[a-z][a-z0-9._-]*\Z", re.ASCII)


def read_text(path: str) -> str:
    """The text of a Dockerfile.

    Raises:
        DockerfileError: there is none, or it is no text.
    """
    try:
        with open(path, "rb") as file:
            data = file.read(4 * CHARS_MAX + 1)
    except (OSError, ValueError) as error:
        cause = error.strerror if isinstance(error, OSError) else str(error)
        raise DockerfileError(f"cannot read the Dockerfile {shown(path)}: {cause}") from error
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        number = data.count(b"\n", 0, error.start) + 1
        raise DockerfileError(f"{shown(path)}, line {number}: it is not UTF-8; is it a Dockerfile?") from error


def parse(
    content: str, *, name: str, build_args: Mapping[str, str] | None = None, platform: str = PLATFORM
) -> Dockerfile:
    """Read a Dockerfile.

    Args:
        content: all of it.
        name: what messages call it.
        build_args: values for its ARG lines.
        platform: of the image.

    Raises:
        DockerfileError: the only exception, whatever the text.
    """
    lines = Lines(_file(name), content)
    found = list(lines.instructions())
    reading = _Reading(lines, _checked(lines.file, build_args or {}), platform, found)
    for written in found:
        reading.take(written)
    return reading.dockerfile()


def parse_lines(
    lines: Iterable[str], *, name: str, build_args: Mapping[str, str] | None = None, platform: str = PLATFORM
) -> Dockerfile:
    """Read instructions without a FROM: one stage, whose base is the image so far.

    Raises:
        DockerfileError: as for `parse`.
    """
    read = Lines(_file(name), "\n".join(lines))
    written = list(read.instructions())
    if not written:
        raise DockerfileError(f"{read.file}: there is no instruction in it")
    build = Build(_checked(read.file, build_args or {}), platform_args(platform), read.escape, Work(), ())
    stage = StageReader(build, 0, Scope(is_closed=False), "")
    for one in written:
        stage.read(one)
    made = Stage(written[0].line, 0, "", "", None, "", tuple(stage.instructions))
    return Dockerfile(read.file, (made,), _unused(build))


def _file(name: str) -> str:
    return shown(os.fspath(name))


def _checked(file: str, build_args: Mapping[str, str]) -> dict[str, str]:
    for name, value in build_args.items():
        if not isinstance(name, str) or not isinstance(value, str):
            raise DockerfileError(f"{file}: build_args={{{name!r}: {value!r}}}: names and values are strings")
        if "\0" in value or any("\ud800" <= char <= "\udfff" for char in value):
            raise DockerfileError(
                f"{file}: build_args: the value of {shown(name, 40)} has a character no variable can have"
            )
    return dict(build_args)


def _unused(build: Build) -> tuple[str, ...]:
    known = {*build.used, *PROXIES}
    return tuple(name for name in build.args if name not in known and not name.startswith(OF_BUILDER))


class _Reading:
    """A file of several stages on its way to a record."""

    def __init__(self, lines: Lines, build_args: dict[str, str], platform: str, written: Sequence[Written]) -> None:
        self._file = lines.file
        self._escape = lines.escape
        self._global = Scope(is_closed=True, env={"PATH": Text()}, args=platform_args(platform))
        self._defaults = platform_args(platform)
        self._names = [_stage_name(one) for one in written if one.keyword == "FROM"]
        self._build = Build(build_args, self._defaults, lines.escape, Work(), self._names)
        self._readers: list[StageReader] = []
        self._stages: list[Stage] = []
        self._begun: Stage | None = None

    def take(self, written: Written) -> None:
        """One more instruction."""
        if written.keyword == "FROM":
            self._end_stage()
            self._begin(written)
        elif self._readers:
            self._readers[-1].read(written)
        elif written.keyword == "ARG":
            self._global_arg(written)
        else:
            hint = "" if written.keyword in KEYWORDS else nearest(written.keyword, KEYWORDS)
            raise written.line.error(f"{shown(written.keyword, 40)} before the first FROM, where only ARG may be{hint}")

    def dockerfile(self) -> Dockerfile:
        """All that was taken."""
        self._end_stage()
        if not self._stages:
            raise DockerfileError(
                f"{self._file}: there is no FROM in it, so nothing to build on; begin with FROM image"
            )
        made = Dockerfile(self._file, tuple(self._stages), _unused(self._build))
        made.order()
        return made

    def _global_arg(self, written: Written) -> None:
        Flags(written)
        for name, default in arg_names(written, self._escape):
            self._build.used.add(name)
            value = self._build.args.get(name)
            if value is None and default is not None:
                value = self._expanded(default, written)
            self._global.set_arg(name, value)
            if value is not None:
                self._defaults[name] = value

    def _expanded(self, value: str, written: Written) -> str:
        try:
            return Expansion(value, self._global.lookup, self._build.work.spend, self._escape).text().plain
        except ExpansionProblem as error:
            raise written.line.error(str(error)) from error

    def _end_stage(self) -> None:
        if self._begun is not None:
            self._stages.append(replace(self._begun, instructions=tuple(self._readers[-1].instructions)))
            self._begun = None

    def _begin(self, written: Written) -> None:
        flags = Flags(written, values=("platform",))
        words = written.rest.split()
        if len(words) not in (1, 3) or (len(words) == 3 and words[1].upper() != "AS"):
            raise written.line.error("FROM takes an image, or an image, AS and a name: FROM image AS name")
        index = len(self._readers)
        platform = self._expanded(flags.value("platform"), written)
        base = self._expanded(words[0], written)
        stages = [one for one in range(index) if self._names[one] and self._names[one] == base.lower()]
        name = self._names[index]
        if len(words) == 3 and not _STAGE_NAME.match(name):
            raise written.line.error(
                f"{shown(words[2], 40)!r} is no name of a stage; a letter, then letters, digits, - _ . make one"
            )
        if stages:
            self._readers.append(self._on_stage(written.line, stages[-1], index))
            self._begun = Stage(written.line, index, name, "", stages[-1], platform, ())
            return
        self._check_image(base, words[0], written)
        is_scratch = base == SCRATCH
        scope = Scope(is_closed=is_scratch)
        self._readers.append(StageReader(self._build, index, scope, "/" if is_scratch else ""))
        self._begun = Stage(written.line, index, name, base, None, platform, ())

    def _on_stage(self, line: Line, below: int, index: int) -> StageReader:
        before = self._readers[below]
        for one in before.instructions:
            if isinstance(one, NoEffect) and one.keyword == "ONBUILD":
                raise line.error(
                    f"the ONBUILD in line {one.line.number} would run here; write its instruction out instead"
                )
        try:
            scope = before.scope.inherited(self._build.work)
        except ExpansionProblem as error:
            raise line.error(str(error)) from error
        return StageReader(self._build, index, scope, before.workdir, before.shell)

    def _check_image(self, base: str, word: str, written: Written) -> None:
        if _IMAGE.match(base) and base[-1] not in ":/@.-+":
            return
        names = re.findall(r"\$\{?([A-Za-z_][A-Za-z0-9_]*)", word, re.ASCII)
        for name in names:
            if name in self._global.unset:
                raise written.line.error(f"{name} has no value: give it in build_args=, or a default: ARG {name}=…")
            if name not in self._global.args:
                hint = "" if name not in self._build.used else "; one inside a stage does not count"
                raise written.line.error(f"{name} is not set: put ARG {name} before the first FROM{hint}")
        raise written.line.error(f"{shown(base, 80)!r} is no name of an image")


def _stage_name(written: Written) -> str:
    words = written.rest.split()
    return words[2].lower() if len(words) == 3 else ""
