"""Runs a function of a test where its mounts are nobody else's."""

from __future__ import annotations

import os
import pickle
import traceback
from collections.abc import Callable
from typing import Any

from squall.runtime import syscalls as sc


def elsewhere(function: Callable[[], Any]) -> Any:
    """What a function returns that runs in a process and a mount namespace of its own, both gone afterwards."""
    read, write = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(read)
        try:
            sc.unshare(sc.CLONE_NEWNS)
            sc.mount("none", "/", None, sc.MS_REC | sc.MS_PRIVATE)
            answer = pickle.dumps((True, function()))
        except BaseException:  # noqa: BLE001 - told to the test, which fails with it
            answer = pickle.dumps((False, traceback.format_exc()))
        with os.fdopen(write, "wb") as pipe:
            pipe.write(answer)
        os._exit(0)
    os.close(write)
    with os.fdopen(read, "rb") as pipe:
        answer = pipe.read()
    os.waitpid(pid, 0)
    is_good, value = pickle.loads(answer)
    assert is_good, value
    return value
