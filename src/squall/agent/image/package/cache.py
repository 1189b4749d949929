"""The packages builds share: downloaded by us, shown to every step as a view of its own.

A step runs as root of its image, and so does whatever a package does when it is built or imported: any of it could
write somebody else's numpy into a cache it may write to. Therefore nobody but a *fetch* writes here: a container of the
base alone, without a line or a setting of the user's, in which uv downloads wheels and builds nothing, or apt Debian's
packages and installs none. Steps have the
cache as the topmost read-only layer of their root, so that what they change in it is their own and ends with them.

    <data>/cache/packages/.squall-cache              the cache of uv; the directory around it is the layer
    <data>/cache/packages/.squall-cache/apt-<suite>  lists and archives of apt

A fetch is a saving and never a condition: what it did not bring, the step downloads for itself. The cache has a limit,
which ends a fetch that would pass it; what was wanted longest ago goes when no step looks at it (`package_room`).
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import re
import shlex
import stat
from collections.abc import AsyncIterator, Mapping
from concurrent.futures import Executor
from pathlib import Path
from urllib.parse import urlsplit

from squall.agent.image.inherit import CACHE_DIR
from squall.agent.image.package import room as package_room
from squall.protocol import image
from squall.protocol.image import ImageStep
from squall.runtime.removal import remove_tree
from squall.runtime.spec import Bind

_NAMED = re.compile(r"[A-Za-z0-9][^@/]*\Z")
_KEPT_OPTIONS = {"--no-deps"}
# Settings that send uv elsewhere, or say whom it believes: with one of them the user's packages are not everybody's.
_DIVERTING = re.compile(r"(uv|pip|ssl_cert)_.*|.*_proxy|netrc", re.IGNORECASE)
_FETCHES_KEPT_MAX = 1_000
_FETCH_GOOD_FOR_S = 3_600.0

_log = logging.getLogger("squall.agent.image.package.cache")


class PackageCache:
    """The cache of one data directory.

    Args:
        bytes_max: what it may take; 0 for none at all.
    """

    def __init__(self, data_dir: Path, bytes_max: int) -> None:
        self.bytes_max = bytes_max
        self._folder = data_dir.absolute() / "cache"
        self._fetched: dict[str, tuple[float, frozenset[str]]] = {}
        """When a fetch was done, and which packages it was of."""
        self._users = 0
        self._entering = asyncio.Lock()
        """Held for as long as nobody may begin to use the cache."""

    @property
    def layer(self) -> str:
        """The directory that shows the cache at `CACHE_DIR` as the topmost layer of a root."""
        return str(self._folder / "packages")

    @property
    def bind(self) -> Bind:
        """The cache itself, for a fetch to write to."""
        return Bind(str(self._cache), CACHE_DIR, is_read_only=False, is_idmapped=True)

    @property
    def folder(self) -> str:
        """The cache itself."""
        return self.layer + CACHE_DIR

    @property
    def _cache(self) -> Path:
        return Path(self.folder)

    def ensure(self) -> None:
        """Make the directories. The folder around them is root's alone."""
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._cache.mkdir(mode=0o755, parents=True, exist_ok=True)

    @contextlib.asynccontextmanager
    async def in_use(self) -> AsyncIterator[None]:
        """Nothing is taken out of the cache while the context is open."""
        async with self._entering:
            self._users += 1
        try:
            yield
        finally:
            self._users -= 1

    async def keep_room(self, threads: Executor) -> bool:
        """Make the cache smaller if it is too large; False if somebody uses it, so that it has to wait.

        Raises:
            RuntimeFailure, OSError: something could not be deleted.
        """
        loop = asyncio.get_running_loop()
        if await loop.run_in_executor(threads, package_room.cache_bytes, self._cache) > self.bytes_max:
            async with self._entering:
                if self._users:
                    return False
                self._fetched.clear()
                freed_bytes = await loop.run_in_executor(threads, package_room.set_aside, self._cache, self.bytes_max)
            _log.info("%d MiB of shared packages go: the oldest", freed_bytes // 2**20)
        await loop.run_in_executor(threads, self._delete_old)
        return True

    def _delete_old(self) -> None:
        package_room.delete_aside(self._folder)
        # Of versions that shared one cache with what steps wrote.
        remove_tree(str(self._folder / "uv"))

    def is_fetched(self, fetch: str, now_s: float) -> bool:
        """Whether this was fetched of late; what indexes got since is left for the steps to find. It counts as used."""
        done_at_s, packages = self._fetched.get(fetch, (-_FETCH_GOOD_FOR_S, frozenset()))
        if now_s - done_at_s >= _FETCH_GOOD_FOR_S:
            return False
        package_room.mark_used(self._cache, packages)
        return True

    def note_fetched(self, fetch: str, now_s: float, into: Path) -> None:
        """Remember that this is here; the fetch has linked its Python packages into a directory."""
        packages = package_room.packages_of(into)
        package_room.mark_used(self._cache, packages)
        self._fetched.pop(fetch, None)
        self._fetched[fetch] = (now_s, packages)
        if len(self._fetched) > _FETCHES_KEPT_MAX:
            del self._fetched[next(iter(self._fetched))]


def has_view(step: ImageStep) -> bool:
    """Whether a step of this kind gets the packages to read."""
    return step.kind in (image.APT_INSTALL, image.PIP_INSTALL, image.RUN_COMMANDS)


def take_view(upper: str, scratch: str) -> str:
    """Take what a step wrote into its view of the cache, whatever it made of it, out of the step's files.

    Returns where that is now, in the same scratch directory; there is a directory, or nothing.
    """
    place = os.path.join(scratch, "view")
    with contextlib.suppress(FileNotFoundError):
        os.rename(os.path.join(upper, CACHE_DIR.lstrip("/")), place)
        if not stat.S_ISDIR(os.lstat(place).st_mode):
            # Nothing that could lead a reader out of here.
            os.unlink(place)
    return place


def apt_dir(suite: str) -> str:
    """Where steps see the lists and archives of a suite: one version of a package is not the same in two of them."""
    return f"{CACHE_DIR}/apt-{suite}"


def fetch_words(step: ImageStep, env: Mapping[str, str]) -> tuple[str, ...] | None:
    """What apt or uv is to be told to download for a step, or None where this is not everybody's business.

    That is so with packages named by file or URL, and with options, settings in `env`, folders or passwords that say
    where packages come from; the step then does without the shared cache for what it lacks.
    """
    if step.kind == image.APT_INSTALL:
        return step.packages
    if step.kind != image.PIP_INSTALL or step.requirements or step.uv_version:
        return None
    if not all(_NAMED.match(package) for package in step.packages):
        return None
    options = shlex.split(step.extra_options)
    if not set(options) <= _KEPT_OPTIONS or any(_DIVERTING.fullmatch(name) for name in (*env, *step.env)):
        return None
    places = {
        "--default-index": step.index_url,
        "--extra-index-url": step.extra_index_url,
        "--find-links": step.find_links,
    }
    for option, url in places.items():
        if url:
            if not _is_public(url):
                return None
            options += [option, url]
    if step.pre:
        options += ["--prerelease", "allow"]
    return (*options, "--", *step.packages)


def _is_public(url: str) -> bool:
    parts = urlsplit(url)
    # uv files what it gets from an index under the URL without the password: the next one would need none.
    return parts.scheme in ("http", "https") and "@" not in parts.netloc
