"""What type checkers are told of the two forms of each method: `make check` reads these, and they are so when run."""

from __future__ import annotations

from collections.abc import Coroutine
from typing import Any, assert_type

import squall
from tests.sdk.real_server import RealServer


def test_a_handle_that_is_looked_up_is_of_its_own_kind(real_server: RealServer) -> None:
    squall.Secret.objects.create("types", {"A": "1"})
    of_dict = assert_type(squall.Dict.from_name("types", create_if_missing=True).hydrate(), squall.Dict)
    of_queue = assert_type(squall.Queue.from_name("types", create_if_missing=True).hydrate(), squall.Queue)
    of_volume = assert_type(squall.Volume.from_name("types", create_if_missing=True).hydrate(), squall.Volume)
    of_secret = assert_type(squall.Secret.from_name("types").hydrate(), squall.Secret)

    for handle, kind in (
        (of_dict, squall.Dict), (of_queue, squall.Queue), (of_volume, squall.Volume), (of_secret, squall.Secret)
    ):  # fmt: skip
        assert type(handle) is kind


async def test_awaited_it_is_as_well(real_server: RealServer) -> None:
    handle = squall.Dict.from_name("types", create_if_missing=True)
    looking = assert_type(handle.hydrate.aio(), Coroutine[Any, Any, squall.Dict])

    assert await looking is handle


def test_lists_have_handles_of_their_kind(real_server: RealServer) -> None:
    squall.Secret.objects.create("types", {"A": "1"})
    for kind in (squall.Dict, squall.Queue, squall.Volume):
        kind.objects.create("types")

    dicts = assert_type(squall.Dict.objects.list(), list[squall.Dict])
    queues = assert_type(squall.Queue.objects.list(), list[squall.Queue])
    volumes = assert_type(squall.Volume.objects.list(), list[squall.Volume])
    secrets = assert_type(squall.Secret.objects.list(), list[squall.Secret])

    assert [type(one) for one in (*dicts, *queues, *volumes, *secrets)] == [
        squall.Dict, squall.Queue, squall.Volume, squall.Secret
    ]  # fmt: skip
