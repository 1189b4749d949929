"""How much memory the templates of a node may use, and which go when it is too much: pure."""

from __future__ import annotations

from collections.abc import Iterable

from squall.agent.config import AgentConfig
from squall.agent.template.template import Template

NODE_SHARE = 4
"""Where nothing is configured: a quarter of what containers may use."""
TEMPLATES_MAX = 512
_MIB = 2**20


def budget_bytes(config: AgentConfig) -> int:
    """What all templates of the node may occupy, with what is ready for them."""
    if config.template_memory_mib is not None:
        return config.template_memory_mib * _MIB
    return config.memory_mib * _MIB // NODE_SHARE


def total_bytes(templates: Iterable[Template]) -> int:
    """What these occupy."""
    return sum(template.total_bytes for template in templates)


def surplus(templates: Iterable[Template], bytes_max: int, kept: Template | None = None) -> list[Template]:
    """Which are to go so that the rest is within `bytes_max` and `TEMPLATES_MAX`: those used longest ago first.

    One that is being made stays: somebody waits for it, and nobody knows yet what it will occupy.
    """
    live = [template for template in templates if template.is_ready]
    occupied_bytes, count, doomed = total_bytes(live), len(live), []
    for template in sorted(live, key=lambda one: one.used_at):
        if occupied_bytes <= bytes_max and count <= TEMPLATES_MAX:
            break
        if template is not kept:
            doomed.append(template)
            occupied_bytes -= template.total_bytes
            count -= 1
    return doomed
