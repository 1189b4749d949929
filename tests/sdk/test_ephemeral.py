"""Ephemeral assets of each kind: they are there as long as their block, however it ends."""

from __future__ import annotations

import asyncio
import sys
from typing import Any

import pytest

import squall
from squall.exception import NotFoundError
from squall.sdk._client import Client
from tests.sdk.real_server import RealServer

KINDS = [squall.Dict, squall.Queue, squall.Volume]


def id_of(made: Any) -> str:
    found: str = made.object_id
    return found


def is_there(kind: Any, asset_id: str) -> bool:
    try:
        kind.from_id(asset_id).hydrate()
    except NotFoundError:
        return False
    return True


@pytest.mark.parametrize("kind", KINDS)
def test_it_is_gone_right_after_a_block_that_raises(
    real_server: RealServer, kind: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    ignored: list[Any] = []
    monkeypatch.setattr(sys, "unraisablehook", ignored.append)
    asset_ids = []

    def use() -> None:
        with kind.ephemeral() as made:
            asset_ids.append(id_of(made.hydrate()))
            _ = 1 / 0

    with pytest.raises(ZeroDivisionError):
        use()

    assert not is_there(kind, asset_ids[0])
    assert not ignored


@pytest.mark.parametrize("kind", KINDS)
def test_it_is_gone_right_after_an_asynchronous_block_that_raises(real_server: RealServer, kind: Any) -> None:
    asset_ids = []

    async def use() -> bool:
        try:
            async with kind.ephemeral() as made:
                asset_ids.append(id_of(await made.hydrate.aio()))
                _ = 1 / 0
        except ZeroDivisionError:
            try:
                await kind.from_id(asset_ids[0]).hydrate.aio()
            except NotFoundError:
                return False
        return True

    assert not asyncio.run(use())


@pytest.mark.parametrize("kind", KINDS)
def test_what_a_block_raises_is_told_though_its_server_is_gone(
    real_server: RealServer, kind: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    request = Client.request

    async def without_server(self: Client, method: str, *rest: Any) -> Any:
        if method == "AssetDelete":
            raise squall.exception.ConnectionError("the server did not come back within 60 s")
        return await request(self, method, *rest)

    monkeypatch.setattr(Client, "request", without_server)

    raised: list[type[BaseException]] = []
    try:
        with kind.ephemeral():
            _ = 1 / 0
    except Exception as error:  # noqa: BLE001 - which one it is, is the question
        raised.append(type(error))

    assert raised == [ZeroDivisionError]
