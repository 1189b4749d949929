"""What a Dockerfile says, as plain data: stages, and in each the instructions in order."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from squall.sdk.dockerfile.error import Line
from squall.sdk.dockerfile.text import Text

SCRATCH = "scratch"


@dataclass(frozen=True, slots=True)
class Env:
    """ENV: variables of everything after it."""

    line: Line
    variables: dict[str, Text]


@dataclass(frozen=True, slots=True)
class Arg:
    """ARG: a variable of the build. `Run.args` has what it comes to; it needs no step of its own."""

    line: Line
    name: str
    value: str | None
    """None where neither the file nor the build gives one."""


@dataclass(frozen=True, slots=True)
class RunMount:
    """RUN --mount: what the command sees besides the image."""

    kind: str
    """bind, cache, tmpfs or secret."""
    target: Text
    """Empty for a secret without one: it is at `/run/secrets/ID`."""
    source: str = ""
    """bind: a path in the context, stage or image; empty for all of it."""
    from_stage: int | None = None
    from_image: str = ""
    """bind: where from, when not from the context."""
    id: str = ""
    """cache, secret: its name; empty for that of the target."""
    env: str = ""
    """secret: the variable that has its value in place of a file."""
    is_required: bool = False
    """secret: the step fails without it."""
    is_writable: bool = False


@dataclass(frozen=True, slots=True)
class Run:
    """RUN: a command of a shell, a program with its arguments, or a script that says by `#!` what runs it."""

    line: Line
    command: str = ""
    """For the shell: that of `shell`, or of the base."""
    arguments: tuple[str, ...] = ()
    script: str = ""
    shell: tuple[str, ...] = ()
    """Of the SHELL before it; empty where the base decides."""
    args: dict[str, str] = field(default_factory=dict)
    """Variables that ARG gives it: of this step alone. ENV of the same name is above them."""
    mounts: tuple[RunMount, ...] = ()
    workdir: str = ""
    """As of `Copy`, for what `mounts` have at relative paths."""


@dataclass(frozen=True, slots=True)
class Inline:
    """A file that is written in the Dockerfile itself."""

    name: str
    content: str


@dataclass(frozen=True, slots=True)
class Copy:
    """COPY and ADD: files of the context, another stage or an image, or of the Dockerfile itself."""

    line: Line
    sources: tuple[str, ...]
    target: Text
    """As written: relative to the directory of WORKDIR unless it begins with a slash."""
    workdir: str = ""
    """That directory, absolute; empty where only the base knows it."""
    from_stage: int | None = None
    from_image: str = ""
    inline: tuple[Inline, ...] = ()
    owner: Text = field(default_factory=Text)
    """`user` or `user:group`, names or numbers; empty for root, or with `--from` for whoever owns the source."""
    mode: int = 0
    """0 leaves the permissions of the files."""
    keeps_parents: bool = False
    """Directories of a source's path are made in the target."""
    excludes: tuple[str, ...] = ()
    is_add: bool = False
    urls: tuple[str, ...] = ()
    """ADD: what is to be fetched."""
    checksum: str = ""
    """ADD: of what is fetched, `sha256:…`."""
    unpacks: bool | None = None
    """ADD: whether archives are unpacked; None: those of the context are, those fetched are not."""

    @property
    def is_from_context(self) -> bool:
        """Whether its sources are files of the user's machine."""
        return self.from_stage is None and not self.from_image


@dataclass(frozen=True, slots=True)
class Workdir:
    """WORKDIR: the directory of everything after it, relative to the one before."""

    line: Line
    path: Text


@dataclass(frozen=True, slots=True)
class User:
    """USER: who runs everything after it."""

    line: Line
    name: Text


@dataclass(frozen=True, slots=True)
class Shell:
    """SHELL: what runs commands that are one line."""

    line: Line
    words: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Entrypoint:
    """ENTRYPOINT, a line of a shell already with the shell."""

    line: Line
    words: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Cmd:
    """CMD, a line of a shell already with the shell."""

    line: Line
    words: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class NoEffect:
    """LABEL, EXPOSE, VOLUME, STOPSIGNAL, HEALTHCHECK, ONBUILD or MAINTAINER: no part of what a container is here."""

    line: Line
    keyword: str
    written: str


Instruction = Env | Arg | Run | Copy | Workdir | User | Shell | Entrypoint | Cmd | NoEffect


@dataclass(frozen=True, slots=True)
class Stage:
    """FROM, and what follows up to the next."""

    line: Line
    index: int
    name: str
    """In lower case; empty where it has none."""
    base: str
    """The name of an image, or `scratch`; empty on top of another stage, or of the image so far."""
    base_stage: int | None
    platform: str
    """As `linux/amd64`; empty where none is asked for."""
    instructions: tuple[Instruction, ...]

    @property
    def is_scratch(self) -> bool:
        """Whether it begins without a file."""
        return self.base == SCRATCH

    def needs(self) -> tuple[int, ...]:
        """The stages that it is made from."""
        return tuple(dict.fromkeys(index for index, _ in self._needs()))

    def line_of(self, needed: int) -> Line:
        """Where it first says that it is made from a stage."""
        return next(line for index, line in self._needs() if index == needed)

    def _needs(self) -> Iterator[tuple[int, Line]]:
        if self.base_stage is not None:
            yield self.base_stage, self.line
        for one in self.instructions:
            if isinstance(one, Copy) and one.from_stage is not None:
                yield one.from_stage, one.line
            if isinstance(one, Run):
                yield from ((mount.from_stage, one.line) for mount in one.mounts if mount.from_stage is not None)


@dataclass(frozen=True, slots=True)
class Dockerfile:
    """All of it; the last stage is the image."""

    name: str
    stages: tuple[Stage, ...]
    unused_args: tuple[str, ...] = ()
    """Of the arguments given, those that no ARG asks for: probably misspelt."""

    @property
    def image(self) -> Stage:
        """The stage that is wanted."""
        return self.stages[-1]

    def order(self) -> tuple[Stage, ...]:
        """The stages that the image needs, each after those it is made from; others need not be built.

        Raises:
            DockerfileError: stages that are made from one another.
        """
        done: dict[int, Stage] = {}
        path: dict[int, None] = {}
        waiting = [self.image.index]
        while waiting:
            index = waiting[-1]
            stage = self.stages[index]
            path[index] = None
            missing = [one for one in stage.needs() if one not in done]
            for one in missing:
                if one in path:
                    what = "itself" if one == index else f"{self._called(one)}, which needs it"
                    raise stage.line_of(one).error(f"stage {self._called(index)} is made from {what}")
            if missing:
                waiting.append(missing[0])
                continue
            done.setdefault(index, stage)
            path.pop(index, None)
            waiting.pop()
        return tuple(done.values())

    def _called(self, index: int) -> str:
        return self.stages[index].name or f"number {index}"
