"""The layers of a node, addressed by what they were built from and what they stand on.

    <data>/layers/<layer id>/layer.erofs     the files as one image, owned by ids 0..65535 as seen inside a container
    <data>/layers/<layer id>/fs              the same as a directory, where the kernel mounts no images
    <data>/layers/<layer id>/manifest.json   what it is
    <data>/layers/.keys/<slot>               the id of the layer that serves a key, on certain layers, now
    <data>/layers/.scratch/<name>            something in the making, locked by the process that makes it
    <data>/layers/.locks/<build key>         held while somebody builds this key
    <data>/layers/.incoming/<layer id>       a layer that comes from a store, of which some parts are here

A layer is complete or not there: it is made in a scratch directory, written out to the disk and renamed into place.
What a killed process leaves is a scratch directory nobody locks, which `sweep` removes. Nothing is ever changed in
place, and no id is given twice: a forced rebuild makes another layer and moves the key to it, so containers on the old
one are not disturbed. What was built on the old one is not taken for the new: a step has a layer for each set of layers
that it was built on. See docs/decisions/0039.

The directory is closed to everyone but root: layers hold set-user-id programs owned by the machine's id 0.
"""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import hashlib
import json
import os
import re
import secrets
import subprocess
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

from squall.agent.disk import space_of
from squall.agent.image.layer.lent import bring_in
from squall.agent.image.layer.lock import is_at, try_lock
from squall.agent.image.layer.scratch import Scratch, fresh_scratch, sweep_scratch
from squall.agent.image.machine.own_program import own_environ, own_program
from squall.agent.spread import spread_apart
from squall.erofs.errors import BadImage
from squall.erofs.unpack import unpack
from squall.runtime.removal import mounts_below

_KEY = re.compile(r"^[0-9a-f]{64}\Z")
_LAYER_ID = re.compile(r"^ly-[0-9a-f]{32}\Z")
_LOCK_WAIT_S = 3_600.0
_LOCK_POLL_S = 0.05
_SAID_BYTES_MAX = 2**20
IMAGE_NAME = "layer.erofs"
"""The file of a packed layer."""
_IMAGE, _DIRECTORY = IMAGE_NAME, "fs"
_PACK_TIMEOUT_S = 3_600.0


class LayerError(Exception):
    """The layer store cannot do what was asked; the message says what to do."""


@dataclass(frozen=True, slots=True)
class Layer:
    """A complete layer."""

    layer_id: str
    key: str
    path: str
    """The image or the directory with its files."""
    size_bytes: int
    facts: Mapping[str, str] = field(default_factory=dict)
    """What the builder wants to know again, such as where a base has its Python."""
    below: str = ""
    """What it was built on, as `stands_on` says it; also empty where that is not known."""


