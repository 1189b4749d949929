"""What is said of cold starts: figures, where the time went, and what to do."""

from __future__ import annotations

import random

import pytest

from squall.cli.cold_start import ColdStart, cold_start_of
from squall.cli.start_report import distribution, hints, histogram, lines_of, percentile, phases
from squall.protocol.container import ContainerInfo
from squall.protocol.flight import AttemptFlight, CallFlight, CallSummary, ContainerFlight, InputFlight
from squall.protocol.function import BY_FILE, GVISOR, Definition, FunctionSpec
from squall.protocol.node import PATH_FORK, PATH_PARKED, PATH_PLAIN, PATH_RESTORE
from squall.protocol.records import replace


def spec(*, is_snapshot_enabled: bool = False) -> FunctionSpec:
    definition = Definition(BY_FILE, "greeter", "hello")
    return FunctionSpec("fu-1", "ap-1", "hello", definition, "im-1", is_snapshot_enabled=is_snapshot_enabled)


def start(took_ms: dict[str, float], path: str = PATH_PLAIN, cause: str = "") -> ColdStart:
    return ColdStart(sum(took_ms.values()), tuple(took_ms.items()), path, cause, "ct-1")


def test_percentiles_are_values_that_were_there() -> None:
    values = [float(number) for number in range(1, 101)]
    random.Random(1).shuffle(values)

    found = distribution(values)

    assert (found.min_ms, found.p50_ms, found.p90_ms, found.p99_ms, found.max_ms) == (1, 50, 90, 99, 100)
    assert percentile([7.0], 99) == 7
    assert percentile([1.0, 2.0, 3.0], 50) == 2


@pytest.mark.parametrize("most", [110.0, 10_000.0])
def test_histogram_counts_each_once_between_the_smallest_and_the_largest(most: float) -> None:
    generator = random.Random(2)
    values = [100.0, most, *(generator.uniform(100.0, most) for _ in range(500))]

    rows = histogram(values)

    assert sum(count for _, _, count in rows) == len(values)
    assert rows[0][0] == pytest.approx(100)
    assert rows[-1][1] == pytest.approx(most)
    for begin, end, count in rows:
        is_last = end == rows[-1][1]
        assert count == sum(begin <= one < end or (is_last and one == most) for one in values)


def test_rows_grow_with_the_times_where_these_lie_far_apart() -> None:
    near, far = histogram([10.0, 20.0]), histogram([10.0, 2_000.0])

    assert near[0][1] - near[0][0] == pytest.approx(near[-1][1] - near[-1][0])
    assert far[0][1] / far[0][0] == pytest.approx(far[-1][1] / far[-1][0])


def test_equal_times_are_one_row() -> None:
    assert histogram([5.0, 5.0]) == [(5.0, 5.0, 2)]


def test_share_of_a_phase_is_of_all_starts_and_those_without_it_count_as_none() -> None:
    told = phases([start({"queued": 1, "sandbox": 9}), start({"queued": 1, "sandbox": 4, "import": 5})])

    assert [one.name for one in told] == ["queued", "sandbox", "import"]
    assert [round(one.share_percent) for one in told] == [10, 65, 25]
    assert told[2].p50_ms == 0


def test_phases_of_a_call_add_up_to_what_its_caller_saw() -> None:
    marks = {"placed": 1.0, "start.runtime": 10.0, "process": 11.0, "connected": 40.0, "ready": 50.0}
    info = ContainerInfo(
        "ct-1", "ap-1", "app", "fu-1", "f", "nd-1", "idle", 0.0, phase_ms={**marks, "import": 6.0, "first_input": 51.0}
    )
    attempt = AttemptFlight(0, "succeeded", 0.0, 52.0, 72.0, "ct-1")
    flight = CallFlight(
        CallSummary("fc-1", "fu-1", "f", "ap-1", "app", "remote", 0.0, "succeeded", 1),
        inputs=(InputFlight(0, "in-1:0", "succeeded", (attempt,)),),
    )

    found = cold_start_of(flight, ContainerFlight(info), 75.0)

    assert dict(found.phases) == pytest.approx(
        {"queued": 1, "sandbox": 10, "process": 29, "boot": 4, "import": 6, "first input": 1, "run": 20, "messages": 4}
    )
    assert sum(took for _, took in found.phases) == pytest.approx(75)


