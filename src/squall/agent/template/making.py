"""Starts a template, and waits until it can be forked."""

from __future__ import annotations

import asyncio
import functools
import secrets
from collections.abc import Callable
from dataclasses import replace as replaced

from squall.agent.config import AgentConfig
from squall.agent.launch import Identity, record_of, template_spec
from squall.agent.outfit import Outfit, Outfits, Services
from squall.agent.phases import Phases
from squall.agent.record import ContainerRecord
from squall.agent.relay import TemplateOf, token_hash
from squall.agent.template.record import TemplateRecord, write_template_record
from squall.agent.template.template import Template
from squall.protocol.guest import TEMPLATE_FUNCTION, TEMPLATE_GUEST
from squall.protocol.ids import new_id
from squall.protocol.node import ContainerStart
from squall.protocol.records import replace
from squall.protocol.template import FUNCTION, IMAGE
from squall.runtime.contract import Started, TemplateReport


class Making:
    """Makes templates, and takes over those of an earlier agent.

    Args:
        now: seconds since 1970.
    """

    def __init__(
        self,
        config: AgentConfig,
        services: Services,
        outfits: Outfits,
        now: Callable[[], float],
    ) -> None:
        self._config = config
        self._services = services
        self._outfits = outfits
        self._now = now

    def new(self, key: str, kind: str, request: ContainerStart) -> Template:
        """A template that nothing has been made of yet."""
        # One of an image is of no function: all of its app may be forked from it.
        owner = f"{request.app_id}/" if kind == IMAGE else ""
        record = replace(record_of(self._config, request, new_id("tp")), range_owner=owner)
        outfit = Outfit(record, self._config.containers_dir / record.container_id)
        template = Template(outfit, key, kind, request, self._now(), self._now())
        template.holds_secrets = bool(request.env or request.secrets)
        return template

    async def start(self, template: Template, restore_from: str = "") -> TemplateReport:
        """Start it, and return what it says when it has gone as far as it can.

        Args:
            restore_from: where it was saved: it comes back from there, and loads nothing.

        Raises:
            PlatformError, RuntimeFailure, OSError: it cannot be started.
            ContainerMissing: it has ended without a word.
        """
        request, outfit, token = template.request, template.outfit, secrets.token_urlsafe(32)
        outfit.record = replace(outfit.record, token_sha256=token_hash(token))
        of = TemplateOf(request.app_id, request.function_id, request.version)
        image, provision = await self._outfits.take(outfit, request, Phases(), template_of=of)
        # The machine's own proxy may have a password.
        template.holds_secrets |= any("@" in value for value in provision.network.env.values())
        write_template_record(outfit.directory, template)
        how = TEMPLATE_FUNCTION if template.kind == FUNCTION else TEMPLATE_GUEST
        identity = Identity(template.template_id, token)
        spec = replaced(
            template_spec(self._config, request, image, provision, identity, how), restore_from=restore_from
        )
        self._is_up(template, await self._services.runtime.start(spec))
        return await self.report(template)

    async def report(self, template: Template) -> TemplateReport:
        """Wait until it says how far it has come. What it has written to volumes is committed then: its forks find it.

        Raises:
            ContainerMissing: it has ended without a word.
            RuntimeFailure, PlatformError, OSError: that cannot be known, or committed.
        """
        report = await self._services.runtime.template_report(template.template_id)
        if report.is_ready:
            template.versions = await self._services.volumes.settle(template.template_id)
        return report

    async def adopt(self, record: ContainerRecord, known: TemplateRecord) -> Template:
        """A template of an earlier agent; whether it can still be forked is to be asked.

        Raises:
            RuntimeFailure, OSError: it cannot be taken over; nothing of it is taken.
        """
        outfit = Outfit(record, self._config.containers_dir / record.container_id)
        template = Template(outfit, known.key, known.kind, known.request, known.made_at, self._now())
        template.holds_secrets = known.holds_secrets
        template.users = dict(known.users)
        try:
            await self._outfits.adopt(outfit, TemplateOf(record.app_id, record.function_id, record.version))
            self._is_up(template, await self._services.runtime.adopt(record.container_id))
        except BaseException:
            await asyncio.shield(asyncio.ensure_future(self._outfits.let_go(outfit)))
            raise
        return template

    def _is_up(self, template: Template, started: Started) -> None:
        """What it prints is its function's, under its own id."""
        record, logs = template.outfit.record, self._services.logs
        catch_up = logs.add(
            record.container_id, record.app_id, record.function_id, started.stdout_fd, started.stderr_fd
        )
        assert template.outfit.socket is not None, "made with it"
        template.outfit.socket.ahead = functools.partial(self._services.log_sender.ahead, catch_up)
        template.pid = started.pid
        template.is_up = True
