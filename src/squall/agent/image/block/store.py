"""The object store that layers are in: a directory, S3, GCS, Azure or anything else that obstore knows.

    blocks/<aa>/<sha256>     a block, as it is in the file
    layers/<sha256>          the manifest of a layer, named by its own hash
    images/<image id>        the manifest of an image, its own hash in its first line
    images/<image id>.trace  which parts its first start wanted, in which order; likewise
    used/<image id>          empty; put now and then by who needs the image
    removed/<image id>.<seal>  the manifest of an image that was replaced or removed: its layers stay for a while
    busy/<kind>-<token>      empty; somebody puts an image now, or removes garbage (`turn.py`)

What is named by its hash is never written over and never wrong: what comes back is hashed. Everything is tried several
times, with pauses that grow; what is wrong then is an error that says what, of which layer, in which store.
"""

from __future__ import annotations

import contextlib
import datetime
import hashlib
import logging
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar
from urllib.parse import unquote, urlsplit

import obstore
from obstore.exceptions import BaseError
from obstore.exceptions import NotFoundError as ObjectMissing
from obstore.store import from_url

from squall.agent.image.block.errors import BlockError, NotInStore
from squall.agent.image.block.folder import settle_s
from squall.agent.image.block.manifest import (
    BLOCK_BYTES,
    ImageManifest,
    LayerManifest,
    parse_image,
    parse_layer,
    sealed,
    unsealed,
)

if TYPE_CHECKING:
    from obstore.store import ObjectStore

R = TypeVar("R")
_CONNECT_S = 5.0
REFRESH_S = 3 * 24 * 3600.0
"""A block that is found and older is put again, as if it were not there; see docs/decisions/0043."""
_MANIFEST_BYTES_MAX = 256 * 2**20
_PAGE = 1_000
IMAGES, LAYERS, BLOCKS = "images", "layers", "blocks"
USED, REMOVED, BUSY = "used", "removed", "busy"

_log = logging.getLogger("squall.agent.image.block.store")


@dataclass(frozen=True, slots=True)
class Patience:
    """How long a store may take, and how often it is asked again."""

    attempts: int = 4
    pause_s: float = 0.2
    """Before the second attempt; four times as long before each next one."""
    answer_s: float = 15.0
    """For one request."""


@dataclass(frozen=True, slots=True)
class Found:
    """An object of the store, without its content."""

    key: str
    size_bytes: int
    modified_at: float
    """By the store's clock, seconds since 1970."""

    @property
    def name(self) -> str:
        """The last part of its key."""
        return self.key.rpartition("/")[2]


def open_store(url: str, patience: Patience | None = None, now: Callable[[], float] = time.time) -> BlockStore:
    """The store at a URL as obstore has it; credentials come from the variables that obstore reads.

    `now` is as `BlockStore` has it.

    Raises:
        BlockError: there is no such kind of store, or it lacks a setting.
    """
    patience = patience or Patience()
    try:
        if url.startswith(("file:", "memory:")):
            store = from_url(url, mkdir=True) if url.startswith("file:") else from_url(url)
        else:
            answer, connect = (datetime.timedelta(seconds=s) for s in (patience.answer_s, _CONNECT_S))
            # Ours are the retries: they end in time for whoever waits, and cover wrong bytes too.
            store = from_url(
                url,
                # Whether it is HTTPS says the URL or the endpoint that the operator has set.
                client_options={"timeout": answer, "connect_timeout": connect, "allow_http": True},
                retry_config={"max_retries": 0},
            )
    except (BaseError, ValueError, OSError) as error:
        raise BlockError(f"cannot use the store of layers {_shown(url)}: {error}; correct SQUALL_LAYER_URL") from error
    opened = BlockStore(store, _shown(url), patience, now=now)
    if url.startswith("file:"):
        opened.settle_s = settle_s(unquote(urlsplit(url).path))
    return opened


