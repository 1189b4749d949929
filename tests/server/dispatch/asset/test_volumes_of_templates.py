"""What code in a template asks of its volumes: on which node that is, nodes know."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import pytest

from squall.protocol import volume as wire
from squall.protocol.errors import CONFLICT, FORBIDDEN, NOT_FOUND, UNAVAILABLE, PlatformError
from squall.protocol.function import BY_FILE, Definition, FunctionSpec
from squall.server.dispatch.asset.volume_mounts import VolumeMounts
from squall.server.dispatch.client.callers import Caller
from squall.server.dispatch.fleet.templates import Template

DEFINITION = Definition(BY_FILE, "user_code", "f")
SPEC = FunctionSpec("fu-1", "ap-1", "f", DEFINITION, "im-1", volumes=(wire.VolumeMount("vo-1", "/data"),))
RELOAD = wire.VolumeReload("vo-1")


class NodeDouble:
    """A node that has some templates."""

    def __init__(self, *template_ids: str, code: str = NOT_FOUND) -> None:
        self.peer: NodeDouble | None = self
        self._template_ids = template_ids
        self._code = code
        self.asked: list[str] = []

    async def request(self, method: str, asked: Any, answer: type[Any], *, timeout_s: float) -> Any:
        self.asked.append(f"{method} {asked.container_id}")
        if asked.container_id not in self._template_ids:
            raise PlatformError(self._code, "not mounted here")
        return wire.VolumeVersion(7) if answer is wire.VolumeVersion else wire.VolumeCommitted(wire.VolumeVersion(8))


class Stage:
    """Volumes of a server whose nodes are given, and one template that is loading."""

    def __init__(self, *nodes: NodeDouble) -> None:
        self.template = Template("tp-1", SPEC)
        fleet = SimpleNamespace(containers={}, nodes={str(number): node for number, node in enumerate(nodes)})
        self.mounts = VolumeMounts(assets=cast(Any, None), volumes=cast(Any, None), fleet=cast(Any, fleet))
        self.mounts.find_template = lambda template_id: self.template if template_id == "tp-1" else None

    def caller(self, container_id: str) -> Caller:
        return Caller(cast(Any, SimpleNamespace(container_id=container_id)), "ap-1")


async def test_a_template_commits_and_reloads_on_the_node_that_has_it() -> None:
    away, other, right = NodeDouble("tp-1"), NodeDouble("tp-2"), NodeDouble("tp-1")
    away.peer = None
    stage = Stage(away, other, right)

    reloaded = await stage.mounts.reload(stage.caller("tp-1"), RELOAD)
    committed = await stage.mounts.flush(stage.caller("tp-1"), wire.VolumeFlush("vo-1"))

    assert (reloaded.number, committed.version and committed.version.number) == (7, 8)
    assert right.asked == ["NodeVolumeReload tp-1", "NodeVolumeCommit tp-1"]
    assert not away.asked
    assert stage.mounts._held == {"tp-1": {"vo-1": 7}}
    for callback in stage.template.on_stopped:
        callback()
    assert not stage.mounts._held, "nothing is kept for a template that is gone"


@pytest.mark.parametrize(
    ("nodes", "code"),
    [
        ([NodeDouble(), NodeDouble()], NOT_FOUND),
        ([NodeDouble(code=CONFLICT), NodeDouble("tp-1")], CONFLICT),
        ([], UNAVAILABLE),
    ],
)
async def test_what_no_node_can_do_is_told(nodes: list[NodeDouble], code: str) -> None:
    stage = Stage(*nodes)

    with pytest.raises(PlatformError) as refused:
        await stage.mounts.reload(stage.caller("tp-1"), RELOAD)

    assert refused.value.code == code


async def test_only_a_template_that_loads_and_has_the_volume_may_ask() -> None:
    stage = Stage(NodeDouble("tp-1"))

    with pytest.raises(PlatformError) as unknown:
        await stage.mounts.reload(stage.caller("tp-2"), RELOAD)
    with pytest.raises(PlatformError) as unmounted:
        await stage.mounts.reload(stage.caller("tp-1"), wire.VolumeReload("vo-2"))

    assert (unknown.value.code, unmounted.value.code) == (FORBIDDEN, CONFLICT)
