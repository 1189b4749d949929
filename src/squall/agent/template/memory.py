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


def surplus(templates: Iterable[Template], bytes_max: int) -> list[Template]:
    """Which are to go so that the rest of those that are ready is within `bytes_max` and `TEMPLATES_MAX`."""
    ready = [template for template in templates if template.is_ready]
    return _used_longest_ago(ready, total_bytes(ready) - bytes_max, len(ready) - TEMPLATES_MAX)


def freeing(templates: Iterable[Template], wanted_bytes: int, kept: Template | None = None) -> list[Template]:
    """Which are to go so that about so much more is free."""
    return _used_longest_ago((one for one in templates if one.is_ready and one is not kept), wanted_bytes, 0)


def _used_longest_ago(templates: Iterable[Template], wanted_bytes: int, wanted_count: int) -> list[Template]:
    """The first of these that are so much and so many.

    One that is being made stays: somebody waits for it, and nobody knows yet what it will occupy. So does one whose
    clones run: what they share with it would not be free, and what is started next would be slow for nothing.
    """
    doomed = []
    for template in sorted(templates, key=lambda one: one.used_at):
        if wanted_bytes <= 0 and wanted_count <= 0:
            break
        if not template.is_held:
            doomed.append(template)
            wanted_bytes -= template.total_bytes
            wanted_count -= 1
    return doomed
