"""Blobs in a folder of this machine, or in a bucket that obstore knows (S3, GCS, Azure).

    <folder>/uploads/<sha256>          half-made: bytes so far, appended in order
    <folder>/content/<aa>/<sha256>     whole and verified; or the same names in the bucket

An upload becomes content by a rename after an fsync, or by a put of the verified file. The hash is kept up with the
bytes, so the last chunk costs no second read; after a restart it is computed once more from the file.
"""

from __future__ import annotations

import asyncio
import errno
import hashlib
import logging
import os
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING, TypeVar

import obstore
from obstore.exceptions import BaseError, NotFoundError
from obstore.store import LocalStore

from squall.protocol.blob import CHUNK_BYTES, is_sha256
from squall.protocol.errors import CONFLICT, EXHAUSTED, INVALID, NOT_FOUND, UNAVAILABLE, PlatformError
from squall.server.store.room import check_room

if TYPE_CHECKING:
    from datetime import datetime

    from obstore.store import ObjectStore

R = TypeVar("R")

_log = logging.getLogger("squall.server.store.blob")

THREADS = 4
EVICT_AGE_MIN_S = 24 * 3600.0
KEPT_S = EVICT_AGE_MIN_S / 2
"""Younger ones stay by themselves long enough for whoever is told of them."""
CHUNK_BYTES_MAX = 16 * CHUNK_BYTES


class _Upload:
    """A half-made blob: what is in its file."""

    def __init__(self) -> None:
        self.lock = asyncio.Lock()
        self.size_bytes = -1
        """-1 until the first chunk since the start of this process."""
        self.have_bytes = 0
        self.hash = hashlib.sha256()


