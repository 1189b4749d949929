"""What templates the nodes have, and their dropping: the server keeps no account of them, it asks.

A node that does not answer in time keeps no other from being told about; the answer names it.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence, Set
from typing import TYPE_CHECKING, Any

from squall.protocol.errors import INVALID, NOT_FOUND, ChannelClosed, PlatformError
from squall.protocol.ids import is_id
from squall.protocol.pages import first_page
from squall.protocol.template import (
    DROPPED,
    NodeTemplateDrop,
    NodeTemplateDropped,
    NodeTemplateList,
    NodeTemplateListing,
    NodeTemplatesFree,
    NodeTemplatesUnneeded,
    SilentNode,
    TemplateDrop,
    TemplateDropped,
    TemplateInfo,
    TemplateList,
    TemplateListing,
)
from squall.server.dispatch.app.environments import shown
from squall.server.dispatch.fleet.node import Node
from squall.server.model.variant import is_measured

if TYPE_CHECKING:
    from squall.protocol.function import FunctionSpec
    from squall.server.dispatch.control_plane import ControlPlane

_log = logging.getLogger("squall.server.dispatch.fleet.node_templates")

NODE_S = 5.0
"""How long a node may take: it only looks at what it has."""
DROP_S = 15.0
"""Likewise to drop some, which ends processes."""


class NodeTemplates:
    """Asks the nodes that are there; those that are away are silent, too."""

    def __init__(self, plane: ControlPlane) -> None:
        self._plane = plane

    async def list_all(self, record: TemplateList) -> TemplateListing:
        """See `TemplateList`.

        Raises:
            PlatformError: `not_found` for the app.
        """
        self._plane.variants.used(record.function_id)
        app_id = await self._app_id(record.app, record.environment or "") if record.app else ""
        found, silent, is_one_coming = await self._all(record.function_id)
        after = (record.after_node_id, record.after_template_id)
        found = [one for one in found if _key(one) > after and app_id in ("", one.template.app_id)]
        if not app_id:
            found = await self._inside(found, record.environment)
        page, is_cut = first_page(self._plane.codec, found)
        return TemplateListing(tuple([await self._named(one) for one in page]), tuple(silent), is_cut, is_one_coming)

    async def drop_some(self, record: TemplateDrop) -> TemplateDropped:
        """See `TemplateDrop`.

        Raises:
            PlatformError: `invalid`, `not_found`.
        """
        _check(record)
        app_id = await self._app_id(record.app, record.environment or "") if record.app else ""
        function = await self._function(app_id, record.function) if record.function else None
        found, silent, _ = await self._all()
        named = frozenset(record.template_ids)
        unknown = named - {one.template.template_id for one in found}
        if unknown and not silent:
            names = ", ".join(one[:100] for one in sorted(unknown)[:3])
            raise PlatformError(NOT_FOUND, f"TemplateDrop: no node has {names}; `squall template list` shows them")
        found = [one for one in found if one.template.state != DROPPED]
        if record.is_all:
            wanted = await self._inside(found, record.environment)
        else:
            wanted = [one for one in found if await self._is_wanted(one, named, app_id, function)]
        by_node: dict[str, list[TemplateInfo]] = {}
        for one in wanted:
            by_node.setdefault(one.node_id, []).append(one)
        done = await asyncio.gather(*(self._drop_at(node_id, some) for node_id, some in by_node.items()))
        dropped = [one for some, _ in done for one in some]
        silent += [one for _, one in done if one is not None]
        return TemplateDropped(tuple([await self._named(one) for one in dropped]), tuple(silent))

    async def greet(self, node: Node) -> None:
        """A node has come, perhaps again: what it was not told meanwhile."""
        listing = await _ask(node, node.node_id, "NodeTemplateList", NodeTemplateList(), NodeTemplateListing, NODE_S)
        if isinstance(listing, SilentNode):
            _log.warning("node %s does not say what templates it has: %s", *_said(listing))
            return
        for app_id in dict.fromkeys(one.app_id for one in listing.templates):
            app = self._plane.apps.live.get(app_id)
            if app is None:
                node.tell_unneeded(NodeTemplatesUnneeded(app_id))
            elif app.version:
                node.tell_unneeded(NodeTemplatesUnneeded(app_id, functions=app.function_versions))
        for app_id, function_id in dict.fromkeys((one.app_id, one.function_id) for one in listing.templates):
            if await self._was_measured(function_id):
                node.tell_unneeded(NodeTemplatesUnneeded(app_id, function_id))

    async def _was_measured(self, function_id: str) -> bool:
        """It is one of those that are gone when nothing uses them, and nothing does."""
        if not function_id or function_id in self._plane.apps.dispatchers:
            return False
        spec = await self._plane.variants.find_spec(function_id)
        return spec is not None and is_measured(spec)

    async def free(self, node: Node, wanted_mib: int) -> bool:
        """Have the node drop templates that free about so much memory; False where it has none that would."""
        asked = NodeTemplatesFree(wanted_mib)
        done = await _ask(node, node.node_id, "NodeTemplatesFree", asked, NodeTemplateDropped, DROP_S)
        if isinstance(done, SilentNode):
            _log.warning("node %s is short of memory and drops no templates: %s", *_said(done))
            return False
        if done.template_ids:
            _log.info("node %s is short of memory: %d templates are dropped", node.node_id, len(done.template_ids))
        return bool(done.template_ids)

    async def _inside(self, found: list[TemplateInfo], environment: str | None) -> list[TemplateInfo]:
        """Those of apps of an environment; None is all of them."""
        if environment is None:
            return found
        inside = await self._plane.environments.apps_in(environment, {one.template.app_id for one in found})
        return [one for one in found if one.template.app_id in inside]

    async def _is_wanted(self, one: TemplateInfo, named: Set[str], app_id: str, function: FunctionSpec | None) -> bool:
        if one.template.template_id in named:
            return True
        return one.template.app_id == app_id and (function is None or await self._is_of(one, function))

    async def _is_of(self, one: TemplateInfo, function: FunctionSpec) -> bool:
        """Whether it is the function's, or that of a variant of it."""
        function_id = one.template.function_id
        if function_id == function.function_id:
            return True
        spec = await self._plane.variants.find_spec(function_id)
        return spec is not None and spec.variant_of == function.function_id

    async def _drop_at(
        self, node_id: str, some: Sequence[TemplateInfo]
    ) -> tuple[Sequence[TemplateInfo], SilentNode | None]:
        """Those of them that are dropped; and the node, unless it has answered."""
        node = self._plane.fleet.nodes.get(node_id)
        asked = NodeTemplateDrop(tuple(one.template.template_id for one in some))
        done = await _ask(node, node_id, "NodeTemplateDrop", asked, NodeTemplateDropped, DROP_S)
        if isinstance(done, SilentNode):
            return (), done
        gone = set(done.template_ids)
        return [one for one in some if one.template.template_id in gone], None

    async def _all(self, function_id: str = "") -> tuple[list[TemplateInfo], list[SilentNode], bool]:
        """Those of all nodes in order, the nodes that have not said, and whether one is about to be made; all of one
        function where one is named."""
        nodes = sorted(self._plane.fleet.nodes.values(), key=lambda node: node.node_id)
        asked = NodeTemplateList(function_id)
        answers = await asyncio.gather(
            *(_ask(node, node.node_id, "NodeTemplateList", asked, NodeTemplateListing, NODE_S) for node in nodes)
        )
        found: list[TemplateInfo] = []
        silent: list[SilentNode] = []
        is_one_coming = False
        for node, answer in zip(nodes, answers, strict=True):
            if isinstance(answer, SilentNode):
                silent.append(answer)
            else:
                found += [TemplateInfo(template, node.node_id) for template in answer.templates]
                is_one_coming |= answer.is_one_coming
        return sorted(found, key=_key), silent, is_one_coming

    # Names

    async def _app_id(self, app: str, environment: str) -> str:
        return (await self._plane.apps.find(app, environment=environment)).app_id

    async def _function(self, app_id: str, name: str) -> FunctionSpec:
        found = await self._plane.store.find_function(app_id, name)
        if found is None and is_id(name, "fu"):
            found = await self._plane.variants.find_spec(name)
        if found is None or found.app_id != app_id:
            message = f"TemplateDrop: app {app_id} has no function {name[:100]!r}"
            raise PlatformError(NOT_FOUND, f"{message}; `squall app info {app_id}` lists them")
        return found

    async def _named(self, one: TemplateInfo) -> TemplateInfo:
        app = self._plane.apps.live.get(one.template.app_id)
        spec = await self._plane.variants.find_spec(one.template.function_id) if app is not None else None
        function_name = spec.name if spec is not None else ""
        if app is None:
            return TemplateInfo(one.template, one.node_id)
        return TemplateInfo(one.template, one.node_id, app.row.name, function_name, shown(app.row.environment))


def _said(node: SilentNode) -> tuple[str, str]:
    return node.node_id, node.cause


def _key(one: TemplateInfo) -> tuple[str, str]:
    return one.node_id, one.template.template_id


def _check(record: TemplateDrop) -> None:
    """Raises PlatformError `invalid` unless exactly one thing is said to go."""
    said = [bool(record.template_ids), bool(record.app), record.is_all]
    if sum(said) != 1 or (record.function and not record.app):
        message = "say what is to go: ids, or an app, and perhaps a function of it, or is_all alone"
        raise PlatformError(INVALID, f"TemplateDrop: {message}")


async def _ask(
    node: Node | None, node_id: str, method: str, record: Any, reply: type[Any], timeout_s: float
) -> Any | SilentNode:
    """The node's answer, or that it gave none, and why."""
    try:
        if node is None or node.peer is None:
            raise ChannelClosed("")
        return await node.peer.request(method, record, reply, timeout_s=timeout_s)
    except ChannelClosed:
        return SilentNode(node_id, "its agent is away; see `squall server status`")
    except PlatformError as error:
        return SilentNode(node_id, error.message)
