"""The content of files on its way from volumes: blocks, each checked by its name, the next ones asked for ahead."""

from __future__ import annotations

from collections import deque
from collections.abc import AsyncGenerator, Iterator
from typing import TYPE_CHECKING, Any, TypeVar

from squall.exception import DataLossError, NotFoundError
from squall.protocol.blob import CHUNK_BYTES, BlobChunk, BlobGet, BlobMissing, BlobStat
from squall.protocol.hashing import sha256_hex
from squall.protocol.volume import BLOCK_BYTES, HOLE, VolumeBlocks, VolumeBlocksGet, from_wire
from squall.sdk import _blob

if TYPE_CHECKING:
    from squall.sdk._client import Client
    from squall.sdk._pending import Pending

T = TypeVar("T")

FILES_AHEAD = 32
"""Whose blocks are asked for while others are read."""
CHUNKS_AHEAD = 4
"""Asked for while others are checked: two blocks."""


class VolumeReader:
    """Reads files. Of small ones that share a block, the block is asked for once."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self._shared = "", b""
        """The last block that was small files, by its name."""

    async def read(self, asked: VolumeBlocksGet) -> AsyncGenerator[tuple[bytes, int], None]:
        """The content of a file in order: bytes, or none and how many zeros.

        Raises:
            NotFoundError: there is no such file.
            DataLossError: a block is damaged, or is not there.
        """
        page = await self._client.request("VolumeBlocksGet", asked, VolumeBlocks)
        pieces = self.read_from(asked, page)
        try:
            async for piece in pieces:
                yield piece
        finally:
            await pieces.aclose()

    async def first_pages(
        self, questions: Iterator[tuple[VolumeBlocksGet, VolumeBlocks | None, T]]
    ) -> AsyncGenerator[tuple[VolumeBlocksGet, VolumeBlocks, T], None]:
        """The answer to each of these, with what came with it; several are asked ahead, but those that are known.

        Raises:
            NotFoundError: there is no such file.
        """
        under_way: deque[tuple[VolumeBlocksGet, VolumeBlocks | Pending[Any], T]] = deque()
        while True:
            while len(under_way) < FILES_AHEAD and (one := next(questions, None)) is not None:
                asked, known, companion = one
                page = self._client.ask("VolumeBlocksGet", asked) if known is None else known
                under_way.append((asked, page, companion))
            if not under_way:
                return
            asked, page, companion = under_way.popleft()
            if not isinstance(page, VolumeBlocks):
                page = self._client.codec.record(VolumeBlocks, (await page)[0])
            yield asked, page, companion

    async def read_from(
        self, asked: VolumeBlocksGet, page: VolumeBlocks, skipped: int = 0
    ) -> AsyncGenerator[tuple[bytes, int], None]:
        """The content of a file of which the first answer is there, without the first `skipped` blocks of that.

        Raises:
            DataLossError: a block is damaged, or is not there.
        """
        while True:
            pieces = self._read_page(asked, page, skipped)
            try:
                async for piece in pieces:
                    yield piece
            finally:
                await pieces.aclose()
            following = asked.following(page)
            if following is None:
                return
            asked, skipped = following, 0
            page = await self._client.request("VolumeBlocksGet", asked, VolumeBlocks)

    async def _read_page(
        self, asked: VolumeBlocksGet, page: VolumeBlocks, skipped: int
    ) -> AsyncGenerator[tuple[bytes, int], None]:
        path = from_wire(asked.path)
        first = asked.first + skipped
        sizes = _sizes(page.size, first)
        blocks = page.blocks[skipped:]
        if page.size <= BLOCK_BYTES:
            for block in blocks:
                yield (b"", page.size) if block == HOLE else (await self._part(path, block, page), page.size)
            return
        chunks = _chunks(blocks, first, page.size)
        under_way: deque[Pending[Any]] = deque()
        for block, size in zip(blocks, sizes, strict=False):
            if block == HOLE:
                yield b"", size
                continue
            pieces = []
            for _ in range(-(-size // CHUNK_BYTES)):
                while len(under_way) < CHUNKS_AHEAD and (record := next(chunks, None)) is not None:
                    under_way.append(self._client.ask("BlobGet", record))
                pieces.append(await self._chunk(path, block, under_way.popleft(), size))
            data = b"".join(pieces)
            if len(data) != size or sha256_hex(data) != block:
                raise await self._doubted(path, block)
            yield data, size

    async def _part(self, path: str, block: str, page: VolumeBlocks) -> bytes:
        """A file in a block that it may share with others."""
        name, data = self._shared
        if name != block:
            try:
                data = b"".join(await _blob.get(self._client, block))
            except NotFoundError:
                raise _damaged(path, block, GONE) from None
            except DataLossError:
                raise await self._doubted(path, block) from None
            if page.offset or len(data) > page.size:
                self._shared = block, data
        part = data[page.offset : page.offset + page.size]
        if len(part) != page.size:
            raise _damaged(path, block, "it is shorter than the file says")
        return part

    async def _doubted(self, path: str, block: str) -> DataLossError:
        """Tell the store, which forgets it if it is damaged there: what it lacks can be put again."""
        await self._client.request("BlobStat", BlobStat((block,), is_doubted=True), BlobMissing)
        return _damaged(path, block, "what is stored as it is something else; put the file again to mend it")

    async def _chunk(self, path: str, block: str, under_way: Pending[Any], size: int) -> bytes:
        try:
            params, body = await under_way
        except NotFoundError:
            raise _damaged(path, block, GONE) from None
        if self._client.codec.record(BlobChunk, params).size_bytes != size:
            raise await self._doubted(path, block)
        return bytes(body)


GONE = "it is not in the store: it was damaged there, or the version that had it was forgotten meanwhile"


def _sizes(total: int, first: int) -> Iterator[int]:
    """Of the blocks of a file, from one on."""
    return (min(BLOCK_BYTES, total - at) for at in range(first * BLOCK_BYTES, total, BLOCK_BYTES))


def _chunks(blocks: tuple[str, ...], first: int, total: int) -> Iterator[BlobGet]:
    for block, size in zip(blocks, _sizes(total, first), strict=False):
        if block != HOLE:
            for offset in range(0, size, CHUNK_BYTES):
                yield BlobGet(block, offset, CHUNK_BYTES)


def _damaged(path: str, block: str, why: str) -> DataLossError:
    return DataLossError(f"{path!r} cannot be read: of its block {block}: {why}")
