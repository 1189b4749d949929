"""Templates that nothing was made of."""

from __future__ import annotations

from pathlib import Path

from squall.agent.launch import Provision
from squall.agent.outfit import Outfit
from squall.agent.record import ContainerRecord
from squall.agent.template.demand import Demand
from squall.agent.template.reserve import Cell, Reserve
from squall.agent.template.template import Template
from squall.protocol.image import ImageConfig
from squall.protocol.node import ContainerStart
from squall.protocol.template import FUNCTION, READY
from squall.runtime.spec import IdRange, NetworkSlot

MIB = 2**20


def make_template(number: int = 1, kind: str = FUNCTION, memory_mib: int = 10, used_at: float = 0.0) -> Template:
    record = ContainerRecord(f"tp-{number:08}", "ap-1", f"fu-{number}", "im-1", "")
    request = ContainerStart("ct-00000001", "ap-1", f"fu-{number}", "im-1")
    template = Template(Outfit(record, Path("/d")), f"key-{number}", kind, request, 0.0, used_at)
    template.reserves[request.function_id] = Reserve(template, request, Demand(0.0))
    template.state, template.memory_bytes = READY, memory_mib * MIB
    return template


def reserve_of(template: Template) -> Reserve:
    """The one of a template with one function."""
    (found,) = template.reserves.values()
    return found


def make_cell(number: int = 1, *, is_parked: bool = False, since: float = 0.0) -> Cell:
    outfit = Outfit(ContainerRecord("", "ap-1", "fu-1", "im-1", "", cell_id=f"ce-{number:08}"), Path("/d"))
    provision = Provision("ce", "/d", "/d/agent", "/l", (), IdRange(1), NetworkSlot("s", "/n", "", "", ""))
    return Cell(outfit, ImageConfig(), provision, since, is_parked)
