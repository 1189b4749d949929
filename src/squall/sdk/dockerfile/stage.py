"""One stage: its instructions with the variables they name filled in."""

from __future__ import annotations

import posixpath
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from squall.sdk.dockerfile import copy, run
from squall.sdk.dockerfile.error import shown
from squall.sdk.dockerfile.expansion import Expansion, ExpansionProblem
from squall.sdk.dockerfile.flags import Flags, nearest
from squall.sdk.dockerfile.lines import Written, json_words, words
from squall.sdk.dockerfile.records import Arg, Cmd, Entrypoint, Env, Instruction, NoEffect, Shell, User, Workdir
from squall.sdk.dockerfile.scope import Scope, Work, of_file_alone
from squall.sdk.dockerfile.text import Text

_DEFAULT_SHELL = ("/bin/sh", "-c")
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*\Z", re.ASCII)
_HEALTH_FLAGS = ("interval", "timeout", "start-period", "start-interval", "retries")


@dataclass(frozen=True, slots=True)
class Build:
    """What all stages share."""

    args: Mapping[str, str]
    """Given for this build."""
    defaults: Mapping[str, str]
    """Of arguments that a stage takes over by `ARG NAME`: of the lines before the first FROM, and of the platform."""
    escape: str
    work: Work
    stage_names: Sequence[str]
    """Of all stages, in order, in lower case; empty where one has none."""
    used: set[str] = field(default_factory=set)
    """Names of arguments that some ARG asks for."""


@dataclass(slots=True)
class StageReader:
    """A stage as far as it is read."""

    build: Build
    index: int
    scope: Scope
    workdir: str
    """Absolute; empty where only the base knows it."""
    shell: tuple[str, ...] = ()
    """Empty where the base decides."""
    instructions: list[Instruction] = field(default_factory=list)

    def read(self, written: Written) -> None:
        """Take one more instruction.

        Raises:
            DockerfileError: it is none, or wrong.
        """
        reader = READERS.get(written.keyword)
        if reader is None:
            message = f"there is no instruction {shown(written.keyword, 40)}"
            raise written.line.error(message + nearest(written.keyword, KEYWORDS))
        if not written.rest and not written.flags:
            raise written.line.error(f"{written.keyword} says nothing; {_USAGE[written.keyword]}")
        try:
            reader(self, written)
        except ExpansionProblem as error:
            raise written.line.error(str(error)) from error

    def text(self, value: str, *, keeps_quotes: bool = False) -> Text:
        """A text with its variables filled in, except those of the image."""
        expansion = Expansion(
            value, self.scope.lookup, self.build.work.spend, self.build.escape, keeps_quotes=keeps_quotes
        )
        return expansion.text()

    def plain(self, value: str, what: str, *, keeps_quotes: bool = False) -> str:
        """A text that must be known before there is an image.

        Raises:
            ExpansionProblem: it names a variable that only the image can have.
        """
        found = self.text(value, keeps_quotes=keeps_quotes)
        for name in found.names:
            if name not in self.scope.unset:
                raise ExpansionProblem(
                    f"{what} needs {name}, which no ARG or ENV of the file sets, and one of the base image is known "
                    f"too late; put ARG {name}=default above, or write \\$ for a dollar sign of its own"
                )
        return of_file_alone(
            found, lambda name: f"{what} needs {name}, which has no value: give it in build_args=, or a default"
        )

    def from_stage(self, name: str, written: Written) -> int | None:
        """The stage that `--from` or `from=` names; None for an image.

        Raises:
            DockerfileError: a number no stage has, or a variable.
        """
        if "$" in name:
            raise written.line.error(
                f"from={shown(name)} may have no variable; add a stage, `FROM {shown(name)} AS name`"
            )
        names = self.build.stage_names
        if name.isdecimal():
            if len(name) < 6 and int(name) < len(names):
                return int(name)
            if not names:
                raise written.line.error("there are no stages here, so from= takes the name of an image")
            raise written.line.error(
                f"there is no stage number {shown(name, 40)}; the first is 0, the last {len(names) - 1}"
            )
        found = [index for index, one in enumerate(names) if one and one == name.lower()]
        before = [index for index in found if index < self.index]
        return before[-1] if before else next(iter(found), None)

    def words(self, written: Written) -> tuple[str, ...]:
        """The words of an instruction that a shell line can stand for."""
        found = json_words(written)
        return found if found is not None else (*(self.shell or _DEFAULT_SHELL), written.rest)

    def run_args(self) -> dict[str, str]:
        """What ARG gives a RUN line."""
        return self.scope.run_args(self.build.args, self.build.work)

    def add(self, instruction: Instruction) -> None:
        """Keep an instruction."""
        self.instructions.append(instruction)


