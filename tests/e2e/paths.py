"""What does not apply where one way for containers to start is forced on the tests (`make test-paths`), and whether it
was taken."""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass

import pytest

from squall.agent.config import AUTO, PLAIN, RESTORE
from squall.protocol.container import ContainerInfo

_PATH = os.environ.get("SQUALL_START_PATH")
_IS_RESTORED = _PATH == RESTORE

OF_THE_MACHINES_KERNEL = pytest.mark.skipif(
    _IS_RESTORED, reason="is about the machine's kernel: containers under gVisor have one of their own"
)
OF_QUICK_STARTS = pytest.mark.skipif(
    _IS_RESTORED, reason="counts on starts that take less time than to make, save and restore a template"
)
OF_TEMPLATES = pytest.mark.skipif(_PATH == PLAIN, reason="is about what is not there with templates switched off")


@dataclass(frozen=True, slots=True)
class Detour:
    """A path that containers are right to take, where another one is forced on all."""

    of: str
    """Whose: an app, or a function of one as `app.function`."""
    path: str
    cause: str
    """A piece of what they say why."""


_NOT_SAVED = "a container under gVisor is restored from a memory snapshot, and its function has none"
_ENTRYPOINT = "its image has an entrypoint"
_DOUBTED = "a container forked from its template ended while it ran its first call"
DETOURS = (
    # Nothing is forked under gVisor, and these ask for it.
    Detour("apart", PLAIN, _NOT_SAVED),
    Detour("apart", RESTORE, ""),
    Detour("prints", PLAIN, _NOT_SAVED),
    Detour("faults", PLAIN, _ENTRYPOINT),
    # These end their containers by themselves: the next attempt is made in one that is no fork.
    Detour("crashing.exit_at_once", PLAIN, _DOUBTED),
    Detour("crashing.exit_if_five", PLAIN, _DOUBTED),
    Detour("crashing.read_null", PLAIN, _DOUBTED),
    Detour("family.die", PLAIN, _DOUBTED),
    Detour("hostile.stubborn", PLAIN, _DOUBTED),
    Detour("progressing.crash", PLAIN, _DOUBTED),
    Detour("retrying.poison", PLAIN, _DOUBTED),
)


def strays(path: str, containers: Iterable[ContainerInfo]) -> list[str]:
    """Of what a server has started that has one path for all: what took another one, in words.

    What has not started is none, nor what an earlier server started, as only that one knew how.
    """
    return [
        f"{one.container_id} of {one.app_name}.{one.function_name}: {one.path}; {one.path_cause or 'nobody knows why'}"
        for one in containers
        if path != AUTO and one.path not in ("", path) and not any(_is_of(one, detour) for detour in DETOURS)
    ]


def _is_of(one: ContainerInfo, detour: Detour) -> bool:
    is_its = detour.of in (one.app_name, f"{one.app_name}.{one.function_name}")
    return is_its and detour.path == one.path and detour.cause in one.path_cause


def told(found: list[str]) -> str:
    """That there are some."""
    return "started by another path than the one for all:\n  " + "\n  ".join(found)
