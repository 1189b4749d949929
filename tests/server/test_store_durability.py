"""What the SQL store said is written is there after the worst end of its process; what cannot be written says why."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from squall.protocol.call import SPAWN
from squall.protocol.errors import PlatformError
from squall.server.model.store import StoredCall, StoredInput, StoredOutput
from squall.server.store.database import CONNECTIONS
from squall.server.store.migration import upgrade
from squall.server.store.room import check_room
from squall.server.store.sql import SqlStore

pytestmark = pytest.mark.long

# Says the id of each call on stdout once `put_call` has returned; many at a time, so that the end comes in mid-commit.
SPAWNER = """
import asyncio, os, sys
from squall.protocol.call import SPAWN
from squall.server.model.store import StoredCall, StoredInput
from squall.server.store.migration import upgrade
from squall.server.store.sql import SqlStore

async def spawn(store, lane):
    for number in range(100_000):
        call_id = f"fc-{lane}-{number}"
        await store.put_call(StoredCall(call_id, "fu-1", "ap-1", SPAWN, 1.0), (StoredInput(call_id, 0, b"x" * 2_000),))
        os.write(1, (call_id + "\\n").encode())

async def main():
    async with SqlStore(sys.argv[1], upgrade) as store:
        await asyncio.gather(*(spawn(store, lane) for lane in range(40)))

asyncio.run(main())
"""


def test_kill_in_mid_commit_loses_nothing_acknowledged(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/squall.db"
    child = subprocess.Popen([sys.executable, "-c", SPAWNER, url], stdout=subprocess.PIPE)
    assert child.stdout is not None
    said = b""
    while said.count(b"\n") < 500:
        said += os.read(child.stdout.fileno(), 65_536)

    child.send_signal(signal.SIGKILL)
    said += child.stdout.read()
    child.stdout.close()
    child.wait(timeout=10)

    acknowledged = set(said.decode().split("\n")[:-1])
    kept = asyncio.run(_unfinished(url))
    assert acknowledged <= set(kept)
    assert all(len(inputs) == 1 for inputs in kept.values())


async def _unfinished(url: str) -> dict[str, tuple[StoredInput, ...]]:
    async with SqlStore(url, upgrade) as store:
        return {one.call.call_id: one.inputs for one in await store.unfinished_inputs("fu-1", limit=10**6)}


async def test_full_disk_is_exhausted_and_says_what_to_do(tmp_path: Path) -> None:
    async with SqlStore(f"sqlite:///{tmp_path}/squall.db", upgrade) as store:
        await _limit_pages(store)
        call = StoredCall("fc-1", "fu-1", "ap-1", SPAWN, 1.0)

        with pytest.raises(PlatformError, match="free space") as caught:
            await store.put_call(call, (StoredInput("fc-1", 0, b"x" * 4_000_000),))
        await store.put_setting("colour", "blue")

        assert caught.value.code == "exhausted"
        assert await store.get_setting("colour") == "blue"
        assert await store.unfinished_inputs("fu-1") == ()


async def test_call_that_would_fill_the_disk_is_refused_and_what_ends_is_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with SqlStore(f"sqlite:///{tmp_path}/squall.db", upgrade) as store:
        await store.put_call(StoredCall("fc-1", "fu-1", "ap-1", SPAWN, 1.0), (StoredInput("fc-1", 0, b"x"),))
        monkeypatch.setattr("squall.server.store.room.SPARE_SHARE", 1)
        monkeypatch.setattr("squall.server.store.room.SPARE_BYTES_MAX", 2**60)

        with pytest.raises(PlatformError, match=r"cannot keep call fc-2 .*are kept; free space") as caught:
            await store.put_call(StoredCall("fc-2", "fu-1", "ap-1", SPAWN, 2.0), (StoredInput("fc-2", 0, b"x"),))
        await store.put_outputs((StoredOutput("fc-1", 0, 0, b"y"),))

        assert caught.value.code == "exhausted"
        assert await store.unfinished_counts() == {}


async def test_disk_that_uploads_have_filled_to_their_limit_has_room_for_calls(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    state = os.statvfs(tmp_path)
    free_bytes = state.f_bavail * state.f_frsize
    monkeypatch.setattr("squall.server.store.room.SPARE_SHARE", 1)
    monkeypatch.setattr("squall.server.store.room.SPARE_BYTES_MAX", free_bytes * 3 // 2)
    async with SqlStore(f"sqlite:///{tmp_path}/squall.db", upgrade) as store:
        with pytest.raises(PlatformError, match="are kept"):
            check_room(tmp_path, "cannot put blob 1", 1)

        await store.put_call(StoredCall("fc-1", "fu-1", "ap-1", SPAWN, 1.0), (StoredInput("fc-1", 0, b"x"),))

        assert await store.unfinished_counts() == {"fu-1": 1}


async def _limit_pages(store: SqlStore) -> None:
    """Make the database's file as good as full."""
    connections = [store._database._engine.connect() for _ in range(CONNECTIONS)]
    for connection in connections:
        connection.exec_driver_sql("PRAGMA max_page_count=100")
        connection.close()
    await asyncio.sleep(0)


async def test_database_that_cannot_be_opened_is_unavailable(tmp_path: Path) -> None:
    with pytest.raises(PlatformError, match="unable to open database file") as caught:
        async with SqlStore(f"sqlite:///{tmp_path}/missing/squall.db", upgrade):
            raise AssertionError("it was opened")

    assert caught.value.code == "unavailable"


async def test_closing_commits_what_waits_and_refuses_more(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/squall.db"
    async with SqlStore(url, upgrade) as store:
        writes = [asyncio.ensure_future(store.put_setting(str(number), "x")) for number in range(50)]
        await asyncio.sleep(0)
    await asyncio.gather(*writes)

    with pytest.raises(PlatformError, match="stopping"):
        await store.put_setting("late", "x")
    async with SqlStore(url, upgrade) as store:
        assert await store.get_setting("49") == "x"