def arg_names(written: Written, escape: str) -> list[tuple[str, str | None]]:
    """The names an ARG declares, and the defaults as written.

    Raises:
        DockerfileError: something that is no name.
    """
    found: list[tuple[str, str | None]] = []
    for word in words(written.rest, escape):
        name, is_given, value = word.partition("=")
        _check_name(name, written)
        found.append((name, value if is_given else None))
    return found


def _check_name(name: str, written: Written) -> None:
    if not _NAME.match(name):
        what = f"{shown(name, 40)!r} is no name of a variable" if name else "there is '=' without a name before it"
        raise written.line.error(f"{what}; letters, digits and underscores make one")


def _pairs(written: Written, escape: str) -> list[tuple[str, str]]:
    """`name=value …`, or the old form of one name, a space, and the value.

    Raises:
        DockerfileError: something without a value.
    """
    found = words(written.rest, escape)
    if "=" not in found[0]:
        parts = written.rest.split(maxsplit=1)
        if len(parts) < 2:
            raise written.line.error(f"{written.keyword} {shown(parts[0], 40)} has no value; {_USAGE[written.keyword]}")
        return [(parts[0], parts[1])]
    for word in found:
        if "=" not in word:
            raise written.line.error(f"{shown(word, 40)!r} has no '='; quote a value with spaces: name=\"a b\"")
    return [(name, value) for name, _, value in (word.partition("=") for word in found)]


def _env(reader: StageReader, written: Written) -> None:
    Flags(written)
    variables: dict[str, Text] = {}
    for name, value in _pairs(written, reader.build.escape):
        name = reader.plain(name, "the name of a variable")
        _check_name(name, written)
        variables[name] = reader.text(value)
    reader.scope.set_env(variables)
    reader.add(Env(written.line, variables))


def _arg(reader: StageReader, written: Written) -> None:
    Flags(written)
    found: list[tuple[str, str | None]] = []
    for name, default in arg_names(written, reader.build.escape):
        reader.build.used.add(name)
        value = reader.build.args.get(name)
        if value is None:
            is_taken_over = default is None
            value = reader.build.defaults.get(name) if is_taken_over else _default(reader, default or "")
        found.append((name, value))
    for name, value in found:
        reader.scope.set_arg(name, value)
        reader.add(Arg(written.line, name, value))


def _default(reader: StageReader, written: str) -> str:
    """The default of an ARG, in which nothing of the base image can be had: it would be known too late."""
    return of_file_alone(
        reader.text(written),
        lambda name: (
            f"no ARG or ENV above sets {name}, and one of the base image cannot be had here; "
            f"declare it by ARG, or write ${{{name}:-default}}"
        ),
    )


def _workdir(reader: StageReader, written: Written) -> None:
    Flags(written)
    path = reader.text(written.rest)
    if not path:
        raise written.line.error("WORKDIR has an empty path; is a variable in it not set?")
    is_known = path.is_plain and (path.plain.startswith("/") or bool(reader.workdir))
    reader.workdir = absolute(reader.workdir, path.plain) if is_known else ""
    reader.add(Workdir(written.line, path))


def absolute(directory: str, path: str) -> str:
    """A path below a directory, without dots and doubled slashes."""
    return "/" + posixpath.normpath(posixpath.join(directory, path)).lstrip("/")


def _user(reader: StageReader, written: Written) -> None:
    Flags(written)
    name = reader.text(written.rest)
    if not name or (name.is_plain and len(name.plain.split()) != 1):
        raise written.line.error("USER takes one name or number, with a group behind a colon: USER app:app")
    reader.add(User(written.line, name))


