"""What functions did between two times: the minutes that are kept, put together.

A minute counts whole if it began in the window, or less than a minute before: windows are right to about a minute.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import TYPE_CHECKING

from squall.protocol.errors import INVALID, NOT_FOUND, PlatformError
from squall.protocol.function import FunctionSpec
from squall.protocol.function_window import (
    PERCENTILES,
    WINDOW_S,
    WINDOW_S_MAX,
    AppWindow,
    AppWindowGet,
    Distribution,
    FunctionWindow,
    FunctionWindowGet,
    VariantInfo,
    VariantList,
    VariantListing,
)
from squall.protocol.pages import PAGE_RECORDS_MAX, first_page
from squall.protocol.records import replace
from squall.server.dispatch.client.callers import Caller
from squall.server.dispatch.flight.recorder import MINUTE_S
from squall.server.dispatch.flight.wanted import variants_of
from squall.server.model.function_minute import FunctionMinute, Histogram, add_all, merge, percentiles
from squall.server.model.variables import shown_options
from squall.server.model.variant import has_none_of_its_own

if TYPE_CHECKING:
    from squall.server.dispatch.control_plane import ControlPlane

NOW_S = 5.0
"""A window that ended no longer ago ends now."""
VARIANTS_MAX = 1_000
MINUTES_MAX = 50_000
"""That one answer is made of, the last."""
DECODED_AT_ONCE = 200
"""Before others have their turn of the event loop."""


class Windows:
    """Answers about numbers of functions and apps."""

    def __init__(self, plane: ControlPlane) -> None:
        self._plane = plane

    def look(self, minute: FunctionMinute) -> None:
        """Note how the function is now."""
        dispatcher = self._plane.apps.dispatchers.get(minute.function_id)
        if dispatcher is None:
            return
        containers = dispatcher.containers.values()
        minute.running = dispatcher.stats().running_inputs
        minute.starting = sum(1 for one in containers if not one.is_ready)
        minute.containers = max(minute.containers, len(containers) - minute.starting)

    async def function(self, caller: Caller, record: FunctionWindowGet) -> FunctionWindow:
        """See `FunctionWindowGet`.

        Raises:
            PlatformError: `not_found`, `invalid` for a window that there cannot be.
        """
        since, until = self._window("FunctionWindow", record.since, record.until)
        spec = await self._plane.variants.spec_of(record.function_id)
        caller.check_use("FunctionWindow", await self._plane.apps.get(spec.app_id))
        variant_count = await self._plane.store.count_variants(spec.function_id)
        if record.container_id:
            window = self._of_container(record.function_id, record.container_id, since, until)
            return replace(window, variant_count=variant_count)
        has_variants = record.has_variants or has_none_of_its_own(spec)
        found, is_cut = await self._minutes({spec.function_id}, since, until, has_variants=has_variants)
        window = _window_of([one for some in found.values() for one in some], since, until)
        return replace(window, variant_count=variant_count, is_cut=is_cut)

    async def app(self, caller: Caller, record: AppWindowGet) -> AppWindow:
        """See `AppWindowGet`.

        Raises:
            PlatformError: as `function`.
        """
        since, until = self._window("AppWindow", record.since, record.until)
        row = await self._plane.apps.find(record.app, caller.scope_app_id)
        caller.check_use("AppWindow", row)
        listed = await self._plane.store.list_functions(row.app_id)
        left = sorted((one.name, one.function_id) for one in listed if one.name > record.after)
        ids = dict(left[:PAGE_RECORDS_MAX])
        # What a variant did counts as its function's.
        found, is_cut = await self._minutes(set(ids.values()), since, until, has_variants=True)
        by_name = {name: found.get(function_id, []) for name, function_id in ids.items()}
        functions = {
            name: replace(
                _window_of(minutes, since, until), queue=Distribution(), run=Distribution(), start=Distribution()
            )
            for name, minutes in by_name.items()
        }
        return AppWindow(since, until, functions, ids, is_cut, len(left) > PAGE_RECORDS_MAX)

    async def variants(self, caller: Caller, record: VariantList) -> VariantListing:
        """See `VariantList`."""
        spec = await self._plane.variants.spec_of(record.function_id)
        caller.check_use("VariantList", await self._plane.apps.get(spec.app_id))
        limit = max(0, min(record.limit, VARIANTS_MAX))
        found, is_cut = await variants_of(self._plane, spec, limit)
        variants, is_full = first_page(self._plane.codec, map(self._variant, found))
        return VariantListing(variants, is_cut or is_full)

    def _variant(self, spec: FunctionSpec) -> VariantInfo:
        dispatcher = self._plane.apps.dispatchers.get(spec.function_id)
        count, queued = (0, 0) if dispatcher is None else (len(dispatcher.containers), dispatcher.queued)
        return VariantInfo(
            spec.function_id,
            spec.parameters,
            shown_options(spec.options),
            spec.version,
            spec.is_pinned,
            count,
            queued,
        )

    def _window(self, method: str, since: float | None, until: float | None) -> tuple[float, float]:
        until = self._plane.clock.now() if until is None else until
        since = until - WINDOW_S if since is None else since
        if not since < until:
            raise PlatformError(INVALID, f"{method}: the window ends before it begins; since must be before until")
        if until - since > WINDOW_S_MAX + 1:
            days = WINDOW_S_MAX / 86_400
            raise PlatformError(INVALID, f"{method}: a window of at most {days:.0f} days can be asked for")
        return since, until

    async def _minutes(
        self, ids: set[str], since: float, until: float, *, has_variants: bool
    ) -> tuple[dict[str, list[FunctionMinute]], bool]:
        """By function, with those of its variants if they count; and whether there are more than are read."""
        keeper, dispatchers = self._plane.flight_keeper, self._plane.apps.dispatchers
        keeper.fold()
        names = tuple(sorted(ids))
        # Before and after: what is written meanwhile is in neither, or in the store as it was.
        unwritten = list(keeper.unwritten_minutes())
        stored = await self._plane.store.list_minutes(
            names, since - MINUTE_S, until, MINUTES_MAX + 1, base_ids=names if has_variants else ()
        )
        found: dict[tuple[str, float], FunctionMinute] = {}
        for number, one in enumerate(stored[-MINUTES_MAX:], 1):
            if number % DECODED_AT_ONCE == 0:
                await asyncio.sleep(0)
            minute = FunctionMinute.decoded(one.function_id, one.began_at, one.detail, one.base_id)
            found[one.function_id, one.began_at] = minute
        for minute in (*unwritten, *keeper.unwritten_minutes()):
            is_theirs = minute.function_id in ids or (has_variants and minute.base_id in ids)
            if is_theirs and since - MINUTE_S <= minute.began_at <= until:
                found[minute.function_id, minute.began_at] = minute
        last: dict[str, FunctionMinute] = {}
        by_id: dict[str, list[FunctionMinute]] = {}
        for minute in sorted(found.values(), key=lambda one: one.began_at):
            by_id.setdefault(minute.function_id if minute.function_id in ids else minute.base_id, []).append(minute)
            last[minute.function_id] = minute
        if until >= self._plane.clock.now() - NOW_S:
            for function_id in ids:
                base = dispatchers.get(function_id)
                variants = self._plane.apps.variants_in_use(function_id) if has_variants else ()
                for spec in (*((base.spec,) if base is not None else ()), *variants):
                    if spec.function_id not in last:
                        last[spec.function_id] = FunctionMinute(spec.function_id, until, spec.variant_of)
                        by_id.setdefault(function_id, []).append(last[spec.function_id])
            for minute in last.values():
                self.look(minute)
        return by_id, len(stored) > MINUTES_MAX

    def _of_container(self, function_id: str, container_id: str, since: float, until: float) -> FunctionWindow:
        """What is known of one container's inputs."""
        container = self._plane.flights.find_container(container_id)
        if container is None or container.dispatcher.spec.function_id != function_id:
            message = f"FunctionWindow: {container_id[:100]} is no container of this function that is remembered"
            raise PlatformError(NOT_FOUND, message)
        run: Histogram = {}
        queue: Histogram = {}
        for track in self._plane.flights.tracks():
            for batch in track.batches:
                if batch.container_id == container_id:
                    add_all(run, batch.run_us)
                    ran_us = sum(batch.run_us) / len(batch.run_us) if batch.run_us else 0.0
                    waited_us = int((batch.finished_at - batch.queued_at) * 1e6 - ran_us)
                    add_all(queue, [max(0, waited_us)], len(batch.indexes))
        ready_ms = container.phase_ms.get("ready")
        start: Histogram = {}
        if ready_ms is not None:
            add_all(start, [int(ready_ms * 1000)])
        return FunctionWindow(
            since,
            until,
            container.succeeded_inputs,
            container.failed_inputs,
            running_inputs=min(len(container.held), container.dispatcher.max_inputs),
            started_containers=1 if container.is_ready else 0,
            failed_containers=1 if container.start_failure else 0,
            starting_containers=0 if container.is_ready or container.is_stopped else 1,
            container_count=1,
            queue=_distribution(queue),
            run=_distribution(run),
            start=_distribution(start),
            started_by_path={container.path: 1} if container.is_ready and container.path else {},
        )


