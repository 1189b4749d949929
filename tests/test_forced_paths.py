"""What makes a round of `make test-paths` fail: a container that took another path, and whose test has no reason to."""

from __future__ import annotations

import pytest

from squall.agent.config import AUTO, FORK, PARKED, PLAIN, RESTORE
from squall.protocol.container import ContainerInfo
from tests.e2e.paths import DETOURS, Detour, strays, told

NO_CAUSE = ""
FAILED = "it could not be forked: its cell is gone"


def container(path: str, cause: str = NO_CAUSE, of: str = "hello") -> ContainerInfo:
    app, _, function = of.partition(".")
    return ContainerInfo(
        "ct-1", "ap-1", app, "fu-1", function or "f", "nd-1", "stopped", 0.0, path=path, path_cause=cause
    )


@pytest.mark.parametrize("path", [PLAIN, FORK, PARKED, RESTORE])
def test_containers_by_the_forced_path_and_those_not_started_are_no_strays(path: str) -> None:
    assert strays(path, [container(path), container(path, "its template was made anew"), container("")]) == []


@pytest.mark.parametrize(
    ("forced", "taken", "cause"),
    [
        (FORK, PLAIN, NO_CAUSE),
        (FORK, PLAIN, FAILED),
        (FORK, PARKED, NO_CAUSE),
        (PARKED, FORK, NO_CAUSE),
        (PARKED, PLAIN, FAILED),
        (RESTORE, PLAIN, FAILED),
        (PLAIN, FORK, NO_CAUSE),
    ],
)
def test_another_path_than_the_forced_one_is_told_with_its_cause(forced: str, taken: str, cause: str) -> None:
    found = strays(forced, [container(forced), container(taken, cause)])

    assert found == [f"ct-1 of hello.f: {taken}; {cause or 'nobody knows why'}"]
    assert told(found).endswith(found[0])


def test_without_a_forced_path_there_are_no_strays() -> None:
    assert strays(AUTO, [container(path) for path in (PLAIN, FORK, PARKED, RESTORE)]) == []


@pytest.mark.parametrize("known", DETOURS, ids=lambda known: f"{known.of}-{known.path}")
def test_detour_is_its_functions_only_and_for_its_cause_only(known: Detour) -> None:
    forced, app = known.forced[0], known.of.partition(".")[0]
    cause = f"{known.cause}, and more" if known.cause else NO_CAUSE
    found = strays(forced, [container(known.path, cause, known.of)])
    others = strays(forced, [container(known.path, cause, of) for of in ("hello.g", f"{app}.g", f"{known.of}s")])
    failed = strays(forced, [container(known.path, FAILED, known.of)])

    assert (found, len(others), len(failed)) == ([], 3, 1)


@pytest.mark.parametrize("known", DETOURS, ids=lambda known: f"{known.of}-{known.path}")
def test_detour_is_none_where_another_path_is_forced(known: Detour) -> None:
    for forced in {PLAIN, FORK, PARKED, RESTORE} - {known.path, *known.forced}:
        assert strays(forced, [container(known.path, known.cause, known.of)])
