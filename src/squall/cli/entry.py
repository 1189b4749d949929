"""The command's first step: load the rest of it.

That takes some 50 ms, in which Ctrl-C has nothing to take down yet: it ends the process at once, without a traceback.
"""

from __future__ import annotations

import gc
import importlib
import os
import signal

from squall.cli.stand_ins import standing_in


def main() -> None:
    """Run the command and exit."""
    # Nothing of what is loaded is garbage; `cli.main` turns the collector on again when its command is loaded.
    gc.disable()
    before = signal.getsignal(signal.SIGINT)
    # Only where nobody asked for it to be ignored.
    if before is signal.default_int_handler:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    # 11 ms of what click and pathlib load. It is needed for help of several lines and for URLs with addresses in them.
    with standing_in({"inspect": {"cleandoc": _cleandoc}, "platform": {"system": _system}, "ipaddress": {}}):
        importlib.import_module("click")
        importlib.import_module("pathlib")
    command = importlib.import_module("squall.cli.main").main
    signal.signal(signal.SIGINT, before)
    command()


def _system() -> str:
    """As that of `platform`; `uuid` asks which system it is on."""
    return os.uname().sysname


def _cleandoc(text: str) -> str:
    """As that of `inspect`, which is loaded for texts of several lines: click has one cleaned for each option."""
    if "\n" in text or "\t" in text:
        return importlib.import_module("inspect").cleandoc(text)  # type: ignore[no-any-return]
    return text.lstrip()
