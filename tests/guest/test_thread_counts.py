"""Numerical libraries have one thread in a template, and in its forks as many as these are to have."""

from __future__ import annotations

import os
import signal
import threading

import pytest

from squall.guest import thread_counts
from squall.guest.thread_counts import wanted_count
from tests.guest.started_template import Start

pytestmark = pytest.mark.long

CODE = """
import ctypes, glob, os
import numpy

path = next(line.split()[-1] for line in open("/proc/self/maps") if "openblas" in line)
library = ctypes.CDLL(path)
spellings = [f"{a}openblas_{{}}_num_threads{b}" for a in ("", "scipy_") for b in ("", "64_", "_64")]
spelling = next(one for one in spellings if hasattr(library, one.format("get")))
one = numpy.arange(640_000, dtype=float).reshape(800, 800) % 7
product = one @ one

def run():
    threads_before = len(os.listdir("/proc/self/task"))
    same = bool((one @ one == product).all())
    threads = len(os.listdir("/proc/self/task")) - threads_before
    return library[spelling.format("get")](), same, threads_before, threads
"""


def test_product_in_a_fork_uses_the_threads_that_its_environment_says(start: Start) -> None:
    one = start(CODE)
    one.ready("run")

    one.fork(OPENBLAS_NUM_THREADS="3", OMP_NUM_THREADS="2")

    count, is_same, _, _ = one.call()
    assert (count, is_same) == (3, True)


def test_fork_without_a_number_uses_one_thread_for_each_processor(start: Start) -> None:
    one = start(CODE)
    one.ready("run")

    one.fork()

    count, is_same, threads_before, threads = one.call()
    processors = len(os.sched_getaffinity(0))
    assert (count, is_same) == (processors, True)
    # The main one and the watcher: OpenBLAS has begun its own with the product.
    assert (threads_before, threads) == (2, processors - 1)


def test_fork_that_is_to_have_one_thread_starts_none(start: Start) -> None:
    one = start(CODE, env={"OPENBLAS_NUM_THREADS": "1"})
    one.ready("run")

    one.fork()

    assert one.call() == (1, True, 2, 0)


def test_library_that_does_not_end_its_threads_before_a_fork_gets_its_number_in_each_fork() -> None:
    given = []
    stop = threading.Event()

    def give(count: int) -> None:
        given.append(count)
        threading.Thread(target=stop.wait).start()

    thread_counts.give_without_threads(give, 2)

    assert not given, "its probe has given it, in a process of its own"
    assert threading.active_count() == 1


def test_library_whose_probe_user_code_has_the_kernel_reap_gets_its_number_in_each_fork() -> None:
    given: list[int] = []
    before = signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    try:
        thread_counts.give_without_threads(given.append, 2)
    finally:
        signal.signal(signal.SIGCHLD, before)

    assert not given, "nobody knows what has become of its probe"


def test_number_that_user_code_has_set_stays(start: Start) -> None:
    code = CODE + "\nimport os\nos.environ['OPENBLAS_NUM_THREADS'] = '2'\n"
    one = start(code)
    one.ready("run")

    one.fork(OPENBLAS_NUM_THREADS="3")

    assert one.call()[0] == 2


@pytest.mark.parametrize(
    ("environ", "expected"),
    [
        ({"OPENBLAS_NUM_THREADS": "3", "OMP_NUM_THREADS": "2"}, 3),
        ({"OMP_NUM_THREADS": "2"}, 2),
        ({"OMP_NUM_THREADS": "4,2"}, 4),
        ({"OPENBLAS_NUM_THREADS": "many", "OMP_NUM_THREADS": "0"}, len(os.sched_getaffinity(0))),
        ({}, len(os.sched_getaffinity(0))),
    ],
)
def test_first_number_that_is_set_counts(environ: dict[str, str], expected: int) -> None:
    assert wanted_count(("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS"), environ) == expected
