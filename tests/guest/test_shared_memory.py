"""Forks share the memory of their template until they write to it, and the garbage collector does not."""

from __future__ import annotations

import pytest

from tests.guest.started_template import Start

pytestmark = pytest.mark.long

LISTS = 300_000
CODE = f"""
import gc
kept = [[number] for number in range({LISTS})]

def private_bytes():
    with open("/proc/self/smaps_rollup") as file:
        return sum(int(line.split()[1]) for line in file if line.startswith("Private_")) * 1024

def collect():
    before = private_bytes()
    gc.collect()
    return private_bytes() - before

def touch():
    before = private_bytes()
    for one in kept:
        one[0] = None
    return private_bytes() - before

def calls(name):
    return globals()[name]()
"""
WRITTEN_BYTES = LISTS * 32
"""By whoever goes through all of them: their headers are on so many pages at least."""


def test_a_collection_in_a_fork_copies_nothing_of_what_its_template_has_loaded(start: Start) -> None:
    one = start(CODE)
    one.ready("calls")
    one.fork()

    assert one.call("collect") < WRITTEN_BYTES / 10
    # What proves the test: this is what going through all of them costs.
    assert one.call("touch") > WRITTEN_BYTES
