"""`python -m squall.agent.image.layer.copy_files PLAN`: a layer of files that are laid over stacked layers.

Neither container nor shell is needed, so it works on an image without a file, and from one. What is copied and what it
is copied over come out of builds and are not to be trusted: paths are resolved among the layers (`merged.py`), links
stay inside, and below the new layer's directory nothing is ever followed. A program of its own, because reading much
takes a while, and what a strange layer can use up is then limited.
"""

from __future__ import annotations

import contextlib
import fnmatch
import json
import os
import posixpath
import stat
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from typing import Any

from squall.agent.image.layer.merged import Merged, Place
from squall.agent.image.layer.view import DirectoryView, LayerView, layer_view
from squall.erofs.errors import BadImage

_PATTERN = frozenset("*?[")


class CopyFailed(Exception):
    """Files cannot be copied; the message says which and why."""


@dataclass(frozen=True, slots=True)
class CopyPlan:
    """What to copy where."""

    tree: str
    """An empty directory that becomes the layer."""
    below: tuple[str, ...]
    """The layers that the new one is laid over, bottom first."""
    path: str
    """What one source becomes, or the directory that sources go into; absolute. It is made if missing."""
    layers: tuple[str, ...] = ()
    """Where the sources are, bottom first."""
    sources: tuple[str, ...] = ("/",)
    """Paths or patterns there. A directory stands for what is in it."""
    is_directory: bool = True
    owner: tuple[int, int] | None = None
    """None keeps what the sources have."""
    mode: int = 0
    """Of files, and of directories with the right to enter; 0 keeps what the sources have."""
    links: Mapping[str, str] = field(default_factory=dict)
    """Symbolic links to make below `path`, and what they lead to."""
    directories: tuple[str, ...] = ()
    """To make below `path` where they are missing."""

    def written(self) -> str:
        """The plan as the program reads it."""
        return json.dumps(asdict(self))


def parse_plan(written: str) -> CopyPlan:
    """The plan that was written."""
    found: dict[str, Any] = json.loads(written)
    for name, value in found.items():
        found[name] = tuple(value) if isinstance(value, list) else value
    return CopyPlan(**found)


def main(arguments: Sequence[str]) -> int:
    """Copy; 1 with the reason when it cannot be done."""
    os.umask(0)
    try:
        with open(arguments[0]) as file:
            plan = parse_plan(file.read())
        copy_files(plan)
    except (CopyFailed, BadImage) as error:
        print(error)
    except OSError as error:
        print(f"{error.filename or 'layer'}: {error.strerror or error}")
    else:
        return 0
    return 1


def copy_files(plan: CopyPlan) -> None:
    """Fill the directory of the new layer.

    Raises:
        CopyFailed: a source is missing, or something else is where it is to go.
    """
    with ExitStack() as stack:
        below = [stack.enter_context(layer_view(path)) for path in plan.below]
        source = Merged([stack.enter_context(layer_view(path)) for path in plan.layers])
        _Copying(plan, source, below).run()


