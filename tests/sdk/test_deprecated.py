"""What programs from elsewhere may still write works, and a warning in their line says what to write now."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

import squall
from squall.exception import DeprecationError, InvalidError
from squall.protocol.autoscaler import AutoscalerUpdate
from tests.sdk.double import ServerDouble

app = squall.App("deprecated", include_source=False)


@app.function()
def square(x: int) -> int:
    return x * x


def test_update_autoscaler_of_a_function_changes_what_is_not_none(server: ServerDouble) -> None:
    with app.run():
        with pytest.warns(DeprecationError, match=r"write \.autoscaler\.update") as caught:
            square.update_autoscaler(min_containers=2, max_containers=None, scaledown_window=9)

        assert caught[0].filename == __file__
        given = AutoscalerUpdate(str(square.object_id), min_containers=2, scaledown_window_s=9.0)
        assert server.rescaled == [given]
        with pytest.warns(DeprecationError), pytest.raises(InvalidError, match="buffer_containers=-1"):
            square.update_autoscaler(buffer_containers=-1)


def test_wrap_returned_exceptions_of_maps_has_no_effect(server: ServerDouble) -> None:
    maps: list[tuple[str, Any, Any]] = [("map", square.map, [1, 2]), ("starmap", square.starmap, [(1,), (2,)])]
    with app.run():
        for name, mapped, inputs in maps:
            with pytest.warns(DeprecationError, match=rf"\.{name}\(wrap_returned_exceptions=…\)") as caught:
                assert list(mapped(inputs, wrap_returned_exceptions=False)) == [1, 4]
            assert [one.filename for one in caught] == [__file__]


def test_warnings_of_async_forms_are_in_their_line_too(server: ServerDouble) -> None:
    async def main() -> list[Any]:
        async with app.run():
            await square.update_autoscaler.aio(min_containers=1)
            mapped: Any = square.map.aio
            return [one async for one in mapped([3], wrap_returned_exceptions=True)]

    with pytest.warns(DeprecationError) as caught:
        assert asyncio.run(main()) == [9]

    assert [one.filename for one in caught] == [__file__, __file__]
