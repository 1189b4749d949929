"""Takes built images out of this node for whoever asks: to a registry, or as one file that is sent back."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TypeVar

from squall.agent.image.layer.scratch import Scratch
from squall.agent.image.layer.store import LayerError, LayerStore
from squall.agent.image.machine.settings import MachineSettings
from squall.agent.image.machine.tool import Output
from squall.agent.image.oci import deliver, refusal
from squall.agent.image.oci.credentials import Credentials
from squall.agent.image.oci.deliver import CannotExport, Layout
from squall.agent.image.oci.refusal import RegistryFailure
from squall.agent.image.oci.registry_secret import BadSecret, Login, credentials_of, login_of
from squall.agent.image.progress import BuiltImage
from squall.protocol.errors import FORBIDDEN, INTERNAL, INVALID, UNAVAILABLE, PlatformError
from squall.protocol.image import ImageInvalid, ImageSpec, step_title
from squall.protocol.image_transfer import ImageExport, ImagePush, TransferEvent, check_export, check_push
from squall.protocol.request import Request
from squall.runtime.removal import remove_tree

TRANSFERS_MAX = 2
"""At a time; the others wait. Each writes the whole image to the disk once more."""
_PART_BYTES = 1 << 20
_CODES = {refusal.UNAUTHORIZED: FORBIDDEN}
T = TypeVar("T")


class Transfers:
    """Images on their way out of this node.

    Args:
        store: in whose file system they are written meanwhile.
        settings: this machine's, for registries.
    """

    def __init__(self, store: LayerStore, settings: MachineSettings) -> None:
        self._store = store
        self._settings = settings
        self._room = asyncio.Semaphore(TRANSFERS_MAX)

    async def push(self, request: Request, built: BuiltImage, spec: ImageSpec | None) -> None:
        """Answer an `ImagePush` of this image.

        Raises:
            PlatformError: it is not in the registry under that name now, or as it was before.
        """
        record = request.record(ImagePush)
        with _told(f"cannot push image {built.image_id} to {record.target}"):
            check_push(record)
            login = _login(record)
            async with self._laid_out(request, built, spec) as layout:
                digest = await _followed(
                    request,
                    lambda output: deliver.push_image(
                        layout,
                        record.target,
                        self._settings,
                        output,
                        credentials=credentials_of(login, record.target, self._settings, output) if login else None,
                        compression=record.compression,
                    ),
                )
                await request.send_item(TransferEvent("done", digest=digest))

    async def export(self, request: Request, built: BuiltImage, spec: ImageSpec | None) -> None:
        """Answer an `ImageExport` of this image.

        Raises:
            PlatformError: what was sent so far is not all of the file.
        """
        record = request.record(ImageExport)
        with _told(f"cannot export image {built.image_id}"):
            check_export(record)
            async with self._laid_out(request, built, spec) as layout:
                archive = await _followed(
                    request,
                    lambda output: deliver.write_archive(
                        layout, record.form, record.tag, self._settings, output, compression=record.compression
                    ),
                )
                await request.send_item(TransferEvent("done", size_bytes=await _send(request, archive)))

    @asynccontextmanager
    async def _laid_out(self, request: Request, built: BuiltImage, spec: ImageSpec | None) -> AsyncIterator[Layout]:
        """The image as a directory of OCI's form, which is gone afterwards."""
        async with self._room, self._scratch() as scratch:
            for layer_id in built.config.layers:
                self._store.mark_used(layer_id)
            titles = _titles(built, spec)
            yield await _followed(
                request, lambda output: deliver.write_layout(built.layers, titles, built.config, scratch, output)
            )

    @asynccontextmanager
    async def _scratch(self) -> AsyncIterator[Scratch]:
        with self._store.scratch() as scratch:
            try:
                yield scratch
            finally:
                # In a thread: these are whole images.
                await asyncio.to_thread(remove_tree, str(scratch.path))


def _login(record: ImagePush) -> Login | None:
    """None: what this machine knows."""
    if record.secret:
        return login_of(record.secret)
    return Credentials(record.username, record.password) if record.username else None


def _titles(built: BuiltImage, spec: ImageSpec | None) -> list[str]:
    """Of the steps that made its layers; nothing where several were made into one, or its steps are not known."""
    if spec is None or len(built.layers) != len(built.parts):
        return []
    return [step_title(spec.steps[part.step - 1]) for part in built.parts]


@contextlib.contextmanager
def _told(what: str) -> Iterator[None]:
    try:
        yield
    except ImageInvalid as error:
        raise PlatformError(INVALID, f"{what}: {error}") from None
    except (CannotExport, BadSecret) as error:
        raise PlatformError(INVALID, f"{what}: {error}") from None
    except RegistryFailure as error:
        raise PlatformError(
            _CODES.get(error.kind, UNAVAILABLE), f"{what}: {str(error).partition(': ')[2] or error}"
        ) from None
    except (LayerError, OSError) as error:
        raise PlatformError(INTERNAL, f"{what}: {error}") from error


async def _followed(request: Request, work: Callable[[Output], T]) -> T:
    """Do something in a thread, and pass on the lines it says. Cancelled, it is over when this returns."""
    loop = asyncio.get_running_loop()
    lines: asyncio.Queue[str | None] = asyncio.Queue()
    is_abandoned = threading.Event()

    def tell(line: str) -> None:
        # The loop may be gone while the thread still reads the last lines.
        with contextlib.suppress(RuntimeError):
            loop.call_soon_threadsafe(lines.put_nowait, line)

    async def work_to_the_end() -> T:
        try:
            return await asyncio.to_thread(work, Output(tell, is_abandoned.is_set))
        finally:
            lines.put_nowait(None)

    working = asyncio.ensure_future(work_to_the_end())
    try:
        while (line := await lines.get()) is not None:
            await request.send_item(TransferEvent("line", line))
        return await working
    finally:
        is_abandoned.set()
        # It writes into a directory that is about to be removed. What it says now nobody wants.
        await asyncio.wait([working])
        if not working.cancelled():
            # Seen, so that asyncio does not complain of an exception nobody waits for any more.
            working.exception()


async def _send(request: Request, archive: Path) -> int:
    """Send a file, part by part; returns its size."""
    size = 0
    with await asyncio.to_thread(archive.open, "rb") as file:
        while part := await asyncio.to_thread(file.read, _PART_BYTES):
            await request.send_item(TransferEvent("data"), part)
            size += len(part)
    return size
