"""One suite for blobs in a folder and in a bucket."""

from __future__ import annotations

import asyncio
import hashlib
import os
from collections.abc import AsyncIterator
from pathlib import Path

import obstore
import pytest
from obstore.store import MemoryStore

from squall.protocol.errors import PlatformError
from squall.server.dispatch import SystemClock
from squall.server.store.blob import ObjectBlobStore


class Clock:
    """Seconds since 1970, plus what the test adds."""

    def __init__(self) -> None:
        self.ahead_s = 0.0

    def __call__(self) -> float:
        # The files' own times are the machine's.
        return SystemClock().now() + self.ahead_s


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture(params=["folder", "bucket"])
async def blobs(request: pytest.FixtureRequest, tmp_path: Path, clock: Clock) -> AsyncIterator[ObjectBlobStore]:
    """An empty store."""
    bucket = MemoryStore() if request.param == "bucket" else None
    async with ObjectBlobStore(str(tmp_path / "blobs"), clock, bucket) as opened:
        yield opened


def sha256_of(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


async def put(blobs: ObjectBlobStore, data: bytes, chunk_bytes: int = 1_000) -> str:
    sha256 = sha256_of(data)
    for offset in range(0, max(len(data), 1), chunk_bytes):
        await blobs.put_chunk(sha256, len(data), offset, data[offset : offset + chunk_bytes])
    return sha256


async def test_content_and_its_name_are_on_the_disk_when_a_put_has_returned(
    tmp_path: Path, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    done: list[str] = []
    sync, rename = os.fsync, Path.rename

    def noted(descriptor: int) -> None:
        done.append(f"sync {os.path.basename(os.readlink(f'/proc/self/fd/{descriptor}'))}")
        sync(descriptor)

    def renamed(self: Path, target: Path) -> Path:
        done.append(f"rename {target.name}")
        return rename(self, target)

    async with ObjectBlobStore(str(tmp_path / "blobs"), clock) as blobs:
        await put(blobs, b"first", 5)
        monkeypatch.setattr(os, "fsync", noted)
        monkeypatch.setattr(Path, "rename", renamed)
        sha256 = await put(blobs, b"data", 4)

    assert done[-3:] == [f"sync {sha256}", f"rename {sha256}", f"sync {sha256[:2]}"]


async def test_blob_is_read_back_in_any_chunks(blobs: ObjectBlobStore) -> None:
    data = bytes(range(256)) * 10

    sha256 = await put(blobs, data)

    assert await blobs.get_chunk(sha256) == (2_560, data)
    assert await blobs.get_chunk(sha256, 300, 10) == (2_560, data[300:310])
    assert await blobs.get_chunk(sha256, 2_550, 100) == (2_560, data[2_550:])
    assert await blobs.get_chunk(sha256, 2_560) == (2_560, b"")
    assert await blobs.get_chunk(sha256, 9_999) == (2_560, b"")


async def test_empty_blob_is_one_empty_chunk(blobs: ObjectBlobStore) -> None:
    sha256 = sha256_of(b"")

    assert await blobs.put_chunk(sha256, 0, 0, b"") is True
    assert await blobs.get_chunk(sha256) == (0, b"")


async def test_missing_names_what_is_not_here_whole(blobs: ObjectBlobStore) -> None:
    here = await put(blobs, b"here")
    half, never = sha256_of(b"half made"), sha256_of(b"never")
    await blobs.put_chunk(half, 9, 0, b"half")

    assert await blobs.missing((never, here, half, never)) == (never, half)


async def test_half_a_blob_is_not_visible(blobs: ObjectBlobStore) -> None:
    sha256 = sha256_of(b"half made")

    is_whole = await blobs.put_chunk(sha256, 9, 0, b"half")

    assert not is_whole
    assert blobs.path(sha256) is None
    with pytest.raises(PlatformError) as caught:
        await blobs.get_chunk(sha256)
    assert caught.value.code == "not_found"


async def test_chunks_may_come_twice_and_overlap(blobs: ObjectBlobStore) -> None:
    data = b"0123456789"
    sha256 = sha256_of(data)

    came = [
        await blobs.put_chunk(sha256, 10, offset, data[offset:end])
        for offset, end in ((0, 4), (0, 4), (2, 6), (0, 3), (6, 10), (0, 4))
    ]

    assert came == [False, False, False, False, True, True]
    assert await blobs.get_chunk(sha256) == (10, data)


async def test_gap_is_refused_and_says_where_to_go_on(blobs: ObjectBlobStore) -> None:
    sha256 = sha256_of(b"0123456789")
    await blobs.put_chunk(sha256, 10, 0, b"0123")

    with pytest.raises(PlatformError, match="go on at 4") as caught:
        await blobs.put_chunk(sha256, 10, 6, b"6789")

    assert caught.value.code == "conflict"


async def test_wrong_bytes_are_refused_and_forgotten(blobs: ObjectBlobStore) -> None:
    data = b"0123456789"
    sha256 = sha256_of(data)

    with pytest.raises(PlatformError, match="put it again") as caught:
        await blobs.put_chunk(sha256, 10, 0, b"012345678X")

    assert caught.value.code == "invalid"
    assert await blobs.missing((sha256,)) == (sha256,)
    assert await put(blobs, data, 4) == sha256
    assert await blobs.get_chunk(sha256) == (10, data)


async def test_wrong_size_does_not_keep_others_from_putting_it_right(blobs: ObjectBlobStore) -> None:
    sha256 = sha256_of(b"0123456789")
    await blobs.put_chunk(sha256, 99, 0, b"0123")

    assert await blobs.put_chunk(sha256, 10, 0, b"0123456789") is True


async def test_many_clients_may_put_the_same_blob_at_once(blobs: ObjectBlobStore) -> None:
    data = os.urandom(50_000)

    names = await asyncio.gather(*(put(blobs, data, 5_000) for _ in range(5)))

    assert await blobs.get_chunk(names[0]) == (50_000, data)


@pytest.mark.parametrize("name", ["", "../../etc/passwd", "AB" * 32, "ab" * 31, "ab" * 32 + "\n"])
async def test_what_is_no_hash_is_refused(blobs: ObjectBlobStore, name: str) -> None:
    for attempt in (blobs.missing((name,)), blobs.put_chunk(name, 1, 0, b"x"), blobs.get_chunk(name)):
        with pytest.raises(PlatformError) as caught:
            await attempt

        assert caught.value.code == "invalid"


async def test_chunk_outside_its_blob_is_refused(blobs: ObjectBlobStore) -> None:
    for size, offset, data in ((1, 0, b"xx"), (5, 5, b"x"), (-1, 0, b""), (5, -1, b"x")):
        with pytest.raises(PlatformError, match="no chunk of") as caught:
            await blobs.put_chunk("ab" * 32, size, offset, data)

        assert caught.value.code == "invalid"


async def test_deleted_blob_is_gone(blobs: ObjectBlobStore) -> None:
    sha256 = await put(blobs, b"here")

    await blobs.delete(sha256)
    await blobs.delete(sha256)

    assert await blobs.missing((sha256,)) == (sha256,)


async def test_half_made_blob_is_deleted_too(blobs: ObjectBlobStore, tmp_path: Path) -> None:
    data = b"half and half"
    sha256 = hashlib.sha256(data).hexdigest()
    await blobs.put_chunk(sha256, len(data), 0, data[:5])

    await blobs.delete(sha256)

    assert not [path for path in tmp_path.rglob(sha256) if path.is_file()]
    with pytest.raises(PlatformError, match="go on at 0"):
        await blobs.put_chunk(sha256, len(data), 5, data[5:])
    assert await blobs.put_chunk(sha256, len(data), 0, data)


async def test_eviction_spares_what_is_named_or_new(blobs: ObjectBlobStore, clock: Clock) -> None:
    kept, old = await put(blobs, b"k" * 600), await put(blobs, b"o" * 600)

    while_new = await blobs.evict(1_000, frozenset({kept}))
    clock.ahead_s = 25 * 3_600.0
    within_budget = await blobs.evict(1_200, frozenset({kept}))
    over_budget = await blobs.evict(1_000, frozenset({kept}))

    assert (while_new, within_budget, over_budget) == (0, 0, 600)
    assert await blobs.missing((kept, old)) == (old,)


async def test_eviction_spares_what_somebody_was_told_of(blobs: ObjectBlobStore, clock: Clock) -> None:
    """Who hears that a blob is there does not send it, and names it a moment later."""
    asked, sent, other = await put(blobs, b"a" * 600), await put(blobs, b"s" * 600), await put(blobs, b"o" * 600)
    clock.ahead_s = 25 * 3_600.0
    assert await blobs.missing((asked,)) == ()
    assert await blobs.put_chunk(sent, 600, 0, b"s" * 600)

    assert await blobs.evict(0, frozenset()) == 600
    assert await blobs.missing((asked, sent, other)) == (other,)
    clock.ahead_s = 50 * 3_600.0
    assert await blobs.evict(0, frozenset()) == 1_200


async def test_what_nobody_was_told_of_is_deleted_at_once_and_the_rest_a_day_later(
    blobs: ObjectBlobStore, clock: Clock
) -> None:
    asked, sent, other = await put(blobs, b"a" * 600), await put(blobs, b"s" * 600), await put(blobs, b"o" * 600)
    assert await blobs.missing((asked,)) == ()
    assert await blobs.put_chunk(sent, 600, 0, b"s" * 600)
    assert await blobs.missing((other,), is_told=False) == ()

    assert [await blobs.delete_untold(one) for one in (asked, sent, other)] == [False, False, True]
    assert await blobs.missing((asked, sent, other), is_told=False) == (other,)
    clock.ahead_s = 25 * 3_600.0
    assert await blobs.delete_untold(asked)
    assert await blobs.missing((asked, sent), is_told=False) == (asked,)


@pytest.mark.long
async def test_what_is_doubted_is_looked_at_and_forgotten_when_it_is_damaged(blobs: ObjectBlobStore) -> None:
    whole, damaged = await put(blobs, b"whole" * 2_000_000), await put(blobs, b"damaged")
    await _damage(blobs, damaged, b"damageD")
    for sha256 in (whole, damaged, "0" * 64):
        await blobs.check(sha256)
    assert await blobs.missing((whole, damaged)) == (damaged,)
    assert await put(blobs, b"damaged") == damaged
    assert (await blobs.get_chunk(damaged))[1] == b"damaged"


async def _damage(blobs: ObjectBlobStore, sha256: str, data: bytes) -> None:
    """Put other bytes in the place of a blob's."""
    path = blobs.path(sha256)
    if path is None:
        obstore.put(blobs._store, f"{sha256[:2]}/{sha256}", data)
        return
    Path(path).chmod(0o644)
    Path(path).write_bytes(data)


async def test_sweep_deletes_uploads_nobody_goes_on_with(blobs: ObjectBlobStore, clock: Clock) -> None:
    sha256 = sha256_of(b"0123456789")
    await blobs.put_chunk(sha256, 10, 0, b"0123")

    while_new = await blobs.sweep(60.0)
    clock.ahead_s = 61.0

    assert (while_new, await blobs.sweep(60.0)) == (0, 1)
    with pytest.raises(PlatformError, match="go on at 0"):
        await blobs.put_chunk(sha256, 10, 4, b"4567")


async def test_upload_goes_on_after_a_restart(tmp_path: Path, clock: Clock) -> None:
    data = b"0123456789"
    sha256 = sha256_of(data)
    async with ObjectBlobStore(str(tmp_path), clock) as before:
        await before.put_chunk(sha256, 10, 0, data[:4])

    async with ObjectBlobStore(str(tmp_path), clock) as after:
        is_whole = await after.put_chunk(sha256, 10, 4, data[4:])

        assert is_whole
        assert await after.get_chunk(sha256) == (10, data)


async def test_folder_lends_its_files_read_only(tmp_path: Path, clock: Clock) -> None:
    async with ObjectBlobStore(str(tmp_path), clock) as blobs:
        sha256 = await put(blobs, b"here")

        path = blobs.path(sha256)

    assert path is not None
    assert Path(path).read_bytes() == b"here"
    assert os.stat(path).st_mode & 0o222 == 0


async def test_bucket_has_no_files_to_lend(tmp_path: Path, clock: Clock) -> None:
    bucket = MemoryStore()
    async with ObjectBlobStore(str(tmp_path), clock, bucket) as blobs:
        sha256 = await put(blobs, b"here")

        assert blobs.path(sha256) is None
    assert bytes(obstore.get(bucket, f"{sha256[:2]}/{sha256}").bytes()) == b"here"
    assert list((tmp_path / "uploads").iterdir()) == []


async def test_eviction_from_a_bucket_leaves_what_others_have_put_there(tmp_path: Path, clock: Clock) -> None:
    bucket = MemoryStore()
    block = f"layers/blocks/aa/{'a' * 64}"
    obstore.put(bucket, block, b"x" * 5_000)
    async with ObjectBlobStore(str(tmp_path), clock, bucket) as blobs:
        sha256 = await put(blobs, b"y" * 100)
        clock.ahead_s = 25 * 3_600.0

        assert await blobs.evict(1_000, frozenset()) == 0
        assert await blobs.evict(0, frozenset()) == 100
        assert await blobs.missing((sha256,)) == (sha256,)

    assert bytes(obstore.get(bucket, block).bytes()) == b"x" * 5_000


async def test_a_blob_that_would_fill_the_disk_is_refused_at_its_beginning(blobs: ObjectBlobStore) -> None:
    sha256 = sha256_of(b"first of a petabyte")

    with pytest.raises(PlatformError, match="MiB are kept; free space in the data directory") as caught:
        await blobs.put_chunk(sha256, 10**15, 0, b"first")

    assert caught.value.code == "exhausted"
    assert await blobs.missing((await put(blobs, b"a small one"),)) == ()
