"""When a batch is run, and how large it is."""

from __future__ import annotations

import pytest

from squall.protocol.function import Batching
from squall.server.policy import batching

FOUR_IN_100_MS = Batching(4, 100)


@pytest.mark.parametrize(
    ("rule", "queued", "waited_s", "size"),
    [
        (FOUR_IN_100_MS, 0, 9.0, 0),
        (FOUR_IN_100_MS, 1, 0.0, 0),
        (FOUR_IN_100_MS, 3, 0.099, 0),
        (FOUR_IN_100_MS, 3, 0.1, 3),
        (FOUR_IN_100_MS, 1, 60.0, 1),
        (FOUR_IN_100_MS, 4, 0.0, 4),
        (FOUR_IN_100_MS, 5, 0.0, 4),
        (FOUR_IN_100_MS, 5, 60.0, 4),
        (Batching(4, 0), 1, 0.0, 1),
        (Batching(1, 600_000), 1, 0.0, 1),
        (Batching(1_000, 600_000), 999, 599.9, 0),
        (Batching(1_000, 600_000), 999, 600.0, 999),
    ],
)
def test_batch_is_run_when_it_is_full_or_its_first_input_has_waited(
    rule: Batching, queued: int, waited_s: float, size: int
) -> None:
    assert batching.size_now(rule, queued, 50.0, 50.0 + waited_s) == size


def test_time_at_which_it_is_due_is_late_enough_to_run_it() -> None:
    for wait_ms in range(0, 600_000, 997):
        rule = Batching(2, wait_ms)
        assert batching.size_now(rule, 1, 0.1, batching.due_at(rule, 0.1)) == 1


@pytest.mark.parametrize(("inputs", "count"), [(0, 0), (1, 1), (4, 1), (5, 2), (8, 2), (9, 3)])
def test_inputs_make_so_many_batches(inputs: int, count: int) -> None:
    assert batching.batches_of(FOUR_IN_100_MS, inputs) == count
