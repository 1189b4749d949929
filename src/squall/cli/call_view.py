"""A call's flight as text: what was called, by whom, where its time went, and how it failed."""

from __future__ import annotations

from collections.abc import Iterator

from squall.cli import tables
from squall.cli.timeline import Span, bar, marks, shown
from squall.protocol.flight import AttemptFlight, CallFlight, ContainerFlight, InputFlight
from squall.sdk._refusals import in_words
from squall.sdk._terminal_text import harmless

FAILURES_SHOWN = 3
_NAME = {"timed_out": "timed out"}


def lines_of(flight: CallFlight) -> Iterator[str]:
    """The lines of `squall call show`."""
    summary = flight.summary
    name = f"{summary.function_name or summary.function_id}{f'.{summary.method}' if summary.method else ''}"
    yield f"{summary.call_id}  {summary.kind} of {name}  {_name_of(summary.status)}"
    counts = ", ".join(f"{count:,} {_name_of(status)}" for status, count in flight.counts.items())
    yield f"  app        {summary.app_name or '-'} ({summary.app_id})"
    took = f", took {shown(summary.duration_ms)}" if summary.duration_ms is not None else ""
    yield f"  made       {tables.local_time(summary.created_at)}{took}"
    yield f"  inputs     {tables.counted(summary.input_count, 'input')}{f': {counts}' if counts else ''}"
    if flight.counts.get("succeeded", 0) > 1:
        waited, ran = (shown(flight.queue_ms_mean), shown(flight.queue_ms_max)), (
            shown(flight.run_ms_mean), shown(flight.run_ms_max),
        )  # fmt: skip
        yield f"  waited     {waited[0]} on average, {waited[1]} at most; ran {ran[0]}, {ran[1]} at most"
    if flight.parent_input_id:
        yield f"  called by  {flight.parent_input_id} {f'({flight.parent_function})' if flight.parent_function else ''}"
    yield from _timeline(flight)
    yield from _containers(flight.containers)
    if flight.why:
        yield ""
        yield "Where the time went:"
        yield from (f"  {text}" for text in flight.why)
    yield from _failures(flight.inputs, summary.call_id)
    yield from _children(flight)
    if flight.gaps:
        yield ""
        yield f"Not all is known: {flight.gaps}."


def _name_of(status: str) -> str:
    return _NAME.get(status, status)


def spans_of(attempt: AttemptFlight, container: ContainerFlight | None, now_ms: float) -> list[Span]:
    """Queue, start and run of an attempt; what of its wait its container spent on starting is start."""
    end_ms = attempt.finished_ms if attempt.finished_ms is not None else now_ms
    wait_end_ms = attempt.began_ms if attempt.began_ms is not None else end_ms
    spans = [Span("queue", attempt.queued_ms, wait_end_ms)]
    if container is not None and not container.is_adopted:
        ready_ms = container.asked_ms + container.container.phase_ms.get("ready", float("inf"))
        spans.append(Span("start", max(attempt.queued_ms, container.asked_ms), min(wait_end_ms, ready_ms)))
    if attempt.began_ms is not None:
        kind = "run" if attempt.status in ("succeeded", "running") else "failed"
        spans.append(Span(kind, attempt.began_ms, end_ms))
    return spans


def _timeline(flight: CallFlight) -> Iterator[str]:
    if not flight.inputs:
        return
    by_id = {one.container.container_id: one for one in flight.containers}
    times = [
        at
        for one in flight.inputs
        for attempt in one.attempts
        for at in (attempt.queued_ms, attempt.began_ms, attempt.finished_ms)
        if at is not None
    ]
    whole_ms = max(times, default=0.0) or 1.0
    mark = marks()
    yield ""
    legend = "  ".join(f"{mark[kind]} {kind}" for kind in ("queue", "start", "run", "failed"))
    yield f"  {'input':>7}  {legend:<40}  0 to {shown(whole_ms)}"
    for one in flight.inputs:
        for number, attempt in enumerate(one.attempts):
            label = str(one.index) if number == 0 else f"try {attempt.attempt + 1}"
            container = by_id.get(attempt.container_id)
            spans = spans_of(attempt, container, whole_ms)
            yield f"  {label:>7}  {bar(spans, whole_ms)}  {_in_words(attempt, spans)}"
    if flight.known_inputs > len(flight.inputs):
        left = flight.known_inputs - len(flight.inputs)
        yield f"  … and {left:,} more that are known one by one: --first, --limit, --failed"
    if flight.summary.input_count > flight.known_inputs:
        yield f"  {flight.summary.input_count - flight.known_inputs:,} others were counted only"


def _in_words(attempt: AttemptFlight, spans: list[Span]) -> str:
    took = {span.kind: max(0.0, span.end_ms - span.begin_ms) for span in spans}
    took["queue"] -= took.get("start", 0.0)
    words = ", ".join(
        f"{kind} {shown(took[kind])}"
        for kind in ("queue", "start", "run", "failed")
        if kind in took and (took[kind] > 0 or kind in ("run", "failed"))
    ).replace("failed ", "run ")
    delay = f", then waited {shown(attempt.retry_delay_ms)} to retry" if attempt.retry_delay_ms else ""
    where = f" in {attempt.container_id}" if attempt.container_id else ""
    return f"{_name_of(attempt.status)}: {words}{where}{delay}"


def _containers(containers: tuple[ContainerFlight, ...]) -> Iterator[str]:
    if not containers:
        return
    yield ""
    for one in containers:
        found = one.container
        ended = f", ended: {harmless(found.exit_reason)}" if found.exit_reason else ""
        ready = found.phase_ms.get("ready")
        path = f" ({found.path})" if found.path else ""
        started = f", ready in {shown(ready)}{path}" if ready is not None and not one.is_adopted else ""
        yield f"  {found.container_id}  {found.state}{started}{ended}"


def _failures(inputs: tuple[InputFlight, ...], call_id: str) -> Iterator[str]:
    failed = [
        (one, attempt)
        for one in inputs
        for attempt in one.attempts[-1:]
        if attempt.failure is not None and attempt.status != "cancelled"
    ]
    for one, attempt in failed[:FAILURES_SHOWN]:
        assert attempt.failure is not None
        failure = attempt.failure
        yield ""
        type_name = f"{failure.type_name}: " if failure.type_name else ""
        yield f"Input {one.index} {_name_of(one.status)} ({failure.kind}):"
        text = failure.traceback.rstrip() or f"{type_name}{in_words(failure.message)}"
        yield from (f"  {harmless(line)}" for line in text.splitlines())
    if len(failed) > FAILURES_SHOWN:
        yield ""
        yield f"… and {len(failed) - FAILURES_SHOWN} more of these failed: squall call show {call_id} --failed --json"
    kept = next((one for one, _ in failed if one.is_kept), None)
    if kept is not None:
        index = f" --index {kept.index}" if kept.index else ""
        yield ""
        yield f"Run it again: squall call replay {call_id}{index}, or with --local in the debugger here"


def _children(flight: CallFlight) -> Iterator[str]:
    if flight.children:
        yield ""
        yield "It called:"
        for one in flight.children:
            took = f" in {shown(one.duration_ms)}" if one.duration_ms is not None else ""
            yield f"  {one.call_id}  {one.function_name}  {_name_of(one.status)}{took}"
