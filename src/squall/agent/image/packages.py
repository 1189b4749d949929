"""The Python packages builds share: downloaded by us, shown to every step as a view of its own.

A step runs as root of its image, and so does whatever a package does when it is built or imported: any of it could
write somebody else's numpy into a cache it may write to. Therefore nobody but a *fetch* writes here: a container of the
base alone, without a line or a setting of the user's, in which uv downloads wheels and builds nothing. Steps have the
cache as the topmost read-only layer of their root, so that what they change in it is their own and ends with them.

    <data>/cache/packages/.squall-cache    the cache of uv; the directory around it is the layer

A fetch is a saving and never a condition: what it did not bring, the step downloads for itself.
"""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import urlsplit

from squall.agent.image.inherit import CACHE_DIR
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


class PackageCache:
    """The cache of one data directory."""

    def __init__(self, data_dir: Path) -> None:
        self._folder = data_dir.absolute() / "cache"
        self._fetched_at_s: dict[str, float] = {}

    @property
    def layer(self) -> str:
        """The directory that shows the cache at `CACHE_DIR` as the topmost layer of a root."""
        return str(self._folder / "packages")

    @property
    def bind(self) -> Bind:
        """The cache itself, for a fetch to write to."""
        return Bind(self.layer + CACHE_DIR, CACHE_DIR, is_read_only=False, is_idmapped=True)

    def ensure(self) -> None:
        """Make the directories. The folder around them is root's alone."""
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        Path(self.layer + CACHE_DIR).mkdir(mode=0o755, parents=True, exist_ok=True)

    def is_fetched(self, fetch: str, now_s: float) -> bool:
        """Whether this was fetched of late; what indexes got since is left for the steps to find."""
        return now_s - self._fetched_at_s.get(fetch, -_FETCH_GOOD_FOR_S) < _FETCH_GOOD_FOR_S

    def note_fetched(self, fetch: str, now_s: float) -> None:
        """Remember that this is here."""
        self._fetched_at_s.pop(fetch, None)
        self._fetched_at_s[fetch] = now_s
        if len(self._fetched_at_s) > _FETCHES_KEPT_MAX:
            del self._fetched_at_s[next(iter(self._fetched_at_s))]


def has_view(step: ImageStep) -> bool:
    """Whether a step of this kind gets the packages to read."""
    return step.kind in (image.PIP_INSTALL, image.RUN_COMMANDS)


def drop_view(upper: str) -> None:
    """Remove what a step wrote into its view of the cache, whatever it made of it."""
    remove_tree(os.path.join(upper, CACHE_DIR.lstrip("/")))


def fetch_options(step: ImageStep, env: Mapping[str, str]) -> tuple[str, ...] | None:
    """What uv is to be told to download for a step, or None where this is not everybody's business.

    That is so with packages named by file or URL, and with options, settings in `env`, folders or passwords that say
    where packages come from; the step then does without the shared cache for what it lacks.
    """
    if step.kind != image.PIP_INSTALL or not all(_NAMED.match(package) for package in step.packages):
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
