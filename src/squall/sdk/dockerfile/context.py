"""The files of this machine that COPY and ADD name, and where in the image they go.

What is found is more than a mount can carry: links stay links, and directories without a file are named. Whoever makes
layers of it decides what becomes of them.
"""

from __future__ import annotations

import os
import posixpath
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from squall.exception import InvalidError
from squall.sdk._mount import Content, LocalFile
from squall.sdk._shipped import took_directory, took_file
from squall.sdk.dockerfile.archive import is_archive
from squall.sdk.dockerfile.copy import ends_as_directory
from squall.sdk.dockerfile.error import DockerfileError, Line, shown
from squall.sdk.dockerfile.pattern import Pattern, has_wildcard, name_pattern
from squall.sdk.dockerfile.records import Copy, Run, RunMount
from squall.sdk.dockerfile.stage import absolute
from squall.sdk.dockerfile.text import Text, text
from squall.sdk.dockerfile.tree import Ignore, Tree, inside
from squall.sdk.file_pattern_matcher import FilePatternMatcher, IgnoreArgument, as_predicate, can_prune


class Link(NamedTuple):
    """A symbolic link of the context."""

    path: str
    """In the image, below the directory."""
    leads_to: str
    """As it is written in the link."""


class Fetch(NamedTuple):
    """Something that ADD takes from a URL."""

    url: str
    path: str
    checksum: str
    unpacks: bool


@dataclass(frozen=True, slots=True)
class Found:
    """What one COPY or ADD brings, all paths below one directory of the image."""

    directory: Text
    """Absolute, or relative to the image's working directory."""
    files: tuple[LocalFile, ...] = ()
    contents: tuple[Content, ...] = ()
    links: tuple[Link, ...] = ()
    empty_directories: tuple[str, ...] = ()
    archives: tuple[LocalFile, ...] = ()
    """ADD: to be unpacked in `remote_path`; empty for the directory itself."""
    fetches: tuple[Fetch, ...] = ()
    may_be_directory: bool = False
    """It is one file, and its target is written without a slash: if the image has a directory there, the file goes
    into it, by the name of its source."""


def ignore_of(dockerfile: str, context_dir: str, ignore: IgnoreArgument | None) -> Ignore:
    """What is not in the context: what the program says, or `<Dockerfile>.dockerignore`, or `.dockerignore`.

    Args:
        dockerfile: its path; empty for lines without a file.

    Raises:
        DockerfileError: a file of patterns that cannot be read.
        InvalidError: `ignore` is neither patterns nor a function.
    """
    if ignore is not None:
        return as_predicate(ignore)
    beside = [f"{dockerfile}.dockerignore"] if dockerfile else []
    for path in [*beside, os.path.join(context_dir, ".dockerignore")]:
        if os.path.lexists(path):
            took_file(path)
            matcher = FilePatternMatcher.from_file(path)
            try:
                matcher.can_prune_directories()
            except InvalidError as error:
                raise DockerfileError(f"cannot read the ignore file {shown(path)}: {error}") from error
            return matcher
    return FilePatternMatcher()


class Context:
    """A directory of this machine, without what is ignored.

    Args:
        files: paths in the context, and the files of this machine that are to be there.
        follows_links: links that lead to something in the context are taken for it; others stay links.

    Raises:
        DockerfileError: there is no such directory.
    """

    def __init__(
        self, directory: str, ignore: Ignore, files: Mapping[str, str] | None = None, *, follows_links: bool = False
    ) -> None:
        if not os.path.isdir(directory):
            raise DockerfileError(f"context_dir {shown(directory)}: there is no such directory here")
        self._root = os.path.realpath(directory)
        self._ignore = ignore
        self._follows_links = follows_links
        self._given: dict[str, str] = {}
        for name, path in (files or {}).items():
            if not os.path.lexists(path):
                raise DockerfileError(f"context_files {{{name!r}: {path!r}}}: there is no such file here")
            self._given[_relative(name)] = os.path.abspath(path)

    def bind(self, run: Run, mount: RunMount) -> Found:
        """What a bind mount of the context shows.

        Raises:
            DockerfileError: as for `find`.
        """
        return self.find(Copy(run.line, (mount.source or ".",), mount.target, run.workdir))

    def find(self, copy: Copy) -> Found:
        """The files of an instruction that takes them from the context.

        Raises:
            DockerfileError: a source that is missing, ignored or outside, or a name no image can have.
        """
        assert copy.is_from_context
        try:
            return _Finding(self._root, self._ignore, self._given, self._follows_links, copy).run()
        except DockerfileError:
            raise
        except InvalidError as error:
            raise copy.line.error(str(error)) from error
        except OSError as error:
            where = shown(ascii(os.path.relpath(str(error.filename or "."), self._root))[1:-1])
            raise copy.line.error(f"cannot read {where} of the context: {error.strerror}") from error


class _Source(NamedTuple):
    """One thing that a source stands for."""

    path: str
    """In the context; empty for all of it."""
    local_path: str
    is_directory: bool
    kept: str
    """With --parents: the directories that are kept of its path, and for a directory it itself."""