class LayerStore:
    """Finds, adds and removes layers below a data directory. Several processes may use one directory at a time."""

    def __init__(self, data_dir: Path, *, is_packed: bool = False) -> None:
        """Layers are kept as images when `is_packed`, else as directories; both are read."""
        self.data_dir = data_dir.absolute()
        self._is_packed = is_packed
        self._root = self.data_dir / "layers"
        self._scratch_dir = self._root / ".scratch"
        self.incoming_dir = self._root / ".incoming"
        for path in (
            self._root,
            self._root / ".keys",
            self._scratch_dir,
            self._root / ".locks",
            self.incoming_dir,
        ):
            path.mkdir(mode=0o700, parents=True, exist_ok=True)
        spread_apart(self._scratch_dir)

    def find(self, key: str, below: str = "") -> Layer | None:
        """The layer that serves a build key on what is below, or None."""
        try:
            return self._read((self._root / ".keys" / _slot(key, below)).read_text().strip())
        except FileNotFoundError:
            return None

    def look(self, layer_id: str) -> Layer | None:
        """A layer by its id, or None."""
        return self._read(layer_id)

    def get(self, layer_id: str) -> Layer:
        """A layer by its id.

        Raises:
            LayerError: it is not here.
        """
        layer = self._read(layer_id)
        if layer is None:
            raise LayerError(f"cannot use layer {layer_id}: it is not on this node; build its image again")
        return layer

    def list(self) -> tuple[Layer, ...]:
        """Every complete layer, as it is: to be read, it may have to be unpacked first, as `look` and `get` do."""
        names = sorted(name for name in os.listdir(self._root) if _LAYER_ID.match(name))
        layers = (self._read(name, is_to_be_read=False) for name in names)
        return tuple(layer for layer in layers if layer is not None)

    @contextlib.contextmanager
    def locked(
        self,
        key: str,
        wait_s: float = _LOCK_WAIT_S,
        is_cancelled: Callable[[], bool] = lambda: False,
        on_line: Callable[[str], None] = lambda line: None,
    ) -> Iterator[Callable[[str], None]]:
        """Keep every other process from building this key. Gives what to say lines with.

        Args:
            on_line: told the lines of this process, and while it waits those of the one that builds.

        Raises:
            LayerError: another one holds it for longer than `wait_s`, or the wait is cancelled.
        """
        # The file stays: removing it would let two processes hold locks on two files of one name.
        descriptor = os.open(self._root / ".locks" / _checked(_KEY, key), os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
        try:
            deadline = time.monotonic() + wait_s
            theirs = _Said(descriptor)
            while not try_lock(descriptor):
                if is_cancelled() or time.monotonic() > deadline:
                    raise LayerError(f"cannot build {key[:12]}: another process has been at it for {wait_s:.0f} s")
                for line in theirs.new_lines():
                    on_line(line)
                time.sleep(_LOCK_POLL_S)
            os.truncate(descriptor, 0)
            said = _Said(descriptor)

            def say(line: str) -> None:
                said.add(line)
                on_line(line)

            yield say
        finally:
            os.close(descriptor)

    def scratch(self) -> contextlib.AbstractContextManager[Scratch]:
        """A fresh directory to build in, removed at the end with what is left in it."""
        return fresh_scratch(self._scratch_dir)

    def commit(
        self,
        scratch: Scratch,
        tree: Path,
        key: str,
        facts: Mapping[str, str],
        *,
        replaces: bool,
        below: str = "",
        lent: Sequence[str] = (),
    ) -> Layer:
        """Make the directory `tree` inside `scratch` the layer of `key` on what is below.

        With `replaces` the key moves to the new layer; without, a layer that got there first is kept and returned.

        Args:
            lent: a prefix and folders: links that begin with it become the files of the folders; see `Lent`.
        """
        if not replaces and (present := self.find(key, below)):
            return present
        made = scratch.path / "layer"
        made.mkdir(mode=0o700)
        if self._is_packed:
            # On the disk when this returns.
            size_bytes = _pack([str(tree)], made / _IMAGE, scratch.lock_fd, lent)
        else:
            if lent:
                bring_in(tree, lent[0], lent[1:])
            os.rename(tree, made / _DIRECTORY)
            size_bytes = tree_size_bytes(made / _DIRECTORY)
            _sync_file_system(made)
        return self._add(made, key, size_bytes, facts, below)

    def merge(self, layers: Sequence[Layer], key: str) -> Layer:
        """The layer of `key` that stands for several, bottom first; made if it is not there.

        Raises:
            LayerError: one of them is damaged, or the disk is full.
        """
        with self.locked(key), self.scratch() as scratch:
            if present := self.find(key):
                return present
            merged = scratch.path / _IMAGE
            size_bytes = _pack([layer.path for layer in layers], merged, scratch.lock_fd)
            if not self._is_packed:
                tree = scratch.path / "tree"
                tree.mkdir(mode=0o755)
                unpack(merged, str(tree))
                return self.commit(scratch, tree, key, {}, replaces=False)
            made = scratch.path / "layer"
            made.mkdir(mode=0o700)
            os.rename(merged, made / _IMAGE)
            return self._add(made, key, size_bytes, {}, "")

    def _add(self, made: Path, key: str, size_bytes: int, facts: Mapping[str, str], below: str) -> Layer:
        """Put a layer whose files are written out under a name of its own."""
        # Not of the key: what was made of a removed layer, here or in a store, must not be taken for this one's.
        layer_id = f"ly-{secrets.token_hex(16)}"
        layer = Layer(layer_id, key, self._path(layer_id, made), size_bytes, dict(facts), below)
        (made / "manifest.json").write_text(json.dumps(asdict(layer), sort_keys=True))
        _sync(made / "manifest.json", made)
        os.rename(made, self._root / layer_id)
        _sync(self._root)
        self._point(_slot(key, below), layer_id)
        return layer

    def take_in(self, place: Path, layer_id: str, key: str, facts: Mapping[str, str]) -> Layer:
        """Make a directory below `incoming_dir`, with a whole image in it, the layer of this id.

        The key is not moved to it: a build goes on from what this node has built.
        """
        present = self._read(layer_id)
        if present is not None:
            return present
        image = place / _IMAGE
        _sync(image)
        self._set_aside(layer_id)
        layer = Layer(layer_id, _checked(_KEY, key), str(image), image.stat().st_size, dict(facts))
        (place / "manifest.json").write_text(json.dumps(asdict(layer), sort_keys=True))
        _sync(place / "manifest.json", place)
        os.rename(place, self._root / _checked(_LAYER_ID, layer_id))
        _sync(self._root)
        return self.get(layer_id)

    def mark_used(self, layer_id: str) -> None:
        """Note that a container or a build has just used a layer."""
        with contextlib.suppress(OSError):  # it is gone, or the disk has no room for the time
            os.utime(self._manifest(layer_id))

    def used_at(self, layer_id: str) -> float:
        """When a layer was last used, in seconds since 1970."""
        return self._manifest(layer_id).stat().st_mtime

    def made_at(self, layer_id: str) -> float:
        """When it came to this node."""
        return (self._root / _checked(_LAYER_ID, layer_id)).stat().st_mtime

    def id_at(self, path: str) -> str | None:
        """The layer whose files are at this path; None for a place that is not of this store."""
        # Texts and no paths: each start of a container asks for each of its layers.
        top, _, name = path.rpartition("/")[0].rpartition("/")
        return name if top == str(self._root) and _LAYER_ID.match(name) else None

    def open_used(self, layer_id: str) -> int | None:
        """A descriptor that keeps the layer from being removed for as long as it is open; None when it is not there.

        The layer counts as used now, if the disk has room for the time.
        """
        manifest = f"{self._root}/{_checked(_LAYER_ID, layer_id)}/manifest.json"
        try:
            descriptor = os.open(manifest, os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            return None
        # Locked for good by whoever removes it, or removed between our opening and locking it.
        if not try_lock(descriptor, fcntl.LOCK_SH) or not is_at(descriptor, manifest):
            os.close(descriptor)
            return None
        with contextlib.suppress(OSError):
            os.utime(descriptor)
        return descriptor

    def remove(self, layer_id: str, used_before: float | None = None) -> bool:
        """Remove a layer; whether it was there, and not used since that time.

        Raises:
            LayerError: something is mounted in it, somebody uses it, or builds what takes its place.
        """
        place = self._root / _checked(_LAYER_ID, layer_id)
        try:
            descriptor = os.open(self._manifest(layer_id), os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            return False
        with contextlib.ExitStack() as stack:
            stack.callback(os.close, descriptor)
            if not try_lock(descriptor):
                raise LayerError(f"cannot remove layer {layer_id}: it is in use")
            # As it is: what cannot be unpacked any more is to go as well.
            layer = self._read(layer_id, is_to_be_read=False)
            # Looked at behind the lock: whoever uses it from now on finds it locked.
            if layer is None or (used_before is not None and self.used_at(layer_id) >= used_before):
                return False
            key_lock = os.open(self._root / ".locks" / layer.key, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
            stack.callback(os.close, key_lock)
            if not try_lock(key_lock):
                raise LayerError(f"cannot remove layer {layer_id}: it is being built anew")
            if mounts := mounts_below(str(place)):
                message = f"cannot remove layer {layer_id}: {mounts[0]} is a mount point; stop what uses it first"
                raise LayerError(message)
            pointer = self._root / ".keys" / _slot(layer.key, layer.below)
            if pointer.exists() and pointer.read_text().strip() == layer_id:
                pointer.unlink()
            # Out of sight first: killed half-way, the rest is scratch and not a layer with files missing.
            scratch = stack.enter_context(self.scratch())
            os.rename(place, scratch.path / "layer")
        return True

    def sweep(self) -> int:
        """Remove what killed processes left in the making; returns how many directories that were."""
        return sweep_scratch(self._scratch_dir)

    def _manifest(self, layer_id: str) -> Path:
        return self._root / _checked(_LAYER_ID, layer_id) / "manifest.json"

    def _set_aside(self, layer_id: str) -> None:
        """Remove what is left of a layer that has lost its files."""
        with self.scratch() as scratch, contextlib.suppress(FileNotFoundError):
            os.rename(self._root / _checked(_LAYER_ID, layer_id), scratch.path / "layer")

    def _read(self, layer_id: str, *, is_to_be_read: bool = True) -> Layer | None:
        """A layer; None without its manifest or its files."""
        try:
            values = json.loads(self._manifest(layer_id).read_text())
        except FileNotFoundError:
            return None
        place = self._root / layer_id
        if not os.path.exists(place / (_IMAGE if self._is_packed else _DIRECTORY)):
            if not os.path.exists(place / (_DIRECTORY if self._is_packed else _IMAGE)):
                return None
            if not self._is_packed and is_to_be_read:
                self._unpack(place)
        # The data directory may have been moved since.
        return Layer(**{**values, "path": self._path(layer_id, place)})

    def _unpack(self, place: Path) -> None:
        """Make a directory of a layer that was packed where the kernel mounts images."""
        with self.scratch() as scratch:
            made = scratch.path / _DIRECTORY
            made.mkdir(mode=0o755)
            try:
                unpack(place / _IMAGE, str(made))
            except BadImage as error:
                raise LayerError(f"cannot use layer {place.name}: {error}; remove {place} and build again") from error
            _sync_file_system(made)
            # Another one may have been quicker.
            with contextlib.suppress(OSError):
                os.rename(made, place / _DIRECTORY)

    def _path(self, layer_id: str, place: Path) -> str:
        """Where a layer is when what is in `place` now is complete."""
        is_image = (place / _IMAGE).exists() and self._is_packed
        return str(self._root / layer_id / (_IMAGE if is_image else _DIRECTORY))

    def _point(self, slot: str, layer_id: str) -> None:
        place = self._root / ".keys" / slot
        new = place.with_name(f".{slot}.{secrets.token_hex(4)}")
        new.write_text(layer_id)
        _sync(new)
        os.rename(new, place)
        _sync(place.parent)


def stands_on(layer_ids: Iterable[str], source_ids: Iterable[str] = ()) -> str:
    """What a layer is built on in one word: the layers below it, and those that its files are taken from.

    Empty where there are none. Two words are the same when the layers are.
    """
    text = f"{' '.join(layer_ids)}\n{' '.join(source_ids)}"
    return hashlib.sha256(text.encode()).hexdigest() if len(text) > 1 else ""


def _slot(key: str, below: str) -> str:
    """The name of what says which layer serves a key on certain layers."""
    # Of what stands on nothing it is the key, as all were once: bases made by then are found.
    return hashlib.sha256(f"{_checked(_KEY, key)} {below}".encode()).hexdigest() if below else _checked(_KEY, key)


def _pack(layers: Sequence[str], image: Path, lock_fd: int, lent: Sequence[str] = ()) -> int:
    """Make one file of a directory, or of several layers; returns its size.

    What packs holds the scratch directory's lock while it lives. What the machine keeps free stays free.
    """
    spare = ("--spare-bytes", str(space_of(image.parent).spare_bytes))
    try:
        packed = subprocess.run(
            own_program("squall.erofs.pack", *layers, str(image), *spare, *(("--lent", *lent) if lent else ())),
            env=own_environ(),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=_PACK_TIMEOUT_S,
            check=False,
            pass_fds=(lock_fd,),
        )
    except subprocess.TimeoutExpired as error:
        raise LayerError(f"cannot keep what the step wrote: not packed after {error.timeout:.0f} s") from error
    if packed.returncode != 0:
        cause = packed.stderr.strip() or f"it ended with status {packed.returncode}"
        raise LayerError(f"cannot keep what the step wrote: {cause}")
    return image.stat().st_size


def tree_size_bytes(path: Path) -> int:
    """What a tree occupies on its disk; files with several names count once."""
    total = 0
    seen: set[int] = set()
    for directory, _, files in os.walk(path):
        for name in (directory, *(os.path.join(directory, file) for file in files)):
            status = os.lstat(name)
            if status.st_ino not in seen:
                seen.add(status.st_ino)
                total += status.st_blocks * 512
    return total


def _checked(pattern: re.Pattern[str], name: str) -> str:
    if not pattern.match(name):
        raise LayerError(f"{name!r} is no key or id of a layer")
    return name


class _Said:
    """What whoever holds a lock says, kept in the lock's file for those who wait."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._offset = 0

    def add(self, line: str) -> None:
        """Say a line. What cannot be written, or is more than anybody reads, is left out."""
        data = f"{line}\n".encode("utf-8", "replace")
        if self._offset + len(data) > _SAID_BYTES_MAX:
            return
        with contextlib.suppress(OSError):
            self._offset += os.pwrite(self._descriptor, data, self._offset)

    def new_lines(self) -> list[str]:
        """Whole lines that were said since the last time; after another holder's beginning, from there."""
        if os.fstat(self._descriptor).st_size < self._offset:
            self._offset = 0
        data = os.pread(self._descriptor, _SAID_BYTES_MAX, self._offset)
        whole = data[: data.rfind(b"\n") + 1]
        self._offset += len(whole)
        return whole.decode("utf-8", "replace").splitlines()


def _sync(*paths: Path) -> None:
    """Write files, and the names in directories, out to the disk."""
    for path in paths:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def _sync_file_system(path: Path) -> None:
    """Write out what is not yet on the disk; one call instead of an fsync for each of ten thousand files."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        if ctypes.CDLL(None, use_errno=True).syncfs(descriptor) != 0:
            number = ctypes.get_errno()
            raise LayerError(f"cannot write layer {path} to the disk: {os.strerror(number)}")
    finally:
        os.close(descriptor)
