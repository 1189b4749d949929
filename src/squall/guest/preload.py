"""What a template loads so that its forks need not: all of ours that user code or the guest may come to need.

A plain start loads each part when it is first used, because a start pays for it. A template pays once, and its forks
share the pages. Nothing of the user's is loaded here, nor what user code could have put in the place of ours: the names
are those of our library, which containers cannot write to, and of the standard library.
"""

from __future__ import annotations

import importlib

import squall

# Loaded where they are needed by functions of some kinds only.
_GUEST = ("async_runner", "batch", "instance", "runner", "thread_runner")
_SDK = ("_class_decorator", "_client", "_serialization", "_traceback")


def preload() -> None:
    """Load them."""
    names = sorted({*squall._PLACES.values(), *(f"squall.sdk.{name}" for name in _SDK)})
    for name in (*names, *(f"squall.guest.{name}" for name in _GUEST)):
        importlib.import_module(name)
