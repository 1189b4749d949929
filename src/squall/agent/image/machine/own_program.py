"""Programs of ours that the agent runs beside itself, because they work on a processor or on strangers' bytes."""

from __future__ import annotations

import os
import sys

import squall
from squall.agent.image.machine.tool import PATH


def own_program(module: str, *arguments: str) -> tuple[str, ...]:
    """The command line of a module, run by the Python that runs this."""
    # -P: the folder this was started from is not searched for modules.
    return (sys.executable, "-P", "-s", "-m", module, *arguments)


def own_environ() -> dict[str, str]:
    """The variables it needs, and none of ours."""
    package = os.path.dirname(os.path.dirname(str(squall.__file__)))
    return {"PATH": PATH, "PYTHONPATH": package, "PYTHONUTF8": "1", "PYTHONDONTWRITEBYTECODE": "1"}
