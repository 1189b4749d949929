"""Why a call was slow, in words that read well."""

from __future__ import annotations

from squall.protocol.container import ContainerInfo
from squall.protocol.flight import AttemptFlight, ContainerFlight, InputFlight
from squall.server.dispatch.flight.words import why


def words(attempt: AttemptFlight, *, ready_ms: float | None = None) -> tuple[str, ...]:
    containers: tuple[ContainerFlight, ...] = ()
    if ready_ms is not None:
        info = ContainerInfo("ct-1", "ap-1", "app", "fu-1", "f", "nd-1", "idle", 0.0, phase_ms={"ready": ready_ms})
        containers = (ContainerFlight(info),)
    return why([InputFlight(0, "in-1:0", attempt.status, (attempt,))], containers)


def test_wait_for_a_container_and_what_came_after_it() -> None:
    told = words(AttemptFlight(0, "succeeded", 0.0, 103.5, 110.0, "ct-1"), ready_ms=100.0)

    assert told == (
        "waited 100 ms for a container to start: ct-1 took 100 ms",
        "ran for 6.5 ms",
        "waited 3.5 ms more to be handed over",
    )


def test_wait_in_the_queue_says_why() -> None:
    told = words(AttemptFlight(0, "succeeded", 500.0, 750.0, 760.0, "ct-1"), ready_ms=100.0)

    assert told == ("waited 250 ms in the queue, as no container had room", "ran for 10 ms")


def test_of_a_container_that_is_forgotten_nothing_is_made_up() -> None:
    told = words(AttemptFlight(0, "succeeded", 0.0, 250.0, 260.0, "ct-forgotten"), ready_ms=100.0)

    assert told == ("waited 250 ms for a container", "ran for 10 ms")


def test_crash_is_not_told_as_one_of_the_retries_of_the_function() -> None:
    told = words(AttemptFlight(1, "lost", 0.0, 10.0, 30.0, "ct-1", retry_delay_ms=500.0), ready_ms=5.0)

    assert told[0] == "its next attempt was put off by 500 ms, as its container had ended"


def test_slowest_input_is_the_one_that_took_longest_not_the_last() -> None:
    slow = AttemptFlight(0, "succeeded", 0.0, 10.0, 910.0, "ct-1")
    late = AttemptFlight(0, "succeeded", 1_000.0, 1_010.0, 1_020.0, "ct-1")
    flights = [InputFlight(index, f"in-1:{index}", one.status, (one,)) for index, one in enumerate((slow, late))]

    assert why(flights, ())[0] == "of the slowest of these inputs, 0: ran for 900 ms"


def test_input_that_still_runs_is_slower_than_all_that_are_done() -> None:
    done = AttemptFlight(0, "succeeded", 0.0, 10.0, 910.0, "ct-1")
    runs = AttemptFlight(0, "running", 1_000.0, 1_010.0, None, "ct-1")
    flights = [InputFlight(index, f"in-1:{index}", one.status, (one,)) for index, one in enumerate((done, runs))]

    assert why(flights, ())[0] == "of the slowest of these inputs, 1: is still running"


def test_what_is_not_over_is_told_so() -> None:
    assert words(AttemptFlight(0, "queued", 0.0)) == ("is still in the queue",)
    assert words(AttemptFlight(0, "running", 0.0, 0.1, None, "ct-1")) == ("is still running",)
