"""Why a call was slow, in words: where the time of its slowest input went."""

from __future__ import annotations

from collections.abc import Sequence

from squall.protocol import call as wire
from squall.protocol.flight import AttemptFlight, ContainerFlight, InputFlight

_LOST = wire.STATUS_NAMES[wire.LOST]
TOLD_MS = 1.0
"""What took less is not told."""


def why(inputs: Sequence[InputFlight], containers: Sequence[ContainerFlight]) -> tuple[str, ...]:
    """The parts that the time of the slowest of these inputs is made of, the largest first."""
    slowest = max(inputs, key=_took_ms, default=None)
    if slowest is None:
        return ()
    by_id = {one.container.container_id: one for one in containers}
    parts: list[tuple[float, str]] = []
    for number, attempt in enumerate(slowest.attempts):
        which = f"attempt {attempt.attempt + 1}: " if len(slowest.attempts) > 1 else ""
        is_last = number == len(slowest.attempts) - 1
        for took_ms, text in _parts(attempt, by_id.get(attempt.container_id), is_last=is_last):
            parts.append((took_ms, which + text))
    parts.sort(key=lambda part: -part[0])
    told = [text for took_ms, text in parts if took_ms >= TOLD_MS] or [text for _, text in parts[:1]]
    if len(inputs) > 1 and told:
        told[0] = f"of the slowest of these inputs, {slowest.index}: {told[0]}"
    return tuple(told)


def _took_ms(one: InputFlight) -> float:
    """From when it began to wait; what goes on may take any time yet."""
    end_ms = one.attempts[-1].finished_ms
    return end_ms - one.attempts[0].queued_ms if end_ms is not None else float("inf")


def _parts(attempt: AttemptFlight, container: ContainerFlight | None, *, is_last: bool) -> list[tuple[float, str]]:
    parts: list[tuple[float, str]] = []
    began_ms = attempt.began_ms
    end_ms = began_ms if began_ms is not None else attempt.finished_ms
    if end_ms is not None:
        waited_ms = end_ms - attempt.queued_ms
        cold_ms = cold_start_ms(attempt, container)
        if cold_ms and container is not None:
            parts.append((cold_ms, f"waited {shown(cold_ms)} for a container to start{_start_in_words(container)}"))
        rest_ms = waited_ms - cold_ms
        if cold_ms >= waited_ms / 2 and cold_ms:
            parts.append((rest_ms, f"waited {shown(rest_ms)} more to be handed over"))
        elif attempt.container_id and container is None:
            parts.append((rest_ms, f"waited {shown(rest_ms)} for a container"))
        else:
            parts.append((rest_ms, f"waited {shown(rest_ms)} in the queue, as no container had room"))
    else:
        parts.append((float("inf"), "is still in the queue"))
    if began_ms is not None and attempt.finished_ms is not None:
        ran_ms = attempt.finished_ms - began_ms
        text = f"ran for {shown(ran_ms)}"
        if attempt.status == _LOST:
            text += ", until its container ended"
        elif not is_last:
            text += f" and {attempt.status.replace('_', ' ')}"
        parts.append((ran_ms, text))
    elif began_ms is not None:
        parts.append((float("inf"), "is still running"))
    if attempt.retry_delay_ms:
        reason = "its container had ended" if attempt.status == _LOST else "retries= of the function say"
        text = f"its next attempt was put off by {shown(attempt.retry_delay_ms)}, as {reason}"
        parts.append((attempt.retry_delay_ms, text))
    return parts


def cold_start_ms(attempt: AttemptFlight, container: ContainerFlight | None) -> float:
    """How much of an attempt's wait its container spent on starting."""
    if container is None or container.is_adopted or "ready" not in container.container.phase_ms:
        return 0.0
    end_ms = attempt.began_ms if attempt.began_ms is not None else attempt.finished_ms
    if end_ms is None:
        return 0.0
    ready_ms = container.asked_ms + container.container.phase_ms["ready"]
    return max(0.0, min(end_ms, ready_ms) - max(attempt.queued_ms, container.asked_ms))


def _start_in_words(container: ContainerFlight) -> str:
    phases = container.container.phase_ms
    ready_ms = phases["ready"]
    path = container.container.path
    how = f" ({path})" if path else ""
    found = [f"{container.container.container_id} took {shown(ready_ms)}{how}"]
    placed_ms = phases.get("placed", 0.0)
    if placed_ms > ready_ms / 4:
        found.append(f"{shown(placed_ms)} until a node had room")
    of_which = [
        f"{name} {shown(phases[key])}"
        for name, key in (("import", "import"), ("enter hooks", "enter"))
        if phases.get(key, 0.0) >= TOLD_MS
    ]
    if of_which:
        found.append(f"of which {' and '.join(of_which)}")
    return f": {', '.join(found)}"


def shown(ms: float) -> str:
    """A duration for people."""
    if ms >= 120_000:
        return f"{ms / 60_000:.1f} min"
    if ms >= 1_000:
        return f"{ms / 1000:.1f} s"
    return f"{ms:.0f} ms" if ms >= 10 else f"{ms:.1f} ms"
