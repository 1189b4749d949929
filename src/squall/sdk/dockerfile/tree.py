"""The tree of a context: where paths lead, what is in its directories, and what is left out of it."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

from squall.sdk._mount import FILES_MAX
from squall.sdk.dockerfile.error import DockerfileError, Line, shown
from squall.sdk.dockerfile.pattern import Pattern
from squall.sdk.file_pattern_matcher import can_prune

DEPTH_MAX = 200
LINKS_MAX = 40
"""On the way to one file, as with Linux."""

Ignore = Callable[[Path], bool]


class Tree:
    """A context as one instruction looks at it; errors name its line."""

    def __init__(self, root: str, ignore: Ignore, line: Line) -> None:
        self._root = root
        self._ignore = ignore
        self._line = line
        self._count = 0

    def path_of(self, local: str) -> str:
        """The path in the context of something in it; empty for all of it."""
        found = os.path.relpath(local, self._root)
        return "" if found == "." else found

    def is_ignored(self, path: str, local: str) -> bool:
        """A directory is not, when something in it may be taken back."""
        return bool(path) and self._ignore(Path(path)) and (can_prune(self._ignore) or not os.path.isdir(local))

    def resolved(self, path: str, source: str) -> tuple[str, str]:
        """The place a path leads to, in the context and on this machine; a link's absolute target is in the context.

        Raises:
            DockerfileError: nothing is there, or it leads out of the context or round in circles.
        """
        waiting = path.split("/")[::-1] if path else []
        done: list[str] = []
        links = 0
        while waiting:
            name = waiting.pop()
            if name in ("", "."):
                continue
            if name == "..":
                if not done:
                    raise self._line.error(f"{shown(source)} is a link that leads out of the context")
                done.pop()
                continue
            local = os.path.join(self._root, *done, name)
            if os.path.islink(local):
                links += 1
                if links > LINKS_MAX:
                    raise self._line.error(f"{shown(source)} is a link that leads in circles")
                target = os.readlink(local)
                done = [] if target.startswith("/") else done
                waiting += target.split("/")[::-1]
                continue
            if not os.path.lexists(local):
                is_link = " is a link to what" if links else ""
                raise self._line.error(f"{shown(source)}{is_link} is not in the context {shown(self._root)}")
            done.append(name)
        return "/".join(done), os.path.join(self._root, *done)

    def globbed(self, local: str, patterns: list[Pattern | None], path: str) -> Iterator[tuple[str, str]]:
        """Paths below a directory that match, and where they lead; `**` does not follow links."""
        if not os.path.isdir(local):
            return
        first, rest = patterns[0], patterns[1:]
        if first is None and rest:
            yield from self.globbed(local, rest, path)
        for entry in self.entries(local, path):
            inner = inside(path, entry.name)
            if self.is_ignored(inner, entry.path):
                continue
            if first is None and not rest:
                yield inner, entry.path
            elif first is None:
                if entry.is_dir(follow_symlinks=False):
                    yield from self.globbed(entry.path, patterns, inner)
            elif first.matches(entry.name):
                _, real = self.resolved(inner, inner)
                if rest:
                    yield from self.globbed(real, rest, inner)
                else:
                    yield inner, real

    def entries(self, local: str, path: str) -> list[os.DirEntry[str]]:
        if path.count("/") >= DEPTH_MAX:
            raise self._line.error(f"{shown(path)} is more than {DEPTH_MAX} directories deep; leave it out")
        with os.scandir(local) as found:
            entries = sorted(found, key=lambda entry: entry.name)
        self._count += len(entries)
        if self._count > FILES_MAX:
            raise self._line.error(f"the context has more than {FILES_MAX} files; leave some out by .dockerignore")
        return entries

    def left_out(self, path: str) -> DockerfileError:
        return self._line.error(f"{shown(path)} is left out of the context by ignore= or a .dockerignore file")

    def checked(self, name: str) -> str:
        try:
            name.encode()
        except UnicodeEncodeError:
            raise self._line.error(f"the name {shown(ascii(name))} is not UTF-8; rename it, or leave it out") from None
        return name


def inside(above: str, name: str) -> str:
    """A path one name longer."""
    return f"{above}/{name}" if above else name
