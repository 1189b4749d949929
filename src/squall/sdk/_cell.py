"""Cells of a notebook: their code is run inside the kernel's event loop, and waits there as a script does.

Whoever writes a cell did not start that loop and loses nothing when it stands still, so that blocking forms are as good
there as `await`. In an async function that a notebook defines they are as wrong as anywhere.
"""

from __future__ import annotations

import inspect
import sys
from types import FrameType

_IS_ASYNC = inspect.CO_COROUTINE | inspect.CO_ASYNC_GENERATOR


def is_in_cell() -> bool:
    """Whether we are called by the code of a cell, with no async function of the user's in between."""
    if "ipykernel" not in sys.modules:
        return False
    frame: FrameType | None = sys._getframe(1)
    while frame is not None:
        module = str(frame.f_globals.get("__name__"))
        if module.startswith("IPython."):
            return True
        # A cell with `await` in it is a coroutine, too; and ours are driven by the thread that waits for them.
        is_ours = module.startswith("squall.")
        if frame.f_code.co_flags & _IS_ASYNC and frame.f_code.co_name != "<module>" and not is_ours:
            return False
        frame = frame.f_back
    return False