class ObjectBlobStore:
    """See `BlobStore`."""

    def __init__(self, folder: str, now: Callable[[], float], bucket: ObjectStore | None = None) -> None:
        """`folder` holds uploads, and the content too without a `bucket`; `now` is seconds since 1970."""
        self._uploads_dir = Path(folder, "uploads")
        self._content_dir = Path(folder, "content") if bucket is None else None
        Path(folder).mkdir(parents=True, exist_ok=True, mode=0o700)
        self._uploads_dir.mkdir(exist_ok=True, mode=0o700)
        self._store = LocalStore(str(self._content_dir), mkdir=True) if bucket is None else bucket
        self._now = now
        self._uploads: dict[str, _Upload] = {}
        self._threads = ThreadPoolExecutor(THREADS, "blob")
        self._hashers = ThreadPoolExecutor(THREADS, "blob-hash")
        self._evicting = Lock()
        """Between the look whether one was told of, and its deletion."""
        self._told: dict[bytes, float] = {}
        """Of old ones: when somebody last heard that they are here. Not in the file's time, which containers see."""
        self._relied_on: dict[bytes, float] = {}
        """The same of those that somebody may name for it at any time, young ones too."""

    async def __aenter__(self) -> ObjectBlobStore:
        """Nothing to open."""
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        """Wait for what is being written."""
        self._threads.shutdown()
        self._hashers.shutdown()

    async def missing(self, sha256s: tuple[str, ...], *, is_told: bool = True) -> tuple[str, ...]:
        """See `BlobStore`."""
        asked = tuple(dict.fromkeys(_checked(sha256) for sha256 in sha256s))
        return await self._run(lambda: tuple(one for one in asked if not self._keep(one, is_told=is_told)))

    async def put_chunk(self, sha256: str, size_bytes: int, offset: int, data: bytes) -> bool:
        """See `BlobStore`."""
        _checked(sha256)
        if size_bytes < 0 or offset < 0 or offset + len(data) > size_bytes or len(data) > CHUNK_BYTES_MAX:
            raise PlatformError(
                INVALID, f"cannot put blob {sha256}: {len(data)} bytes at {offset} are no chunk of {size_bytes} bytes"
            )
        async with self._alone(sha256) as upload:
            try:
                is_whole = await self._run(lambda: self._put(upload, sha256, size_bytes, offset, data))
            except PlatformError:
                if not upload.have_bytes:
                    self._uploads.pop(sha256, None)
                raise
            if is_whole:
                self._uploads.pop(sha256, None)
        return is_whole

    async def get_chunk(self, sha256: str, offset: int = 0, length: int = CHUNK_BYTES) -> tuple[int, bytes]:
        """See `BlobStore`."""
        key = _key(_checked(sha256))
        if offset < 0 or length < 0:
            raise PlatformError(INVALID, f"cannot get blob {sha256}: {length} bytes at {offset} are no chunk")
        return await self._run(lambda: self._get(key, offset, min(length, CHUNK_BYTES_MAX)))

    def path(self, sha256: str) -> str | None:
        """See `BlobStore`."""
        if self._content_dir is None:
            return None
        path = self._content_dir / _key(_checked(sha256))
        return str(path) if path.is_file() else None

    async def check(self, sha256: str) -> None:
        """See `BlobStore`."""
        if await self._run(lambda: self._is_damaged(_checked(sha256))):
            _log.error("blob %s is damaged in the store; it is forgotten, and whole again when it is put again", sha256)
            await self.delete(sha256)

    async def delete(self, sha256: str) -> None:
        """See `BlobStore`."""
        key = _key(_checked(sha256))
        async with self._alone(sha256) as upload:
            await self._run(lambda: _forget(upload, self._uploads_dir / sha256))
            self._uploads.pop(sha256, None)
        await self._run(lambda: self._delete(key))

    async def delete_untold(self, sha256: str) -> bool:
        """See `BlobStore`."""
        key = _key(_checked(sha256))
        return await self._run(lambda: self._delete_untold(key))

    async def evict(self, bytes_max: int, keep: frozenset[str]) -> int:
        """See `BlobStore`."""
        return await self._run(lambda: self._evict(bytes_max, keep))

    async def sweep(self, older_than_s: float = 24 * 3600.0) -> int:
        """See `BlobStore`."""
        return await self._run(lambda: self._sweep(self._now() - older_than_s))

    @asynccontextmanager
    async def _alone(self, sha256: str) -> AsyncIterator[_Upload]:
        """The upload of a blob, for one at a time."""
        while True:
            upload = self._uploads.setdefault(sha256, _Upload())
            async with upload.lock:
                # Two that write to one file would not see what the other one wrote.
                if self._uploads.get(sha256) is upload:
                    yield upload
                    return

    async def _run(self, work: Callable[[], R]) -> R:
        def run() -> R:
            with _our_errors():
                return work()

        return await asyncio.get_running_loop().run_in_executor(self._threads, run)

    # On the threads

    def _keep(self, sha256: str, *, is_told: bool = True) -> bool:
        """Whether it is there. One that is stays for a while: who asks is about to name it, and does not send it."""
        name, now = bytes.fromhex(sha256), self._now()
        # Noted before it is looked for: from then on no eviction takes it.
        with self._evicting:
            self._told[name] = now
            if is_told:
                self._relied_on[name] = now
        made_at = self._made_at(sha256)
        if made_at is None or made_at > now - KEPT_S:
            with self._evicting:
                self._told.pop(name, None)
                if made_at is None:
                    self._relied_on.pop(name, None)
        return made_at is not None

    def _is_damaged(self, sha256: str) -> bool:
        digest, at = hashlib.sha256(), 0
        try:
            while True:
                size, data = self._get(_key(sha256), at, CHUNK_BYTES)
                digest.update(data)
                at += len(data)
                if not data or at >= size:
                    return digest.hexdigest() != sha256
        except (NotFoundError, FileNotFoundError):
            return False

    def _get(self, key: str, offset: int, length: int) -> tuple[int, bytes]:
        if self._content_dir is not None:
            return _read(self._content_dir / key, offset, length)
        size: int = obstore.head(self._store, key)["size"]
        end = min(size, offset + length)
        if offset >= end:
            return size, b""
        return size, bytes(obstore.get_range(self._store, key, start=offset, end=end))

    def _made_at(self, sha256: str) -> float | None:
        try:
            if self._content_dir is not None:
                return (self._content_dir / _key(sha256)).stat().st_mtime
            modified: datetime = obstore.head(self._store, _key(sha256))["last_modified"]
        except (NotFoundError, FileNotFoundError):
            return None
        return modified.timestamp()

    def _put(self, upload: _Upload, sha256: str, size_bytes: int, offset: int, data: bytes) -> bool:
        if self._keep(sha256):
            return True
        path = self._uploads_dir / sha256
        if upload.size_bytes == -1:
            _load(upload, path)
        elif upload.size_bytes != size_bytes:
            # Two clients of two opinions; one of them is wrong and the hash will tell which, so either may begin anew.
            _forget(upload, path)
        upload.size_bytes = size_bytes
        if offset > upload.have_bytes:
            raise PlatformError(
                CONFLICT, f"cannot put blob {sha256} at {offset}: go on at {upload.have_bytes}, the end of what came"
            )
        new = memoryview(data)[upload.have_bytes - offset :]
        check_room(self._uploads_dir, f"cannot put blob {sha256}", size_bytes - upload.have_bytes)
        if len(new) or not path.exists():
            self._append(upload, path, new)
        if upload.have_bytes < size_bytes:
            return False
        if upload.have_bytes > size_bytes or upload.hash.hexdigest() != sha256:
            found = upload.hash.hexdigest()
            _forget(upload, path)
            raise PlatformError(
                INVALID, f"cannot put blob {sha256}: the hash of its {size_bytes} bytes is {found}; put it again"
            )
        self._publish(path, sha256)
        return True

    def _append(self, upload: _Upload, path: Path, data: memoryview) -> None:
        """Write and hash at the same time: each takes a core half as long as the client needs to send."""
        hashed = upload.hash.copy()
        hashing = self._hashers.submit(hashed.update, data)
        with path.open("ab", buffering=0) as file:
            try:
                written = 0
                while written < len(data):
                    written += file.write(data[written:])
            except OSError:
                # A full disk may have taken half of it; the file must hold what the hash has seen.
                file.truncate(upload.have_bytes)
                raise
            finally:
                hashing.result()
        upload.hash = hashed
        upload.have_bytes += len(data)

    def _publish(self, path: Path, sha256: str) -> None:
        if self._content_dir is None:
            obstore.put(self._store, _key(sha256), path)
            path.unlink()
            return
        target = self._content_dir / _key(sha256)
        try:
            target.parent.mkdir()
            _sync_dir(self._content_dir)
        except FileExistsError:
            pass  # as mostly
        with path.open("rb") as file:
            # It may be linked into containers: nobody writes content again.
            os.fchmod(file.fileno(), 0o444)
            os.fsync(file.fileno())
        path.rename(target)
        _sync_dir(target.parent)

    def _delete(self, key: str) -> None:
        try:
            obstore.delete(self._store, key)
        except (NotFoundError, FileNotFoundError):
            return

    def _delete_older(self, key: str, newest: float) -> bool:
        """Delete it, unless somebody was told meanwhile that it is there."""
        with self._evicting:
            if self._told.get(bytes.fromhex(key.rpartition("/")[2]), newest) > newest:
                return False
            self._delete(key)
        return True

    def _delete_untold(self, key: str) -> bool:
        newest = self._now() - EVICT_AGE_MIN_S
        with self._evicting:
            if self._relied_on.get(bytes.fromhex(key.rpartition("/")[2]), newest) > newest:
                return False
            self._delete(key)
        return True

    def _evict(self, bytes_max: int, keep: frozenset[str]) -> int:
        found = []
        total = 0
        for batch in obstore.list(self._store):
            for item in batch:
                # A bucket may be used by others too: nodes put layers there.
                name = item["path"].rpartition("/")[2]
                if not is_sha256(name) or item["path"] != _key(name):
                    continue
                total += item["size"]
                found.append((item["last_modified"].timestamp(), item["size"], item["path"]))
        deleted = 0
        newest = self._now() - EVICT_AGE_MIN_S
        with self._evicting:
            self._told = {name: at for name, at in self._told.items() if at > newest}
            self._relied_on = {name: at for name, at in self._relied_on.items() if at > newest}
        for at, size, key in sorted(found):
            if total - deleted <= bytes_max or at > newest:
                break
            if key.rpartition("/")[2] not in keep and self._delete_older(key, newest):
                deleted += size
        return deleted

    def _sweep(self, before: float) -> int:
        count = 0
        for path in self._uploads_dir.iterdir():
            upload = self._uploads.get(path.name)
            is_busy = upload is not None and upload.lock.locked()
            if not is_busy and path.stat().st_mtime < before:
                path.unlink(missing_ok=True)
                self._uploads.pop(path.name, None)
                count += 1
        return count


