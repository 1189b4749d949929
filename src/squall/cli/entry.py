"""The command's first step: load the rest of it.

That takes some 50 ms, in which Ctrl-C has nothing to take down yet: it ends the process at once, without a traceback.
"""

from __future__ import annotations

import gc
import importlib
import signal


def main() -> None:
    """Run the command and exit."""
    # Nothing of what is loaded is garbage; `cli.main` turns the collector on again when its command is loaded.
    gc.disable()
    before = signal.getsignal(signal.SIGINT)
    # Only where nobody asked for it to be ignored.
    if before is signal.default_int_handler:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    command = importlib.import_module("squall.cli.main").main
    signal.signal(signal.SIGINT, before)
    command()
