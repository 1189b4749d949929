"""Which variables an instruction can name: those of ENV, of ARG, of the build, and those that only the image has."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from squall.sdk.dockerfile.expansion import ExpansionProblem, Unknown
from squall.sdk.dockerfile.text import Part, Text, joined, text

WORK_MAX = 8 * 1024 * 1024
"""Characters that reading one file may work on: variables that hold one another grow fast."""

PROXIES = tuple(
    name
    for proxy in ("HTTP_PROXY", "HTTPS_PROXY", "FTP_PROXY", "NO_PROXY", "ALL_PROXY")
    for name in (proxy, proxy.lower())
)
"""Arguments that need no ARG."""
OF_BUILDER = ("SOURCE_DATE_EPOCH", "BUILDKIT_")
"""Beginnings of arguments that tell Docker's builder something, and this one nothing."""
_UNKNOWN = Unknown()


class Work:
    """What reading a file has cost so far."""

    def __init__(self) -> None:
        self._chars = 0

    def spend(self, chars: int) -> None:
        """Count characters.

        Raises:
            ExpansionProblem: it is more than any real file needs.
        """
        self._chars += chars
        if self._chars > WORK_MAX:
            raise ExpansionProblem("the variables of the file grow too large")


def platform_args(platform: str) -> dict[str, str]:
    """The arguments that every build has; image and builder are of one platform here."""
    system, _, rest = platform.partition("/")
    architecture, _, variant = rest.partition("/")
    parts = {"PLATFORM": platform, "OS": system, "ARCH": architecture, "VARIANT": variant}
    found = {f"{side}{name}": value for side in ("TARGET", "BUILD") for name, value in parts.items()}
    return {**found, "TARGETSTAGE": "default"}


@dataclass(slots=True)
class Scope:
    """The variables of one stage, or of the lines before the first."""

    is_closed: bool
    """No image below has variables of its own."""
    env: dict[str, Text] = field(default_factory=dict)
    args: dict[str, str] = field(default_factory=dict)
    unset: set[str] = field(default_factory=set)
    """Arguments without a value."""
    _run_args: dict[str, str] | None = None

    def lookup(self, name: str) -> Text | Unknown | None:
        """The value of a variable, as `Expansion` asks for it; ENV is above ARG."""
        found = self.env.get(name)
        if found is not None:
            # A value that names variables of the image is one itself by now, and theirs may change.
            return found if found.is_plain else _UNKNOWN
        if name in self.args:
            return text(self.args[name])
        # Even an image without a file has a PATH, or rather what runs in it does.
        return None if self.is_closed and name != "PATH" else _UNKNOWN

    def set_env(self, variables: Mapping[str, Text]) -> None:
        """What ENV does."""
        self.env.update(variables)
        self.unset -= variables.keys()
        self._run_args = None

    def set_arg(self, name: str, value: str | None) -> None:
        """What ARG does."""
        if value is None:
            self.unset |= {name} - self.args.keys()
            return
        self.args[name] = value
        self.unset.discard(name)
        self._run_args = None

    def run_args(self, build_args: Mapping[str, str], work: Work) -> dict[str, str]:
        """The variables a RUN line gets besides those of ENV; one object until something changes."""
        if self._run_args is None:
            given = {name: build_args[name] for name in PROXIES if name in build_args}
            found = {name: value for name, value in {**given, **self.args}.items() if name not in self.env}
            work.spend(sum(len(name) + len(value) + 64 for name, value in found.items()))
            self._run_args = found
        return self._run_args

    def inherited(self, work: Work) -> Scope:
        """For a stage on top of this one."""
        work.spend(64 * (len(self.env) + len(self.args)))
        return Scope(self.is_closed, dict(self.env), dict(self.args), set(self.unset))


def of_file_alone(found: Text, problem: Callable[[str], str]) -> str:
    """A text in which variables that the file does not set are not set at all: with a default they have that.

    Raises:
        ExpansionProblem: one without a default; `problem` says of a name what is wrong with that.
    """
    parts: list[Part] = []
    for part in found.parts:
        if isinstance(part, str):
            parts.append(part)
        elif not part.kind:
            raise ExpansionProblem(problem(part.name))
        elif part.kind.endswith("-"):
            parts.append(of_file_alone(Text(part.word), problem))
    return joined(parts).plain