@pytest.mark.parametrize(
    ("finished", "run"), [(8.0, 3.9), (3.5, 0.0)], ids=["when it is up", "before its node says so"]
)
def test_phases_of_a_call_of_a_parked_copy_add_up_too(finished: float, run: float) -> None:
    marks = {"placed": 1.0, "start.template": 0.1, "start.runtime": 3.0, "process": 4.2, "connected": 1.1}
    info = ContainerInfo(
        "ct-1", "ap-1", "app", "fu-1", "f", "nd-1", "idle", 0.0, phase_ms={**marks, "ready": 1.2, "first_input": 1.3}
    )
    attempt = AttemptFlight(0, "succeeded", 0.0, 1.3, finished, "ct-1")
    flight = CallFlight(
        CallSummary("fc-1", "fu-1", "f", "ap-1", "app", "remote", 0.0, "succeeded", 1),
        inputs=(InputFlight(0, "in-1:0", "succeeded", (attempt,)),),
    )

    found = cold_start_of(flight, ContainerFlight(info), finished + 0.5)

    assert dict(found.phases)["run"] == pytest.approx(run)
    assert sum(took for _, took in found.phases) == pytest.approx(finished + 0.5)


@pytest.mark.parametrize(
    ("is_snapshot_enabled", "one", "said"),
    [
        (False, start({"sandbox": 10, "import": 40}), "enable_memory_snapshot=True"),
        (True, start({"sandbox": 10, "enter hooks": 40}), "@squall.enter(snap=True)."),
        (False, start({"sandbox": 10, "enter hooks": 40}), "with enable_memory_snapshot=True: it is run once"),
        (False, start({"queued": 90, "sandbox": 10}), "waits for a node with room"),
        (False, start({"sandbox": 10, "run": 90}), "own run"),
        (True, start({"sandbox": 2, "messages": 2}, PATH_PARKED), "nothing left to gain"),
        (True, start({"sandbox": 10}, PATH_FORK), "forks of the function's template"),
        (False, start({"sandbox": 10}, PATH_FORK), "image template"),
        (True, start({"sandbox": 10}, PATH_FORK, "a thread runs"), "image template"),
        (True, start({"sandbox": 10}, PATH_PLAIN, "module watch started the thread 'poller'"), "the thread 'poller'"),
        (True, start({"sandbox": 10}), "the node does not say why"),
        (True, start({"template": 900, "sandbox": 10}, PATH_FORK), "waited for a template"),
        (False, start({"sandbox": 90, "run": 1}), "many starts at once"),
        (False, start({"network": 90, "run": 1}, PATH_FORK), "many starts at once"),
        (False, start({"process": 90, "run": 1}), "no template to fork"),
        (False, start({"process": 90}, cause="its image has an entrypoint"), "'plain': its image has an entrypoint"),
        (True, start({"sandbox": 90}, PATH_RESTORE), "read back from a memory snapshot"),
    ],
)
def test_hints_say_what_to_do(is_snapshot_enabled: bool, one: ColdStart, said: str) -> None:
    assert any(said in hint for hint in hints(spec(is_snapshot_enabled=is_snapshot_enabled), [one] * 3))


def test_a_cause_is_not_followed_by_a_guess() -> None:
    slow = start({"process": 90, "run": 1}, cause="its image has an entrypoint")

    assert not any("no template to fork" in hint for hint in hints(spec(), [slow]))


def test_under_gvisor_nobody_is_promised_a_fork() -> None:
    gvisor = replace(spec(), isolation=GVISOR)

    assert any("restored from what was saved" in hint for hint in hints(gvisor, [start({"import": 90})]))
    assert not any("fork" in hint for hint in hints(gvisor, [start({"import": 90})]))


def test_who_has_snapshots_is_not_told_to_switch_them_on() -> None:
    slow = start({"import": 40}, PATH_FORK)

    assert not any("enable_memory_snapshot" in hint for hint in hints(spec(is_snapshot_enabled=True), [slow]))


def test_report_names_the_slowest_phase_and_the_paths() -> None:
    starts = [start({"sandbox": 10 + number, "run": 1}, PATH_FORK) for number in range(20)]
    first = start({"sandbox": 900})

    text = "\n".join(lines_of(spec(), "greeter.hello", first, starts))

    assert "greeter.hello: 20 cold starts" in text
    assert "20 fork" in text
    assert "900 ms, plain: not counted" in text
    assert "Slowest: sandbox, 95 % of the time." in text
