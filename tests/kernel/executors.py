"""Run tests of containers for both executors.

A module that has `UNDER_GVISOR` is run for both: what it names there quickly, in every run; all others under gVisor,
too, but marked slow; and what `NOT_UNDER_GVISOR` names is skipped there, with the reason said.
"""

from __future__ import annotations

import os

import pytest

from squall.runtime.gvisor.program import RUNSC_PROGRAMS
from squall.runtime.spec import GVISOR, NAMESPACES

NEEDS_RUNSC = pytest.mark.skipif(
    not any(map(os.path.exists, RUNSC_PROGRAMS)), reason="missing program: runsc (package runsc, see make setup)"
)


def parametrize(metafunc: pytest.Metafunc) -> None:
    """For `pytest_generate_tests`."""
    quick = getattr(metafunc.module, "UNDER_GVISOR", None)
    if quick is None or "isolation" not in metafunc.fixturenames:
        return
    marks = [NEEDS_RUNSC] if metafunc.function.__name__ in quick else [NEEDS_RUNSC, pytest.mark.slow]
    metafunc.parametrize("isolation", [NAMESPACES, pytest.param(GVISOR, marks=marks)], indirect=True)


def chosen_isolation(request: pytest.FixtureRequest) -> str:
    """What `parametrize` has chosen for a test; without it, namespaces."""
    isolation: str = getattr(request, "param", NAMESPACES)
    reason = getattr(request.module, "NOT_UNDER_GVISOR", {}).get(request.function.__name__)
    if isolation == GVISOR and reason:
        pytest.skip(f"not under gVisor: {reason}")
    return isolation
