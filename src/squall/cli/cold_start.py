"""Cold starts of one function, made one after the other and looked at: what `squall bench start` measures.

They are calls of a *variant* of the function, which has containers of its own: those that serve others are left alone,
whatever the function says of how many there are to be. After each call its container is ended and waited for, so that
the next call finds none.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from typing import Any

import click

from squall.cli.container_view import phases_of
from squall.cli.server_calls import ask, ask_pages
from squall.cli.tables import LIST_MAX
from squall.cli.template import shown_name
from squall.exception import ConflictError, NotFoundError
from squall.protocol.app import AppList, AppListing
from squall.protocol.container import STOPPED, ContainerList, ContainerListing, ContainerStop
from squall.protocol.empty import Empty
from squall.protocol.flight import CallFlight, CallList, CallListing, CallShow, ContainerFlight, ContainerShow
from squall.protocol.function import (
    FunctionBind,
    FunctionBound,
    FunctionOptions,
    FunctionSpec,
    FunctionStats,
    FunctionStatsGet,
    RetryPolicy,
)
from squall.protocol.records import record, replace
from squall.protocol.template import (
    MAKING,
    READY,
    NodeTemplate,
    TemplateDrop,
    TemplateDropped,
    TemplateInfo,
    TemplateList,
    TemplateListing,
)
from squall.sdk import _client, _invoke
from squall.sdk._pending import run
from squall.sdk._terminal_text import harmless

IDLE_S = 2.0
"""So long a container outlives a command that was killed."""
GONE_S = 60.0
"""Exit hooks have half of it."""
LOOK_EVERY_S = 0.01
TEMPLATE_S = 60.0
"""So long one that is being made is waited for, at most."""
PAUSE_S = 0.3
"""Between two starts, at least: this one has used up what was made ahead, and calls that follow each other at once are
not what is measured. What a node makes ahead is made when it has not changed for so long."""
SETTLE_S = 10.0
"""And so long at most."""
RUN = "run"
MESSAGES = "messages"


@record
class Subject:
    """What is called: a variant that nobody else calls."""

    function_id: str
    app_id: str
    name: str
    method: str
    is_generator: bool
    args: tuple[Any, ...]
    kwargs: dict[str, Any]


@record
class ColdStart:
    """One call that found no container."""

    total_ms: float
    """From the call to its result (of a generator, to its first item), by this program's clock."""
    phases: tuple[tuple[str, float], ...]
    """Where that went, in order: the start's own, as the flight recorder has them, then the function's run, and what is
    left for messages between client, server and container."""
    path: str
    cause: str
    """Why its container took a longer path than it might have."""
    container_id: str


