"""What a signal is called that has ended a container."""

from __future__ import annotations

import signal


def signal_in_words(number: int) -> str:
    """Its name and what that means, as far as it has one."""
    try:
        name = signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
    # Some systems add the number: "Segmentation fault: 11".
    meaning = (signal.strsignal(number) or "").partition(":")[0].lower()
    return f"{name} ({meaning})" if meaning else name
