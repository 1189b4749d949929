"""A rotation of the key, killed at each of its steps: every secret is there, and the next server goes on with it."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from squall.main.codec import MsgspecCodec
from squall.main.secret_keys import FileSecretKeys
from squall.protocol.secret import SecretKeyRotate, SecretKeyRotated
from squall.server.dispatch import ControlPlane, SystemClock
from squall.server.dispatch.asset import secrets
from squall.server.dispatch.asset.seal import Seal, Whose
from squall.server.model.asset import StoredAsset
from squall.server.model.config import ServerConfig
from squall.server.store.blob import ObjectBlobStore
from squall.server.store.log import FileLogStore
from squall.server.store.migration import upgrade
from squall.server.store.sql import SqlStore

COUNT = 4
VALUES = {f"st-{number}": {f"A{number}": str(number)} for number in range(COUNT)}


async def open_store(stack: AsyncExitStack, data_dir: Path) -> SqlStore:
    return await stack.enter_async_context(SqlStore(f"sqlite:///{data_dir}/squall.db", upgrade))


async def fill(data_dir: Path) -> None:
    keys = FileSecretKeys(data_dir)
    seal = Seal(keys.make(), keys.cipher)
    async with AsyncExitStack() as stack:
        store = await open_store(stack, data_dir)
        for secret_id, values in VALUES.items():
            await store.assets.put(StoredAsset(secret_id, "secret", secret_id))
            await store.secrets.put(seal.close(Whose(secret_id), values, revision=1, now=1.0))


async def read(data_dir: Path) -> dict[str, dict[str, str]]:
    """What is in all of them, with the keys that there are."""
    keys = FileSecretKeys(data_dir)
    seal = Seal(keys.read(), keys.cipher)
    async with AsyncExitStack() as stack:
        store = await open_store(stack, data_dir)
        return {one.secret_id: seal.open(one) for one in await store.secrets.get(frozenset(VALUES))}


async def serve(data_dir: Path, *, is_rotating: bool) -> None:
    """A server that rotates, or only begins, until no rotation is under way."""
    secrets.ROTATED_AT_ONCE = 2
    async with AsyncExitStack() as stack:
        enter = stack.enter_async_context
        clock, keys = SystemClock(), FileSecretKeys(data_dir)
        store = await open_store(stack, data_dir)
        blobs = await enter(ObjectBlobStore(str(data_dir / "blobs"), clock.now))
        logs = await enter(FileLogStore(str(data_dir / "logs"), 2**20))
        plane = await enter(ControlPlane(store, blobs, logs, keys, MsgspecCodec(), ServerConfig(), clock))
        if is_rotating:
            assert await plane.secrets.rotate(SecretKeyRotate()) == SecretKeyRotated(COUNT)
        if plane.secrets.going_on is not None:
            await plane.secrets.going_on


def die_at(step: int) -> None:
    """End this process, as by kill -9, before the write of that number: of rows, and of the file."""
    count = 0

    def watched(name: str, arguments: tuple[object, ...]) -> None:
        nonlocal count
        if name == "os.rename" and str(arguments[1]).endswith("secret.key"):
            count += 1
            if count == step:
                os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(watched)
    replace = secrets.Secrets._seal_again

    async def again(self: secrets.Secrets, seal: Seal, one: object) -> bool:
        nonlocal count
        count += 1
        if count == step:
            os.kill(os.getpid(), signal.SIGKILL)
        return await replace(self, seal, one)  # type: ignore[arg-type]

    secrets.Secrets._seal_again = again  # type: ignore[method-assign]


@pytest.mark.long
@pytest.mark.parametrize("step", range(1, COUNT + 4))
def test_whenever_a_rotation_is_killed_every_secret_is_there(tmp_path: Path, step: int) -> None:
    asyncio.run(fill(tmp_path))
    before = FileSecretKeys(tmp_path).read()

    done = subprocess.run([sys.executable, "-m", __name__, str(tmp_path), str(step)], timeout=60, check=False)

    # The file twice, and each row.
    is_killed = step <= COUNT + 2
    assert done.returncode == (-signal.SIGKILL if is_killed else 0)
    assert asyncio.run(read(tmp_path)) == VALUES
    assert len(FileSecretKeys(tmp_path).read()) == (1 if step in (1, COUNT + 3) else 2)
    asyncio.run(serve(tmp_path, is_rotating=False))
    assert asyncio.run(read(tmp_path)) == VALUES
    (after,) = FileSecretKeys(tmp_path).read()
    assert ((after,) == before) == (step == 1)


if __name__ == "__main__":
    die_at(int(sys.argv[2]))
    asyncio.run(serve(Path(sys.argv[1]), is_rotating=True))
