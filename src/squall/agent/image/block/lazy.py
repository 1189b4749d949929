"""The agent's end of the daemon that serves layers: starts it when it is wanted, notices when it dies or hangs.

A daemon that is gone is started again, and goes on with the layers that were not whole: what is here of them stays.
Containers that had them mounted get EIO from what they have not read yet; new ones mount what the new daemon serves.
Where there can be none (no FUSE, no library of it, no mounts of EROFS from files) layers are fetched whole.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import signal
import socket
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from squall.agent.image.block.control import LINE_BYTES_MAX, PROGRAM, peer_pid, socket_path
from squall.agent.image.block.errors import BlockError
from squall.agent.image.block.manifest import ImageManifest
from squall.agent.image.block.store import Patience
from squall.agent.image.machine.own_program import own_environ, own_program

LOG_NAME = "lazy.log"
START_S = 15.0
ADD_S = 120.0
PING_S = 5.0
ANSWER_S = 10.0
"""A daemon that does not answer a ping for so long hangs, and every read of its files with it: it is killed."""
AGAIN_S = 60.0
"""After a daemon could not be started, or ended at once."""

_log = logging.getLogger("squall.agent.image.block.lazy")


class NoDaemon(BlockError):
    """There is no daemon, and none can be started now."""


class LazyLayers:
    """Layers of this node that are mounted before they are whole. Enter to find a daemon that an earlier agent left.

    Args:
        environ: what the store's credentials are in; the daemon gets it and nothing else of ours.
    """

    def __init__(self, data_dir: Path, url: str, patience: Patience, environ: Mapping[str, str]) -> None:
        self._data_dir = data_dir
        self._told = json.dumps({"url": url, "patience": [patience.attempts, patience.pause_s, patience.answer_s]})
        self._environ = environ
        self._lock = asyncio.Lock()
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None
        self._pid = 0
        self._missing_until_s = 0.0
        self._images: dict[str, tuple[ImageManifest, tuple[str, ...]]] = {}
        self._watching: asyncio.Task[None] | None = None

    async def __aenter__(self) -> LazyLayers:
        async with self._lock:
            await self._connect()
        self._watching = asyncio.create_task(self._watch())
        return self

    async def __aexit__(self, *error: object) -> None:
        if self._watching is not None:
            self._watching.cancel()
            await asyncio.gather(self._watching, return_exceptions=True)
        self._disconnect()

    @property
    def pid(self) -> int:
        """The daemon's; 0 without one."""
        return self._pid if self._streams is not None else 0

    async def ready(self) -> None:
        """Return when there is a daemon.

        Raises:
            NoDaemon: there can be none now.
        """
        async with self._lock:
            await self._ensure()

    async def open(self, manifest: ImageManifest, wanted: Sequence[str]) -> dict[str, str]:
        """Where to mount layers of an image from, by the names of their manifests.

        Raises:
            NoDaemon: fetch them whole.
            BlockError: the store does not give what a mount needs.
        """
        request = {
            "do": "add",
            "image_id": manifest.image_id,
            "digests": list(manifest.layers),
            "wanted": list(wanted),
        }
        await self.ready()
        try:
            # Over a connection of its own: nothing waits for a slow store but those who want something of it.
            streams = await asyncio.open_unix_connection(str(socket_path(self._data_dir)), limit=LINE_BYTES_MAX)
            try:
                answer = await _ask(streams, request, ADD_S)
            finally:
                streams[1].close()
        except OSError as error:
            raise NoDaemon(f"the daemon that serves layers has ended ({error}); see {LOG_NAME}") from error
        if "error" in answer:
            raise BlockError(answer["error"])
        self._images[manifest.image_id] = (manifest, tuple(wanted))
        return {str(digest): str(path) for digest, path in answer["paths"].items()}

    async def state(self) -> dict[str, int]:
        """Its counts; empty without one."""
        async with self._lock:
            try:
                return await self._ask({"do": "state"}) if self._streams is not None else {}
            except OSError:
                self._disconnect()
                return {}

    async def end(self) -> None:
        """End the daemon: no container has anything of it mounted any more."""
        self._images.clear()
        async with self._lock:
            if self._streams is not None:
                try:
                    await self._ask({"do": "end"})
                    await asyncio.wait_for(self._streams[0].read(), ANSWER_S)
                except OSError:
                    self._kill()
            self._disconnect()

    # The daemon

    async def _ensure(self) -> None:
        if self._streams is not None or await self._connect():
            return
        if time.monotonic() < self._missing_until_s:
            raise NoDaemon(f"the daemon that serves layers could not be started of late; see {LOG_NAME}")
        self._missing_until_s = time.monotonic() + AGAIN_S
        await self._launch()
        if not await self._connect():
            raise NoDaemon(f"the daemon that serves layers has ended at once; see {LOG_NAME}")
        self._missing_until_s = 0.0

    async def _launch(self) -> None:
        log_path = self._data_dir / LOG_NAME
        log = os.open(log_path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        try:
            process = await asyncio.create_subprocess_exec(
                *own_program(PROGRAM, str(self._data_dir)),
                env={**self._environ, **own_environ()},
                stdin=asyncio.subprocess.PIPE,
                stdout=log,
                stderr=log,
            )
        finally:
            os.close(log)
        try:
            await asyncio.wait_for(process.communicate(self._told.encode()), START_S)
        except TimeoutError:
            process.kill()
            await process.wait()
        if process.returncode:
            said = log_path.read_text(errors="replace").strip().rpartition("\n")[2]
            raise NoDaemon(f"cannot serve layers that are not whole: {said or 'their daemon does not start'}")

    async def _connect(self) -> bool:
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        connection.setblocking(False)
        try:
            await asyncio.get_running_loop().sock_connect(connection, str(socket_path(self._data_dir)))
            self._pid = peer_pid(connection)
            self._streams = await asyncio.open_unix_connection(sock=connection, limit=LINE_BYTES_MAX)
        except OSError:
            connection.close()
            return False
        return True

    def _disconnect(self) -> None:
        if self._streams is not None:
            self._streams[1].close()
            self._streams = None

    async def _ask(self, request: dict[str, Any]) -> dict[str, Any]:
        if self._streams is None:
            raise ConnectionResetError("it is not there")
        return await _ask(self._streams, request, ANSWER_S)

    def _kill(self) -> None:
        try:
            os.kill(self._pid, signal.SIGKILL)
        except OSError as error:
            _log.info("the daemon that serves layers is gone: %s", error)

    async def _watch(self) -> None:
        """Ask it how it is, for ever."""
        while True:
            await asyncio.sleep(PING_S)
            if self._streams is None and not self._images:
                continue
            try:
                async with self._lock:
                    state = await self._ask({"do": "state"})
                if not state["incomplete"]:
                    self._images.clear()
            except TimeoutError:
                _log.error("the daemon that serves layers hangs; it is killed, and what is not whole served anew")
                self._kill()
                self._disconnect()
                await self._resume()
            except OSError as error:
                self._disconnect()
                if self._images:
                    _log.error("the daemon that serves layers has ended (%s); see %s", error, LOG_NAME)
                await self._resume()

    async def _resume(self) -> None:
        """Go on with what was not whole."""
        for manifest, wanted in tuple(self._images.values()):
            try:
                await self.open(manifest, wanted)
            except BlockError as error:
                _log.warning("image %s is not served: %s", manifest.image_id, error)


async def _ask(
    streams: tuple[asyncio.StreamReader, asyncio.StreamWriter], request: dict[str, Any], timeout_s: float
) -> dict[str, Any]:
    """One question and its answer.

    Raises:
        OSError: there is no daemon any more, or it does not answer in time.
    """
    reader, writer = streams
    writer.write(json.dumps(request).encode() + b"\n")
    line = await asyncio.wait_for(reader.readline(), timeout_s)
    if not line:
        raise ConnectionResetError("it closed the connection")
    answer: dict[str, Any] = json.loads(line)
    return answer
