"""What does not apply where one way for containers to start is forced on the tests (`make test-paths`), and whether it
was taken."""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass
from fnmatch import fnmatchcase

import pytest

from squall.agent.config import AUTO, FORK, PARKED, PLAIN, RESTORE
from squall.protocol.container import ContainerInfo

_PATH = os.environ.get("SQUALL_START_PATH")
_IS_RESTORED = _PATH == RESTORE

OF_THE_MACHINES_KERNEL = pytest.mark.skipif(
    _IS_RESTORED, reason="is about the machine's kernel: containers under gVisor have one of their own"
)
OF_QUICK_STARTS = pytest.mark.skipif(
    _IS_RESTORED, reason="counts on starts that take less time than to make, save and restore a template"
)
OF_BUCKETS = pytest.mark.skipif(_IS_RESTORED, reason="under gVisor there are no buckets yet")
OF_BLOCKED_PORTS = pytest.mark.skipif(
    _IS_RESTORED, reason="under gVisor nothing reaches the ports of a container whose network is blocked"
)
OF_TEMPLATES = pytest.mark.skipif(_PATH == PLAIN, reason="is about what is not there with templates switched off")


@dataclass(frozen=True, slots=True)
class Detour:
    """A path that containers of a function are right to take, where another one is forced on all."""

    of: str
    """The function, as `app.function`; a pattern of the shell's where apps are named by their tests."""
    forced: tuple[str, ...]
    """The paths that it is right to leave."""
    path: str
    cause: str
    """A piece of what they say why; empty where they have nothing to say, as what they ask for is what they get."""


_NOT_SAVED = "a container under gVisor is restored from a memory snapshot, and its function has none"
_SECRETS = "it has secrets"
_VOLUMES = "it has volumes"
_BUCKETS = "it has buckets"
_ENTRYPOINT = "its image has an entrypoint"
_ENDED = "it has ended"
_DOUBTED = "a container forked from its template ended while it ran its first call"
_FORKED = (FORK, PARKED)
_FROM_TEMPLATES = (*_FORKED, RESTORE)


def _detours(of: str, forced: tuple[str, ...], path: str, cause: str) -> tuple[Detour, ...]:
    """Of several functions of one app: `app.one two`."""
    app, _, functions = of.partition(".")
    return tuple(Detour(f"{app}.{function}", forced, path, cause) for function in functions.split())


DETOURS = (
    # Nothing is forked under gVisor, and these ask for it.
    *_detours("apart.kernel count fail sleep square take_memory resolve cut_off", _FORKED, PLAIN, _NOT_SAVED),
    *_detours("apart.disk children Counter", _FORKED, PLAIN, _NOT_SAVED),
    *_detours("apart.restored Loaded", _FORKED, RESTORE, ""),
    *_detours("naming-secrets.apart", _FROM_TEMPLATES, PLAIN, _SECRETS),
    *_detours("naming-secrets.plain forked", (RESTORE,), PLAIN, _SECRETS),
    *_detours(
        "passing-secrets.of_variant of_variant?secrets? Vault(?*) Vault(?*)?secrets?", (RESTORE,), PLAIN, _SECRETS
    ),
    *_detours("child-of-passing.below", (RESTORE,), PLAIN, _SECRETS),
    *_detours("web-upload.files", (RESTORE,), PLAIN, _VOLUMES),
    *_detours("api-keys.ask look", (RESTORE,), PLAIN, _SECRETS),
    *_detours("replayed.fail", (RESTORE,), PLAIN, _SECRETS),
    *_detours("replay of replayed.fail", (RESTORE,), PLAIN, _SECRETS),
    *_detours("keeping.write read try_to_write reload_with_open_file", (RESTORE,), PLAIN, _VOLUMES),
    *_detours("keeping.sleep_after_writing list_below apart die_while_writing", (RESTORE,), PLAIN, _VOLUMES),
    *_detours("keeping.die_while_writing", _FORKED, PLAIN, _DOUBTED),
    *_detours("filling-volume.names write", (RESTORE,), PLAIN, _VOLUMES),
    *_detours("mounting-others.look look?*volumes=?other? write?volumes=?other?", (RESTORE,), PLAIN, _VOLUMES),
    *_detours("mounting-others.Keeper Keeper?volumes=?other?", (RESTORE,), PLAIN, _VOLUMES),
    *_detours("large-volumes.write_many read_many write_sparse read_sparse", (RESTORE,), PLAIN, _VOLUMES),
    *_detours("large-volumes.write_names read_names", (RESTORE,), PLAIN, _VOLUMES),
    *_detours("building-with-volumes.use", (RESTORE,), PLAIN, _VOLUMES),
    *_detours("checkpoints.train predict", (RESTORE,), PLAIN, _VOLUMES),
    *_detours("keeping.apart", _FORKED, PLAIN, _NOT_SAVED),
    *_detours("bucket-user.write write?buckets=?data? write_slowly read misses", _FORKED, PLAIN, _BUCKETS),
    *_detours("bucket.report total", _FORKED, PLAIN, _BUCKETS),
    *_detours("prints.f", _FORKED, PLAIN, _NOT_SAVED),
    *_detours("faults.f", _FROM_TEMPLATES, PLAIN, _ENTRYPOINT),
    *_detours("environment.look", _FROM_TEMPLATES, PLAIN, _ENTRYPOINT),
    *_detours("where.look", _FROM_TEMPLATES, PLAIN, _ENTRYPOINT),
    *_detours("dockerfile.look", _FROM_TEMPLATES, PLAIN, _ENTRYPOINT),
    # Its spawner is killed, and with it its template, which is found out by the start that follows.
    *_detours("sleeping.sleep", _FROM_TEMPLATES, PLAIN, _ENDED),
    # Edited while its template is made, which takes a while to be saved.
    *_detours("served-*.greet", (RESTORE,), PLAIN, "its function was deployed anew"),
    # These end their containers by themselves: the next attempt is made in one that is no fork.
    *_detours("crashing.exit_at_once exit_if_five read_null", _FROM_TEMPLATES, PLAIN, _DOUBTED),
    *_detours("family.die", _FROM_TEMPLATES, PLAIN, _DOUBTED),
    *_detours("hostile.stubborn", _FROM_TEMPLATES, PLAIN, _DOUBTED),
    *_detours("checkpoints.train", _FORKED, PLAIN, _DOUBTED),
    *_detours("progressing.crash", _FROM_TEMPLATES, PLAIN, _DOUBTED),
    *_detours("retrying.poison", _FROM_TEMPLATES, PLAIN, _DOUBTED),
)


def strays(path: str, containers: Iterable[ContainerInfo]) -> list[str]:
    """Of what a server has started that has one path for all: what took another one, in words.

    What has not started is none, nor what an earlier server started, as only that one knew how.
    """
    return [
        f"{one.container_id} of {one.app_name}.{one.function_name}: {one.path}; {one.path_cause or 'nobody knows why'}"
        for one in containers
        if path != AUTO and one.path not in ("", path) and not any(_is_of(one, path, detour) for detour in DETOURS)
    ]


def _is_of(one: ContainerInfo, forced: str, detour: Detour) -> bool:
    is_its = fnmatchcase(f"{one.app_name}.{one.function_name}", detour.of) and forced in detour.forced
    is_its_cause = detour.cause in one.path_cause if detour.cause else not one.path_cause
    return is_its and detour.path == one.path and is_its_cause


def told(found: list[str]) -> str:
    """That there are some."""
    return "started by another path than the one for all:\n  " + "\n  ".join(found)
