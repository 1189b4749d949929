"""Changes held up half-way, for tests of what comes in between."""

from __future__ import annotations

import asyncio
from typing import Any

from squall.protocol.function import FunctionSpec
from tests.server.dispatch.deploying import deployable
from tests.server.doubles import Stage


class HeldUp:
    """One method of the store does its work when it is let, and not before."""

    def __init__(self, stage: Stage, name: str, *, is_after: bool = False) -> None:
        self.begun = asyncio.Event()
        self._gate = asyncio.Event()
        self._method = getattr(stage.store, name)
        self._is_after = is_after
        setattr(stage.store, name, self._call)

    async def _call(self, *args: Any) -> Any:
        answer = await self._method(*args) if self._is_after else None
        self.begun.set()
        await self._gate.wait()
        return answer if self._is_after else await self._method(*args)

    def let(self) -> None:
        self._gate.set()


def version_of(app_id: str, code: str) -> FunctionSpec:
    """A function that has a container at once."""
    return deployable(app_id, env={"CODE": code}, min_containers=1)
