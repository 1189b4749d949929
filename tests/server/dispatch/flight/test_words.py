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
    told = words(AttemptFlight(0, "succeeded", 0.0, 250.0, 260.0, "ct-1"))

    assert told == ("waited 250 ms in the queue, as no container had room", "ran for 10 ms")


def test_what_is_not_over_is_told_so() -> None:
    assert words(AttemptFlight(0, "queued", 0.0)) == ("is still in the queue",)
    assert words(AttemptFlight(0, "running", 0.0, 0.1, None, "ct-1")) == ("is still running",)
