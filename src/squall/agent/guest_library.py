"""What containers find at /run/squall/lib: our guest, SDK and protocol, and cloudpickle, with their bytecode.

    <data>/guest/<content hash>-<origin>/     complete or not there

A container may not write there, so without bytecode every start would compile again. It is made once per `origin`:
  * the agent's own Python, when the image has the same series (bytecode does not change within one): compiled here
  * else the image's base layer, or the whole image if its Python is not from the base: compiled by that Python in a
    container without network. A library is shared by the images of its origin only: whoever wrote an image could have
    put anything into what its Python compiles.
Bytecode is checked against nothing: the directory never changes, and modification times mean nothing in it.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import functools
import hashlib
import importlib.util
import logging
import os
import py_compile
import secrets
import sys
from collections.abc import Awaitable, Callable, Iterator, Sequence
from concurrent.futures import Executor
from pathlib import Path

from squall.agent.image.layer.merged import merged
from squall.protocol.guest import LIBRARY_DIR
from squall.protocol.image import ImageConfig
from squall.runtime.errors import RuntimeFailure
from squall.runtime.removal import remove_tree

PARTS = ("protocol", "sdk", "guest")
SERIES = f"{sys.version_info.major}.{sys.version_info.minor}"

# Runs in the image's Python: compiles everything and prints one line for each file.
COMPILER = f"""
import base64, os, py_compile, sys, tempfile
top = {LIBRARY_DIR!r}
target = os.path.join(tempfile.mkdtemp(), "x.pyc")
for directory, _, names in os.walk(top):
    for name in names:
        if name.endswith(".py"):
            source = os.path.join(directory, name)
            try:
                py_compile.compile(source, target, source, True, 0, py_compile.PycInvalidationMode.UNCHECKED_HASH)
            except py_compile.PyCompileError:
                continue
            folder = os.path.relpath(os.path.join(directory, "__pycache__"), top)
            path = os.path.join(folder, name[:-3] + "." + sys.implementation.cache_tag + ".pyc")
            print(path, base64.b64encode(open(target, "rb").read()).decode(), flush=True)
