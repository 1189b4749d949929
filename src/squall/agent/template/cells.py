"""Makes what clones live in, and lets them begin: ahead of a start, or for one that is under way."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import replace as replaced

from squall.agent.config import AgentConfig
from squall.agent.launch import Identity, cell_spec, cwd_of, environment, record_of
from squall.agent.outfit import Outfit, Outfits
from squall.agent.phases import Phases
from squall.agent.record import ContainerRecord, write_record
from squall.agent.template.reserve import PARKED_BYTES, Cell, Reserve
from squall.agent.template.template import Template
from squall.protocol.errors import PlatformError
from squall.protocol.ids import new_id
from squall.protocol.node import ContainerStart
from squall.protocol.records import replace
from squall.runtime.contract import Runtime, Started
from squall.runtime.errors import RuntimeFailure, TemplateUnfit
from squall.runtime.spec import ContainerSpec

FORK_S = 10.0
"""For a fork, or what it is to live in. A healthy one takes milliseconds; whoever waits longer starts plainly. Of a
fork that hangs the runtime says so sooner, and that is its template's fault (`runtime.clones.JOIN_TIMEOUT_S`)."""

RESTORE_S = 30.0
"""To read it all from the disk."""

# What a shortcut may fail of: the plain path is taken then, and says what is really wrong.
FAILURES = (RuntimeFailure, PlatformError, OSError, TimeoutError)


class Cells:
    """Makes them with what the outfits have."""

    def __init__(
        self,
        config: AgentConfig,
        runtime: Runtime,
        outfits: Outfits,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._config = config
        self._runtime = runtime
        self._outfits = outfits
        self._monotonic = monotonic

    def outfit(self, template: Template, record: ContainerRecord) -> Outfit:
        """What a clone is to have, nothing of it taken yet.

        Args:
            record: of the container that it is to be; without an id where nobody knows it yet.
        """
        cell_id = new_id("ce")
        # A fork of a template can only have its ids.
        owner = template.outfit.record.range_owner
        record = replace(record, cell_id=cell_id, template_id=template.template_id, range_owner=owner)
        return Outfit(record, self._config.containers_dir / cell_id)

    async def make(self, reserve: Reserve, *, is_parked: bool) -> Cell:
        """Make a cell ahead; nothing of it is left when it fails.

        Raises:
            RuntimeFailure, PlatformError, OSError, TimeoutError: it cannot be made; `TemplateUnfit` where the template
                is what it fails of.
        """
        template, request = reserve.template, reserve.request
        outfit = self.outfit(template, record_of(self._config, request, ""))
        cell: Cell | None = None
        try:
            async with asyncio.timeout(FORK_S):
                cell, spec = await self._furnish(template, outfit, request, Phases())
                await self._runtime.prepare(spec, is_parked=is_parked)
        except BaseException as error:
            await asyncio.shield(asyncio.ensure_future(self._outfits.give_back(outfit, error)))
            raise
        if is_parked:
            _is_parked_now(cell)
        return cell

    async def park(self, cell: Cell, reserve: Reserve) -> None:
        """Fork into a cell that was made without a clone.

        Raises:
            RuntimeFailure, TimeoutError: it cannot be done; the cell is to be discarded.
        """
        template_id = reserve.template.template_id
        spec = cell_spec(self._config, reserve.request, cell.image, cell.provision, template_id)
        async with asyncio.timeout(FORK_S):
            await self._runtime.prepare(spec, is_parked=True)
        _is_parked_now(cell)

    async def begin(self, cell: Cell, record: ContainerRecord, request: ContainerStart, token: str) -> Started:
        """Let a container begin in a cell.

        Raises:
            RuntimeFailure, PlatformError, OSError, TimeoutError: it cannot; the cell is to be discarded.
        """
        outfit = cell.outfit
        known = outfit.record
        outfit.record = replace(
            record,
            cell_id=known.cell_id,
            template_id=known.template_id,
            mount_set=known.mount_set,
            layers=known.layers,
            range_owner=known.range_owner,
        )
        # Before it begins: an agent that finds it running knows whose it is, and one that does not removes it.
        write_record(outfit.directory, outfit.record)
        versions = await self._outfits.open_volumes(outfit, request, cell.provision.id_range)
        assert outfit.socket is not None, "made with it"
        # The server is told beside the spawner. Whether the clone is there still is not asked first: that would be a
        # message more in each start, and true only until it is read. Of one that has ended no connection waits, so
        # nobody is introduced; where its end is not seen yet, what it was given counts as not given (decision 71).
        outfit.socket.become(record.container_id, record.token_sha256, is_verified=cell.is_parked)
        env = environment(request, cell.image, cell.provision, Identity(record.container_id, token))
        outfit.env, outfit.cwd = env, cwd_of(cell.image)
        async with asyncio.timeout(FORK_S):
            return await self._runtime.begin(cell.cell_id, env, versions)

    async def fork(
        self, template: Template, outfit: Outfit, request: ContainerStart, token: str, clock: Phases
    ) -> Started:
        """Make what a container is to live in, and let it begin there.

        Raises:
            RuntimeFailure, PlatformError, OSError, TimeoutError: it cannot; the outfit is to be given back.
        """
        async with asyncio.timeout(RESTORE_S if template.is_saved else FORK_S):
            cell, spec = await self._furnish(template, outfit, request, clock)
            identity = Identity(outfit.record.container_id, token)
            env = environment(request, cell.image, cell.provision, identity)
            outfit.env, outfit.cwd = env, spec.cwd
            versions = await self._outfits.open_volumes(outfit, request, cell.provision.id_range)
            return await self._runtime.start(replaced(spec, env=env, volumes=versions))

    async def discard(self, cell: Cell, failure: BaseException | None = None) -> None:
        """Remove a cell with what is in it, whatever becomes of whoever asks: it is in no reserve any more.

        Args:
            failure: why it could not be forked into.
        """
        await asyncio.shield(asyncio.ensure_future(self._outfits.give_back(cell.outfit, failure)))

    async def _furnish(
        self, template: Template, outfit: Outfit, request: ContainerStart, clock: Phases
    ) -> tuple[Cell, ContainerSpec]:
        image, provision = await self._outfits.take(outfit, request, clock, is_clone=not template.is_saved)
        if outfit.record.layers != template.outfit.record.layers:
            # Its image was built anew; the next start makes another template.
            raise TemplateUnfit(f"template {template.template_id} stands on layers that its image has no more")
        spec = cell_spec(self._config, request, image, provision, template.template_id)
        return Cell(outfit, image, provision, self._monotonic()), spec


def _is_parked_now(cell: Cell) -> None:
    cell.is_parked, cell.memory_bytes = True, PARKED_BYTES
