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


def unshared_bytes(templates: Iterable[Template]) -> int:
    """What these alone occupy. What clones that run share is theirs as well, and would not be free without them."""
    return sum(template.total_bytes for template in templates if not template.is_held)


def surplus(templates: Iterable[Template], bytes_max: int) -> list[Template]:
    """Which are to go so that the rest of those that are ready is within `bytes_max` and `TEMPLATES_MAX`.

    Those whose clones run count when these have ended: one that was just made and has none yet would go otherwise, in
    place of what nobody can free.
    """
    ready = [template for template in templates if template.is_ready and not template.is_held]
    return _used_longest_ago(ready, total_bytes(ready) - bytes_max, len(ready) - TEMPLATES_MAX)


def freeing(templates: Iterable[Template], wanted_bytes: int, kept: Template | None = None) -> list[Template]:
    """Which are to go so that about so much more is free. One whose clones run would free nothing, and what is started
    next would be slow for it."""
    free = [template for template in templates if template.is_ready and not template.is_held and template is not kept]
    return _used_longest_ago(free, wanted_bytes, 0)


def _used_longest_ago(templates: Iterable[Template], wanted_bytes: int, wanted_count: int) -> list[Template]:
    """The first of these that are so much and so many.

    None is being made: somebody waits for that one, and nobody knows yet what it will occupy.
    """
    doomed = []
    for template in sorted(templates, key=lambda one: one.used_at):
        if wanted_bytes <= 0 and wanted_count <= 0:
            break
        doomed.append(template)
        wanted_bytes -= template.total_bytes
        wanted_count -= 1
    return doomed
