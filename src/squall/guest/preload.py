"""What a template loads so that its forks need not: all of ours that user code or the guest may come to need.

A plain start loads each part when it is first used, because a start pays for it. A template pays once, and its forks
share the pages. Nothing of the user's is loaded here, nor what user code could have put in the place of ours: the names
are those of our library, which containers cannot write to, and of the standard library.
"""

from __future__ import annotations

import importlib
import sys

import squall
from squall.guest.web.specs import is_web
from squall.protocol.guest import Boot

_ASYNC, _BATCH, _THREADS = "squall.guest.async_runner", "squall.guest.batch", "squall.guest.thread_runner"
_WEB = tuple(f"squall.guest.web.{one}" for one in ("runner", "lifespan", "endpoint", "wsgi"))
_GUEST = ("squall.guest.instance", "squall.guest.runner")
_SDK = ("_class_decorator", "_client", "_serialization", "_traceback")


def preload(boot: Boot | None) -> set[str]:
    """Load them: for the function of this Boot, or for any. After its module, so that user code has not touched what
    this brings; gives the names of that."""
    before = set(sys.modules)
    for name in sorted({*squall._PLACES.values(), *(f"squall.sdk.{one}" for one in _SDK), *_GUEST, *_kinds(boot)}):
        importlib.import_module(name)
    return set(sys.modules) - before


def _kinds(boot: Boot | None) -> tuple[str, ...]:
    """What functions of some kinds only need. The event loop brings OpenSSL with it, which each fork would seed."""
    if boot is None:
        return (_ASYNC, _BATCH, _THREADS)
    if is_web(boot):
        return (_ASYNC, *_WEB)
    asked = ((_ASYNC, boot.definition.is_async), (_BATCH, boot.is_batched), (_THREADS, boot.max_inputs > 1))
    return tuple(name for name, is_asked in asked if is_asked)