class _Finding:
    """One instruction whose files are looked for."""

    def __init__(self, root: str, ignore: Ignore, given: Mapping[str, str], follows_links: bool, copy: Copy) -> None:
        self._root = root
        self._ignore = ignore
        self._given = given
        self._follows_links = follows_links
        self._copy = copy
        self._excludes = FilePatternMatcher(*copy.excludes)
        self._files: dict[str, str] = {}
        self._links: dict[str, str] = {}
        self._empty: dict[str, None] = {}
        self._archives: list[LocalFile] = []
        self._tree = Tree(root, ignore, copy.line)

    @property
    def _line(self) -> Line:
        return self._copy.line

    def run(self) -> Found:
        copy = self._copy
        sources = [found for source in copy.sources for found in self._sources(source)]
        unpacks = copy.is_add and copy.unpacks is not False
        archives = {one.path for one in sources if unpacks and not one.is_directory and is_archive(one.local_path)}
        count = len(sources) + len(copy.inline) + len(copy.urls)
        is_alone = count == 1 and not archives and not any(one.is_directory for one in sources)
        is_at_workdir = copy.target.is_plain and absolute(copy.workdir, copy.target.plain) == copy.workdir
        if not is_alone or copy.keeps_parents or ends_as_directory(copy.target) or is_at_workdir:
            directory, name = self._place(copy.target), ""
            if count > 1 and not ends_as_directory(copy.target) and not is_at_workdir:
                raise self._line.error(
                    f"the pattern stands for {count} files, which need a directory: end the target with '/'"
                )
        else:
            directory, name = self._split_target()
        for one in sources:
            self._take(one, name, one.path in archives)
        return Found(
            directory,
            tuple(LocalFile(self._files[path], path) for path in sorted(self._files)),
            tuple(Content(one.content.encode(), name or self._tree.checked(one.name)) for one in copy.inline),
            tuple(Link(path, self._links[path]) for path in sorted(self._links)),
            tuple(self._empty),
            tuple(self._archives),
            tuple(Fetch(url, name or self._name_of(url), copy.checksum, copy.unpacks is True) for url in copy.urls),
            bool(name),
        )

    # The target

    def _place(self, target: Text) -> Text:
        """A directory of the image, absolute where that is known."""
        if not target.is_plain:
            return target
        path = target.plain
        if path.startswith("/") or self._copy.workdir:
            return text(absolute(self._copy.workdir, path))
        return text(posixpath.normpath(path))

    def _split_target(self) -> tuple[Text, str]:
        """The directory of a target that is a file, and the file's name."""
        target = self._copy.target
        end = target.parts[-1]
        above, slash, name = end.rpartition("/") if isinstance(end, str) else ("", "", "")
        if not name or (not slash and len(target.parts) > 1):
            raise self._line.error(
                "the name of the target is in a variable that only the image has; write it out, or end it with '/'"
            )
        parts = (*target.parts[:-1], above + slash) if above + slash else target.parts[:-1]
        return self._place(Text(parts) if parts else text(".")), name

    def _name_of(self, url: str) -> str:
        name = url.partition("#")[0].partition("?")[0].partition("://")[2].partition("/")[2].rpartition("/")[2]
        if not name:
            raise self._line.error("the URL ends without the name of a file; name it in the target")
        return self._tree.checked(name)

    # The sources

    def _sources(self, source: str) -> Iterator[_Source]:
        """What a source stands for.

        Raises:
            DockerfileError: nothing; for a pattern, not even the directory it begins in.
        """
        path = _relative(source)
        if path.split("/")[0] == "..":
            raise self._line.error(f"{shown(source)} is outside the context; give a context_dir= that it is in")
        names = path.split("/") if path else []
        # What is before /./ does not count among the parents that are kept.
        above = _relative(source.partition("/./")[0]) if "/./" in source else ""
        pivot = len(above.split("/")) if above else 0
        fixed = next((index for index, name in enumerate(names) if has_wildcard(name)), None)
        if fixed is None:
            yield self._literal(path, source, pivot)
            return
        patterns = [self._pattern(name, source) for name in names]
        # One `**` after another says no more, and would be tried in every combination.
        wanted = [one for index, one in enumerate(patterns) if index == 0 or one or patterns[index - 1]]
        start = "/".join(names[:fixed])
        found = dict(self._tree.globbed(self._tree.resolved(start, source)[1], wanted[fixed:], start))
        for given in self._given:
            if _is_match(patterns, given.split("/")):
                found[given] = self._given[given]
        for one in sorted(found):
            self._tree.checked(one)
            if one in self._given or not self._tree.is_ignored(self._tree.path_of(found[one]), found[one]):
                yield self._source(one, found[one], pivot)

    def _literal(self, path: str, source: str, pivot: int) -> _Source:
        if path in self._given:
            return self._source(path, self._given[path], pivot)
        has_given = any(name.startswith(f"{path}/") for name in self._given)
        if has_given and not os.path.lexists(os.path.join(self._root, path)):
            return _Source(path, "", True, self._kept(path, True, pivot))
        real, local = self._tree.resolved(path, source)
        if path and any(self._tree.is_ignored(one, local) for one in (path, real)):
            raise self._tree.left_out(source)
        return self._source(path, local, pivot)

    def _source(self, path: str, local: str, pivot: int) -> _Source:
        is_directory = os.path.isdir(local)
        if not is_directory and not os.path.isfile(local):
            raise self._line.error(f"{shown(path)} is neither a file nor a directory")
        return _Source(path, local, is_directory, self._kept(path, is_directory, pivot))

    def _kept(self, path: str, is_directory: bool, pivot: int) -> str:
        if not self._copy.keeps_parents:
            return ""
        names = path.split("/")[pivot:]
        return "/".join(names if is_directory else names[:-1])

    def _pattern(self, name: str, source: str) -> Pattern | None:
        """None for `**`."""
        try:
            return None if name == "**" else name_pattern(name)
        except ValueError as error:
            raise self._line.error(f"the pattern {shown(source)}: {error}") from error

    # What is taken

    def _take(self, source: _Source, name: str, is_unpacked: bool) -> None:
        kept = source.kept
        if source.is_directory:
            self._take_directory(source)
            return
        base_name = posixpath.basename(source.path)
        if self._excludes(Path(base_name)):
            return
        if is_unpacked:
            self._archives.append(LocalFile(source.local_path, kept))
        else:
            self._keep(inside(kept, name or base_name), source.local_path)

    def _take_directory(self, source: _Source) -> None:
        before = self._taken
        if source.local_path:
            self._walk_from(source.local_path, source.path, source.kept)
        for given, local in self._given.items():
            if not source.path or given.startswith(f"{source.path}/"):
                target = inside(source.kept, given[len(source.path) :].lstrip("/"))
                if os.path.isdir(local):
                    self._walk_from(local, given, target)
                else:
                    self._keep(target, local)
        if self._taken == before and source.path and self._ignore(Path(source.path)):
            raise self._tree.left_out(source.path)

    def _walk_from(self, local: str, path: str, target: str) -> None:
        # Patterns are about where files are, not about links to them; what was given has the place it was given.
        real = self._tree.path_of(local)
        self._walk(
            local, path if real.split("/")[0] == ".." else real, "", target, frozenset({os.path.realpath(local)})
        )

    @property
    def _taken(self) -> int:
        return len(self._files) + len(self._links) + len(self._empty)

    def _keep(self, path: str, local: str) -> None:
        self._files[self._tree.checked(path)] = local
        self._links.pop(path, None)

    def _walk(self, local: str, path: str, below: str, target: str, above: frozenset[str]) -> None:
        """All of a directory; `below` is the path from the source on."""
        is_empty = True
        took_directory(local)
        for entry in self._tree.entries(local, path):
            inner, here = inside(path, entry.name), inside(below, entry.name)
            self._tree.checked(inner)
            is_out = self._excludes(Path(here)) or self._ignore(Path(inner))
            is_directory = entry.is_dir(follow_symlinks=False)
            if is_out and (not is_directory or (can_prune(self._ignore) and self._excludes.can_prune_directories())):
                continue
            if entry.is_symlink():
                self._take_link(entry.path, inner, here, inside(target, entry.name), above)
            elif is_directory:
                before = self._taken
                self._walk(entry.path, inner, here, inside(target, entry.name), above)
                if is_out:
                    self._empty.pop(inside(target, entry.name), None)
                is_out = is_out and before == self._taken
            elif entry.is_file(follow_symlinks=False):
                self._keep(inside(target, entry.name), entry.path)
            else:
                # A socket or a pipe is nothing without its process; Docker's client sends none either.
                continue
            is_empty = is_empty and is_out
        if is_empty and target:
            self._empty[target] = None

    def _take_link(self, local: str, path: str, below: str, target: str, above: frozenset[str]) -> None:
        leads_to = os.readlink(local)
        self._tree.checked(leads_to)
        if self._follows_links:
            try:
                real, found = self._tree.resolved(path, path)
            except DockerfileError:
                real, found = "", ""
            if found and not self._tree.is_ignored(real, found):
                if os.path.isdir(found):
                    if any(f"{one}/".startswith(f"{found}/") for one in above):
                        raise self._line.error(
                            f"{shown(path)} is a link to a directory it is in: there is no end to it"
                        )
                    self._walk(found, real, below, target, above | {found})
                    return
                if os.path.isfile(found):
                    self._keep(target, found)
                    return
        self._links[target] = leads_to


def _relative(path: str) -> str:
    """A path of the context, from its root on; one that begins with `..` is outside."""
    found = posixpath.normpath(path.lstrip("/"))
    return "" if found == "." else found


def _is_match(patterns: list[Pattern | None], names: list[str]) -> bool:
    """Whether patterns, one a name and None for any number of them, match a path."""
    ends = {0}
    for pattern in patterns:
        if pattern is None:
            ends = set(range(min(ends), len(names) + 1)) if ends else ends
        else:
            ends = {end + 1 for end in ends if end < len(names) and pattern.matches(names[end])}
    return len(names) in ends