def _shell(reader: StageReader, written: Written) -> None:
    Flags(written)
    found = json_words(written)
    if not found:
        raise written.line.error('SHELL takes a list: SHELL ["/bin/bash", "-c"]')
    reader.shell = found
    reader.add(Shell(written.line, found))


def _entrypoint(reader: StageReader, written: Written) -> None:
    Flags(written)
    reader.add(Entrypoint(written.line, reader.words(written)))


def _cmd(reader: StageReader, written: Written) -> None:
    Flags(written)
    reader.add(Cmd(written.line, reader.words(written)))


def _no_effect(reader: StageReader, written: Written) -> None:
    Flags(written)
    reader.text(written.rest)
    reader.add(NoEffect(written.line, written.keyword, written.rest))


def _label(reader: StageReader, written: Written) -> None:
    Flags(written)
    for name, value in _pairs(written, reader.build.escape):
        reader.text(name)
        reader.text(value)
    reader.add(NoEffect(written.line, written.keyword, written.rest))


def _maintainer(reader: StageReader, written: Written) -> None:
    Flags(written)
    reader.add(NoEffect(written.line, written.keyword, written.rest))


def _healthcheck(reader: StageReader, written: Written) -> None:
    Flags(written, values=_HEALTH_FLAGS)
    kind = written.rest.split(maxsplit=1)
    if not kind or kind[0].upper() not in ("NONE", "CMD") or (len(kind) < 2) != (kind[0].upper() == "NONE"):
        raise written.line.error(_USAGE["HEALTHCHECK"])
    reader.add(NoEffect(written.line, written.keyword, written.rest))


def _onbuild(reader: StageReader, written: Written) -> None:
    keyword = written.rest.split(maxsplit=1)[0].upper()
    if keyword in ("ONBUILD", "FROM", "MAINTAINER"):
        raise written.line.error(f"ONBUILD takes no {keyword}")
    if keyword not in READERS:
        raise written.line.error(f"there is no instruction {shown(keyword, 40)}" + nearest(keyword, READERS))
    reader.add(NoEffect(written.line, written.keyword, written.rest))


def _from(reader: StageReader, written: Written) -> None:
    raise written.line.error("FROM has no place here: the image so far is what these lines build on")


READERS: dict[str, Callable[[StageReader, Written], None]] = {
    "ADD": copy.read,
    "ARG": _arg,
    "CMD": _cmd,
    "COPY": copy.read,
    "ENTRYPOINT": _entrypoint,
    "ENV": _env,
    "EXPOSE": _no_effect,
    "FROM": _from,
    "HEALTHCHECK": _healthcheck,
    "LABEL": _label,
    "MAINTAINER": _maintainer,
    "ONBUILD": _onbuild,
    "RUN": run.read,
    "SHELL": _shell,
    "STOPSIGNAL": _no_effect,
    "USER": _user,
    "VOLUME": _no_effect,
    "WORKDIR": _workdir,
}
KEYWORDS = tuple(READERS)
_USAGE = {
    "ADD": "write ADD source… target",
    "ARG": "write ARG name=default",
    "CMD": 'write CMD ["program", "argument"]',
    "COPY": "write COPY source… target",
    "ENTRYPOINT": 'write ENTRYPOINT ["program", "argument"]',
    "ENV": "write ENV name=value",
    "EXPOSE": "write EXPOSE port",
    "FROM": "write FROM image AS name",
    "HEALTHCHECK": "write HEALTHCHECK CMD command, or HEALTHCHECK NONE",
    "LABEL": "write LABEL name=value",
    "MAINTAINER": "write MAINTAINER name",
    "ONBUILD": "write ONBUILD instruction",
    "RUN": "write RUN command",
    "SHELL": 'write SHELL ["program", "option"]',
    "STOPSIGNAL": "write STOPSIGNAL signal",
    "USER": "write USER name",
    "VOLUME": "write VOLUME path",
    "WORKDIR": "write WORKDIR path",
}
