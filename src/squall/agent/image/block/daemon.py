"""`python -m squall.agent.image.block.daemon DATA_DIR`: serve layers that are not whole yet, as files through FUSE.

The mount is attached nowhere: it is there as long as a descriptor of this process, and is reached as
/proc/<pid>/fd/<number>/<layer id>. Killing this process ends it; who has one of its files mounted then gets EIO, and
nothing is left on the machine. It outlives the agent, as containers do, and ends by itself when nobody uses it.

What it is told at the start comes as JSON on standard input: {"url": ..., "patience": [attempts, pause_s, answer_s]}.
"""

from __future__ import annotations

import errno
import json
import logging
import os
import stat
import sys
import threading
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from squall.agent.image.block.control import ControlSocket
from squall.agent.image.block.errors import BlockError
from squall.agent.image.block.libfuse import mfusepy
from squall.agent.image.block.served import Served, ServedLayers
from squall.agent.image.block.store import Patience, open_store
from squall.agent.image.layer.store import LayerStore
from squall.runtime import syscalls as sc
from squall.runtime.errors import RuntimeFailure

IDLE_S = 5.0
"""It ends when nobody has a file open for so long, unless an agent is there and something is not whole."""
_TICK_S = 0.5
_CACHED_S = 3_600.0

_log = logging.getLogger("squall.agent.image.block.daemon")


class Files(mfusepy.Operations):  # type: ignore[misc]  # it has no types
    """One file for each layer."""

    use_ns = True

    def __init__(self, served: ServedLayers) -> None:
        self._served = served
        self._open: dict[int, Served] = {}
        self._lock = threading.Lock()
        self._count = 0

    def getattr(self, path: str, fh: int | None = None) -> dict[str, int]:
        """What stat shows."""
        if path == "/":
            return {"st_mode": stat.S_IFDIR | 0o500, "st_nlink": 2}
        size = self._find(path).partial.manifest.size_bytes
        return {"st_mode": stat.S_IFREG | 0o400, "st_nlink": 1, "st_size": size}

    def readdir(self, path: str, fh: int) -> Iterable[str]:
        """The layers."""
        return [".", "..", *self._served.names()]

    def open(self, path: str, flags: int) -> int:
        """A number for `read`."""
        served = self._served.open(path[1:])
        if served is None:
            raise mfusepy.FuseOSError(errno.ENOENT)
        with self._lock:
            self._count += 1
            self._open[self._count] = served
            return self._count

    def release(self, path: str, fh: int) -> int:
        """Nobody has it open any more."""
        with self._lock:
            served = self._open.pop(fh, None)
        if served is not None:
            self._served.close(served)
        return 0

    def read(self, path: str, size: int, offset: int, fh: int) -> bytes:
        """Bytes, which may have to come from the store first; EIO when it does not give them."""
        try:
            return self._served.read(self._open[fh], offset, size)
        except BlockError as error:
            _log.error("%s", error)
        except Exception:  # noqa: BLE001 - top of a request
            _log.exception("cannot read %s", path)
        raise mfusepy.FuseOSError(errno.EIO)

    def _find(self, path: str) -> Served:
        served = self._served.find(path[1:])
        if served is None:
            raise mfusepy.FuseOSError(errno.ENOENT)
        return served


class Daemon:
    """One process: the mount, the fill, and the socket that the agent asks at."""

    def __init__(self, data_dir: Path, url: str, patience: Patience) -> None:
        self._served = ServedLayers(open_store(url, patience), LayerStore(data_dir, is_packed=True))
        self._device = os.open("/dev/fuse", os.O_RDWR | os.O_CLOEXEC)
        options = {"fd": str(self._device), "rootmode": "40000", "user_id": "0", "group_id": "0"}
        attributes = sc.MOUNT_ATTR_RDONLY | sc.MOUNT_ATTR_NODEV | sc.MOUNT_ATTR_NOSUID | sc.MOUNT_ATTR_NOEXEC
        self._mount = sc.make_mount("squall", "fuse", attributes, options)
        self._control = ControlSocket(data_dir, self._answer)

    def run(self) -> None:
        """Serve; returns never, but ends the process."""
        for activity in (self._served.fill, self._control.serve, self._look_after):
            threading.Thread(target=activity, daemon=True).start()
        options = {"kernel_cache": True, "attr_timeout": _CACHED_S, "entry_timeout": 0.0, "negative_timeout": 0.0}
        mfusepy.FUSE(Files(self._served), f"/dev/fd/{self._device}", foreground=True, **options)
        # The connection was aborted: whoever has a file open gets EIO already.
        os._exit(1)

    def _answer(self, request: dict[str, Any]) -> dict[str, Any]:
        what = request.get("do")
        if what == "add":
            try:
                found = self._served.add(request["image_id"], request["digests"], request["wanted"])
            except BlockError as error:
                return {"error": str(error)}
            place = f"/proc/{os.getpid()}/fd/{self._mount}"
            return {"paths": {one: os.path.join(place, name) for one, name in found.items()}}
        if what == "end":
            threading.Timer(0.05, self._end).start()
        return self._served.state()

    def _look_after(self) -> None:
        """Put traces, let go of what is whole, and end when there is nothing to do."""
        idle_since_s = time.monotonic()
        while True:
            time.sleep(_TICK_S)
            self._served.save_traces()
            self._served.drop_unused()
            state = self._served.state()
            # Without an agent nobody starts anything from what would come.
            has_more = (state["incomplete"] or state["is_awaited"]) and self._control.connections
            is_needed = state["opens"] or has_more
            if is_needed or state["recordings"]:
                idle_since_s = time.monotonic()
            if time.monotonic() - idle_since_s > IDLE_S:
                self._end()

    def _end(self) -> None:
        self._control.close()
        os._exit(0)


def main(arguments: Sequence[str]) -> None:
    """Return when it listens, to serve until nobody needs it."""
    told = json.load(sys.stdin)
    read, write = os.pipe()
    # Nobody's child, so that nobody has to wait for it. Before there are threads.
    if os.fork():
        os.close(write)
        os._exit(0 if os.read(read, 1) else 1)
    os.setsid()
    os.close(read)
    handler = logging.StreamHandler()
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    logging.getLogger("squall").addHandler(handler)
    logging.getLogger("squall").setLevel(logging.INFO)
    attempts, pause_s, answer_s = told["patience"]
    try:
        daemon = Daemon(Path(arguments[0]), told["url"], Patience(int(attempts), pause_s, answer_s))
    except (BlockError, RuntimeFailure, OSError) as error:
        print(error, file=sys.stderr)  # tidy: the program's answer
        sys.exit(1)
    os.write(write, b".")
    os.close(write)
    daemon.run()


if __name__ == "__main__":
    main(sys.argv[1:])
