"""What the rehearsal of a fork leaves behind: nothing."""

from __future__ import annotations

import os
import threading

import pytest

from squall.guest.cancellation import Interrupter
from squall.guest.inbox import Stopping
from squall.guest.loading import Served
from squall.guest.main import Guest
from squall.guest.rehearsal import rehearse
from squall.protocol.function import BY_FILE, Definition
from squall.protocol.guest import Boot
from squall.sdk import _container

BOOT = Boot("ct-1", "ap-1", "rehearsed", "fu-1", "about", Definition(BY_FILE, "user_code", "about"), {})


def _never() -> None:
    raise AssertionError("user code was run")


def test_nothing_is_left_of_it() -> None:
    guest = Guest("/nowhere/guest.sock", Interrupter(), ())
    before = os.listdir("/proc/self/fd"), threading.enumerate()

    rehearse(guest, BOOT, Served(_never), is_parked=False)

    assert (os.listdir("/proc/self/fd"), threading.enumerate()) == before
    assert _container.running_input_id() is None
    assert not guest.interrupter.has_interrupted


def test_end_that_is_asked_for_meanwhile_is_not_lost() -> None:
    guest = Guest("/nowhere/guest.sock", Interrupter(), ())
    guest.interrupter.is_ending = True

    with pytest.raises(Stopping):
        rehearse(guest, BOOT, Served(_never), is_parked=False)