class BlockStore:
    """Puts and gets. Every method blocks; any number of threads may use one."""

    def __init__(
        self,
        store: ObjectStore,
        name: str,
        patience: Patience | None = None,
        sleep: Callable[[float], None] = time.sleep,
        now: Callable[[], float] = time.time,
    ) -> None:
        """`name` is what errors call the store; `now` gives seconds since 1970, to compare with times of the store."""
        self.name = name
        self.settle_s = 0.0
        """How long others may not see what was put."""
        self._store = store
        self._is_ordered = not name.startswith("file:")
        self._patience = patience or Patience()
        self._sleep = sleep
        self._now = now

    # Blocks

    def has_block(self, digest: str, size_bytes: int) -> bool:
        """Whether a block is there, and stays for as long as an image takes to be put.

        One of another size, or an old one, counts as missing, and is put again: whoever removes old blocks that nothing
        names may have looked before the image that is being put names this one.
        """

        def look() -> bool:
            try:
                found = obstore.head(self._store, _block_key(digest))
                age_s = self._now() - found["last_modified"].timestamp()
                return int(found["size"]) == size_bytes and age_s < REFRESH_S
            except (ObjectMissing, FileNotFoundError):
                return False

        return self._try(f"look for block {digest[:12]}", look)

    def put_block(self, digest: str, data: bytes) -> None:
        """Put a block under its name."""
        self._try(f"put block {digest[:12]}", lambda: obstore.put(self._store, _block_key(digest), data))

    def get_range(self, layer: LayerManifest, begin: int, end: int, check: Callable[[bytes], None]) -> bytes:
        """Bytes of a layer that lie in one block; `check` raises `BlockError` of wrong ones, which are fetched again.

        Raises:
            BlockError: they cannot be had, or were wrong each time.
        """
        number, offset = divmod(begin, BLOCK_BYTES)
        digest = layer.blocks[number]

        def get() -> bytes:
            data = bytes(obstore.get_range(self._store, _block_key(digest), start=offset, end=offset + end - begin))
            if len(data) != end - begin:
                raise BlockError(f"{len(data)} bytes came instead of {end - begin}: the block is truncated")
            check(data)
            return data

        return self._try(f"fetch block {number} ({digest[:12]}) of layer {layer.layer_id}", get)

    # Manifests

    def put_layer(self, manifest: LayerManifest) -> str:
        """Put a manifest whose blocks are there; returns its name."""
        data = manifest.to_bytes()
        digest = hashlib.sha256(data).hexdigest()
        what = f"put the manifest of layer {manifest.layer_id}"
        self._try(what, lambda: obstore.put(self._store, f"layers/{digest}", data))
        return digest

    def get_layer(self, digest: str) -> LayerManifest:
        """The manifest of this name."""

        def get() -> LayerManifest:
            data = self._get(f"layers/{digest}")
            if hashlib.sha256(data).hexdigest() != digest:
                raise BlockError("its content is not that of its name: it is damaged, or was not put whole")
            return parse_layer(data)

        return self._try(f"fetch layer manifest {digest[:12]}", get)

    def put_image(self, manifest: ImageManifest) -> None:
        """Put the manifest of an image whose layers are there."""
        data = manifest.to_bytes()
        key = f"images/{manifest.image_id}"
        self._try(f"put the manifest of image {manifest.image_id}", lambda: obstore.put(self._store, key, data))

    def get_image(self, image_id: str) -> ImageManifest:
        """The manifest of an image.

        Raises:
            NotInStore: nobody has put it.
        """
        what = f"fetch the manifest of image {image_id}"
        return self._try(what, lambda: parse_image(self._get(f"images/{image_id}"), image_id))

    def put_trace(self, image_id: str, body: bytes) -> None:
        """Keep what the first start of an image wanted."""
        data = sealed(body)
        self._try(f"put the trace of image {image_id}", lambda: obstore.put(self._store, _trace_key(image_id), data))

    def get_trace(self, image_id: str) -> bytes:
        """What was kept.

        Raises:
            NotInStore: nobody has put it.
        """
        return self._try(f"fetch the trace of image {image_id}", lambda: unsealed(self._get(_trace_key(image_id))))

    # Garbage

    def put_mark(self, key: str) -> None:
        """Put an empty object."""
        self._try(f"put the mark {key}", lambda: obstore.put(self._store, key, b""))

    def keep_removed(self, manifest: ImageManifest) -> None:
        """Let what an image names stay for a while that is about to be replaced or removed."""
        data = manifest.to_bytes()
        key = f"{REMOVED}/{manifest.image_id}.{data.split(None, 1)[0].decode()}"
        self._try(f"keep the manifest of image {manifest.image_id}", lambda: obstore.put(self._store, key, data))

    def get_removed(self, key: str) -> ImageManifest:
        """What was kept so, by its key."""
        image_id = key.rpartition("/")[2].partition(".")[0]
        return self._try(f"fetch {key}", lambda: parse_image(self._get(key), image_id))

    def list(self, kind: str) -> Iterator[Found]:
        """All objects of a kind, which is the first part of their keys. Some thousand are in memory.

        Raises:
            BlockError: the store does not say; what came before is true.
        """
        offset: str | None = None
        attempt = 1
        pause_s = self._patience.pause_s
        while True:
            try:
                for page in obstore.list(self._store, kind, offset=offset, chunk_size=_PAGE):
                    for one in page:
                        yield Found(str(one["path"]), int(one["size"]), one["last_modified"].timestamp())
                    attempt = 1
                    # A folder is listed in no order, so it cannot be gone on with.
                    offset = str(page[-1]["path"]) if self._is_ordered and page else offset
                return
            except (BaseError, OSError) as error:
                cause = _cause(error)
                if attempt == self._patience.attempts or not self._is_ordered:
                    raise BlockError(f"cannot list {kind}: {self.name}: {cause} (attempt {attempt})") from error
                _log.info("cannot list %s: %s: %s; trying again in %.1f s", kind, self.name, cause, pause_s)
            self._sleep(pause_s)
            pause_s *= 4
            attempt += 1

    def remove(self, keys: Sequence[str]) -> None:
        """Remove objects; those that are not there are none's failure.

        Raises:
            BlockError: some of them may be there still.
        """

        def remove() -> None:
            try:
                obstore.delete(self._store, list(keys))
            except (ObjectMissing, FileNotFoundError):
                # Some stores say so, and may have left the others.
                for key in keys:
                    with contextlib.suppress(ObjectMissing, FileNotFoundError):
                        obstore.delete(self._store, key)

        more = f" and {len(keys) - 1} more" if len(keys) > 1 else ""
        self._try(f"remove {keys[0]}{more}", remove)

    def _get(self, key: str) -> bytes:
        answer = obstore.get(self._store, key)
        if int(answer.meta["size"]) > _MANIFEST_BYTES_MAX:
            raise BlockError(f"it has {answer.meta['size']} bytes")
        return bytes(answer.bytes())

    def _try(self, what: str, action: Callable[[], R]) -> R:
        pause_s = self._patience.pause_s
        for attempt in range(1, self._patience.attempts + 1):
            try:
                return action()
            except (ObjectMissing, FileNotFoundError) as error:
                raise NotInStore(f"cannot {what}: {self.name} does not have it") from error
            except (BlockError, BaseError, OSError) as error:
                cause = _cause(error)
                if attempt == self._patience.attempts:
                    raise BlockError(f"cannot {what}: {self.name}: {cause} (attempt {attempt})") from error
                _log.info("cannot %s: %s: %s; trying again in %.1f s", what, self.name, cause, pause_s)
            self._sleep(pause_s)
            pause_s *= 4
        raise AssertionError("the last attempt returns or raises")


def _cause(error: Exception) -> str:
    return str(error).strip().partition("\n")[0][:500]


def _shown(url: str) -> str:
    """A URL without what may be secret in it."""
    scheme, _, rest = url.partition("://")
    place = rest.partition("?")[0]
    return f"{scheme}://{place.rpartition('@')[2]}"


def _block_key(digest: str) -> str:
    return f"blocks/{digest[:2]}/{digest}"


def _trace_key(image_id: str) -> str:
    return f"images/{image_id}.trace"