def prepare(spec: FunctionSpec, method: str, parameters: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Subject:
    """The variant of a function that is measured.

    Raises:
        click.ClickException: its app has ended; or it has containers, and they stay: somebody else measures it.
    """
    options = FunctionOptions(
        retries=RetryPolicy(),
        max_containers=1,
        buffer_containers=0,
        scaledown_window_s=IDLE_S,
        is_measured=True,
        # A single input is not to wait for others.
        batching=replace(spec.batching, wait_ms=0) if spec.batching is not None else None,
    )
    try:
        bound = ask("FunctionBind", FunctionBind(spec.function_id, parameters, options), FunctionBound)
    except NotFoundError as error:
        hint = "squall deploy FILE makes it one that stays"
        raise click.ClickException(f"cannot measure {spec.name}: its app has ended; {hint}") from error
    definition = spec.definition
    called = next((one for one in definition.methods if one.name == method), definition)
    name = f"{spec.name}.{method}" if method else spec.name
    subject = Subject(bound.function_id, spec.app_id, name, method, called.is_generator, args, kwargs)
    deadline = time.monotonic() + IDLE_S * 3
    while ask("FunctionStats", FunctionStatsGet(subject.function_id), FunctionStats).container_count:
        if time.monotonic() > deadline:
            raise click.ClickException(f"{name} is being measured by somebody else; wait until that is done")
        time.sleep(LOOK_EVERY_S * 10)
    return subject


def measure(subject: Subject) -> ColdStart:
    """Call it once from zero, and leave no container behind.

    Raises:
        BaseException: what the function raised.
        click.ClickException: its container does not end.
    """
    began = time.perf_counter()
    _call(subject)
    total_ms = (time.perf_counter() - began) * 1e3
    listing = ask("CallList", CallList(function=subject.function_id, limit=1), CallListing)
    if not listing.calls:
        lost = f"the server remembers no call of {subject.name}: it was restarted meanwhile?"
        raise click.ClickException(f"{lost} Measure again.")
    flight = ask("CallShow", CallShow(listing.calls[0].call_id), CallFlight)
    if not flight.containers:
        lost = f"the server does not know which container ran {listing.calls[0].call_id}"
        raise click.ClickException(f"{lost}: it was restarted meanwhile? Measure again.")
    known = flight.containers[-1]
    # How it started may be known after what it answered: a copy serves before its node has told.
    ended = end(known.container.container_id)
    settle(subject)
    return cold_start_of(flight, replace(ended, asked_ms=known.asked_ms), total_ms)


def cold_start_of(flight: CallFlight, container: ContainerFlight, total_ms: float) -> ColdStart:
    """What the flight recorder knows of a call, and the time that its caller saw."""
    asked_ms = max(0.0, container.asked_ms)
    start = [(name, begin + asked_ms, finish + asked_ms) for name, begin, finish in phases_of(container)]
    if start:
        # Until the container was asked for, too: the autoscaler decides at most so often about one function.
        start[0] = (start[0][0], 0.0, start[0][2])
    for attempt in (one for found in flight.inputs for one in found.attempts[-1:]):
        if attempt.began_ms is not None and attempt.finished_ms is not None:
            up_ms = start[-1][2] if start else 0.0
            # A parked copy has its input before it is up, and may have run it before its node says so.
            start = [(name, begin, min(finish, attempt.finished_ms)) for name, begin, finish in start]
            start.append((RUN, max(attempt.began_ms, up_ms), attempt.finished_ms))
    phases = [(name, max(0.0, finish - begin)) for name, begin, finish in start]
    left_ms = total_ms - sum(took for _, took in phases)
    phases.append((MESSAGES, max(0.0, left_ms)))
    info = container.container
    return ColdStart(total_ms, tuple(phases), info.path, info.path_cause, info.container_id)


def _call(subject: Subject) -> None:
    client = _client.current()
    given = (client, subject.function_id, subject.args, subject.kwargs, subject.method, subject.name)
    if subject.is_generator:
        run(_first_item(*given))
    else:
        _invoke.remote_now(*given)


async def _first_item(client: _client.Client, function_id: str, *given: Any) -> None:
    items = _invoke.items_of(client, await _invoke.generator_call(client, function_id, *given))
    try:
        async for _ in items:
            return
    finally:
        await items.aclose()


def end(container_id: str) -> ContainerFlight:
    """End a container and wait until it is gone; what became of it.

    Raises:
        click.ClickException: it stays.
    """
    _stop(container_id)
    deadline = time.monotonic() + GONE_S
    while True:
        found = ask("ContainerShow", ContainerShow(container_id), ContainerFlight)
        if found.container.state == STOPPED:
            return found
        if time.monotonic() > deadline:
            stays = f"container {container_id} has not ended within {GONE_S:g} s"
            raise click.ClickException(
                f"{stays}; what its exit hooks print is seen by: squall container logs {container_id}"
            )
        time.sleep(LOOK_EVERY_S)


def _stop(container_id: str) -> None:
    """Also one that has ended by itself meanwhile, as those for a single input do."""
    with suppress(ConflictError):
        ask("ContainerStop", ContainerStop(container_id), Empty)


def settle(subject: Subject) -> None:
    """Wait until its nodes have made what they make ahead for it."""
    deadline = time.monotonic() + SETTLE_S
    before = None
    since = time.monotonic()
    while time.monotonic() < deadline and time.monotonic() < since + PAUSE_S:
        time.sleep(LOOK_EVERY_S * 3)
        there = sorted((one.template_id, one.cell_count, one.parked_count) for one in _templates_of(subject))
        if there != before:
            before, since = there, time.monotonic()


def wait_for_template(subject: Subject) -> bool:
    """After a first start: wait until its node has made what the next ones are forked from, if it is about to; False
    where that takes longer than `TEMPLATE_S`."""
    deadline = time.monotonic() + TEMPLATE_S
    while time.monotonic() < deadline:
        pages = _listings_of(subject)
        is_made = not any(one.template.state == MAKING for page in pages for one in page.templates)
        if is_made and not any(page.is_one_coming for page in pages):
            return True
        time.sleep(LOOK_EVERY_S * 10)
    return False


def leave(subject: Subject) -> None:
    """Leave nothing on the nodes: end what an interrupted call has left, and let go of templates that nobody else
    uses; that of the image is of all functions of the app. Nothing is waited for."""
    for container_id in _containers_of(subject):
        _stop(container_id)
    template_ids = tuple(one.template_id for one in _templates_of(subject) if one.function_id)
    if template_ids:
        ask("TemplateDrop", TemplateDrop(template_ids), TemplateDropped)


def ready_of_others(subject: Subject) -> list[TemplateInfo]:
    """Templates that starts of others are forked from, in all environments: all share their nodes' memory."""
    return [one for page in _all_listings() for one in page.templates if _is_ready_of_another(one, subject)]


def gone_of_others(subject: Subject, before: Sequence[TemplateInfo]) -> list[str]:
    """What those of them were of that are not there any more, each with its cause if that is still known. Not told are
    those of an app that has ended, and those that another one of the same function has come for."""
    pages = _all_listings()
    silent = {one.node_id for page in pages for one in page.silent_nodes}
    listed = [one for page in pages for one in page.templates]
    there = {key for one in listed if one.template.state in (MAKING, READY) for key in _keys(one)}
    causes = {one.template.template_id: one.template.cause for one in listed}
    asked = AppList(LIST_MAX, include_stopped=False)
    apps = {one.app_id for page in ask_pages("AppList", asked, AppListing) for one in page.apps}
    found = set()
    for one in before:
        if one.node_id not in silent and one.template.app_id in apps and there.isdisjoint(_keys(one)):
            cause = causes.get(one.template.template_id, "")
            found.add(shown_name(one) + (f" ({harmless(cause)})" if cause else ""))
    return sorted(found)


def _keys(one: TemplateInfo) -> set[tuple[str, ...]]:
    """What it has in common with one that is of the same use: itself, and of a function any that lives on its node."""
    found = one.template
    keys: set[tuple[str, ...]] = {(found.template_id,)}
    if found.function_id:
        keys.add((one.node_id, found.function_id, found.kind))
    return keys


def _all_listings() -> list[TemplateListing]:
    return list(ask_pages("TemplateList", TemplateList(), TemplateListing))


def _is_ready_of_another(one: TemplateInfo, subject: Subject) -> bool:
    return one.template.state == READY and one.template.function_id != subject.function_id


def _templates_of(subject: Subject) -> Iterator[NodeTemplate]:
    for page in _listings_of(subject):
        yield from (one.template for one in page.templates)


def _listings_of(subject: Subject) -> list[TemplateListing]:
    return list(ask_pages("TemplateList", TemplateList(function_id=subject.function_id), TemplateListing))


def _containers_of(subject: Subject) -> Iterator[str]:
    for page in ask_pages("ContainerList", ContainerList(subject.app_id), ContainerListing):
        yield from (one.container_id for one in page.containers if one.function_id == subject.function_id)
