"""The runtime as an agent keeps it: when its spawner has died it is opened again, and only the containers are lost.

The spawner's death is told by `exits`, which an agent follows: it raises, the agent asks what is left (nothing), and
goes on with a new spawner. An agent that begins follows nothing yet, and must not end because its spawner does: what
may be asked twice is asked again by itself, of one spawner after the other. Other requests that were under way fail and
may be repeated.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from types import TracebackType
from typing import Protocol, TypeVar

from squall.runtime.contract import ExecStarted, Runtime, Started, TemplateReport
from squall.runtime.errors import RuntimeFailure
from squall.runtime.spec import ContainerSpec, ContainerStatus, ContainerUsage, ExecSpec, ExitStatus, IdRange, Volume

PATIENCE_S = 30.0
"""How long spawners may die until what they were asked fails: what is asked may be what kills them."""
PAUSE_S, PAUSE_S_MAX = 0.05, 1.0
"""Before the next one is asked: at first, and at most."""


class ClosableRuntime(Runtime, Protocol):
    """A connection to a spawner; `runtime.client.SpawnerRuntime` is one."""

    async def close(self) -> None:
        """Disconnect."""

    async def shutdown(self) -> None:
        """Remove every container and end the spawner."""

    @property
    def is_lost(self) -> bool:
        """The spawner is gone: nothing that is asked is answered any more."""


# Inside the class below, `list` is the method of the contract.
Statuses = Sequence[ContainerStatus]
T = TypeVar("T")


class LastingRuntime:
    """`contract.Runtime` by whatever spawner there is now.

    Args:
        open_runtime: connects to the spawner, or starts it.
    """

    def __init__(self, open_runtime: Callable[[], Awaitable[ClosableRuntime]]) -> None:
        self._open = open_runtime
        self._opening = asyncio.Lock()
        self._inner: ClosableRuntime | None = None

    async def __aenter__(self) -> LastingRuntime:
        await self._current()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._inner is not None:
            await self._inner.close()

    async def _current(self) -> ClosableRuntime:
        async with self._opening:
            if self._inner is not None and self._inner.is_lost:
                await self._inner.close()
                self._inner = None
            if self._inner is None:
                self._inner = await self._open()
            return self._inner

    async def _repeatedly(self, ask: Callable[[ClosableRuntime], Awaitable[T]]) -> T:
        """Ask; again, within `PATIENCE_S`, if the spawner died of it, or meanwhile."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + PATIENCE_S
        pause_s = PAUSE_S
        while True:
            inner = await self._current()
            try:
                return await ask(inner)
            except RuntimeFailure:
                if not inner.is_lost or loop.time() > deadline:
                    raise
            await asyncio.sleep(pause_s)
            pause_s = min(2 * pause_s, PAUSE_S_MAX)

    async def start(self, spec: ContainerSpec) -> Started:
        """See `contract.Runtime`."""
        return await (await self._current()).start(spec)

    async def template_report(self, container_id: str) -> TemplateReport:
        """See `contract.Runtime`."""
        return await (await self._current()).template_report(container_id)

    async def prepare(self, spec: ContainerSpec, *, is_parked: bool) -> None:
        """See `contract.Runtime`."""
        await (await self._current()).prepare(spec, is_parked=is_parked)

    async def begin(self, container_id: str, env: Mapping[str, str], volumes: Sequence[Volume] = ()) -> Started:
        """See `contract.Runtime`."""
        return await (await self._current()).begin(container_id, env, volumes)

    async def save(self, template_id: str, directory: str, file_bytes_max: int = 0) -> None:
        """See `contract.Runtime`."""
        await (await self._current()).save(template_id, directory, file_bytes_max)

    async def make_network_namespaces(self, id_range: IdRange, uid: int, count: int) -> Sequence[int]:
        """See `contract.Runtime`."""
        return await (await self._current()).make_network_namespaces(id_range, uid, count)

    async def kill(self, container_id: str, signal: int) -> None:
        """See `contract.Runtime`."""
        await (await self._current()).kill(container_id, signal)

    async def exec(self, container_id: str, spec: ExecSpec) -> ExecStarted:
        """See `contract.Runtime`."""
        return await (await self._current()).exec(container_id, spec)

    async def wait_exec(self, exec_id: str) -> ExitStatus:
        """See `contract.Runtime`."""
        return await (await self._current()).wait_exec(exec_id)

    async def adopt(self, container_id: str) -> Started:
        """See `contract.Runtime`."""
        return await self._repeatedly(lambda inner: inner.adopt(container_id))

    async def list(self) -> Statuses:
        """See `contract.Runtime`."""
        return await self._repeatedly(lambda inner: inner.list())

    async def usage(self, container_id: str) -> ContainerUsage:
        """See `contract.Runtime`."""
        return await (await self._current()).usage(container_id)

    async def freeze(self, container_id: str) -> None:
        """See `contract.Runtime`."""
        await (await self._current()).freeze(container_id)

    async def thaw(self, container_id: str) -> None:
        """See `contract.Runtime`."""
        await (await self._current()).thaw(container_id)

    async def swap_volume(self, container_id: str, volume: Volume) -> None:
        """See `contract.Runtime`."""
        await (await self._current()).swap_volume(container_id, volume)

    async def remove(self, container_id: str) -> None:
        """See `contract.Runtime`."""
        await self._repeatedly(lambda inner: inner.remove(container_id))

    async def drop_removed_layers(self) -> None:
        """See `contract.Runtime`."""
        await self._repeatedly(lambda inner: inner.drop_removed_layers())

    async def shutdown(self) -> None:
        """Remove every container and end the spawner, for a node that is taken down."""
        await (await self._current()).shutdown()

    async def exits(self) -> AsyncIterator[tuple[str, ExitStatus]]:
        """See `contract.Runtime`.

        Raises:
            RuntimeFailure: the spawner has died; every later request goes to a new one.
        """
        inner = await self._current()
        try:
            async for item in inner.exits():
                yield item
        except RuntimeFailure:
            if self._inner is inner:
                self._inner = None
            await inner.close()
            raise