class _Copying:
    def __init__(self, plan: CopyPlan, source: Merged, below: Sequence[LayerView]) -> None:
        self._plan = plan
        self._source = source
        self._below = Merged(below)
        self._target = Merged([*below, DirectoryView(plan.tree)])
        self._times: dict[str, int] = {}
        self._links: dict[tuple[int, int], str] = {}
        self._parents: dict[str, tuple[str, Place]] = {}

    def run(self) -> None:
        root = self._below.find("/")
        if root is not None and root.parts:
            self._take_over(self._plan.tree, self._below, root)
        sources = self._plan.sources if self._plan.layers else ()
        found = [place for pattern in sources for place in self._matching(pattern)]
        is_into = self._plan.is_directory or len(found) > 1
        if not found or is_into or found[0].is_directory:
            self._directory(self._plan.path, self._plan.owner)
        for place in found:
            if place.is_directory:
                self._copy_content(place, self._plan.path)
            else:
                into = is_into or self._is_directory(self._plan.path)
                self._copy(place, posixpath.join(self._plan.path, place.names[-1]) if into else self._plan.path)
        for path in self._plan.directories:
            self._directory(posixpath.join(self._plan.path, path), self._plan.owner)
        for path, leads_to in self._plan.links.items():
            self._link(posixpath.join(self._plan.path, path), leads_to)
        for path, time_ns in reversed(self._times.items()):
            os.utime(path, ns=(time_ns, time_ns), follow_symlinks=False)

    def _matching(self, pattern: str) -> Iterator[Place]:
        """The places that a path or pattern names.

        Raises:
            CopyFailed: there is none.
        """
        places = [self._source.find("/")]
        for name in [name for name in posixpath.normpath(f"/{pattern}").split("/") if name]:
            if _PATTERN & set(name):
                inner = [entry for place in places if place for entry in self._entries(place)]
                names = [self._at(entry) for entry in inner if fnmatch.fnmatchcase(entry.names[-1], name)]
            else:
                names = [f"{self._at(place)}/{name}" for place in places if place]
            places = [self._source.find(path) for path in names]
        found = [place for place in places if place is not None]
        if not found:
            raise CopyFailed(f"cannot copy {pattern}: no such file in the image it is to come from")
        yield from found

    def _entries(self, place: Place) -> Iterator[Place]:
        return self._source.entries(place) if place.is_directory else iter(())

    def _at(self, place: Place) -> str:
        return "/" + "/".join(place.names)

    def _is_directory(self, path: str) -> bool:
        place = self._target.find(path)
        return place is not None and place.is_directory

    def _copy_content(self, place: Place, path: str) -> None:
        for entry in self._source.entries(place):
            self._copy(entry, posixpath.join(path, entry.names[-1]))

    def _copy(self, place: Place, path: str) -> None:
        if place.is_directory:
            made = self._directory(path, None)
            if made:
                self._give(made, place)
                self._times[made] = place.found.mtime_ns
            self._copy_content(place, path)
            return
        host = self._host(path, "a file")
        if self._links.get((place.parts[0].depth, place.found.node)) == host:
            return  # by another name of a link to it
        self._clear(host)
        self._make(place, host)

    def _link(self, path: str, leads_to: str) -> None:
        host = self._host(path, "a link")
        self._clear(host)
        os.symlink(leads_to, host)
        if self._plan.owner:
            os.chown(host, *self._plan.owner, follow_symlinks=False)

    def _host(self, path: str, what: str) -> str:
        """Where something that is no directory is to be made, in the new layer.

        Raises:
            CopyFailed: a directory is there.
        """
        directory, name = posixpath.split(path)
        parent, below = self._parent(directory)
        host = f"{parent}/{name}"
        is_again = os.path.lexists(host)
        before = self._below.entry(below, name) if not is_again and below.parts else None
        if stat.S_ISDIR(os.lstat(host).st_mode) if is_again else before is not None and before.is_directory:
            raise CopyFailed(f"cannot copy {what} to {path}: that is a directory")
        return host

    def _clear(self, host: str) -> None:
        if os.path.lexists(host):
            os.unlink(host)

    def _parent(self, path: str) -> tuple[str, Place]:
        """A directory that files go into: where it is in the new layer, and what the layers below have of it.

        Kept, because finding a path goes through every layer at each of its names. It stays right: nothing that is
        copied takes the place of a directory.
        """
        if path not in self._parents:
            host = self._directory(path, self._plan.owner) or self._in_tree(path)
            place, _ = self._target.resolve(path)
            parts = tuple(part for part in place.parts if part.depth < len(self._plan.below))
            self._parents[path] = host, Place(place.names, parts)
        return self._parents[path]

    def _make(self, place: Place, host: str) -> None:
        found = place.found
        key = (place.parts[0].depth, found.node)
        if key in self._links:
            os.link(self._links[key], host, follow_symlinks=False)
            return
        if stat.S_ISREG(found.mode):
            with open(host, "xb", buffering=0) as file:
                for offset, piece in self._source.content(place):
                    file.seek(offset)
                    while piece:
                        piece = piece[file.write(piece) :]
                file.truncate(found.size)
        elif stat.S_ISLNK(found.mode):
            os.symlink(self._source.target(place), host)
        elif stat.S_ISFIFO(found.mode):
            os.mkfifo(host)
        else:
            return  # a socket is nothing without its server
        self._links[key] = host
        self._give(host, place)
        os.utime(host, ns=(found.mtime_ns, found.mtime_ns), follow_symlinks=False)

    def _give(self, host: str, place: Place) -> None:
        """Owner, permissions and attributes of something copied."""
        found, plan = place.found, self._plan
        uid, gid = plan.owner or (found.uid, found.gid)
        os.chown(host, uid, gid, follow_symlinks=False)
        mode = stat.S_IMODE(found.mode)
        if plan.mode:
            # A directory nobody can enter is of no use.
            mode = plan.mode | ((plan.mode & 0o444) >> 2 if place.is_directory else 0)
        if not stat.S_ISLNK(found.mode):
            os.chmod(host, mode)
        for name, value in self._source.xattrs(place).items():
            os.setxattr(host, name, value, follow_symlinks=False)

    def _directory(self, path: str, owner: tuple[int, int] | None) -> str:
        """Have a directory; where it is in the new layer if it is new to the image, else an empty text.

        Raises:
            CopyFailed: something else is there.
        """
        place, missing = self._target.resolve(path)
        if not place.is_directory:
            raise CopyFailed(f"cannot make the directory {path}: {self._at(place)} is none")
        if ".." in missing:
            raise CopyFailed(f"cannot make the directory {path}: it goes up from one that is not there")
        if missing and (place_of_link := self._target.find(path, follows=False)) is not None:
            raise CopyFailed(f"cannot make the directory {path}: {self._at(place_of_link)} is a link to nothing")
        host = self._in_tree(path)
        for name in missing:
            host = f"{host}/{name}"
            os.mkdir(host, 0o755)
            if owner:
                os.chown(host, *owner)
        return host if missing else ""

    def _in_tree(self, path: str) -> str:
        """Where the directory that a path leads to is in the new layer, made there like the one below."""
        place, _ = self._target.resolve(path)
        host = self._plan.tree
        for count in range(1, len(place.names) + 1):
            host = f"{host}/{place.names[count - 1]}"
            if not os.path.lexists(host):
                below = self._target.find("/" + "/".join(place.names[:count]), follows=False)
                os.mkdir(host)
                if below is not None:
                    self._take_over(host, self._target, below)
        return host

    def _take_over(self, host: str, tree: Merged, place: Place) -> None:
        """Let a directory of the new layer look like the one it covers."""
        os.chown(host, place.found.uid, place.found.gid)
        os.chmod(host, stat.S_IMODE(place.found.mode))
        for name, value in tree.xattrs(place).items():
            with contextlib.suppress(FileNotFoundError):
                os.setxattr(host, name, value)
        self._times[host] = place.found.mtime_ns


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
