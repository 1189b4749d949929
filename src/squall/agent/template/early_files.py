"""Whether an interpreter that begins may load one of the user's files before it has got to the user's code.

Where it cannot, a template of an image does without those files: it is the same for all functions of an app, whatever
their code is, and stays when a file is edited. Where it may, they are a part of it. Looked at are names only; what is
in doubt counts as loaded. That is also what a variable names: it may be a setting of a library, which is loaded with
the interpreter, goes on without a file that is not there, and never looks again (OPENSSL_CONF).
"""

from __future__ import annotations

import asyncio
import collections
import os
import posixpath
import re
import sys
from collections.abc import Collection
from concurrent.futures import Executor

from squall.agent.image.progress import BuiltImage
from squall.agent.mounts import Mounts
from squall.protocol.guest import CODE_DIR
from squall.protocol.image import ImageConfig
from squall.protocol.node import ContainerStart

ENTRIES_MAX = 10_000
"""Names looked at in one set of files."""
_KNOWN_MAX = 4_096
# Where interpreters, libraries and their settings are.
_SYSTEM = frozenset({"bin", "boot", "dev", "etc", "home", "lib", "lib32", "lib64", "libx32", "opt", "proc", "run"})
_SYSTEM |= {"sbin", "squall", "sys", "usr", "var"}
_AT_THE_START = frozenset({"sitecustomize", "usercustomize"})
_PACKAGES = frozenset({"site-packages", "dist-packages", "pyvenv.cfg"})
# The directory of code comes before the standard library: a file of such a name would be in the place of ours.
_OURS = sys.stdlib_module_names | _AT_THE_START | {"squall", "cloudpickle"}
# Of versions of Python after that which this may run on.
_OURS |= {"annotationlib", "compression", "_android_support", "_apple_support", "_ast_unparse", "_colorize", "_hmac"}
_OURS |= {"_interpchannels", "_interpqueues", "_interpreters", "_ios_support", "_opcode_metadata", "_py_warnings"}
_OURS |= {"_pyrepl", "_remote_debugging", "_suggestions", "_sysconfig", "_types", "_zstd"}
_SEPARATORS = re.compile(r"[\s:;,=]+")
_PATHS = ("PYTHONPATH", "PYTHONHOME", "PYTHONUSERBASE", "PYTHONPLATLIBDIR", "LD_LIBRARY_PATH", "LD_PRELOAD")


class EarlyFiles:
    """Looks at the files of starts, once at each set of them.

    Args:
        executor: where file systems are read.
    """

    def __init__(self, mounts: Mounts, executor: Executor | None = None) -> None:
        self._mounts = mounts
        self._executor = executor
        self._known: collections.OrderedDict[object, bool] = collections.OrderedDict()

    async def are_loaded(self, request: ContainerStart, image: BuiltImage) -> bool:
        """Whether the files of this start may be loaded by a bare interpreter.

        Raises:
            PlatformError: they cannot be had.
        """
        if not request.mounts:
            return False
        settings = {**image.config.env, **request.secrets, **request.env}
        # A category of warnings with a dot is imported.
        if any(settings.get(name) for name in _PATHS) or "." in settings.get("PYTHONWARNINGS", ""):
            return True
        config, values = image.config, frozenset(settings.values())
        # Of values, which may be secrets, nothing is kept.
        key = (request.mounts, image.layers, config.python_path, config.home, config.workdir, hash(values))
        known = self._known.get(key)
        if known is None:
            files = await self._mounts.acquire(request.mounts, image.layers)
            try:
                known = await asyncio.get_running_loop().run_in_executor(
                    self._executor, _look, files.path, config, values
                )
            finally:
                await self._mounts.release(files.name)
            while len(self._known) >= _KNOWN_MAX:
                self._known.popitem(last=False)
        self._known[key] = known
        self._known.move_to_end(key)
        return known


def volume_on_path(request: ContainerStart, image: BuiltImage) -> str:
    """Where a volume is that Python may load files of before it gets to user code; empty if there is none."""
    settings = {**image.config.env, **request.secrets, **request.env}
    named = [part for name in _PATHS for part in settings.get(name, "").split(":") if part]
    targets = [start.mount.target.rstrip("/") for start in request.volumes]
    return next((one for one in targets if any(f"{part}/".startswith(f"{one}/") for part in named)), "")


def _look(tree: str, config: ImageConfig, values: Collection[str]) -> bool:
    home, directory = config.home or CODE_DIR, config.workdir or CODE_DIR
    return are_loaded(tree, config.python_path, home) or are_named(tree, values, (home, directory))


def are_named(tree: str, values: Collection[str], homes: Collection[str]) -> bool:
    """Whether one of these values has a path in it that is in the tree. Blocks.

    Args:
        homes: directories that are named by many, with what is above them, and mean no file in them; relative paths are
            below the last one.
    """
    *_, directory = homes
    seen = 0
    for value in values:
        for name in _SEPARATORS.split(value):
            seen += 1
            if seen > ENTRIES_MAX:
                return True
            path = posixpath.normpath(posixpath.join("/", directory, name))
            if any(f"{home}/".startswith(path.rstrip("/") + "/") for home in homes):
                continue
            # A relative one may be any word, and the name of a directory as well.
            is_there = os.path.lexists if name.startswith("/") else os.path.isfile
            if "\0" not in path and is_there(tree + path):
                return True
    return False


def are_loaded(tree: str, python_path: str, home: str = "") -> bool:
    """Whether a tree of files that is to be laid over a root file system has one that may be loaded. Blocks."""
    prefix = posixpath.dirname(posixpath.dirname(python_path))
    seen = 0
    for folder, folders, files in os.walk(tree):
        inside = posixpath.normpath(f"/{os.path.relpath(folder, tree)}")
        for name in (*folders, *files):
            seen += 1
            path = posixpath.join(inside, name)
            if seen > ENTRIES_MAX or _may_be_loaded(path, name, prefix, home or CODE_DIR):
                return True
    return False


def _may_be_loaded(path: str, name: str, prefix: str, home: str) -> bool:
    stem = name.partition(".")[0]
    if stem in _AT_THE_START or name in _PACKAGES or name.endswith(".pth"):
        return True
    if posixpath.dirname(path) == CODE_DIR and stem in _OURS:
        return True
    if posixpath.dirname(path) == "/" and name in _SYSTEM:
        return True
    return path in (posixpath.join(home, ".local"), posixpath.join(home, ".config"), prefix)
