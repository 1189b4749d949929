"""A container's flight as text: its start as a waterfall, what it served, how it ended."""

from __future__ import annotations

from collections.abc import Iterator

from squall.cli import tables
from squall.cli.timeline import Span, bar, shown
from squall.protocol.flight import ContainerFlight
from squall.sdk._terminal_text import harmless

_STEP = "start."
_INSIDE = "runtime_"
_WORDS = {"files": "files", "directory": "rootfs", "network": "network", "runtime": "sandbox"}


def phases_of(flight: ContainerFlight) -> list[tuple[str, float, float]]:
    """The phases of its start, in order: name, when it began, when it ended; milliseconds since it was asked for.

    None begins before the one ahead of it has ended: a parked copy is connected before it is woken.
    """
    marks = flight.container.phase_ms
    found: list[tuple[str, float, float]] = []
    placed = marks.get("placed")
    if placed is None:
        return found
    found.append(("queued", 0.0, placed))
    at = placed
    for name, took in marks.items():
        step = name.removeprefix(_STEP)
        # What the runtime did within its step is left to --json.
        if name.startswith(_STEP) and not step.startswith(_INSIDE):
            found.append((_WORDS.get(step, step.replace("_", " ")), at, at + took))
            at += took
    ready = marks.get("ready")
    connected = marks.get("connected")
    up = marks.get("process", at) if connected is None else connected
    if connected is not None or up > at:
        found.append(("process", at, max(at, up)))
        at = max(at, up)
    if ready is not None:
        loaded = [(name, marks.get(key, 0.0)) for name, key in (("import", "import"), ("enter hooks", "enter"))]
        begin = max(at, ready - sum(took for _, took in loaded))
        if connected is not None and begin - at >= 0.05:
            found.append(("boot", at, begin))
        for name, took in loaded:
            if took:
                # A copy counts from when it was told who it is, which is before it has connected.
                end = max(begin, min(ready, begin + took))
                found.append((name, begin, end))
                begin = end
        first = marks.get("first_input")
        if first is not None:
            begin = max(begin, ready)
            found.append(("first input", begin, max(begin, first)))
    return found


def lines_of(flight: ContainerFlight) -> Iterator[str]:
    """The lines of `squall container show`."""
    found = flight.container
    yield f"{found.container_id}  {found.state}"
    yield f"  function   {found.function_name} ({found.function_id})"
    yield f"  app        {found.app_name or '-'} ({found.app_id})"
    yield f"  node       {found.node_id or '-'}"
    yield f"  asked for  {tables.local_time(found.created_at)}"
    if found.stopped_at is not None:
        yield f"  ended      {tables.local_time(found.stopped_at)}: {found.exit_reason}"
    served = f"{flight.succeeded_inputs:,} succeeded, {flight.failed_inputs:,} failed"
    yield f"  inputs     {served}, {found.running_inputs:,} run now"
    if flight.is_adopted:
        yield ""
        yield "It ran before this server did: how it started is not known."
        return
    if found.path:
        why = f": {harmless(found.path_cause)}" if found.path_cause else ""
        yield f"  path       {found.path}{why}"
    phases = phases_of(flight)
    if not phases:
        yield ""
        yield "It waits for a node with room."
        return
    whole_ms = max(end for _, _, end in phases) or 1.0
    yield ""
    for name, begin, end in phases:
        kind = "queue" if name in ("queued", "first input") else "start" if name != "import" else "run"
        yield f"  {name:>11}  {bar([Span(kind, begin, end)], whole_ms)}  {shown(end - begin)}"
    ready = found.phase_ms.get("ready")
    yield f"  {'':>11}  ready after {shown(ready)}" if ready is not None else f"  {'':>11}  not ready yet"
