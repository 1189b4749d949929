"""Templates and clones of one test."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

from squall.runtime.spec import Bind, ContainerSpec, IdRange
from tests.kernel.containers import ENV, FIRST_ID, TIMEOUT_S, Containers, Ended, Running

HERE = Path(__file__).parent
PROGRAM = "/opt/suite/template_program.py"
BINDS = (Bind(str(HERE), "/opt/suite"),)
RANGE = IdRange(FIRST_ID)


class Forge:
    """Templates and clones of one test."""

    def __init__(self, containers: Containers) -> None:
        self.containers = containers
        self.runtime = containers.runtime
        self._count = 0

    async def template(self, *options: str, **fields: Any) -> Running:
        """A template, as far as it comes."""
        argv = ("python3", PROGRAM, *options)
        fields = {"binds": BINDS, "id_range": RANGE, "container_id": self._name("tp"), **fields}
        return await self.containers.start(*argv, is_template=True, **fields)

    async def ready(self, *options: str, **fields: Any) -> Running:
        """One that can be forked."""
        template = await self.template(*options, **fields)
        async with asyncio.timeout(TIMEOUT_S):
            report = await self.runtime.template_report(template.container_id)
        assert report.is_ready, report.cause
        return template

    def spec(self, template: Running, action: str = "", **fields: Any) -> ContainerSpec:
        """A clone that does what a piece of Python says."""
        env = {**ENV, **fields.pop("env", {}), "ACTION": action}
        fields = {"binds": BINDS, "id_range": RANGE, "env": env, "container_id": self._name("ct"), **fields}
        return self.containers.spec(template_id=template.container_id, **fields)

    async def clone(self, template: Running, action: str = "", **fields: Any) -> Running:
        """A clone that has begun."""
        return await self.containers.start_spec(self.spec(template, action, **fields))

    async def run(self, template: Running, action: str, **fields: Any) -> Ended:
        """A clone from begin to end."""
        return await self.containers.finish(await self.clone(template, action, **fields))

    def _name(self, kind: str) -> str:
        self._count += 1
        return f"{kind}-{self._count}"


async def exists(containers: Containers, container_id: str) -> bool:
    """Whether the runtime knows it."""
    return container_id in {status.container_id for status in await containers.runtime.list()}


async def runs(containers: Containers, running: Running) -> bool:
    """Whether it has not ended."""
    statuses = {status.container_id: status for status in await containers.runtime.list()}
    return statuses[running.container_id].exit_status is None