def _checked(sha256: str) -> str:
    if not is_sha256(sha256):
        raise PlatformError(INVALID, f"not the SHA-256 of a blob (64 hexadecimal digits): {sha256[:80]!r}")
    return sha256


def _key(sha256: str) -> str:
    return f"{sha256[:2]}/{sha256}"


def _load(upload: _Upload, path: Path) -> None:
    """Take up what another process left."""
    if not path.exists():
        return
    with path.open("rb") as file:
        while block := file.read(2**20):
            upload.hash.update(block)
            upload.have_bytes += len(block)


def _forget(upload: _Upload, path: Path) -> None:
    path.unlink(missing_ok=True)
    upload.have_bytes = 0
    upload.hash = hashlib.sha256()


def _read(path: Path, offset: int, length: int) -> tuple[int, bytes]:
    """The size of a file, and so many of its bytes."""
    with path.open("rb", buffering=0) as file:
        size = os.fstat(file.fileno()).st_size
        return size, os.pread(file.fileno(), max(0, min(length, size - offset)), offset)


def _sync_dir(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def _our_errors() -> Iterator[None]:
    try:
        yield
    except (NotFoundError, FileNotFoundError) as error:
        raise PlatformError(NOT_FOUND, f"no such blob: {error}") from error
    except (OSError, BaseError) as error:
        is_full = isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT)
        if is_full or "No space left" in str(error):
            raise PlatformError(
                EXHAUSTED,
                f"cannot write a blob: {error}; free space in the data directory's file system, or move it",
            ) from error
        raise PlatformError(UNAVAILABLE, f"cannot use the blob store: {error}") from error