"""

RunPython = Callable[[Sequence[str], str, str, str], Awaitable[bytes]]
"""Run a program by a Python: (layers, Python's path, program, library directory) to what it printed."""

_log = logging.getLogger("squall.agent.guest_library")


class GuestLibrary:
    """Makes the library once per origin and finds it afterwards.

    Args:
        run_python: runs a program in a throw-away container with the library in its place.
        package_dir: the squall package; by default the one this runs from.
    """

    def __init__(
        self, data_dir: Path, executor: Executor, run_python: RunPython, package_dir: Path | None = None
    ) -> None:
        self._top = data_dir / "guest"
        self._executor = executor
        self._run_python = run_python
        self._sources = dict(_sources(package_dir or Path(__file__).resolve().parent.parent))
        self._hash = _content_hash(self._sources)
        self._locks: dict[str, asyncio.Lock] = {}
        self._ready: dict[str, str] = {}

    def prepare(self) -> None:
        """Remove what an agent did not finish. Blocks."""
        self._top.mkdir(mode=0o700, parents=True, exist_ok=True)
        for path in self._top.glob(".new-*"):
            remove_tree(str(path))

    async def warm(self) -> None:
        """Make the library for images with the agent's own Python, before anybody waits for it."""
        await self.get((), ImageConfig(python_version=SERIES), "")

    async def get(self, layers: Sequence[str], config: ImageConfig, image_id: str) -> str:
        """The directory to bind for containers of this image.

        Raises:
            OSError: it cannot be written.
        """
        origin = _origin(layers, config, image_id)
        ready = self._ready.get(origin)
        if ready is not None:
            return ready
        async with self._locks.setdefault(origin, asyncio.Lock()):
            place = self._top / f"{self._hash}-{origin}"
            if origin not in self._ready:
                self._ready[origin] = str(place if place.exists() else await self._make(place, origin, layers, config))
        return self._ready[origin]

    async def _make(self, place: Path, origin: str, layers: Sequence[str], config: ImageConfig) -> Path:
        loop = asyncio.get_running_loop()
        new = self._top / f".new-{secrets.token_hex(8)}"
        await loop.run_in_executor(self._executor, _write, new, self._sources)
        if origin == SERIES:
            await loop.run_in_executor(self._executor, compile_tree, new)
        else:
            # Only the layers that name the origin: what lies above must not be able to change the result.
            used = layers[:1] if origin.startswith("base-") else layers
            try:
                printed = await self._run_python(used, config.python_path, COMPILER, str(new))
                await loop.run_in_executor(self._executor, _write_compiled, new, printed)
            except (RuntimeFailure, OSError, ValueError) as error:
                # Containers work without, only slower; the next agent tries again.
                _log.warning("bytecode of the guest library for %s could not be made: %s", origin, error)
                place = self._top / f"{self._hash}-{origin}-plain"
        try:
            os.rename(new, place)
        except OSError:
            # Somebody else made it meanwhile.
            if not place.is_dir():
                raise
            await loop.run_in_executor(self._executor, remove_tree, str(new))
        return place


def plain_library(data_dir: Path, package_dir: Path | None = None) -> str:
    """The library without bytecode, which any Python can use; made if it is not there. Blocks.

    Raises:
        OSError: it cannot be written.
    """
    sources = dict(_sources(package_dir or Path(__file__).resolve().parent.parent))
    place = data_dir / "guest" / f"{_content_hash(sources)}-sources"
    if not place.exists():
        new = place.parent / f".new-{secrets.token_hex(8)}"
        _write(new, sources)
        with contextlib.suppress(OSError):  # somebody else made it meanwhile; `prepare` removes ours
            os.rename(new, place)
    return str(place)


def compile_tree(top: Path) -> None:
    """Compile every module below by this Python. Paths in tracebacks are those inside the container."""
    for path in sorted(top.rglob("*.py")):
        shown = f"{LIBRARY_DIR}/{path.relative_to(top)}"
        target = importlib.util.cache_from_source(str(path))
        mode = py_compile.PycInvalidationMode.UNCHECKED_HASH
        py_compile.compile(str(path), target, shown, doraise=True, optimize=0, invalidation_mode=mode)


def _origin(layers: Sequence[str], config: ImageConfig, image_id: str) -> str:
    """What decides about the bytecode."""
    if config.python_version.startswith(SERIES + ".") or config.python_version == SERIES:
        return SERIES
    if layers and config.layers and _has(layers[0], config.python_path):
        return f"base-{config.layers[0]}"
    return image_id


@functools.lru_cache(maxsize=1_024)
def _has(layer: str, path: str) -> bool:
    """Whether a path is in this layer by itself."""
    with merged([layer]) as tree:
        return tree.find(path) is not None


def _sources(package_dir: Path) -> Iterator[tuple[str, bytes]]:
    """Path in the library and content of every file."""
    for path in sorted(package_dir.glob("*.py")):
        yield f"squall/{path.name}", path.read_bytes()
    for part in PARTS:
        for path in sorted((package_dir / part).rglob("*.py")):
            yield f"squall/{path.relative_to(package_dir)}", path.read_bytes()
    found = importlib.util.find_spec("cloudpickle")
    assert found is not None, "cloudpickle is a dependency of this package"
    assert found.origin is not None
    for path in sorted(Path(found.origin).parent.rglob("*.py")):
        yield f"cloudpickle/{path.relative_to(Path(found.origin).parent)}", path.read_bytes()


def _content_hash(sources: dict[str, bytes]) -> str:
    digest = hashlib.sha256()
    for path, content in sorted(sources.items()):
        digest.update(f"{path}\0{len(content)}\0".encode() + content)
    return digest.hexdigest()[:24]


def _write(new: Path, sources: dict[str, bytes]) -> None:
    for path, content in sources.items():
        target = new / path
        target.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
        target.write_bytes(content)
        target.chmod(0o644)
    # Whatever the agent's umask is, containers read these as somebody else.
    for directory in (new, *(path for path in new.rglob("*") if path.is_dir())):
        directory.chmod(0o755)


def _write_compiled(new: Path, printed: bytes) -> None:
    """Write the lines of `COMPILER`; none may lead out of the library or replace a source."""
    for line in printed.splitlines():
        path, _, content = line.decode("ascii").partition(" ")
        folder, name = os.path.split(os.path.normpath(path))
        parent = new / os.path.dirname(folder)
        if os.path.basename(folder) != "__pycache__" or not name.endswith(".pyc") or ".." in folder.split("/"):
            raise ValueError(f"a compiler printed the path {path!r}")
        if folder.startswith("/") or not parent.is_dir():
            raise ValueError(f"a compiler printed the path {path!r}")
        cache = parent / "__pycache__"
        cache.mkdir(mode=0o755, exist_ok=True)
        cache.chmod(0o755)
        (cache / name).write_bytes(base64.b64decode(content, validate=True))
        (cache / name).chmod(0o644)