def _window_of(minutes: list[FunctionMinute], since: float, until: float) -> FunctionWindow:
    """Minutes of one function, or of several, as one window."""
    totals: Counter[str] = Counter()
    first: dict[str, FunctionMinute] = {}
    last: dict[str, FunctionMinute] = {}
    for minute in minutes:
        for name in ("succeeded", "failed", "timed_out", "cancelled", "started", "container_errors"):
            totals[name] += getattr(minute, name)
        first.setdefault(minute.function_id, minute)
        last[minute.function_id] = minute
    before = sum(max(0, one.containers - one.started) for one in first.values())
    return FunctionWindow(
        since,
        until,
        totals["succeeded"],
        totals["failed"],
        totals["timed_out"],
        totals["cancelled"],
        sum(one.running for one in last.values()),
        totals["started"],
        totals["container_errors"],
        sum(one.starting for one in last.values()),
        totals["started"] + before,
        queue=_distribution(merge(one.queue_us for one in minutes)),
        run=_distribution(merge(one.run_us for one in minutes)),
        start=_distribution(merge(one.start_us for one in minutes)),
        started_by_path=dict(sum((Counter(one.paths) for one in minutes), Counter())),
        responses={str(status): count for status, count in merge(one.statuses for one in minutes).items()},
    )


def _distribution(histogram: Histogram) -> Distribution:
    return Distribution(tuple(round(value / 1e6, 6) for value in percentiles(histogram, PERCENTILES)))
