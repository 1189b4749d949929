"""Cold starts in figures: how long they took, where the time went, by which paths, and what could be done about it."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Sequence

from squall.cli.cold_start import MESSAGES, RUN, ColdStart
from squall.cli.tables import counted
from squall.cli.timeline import Span, bar, shown
from squall.protocol.function import GVISOR, FunctionSpec
from squall.protocol.node import PATH_FORK, PATH_PARKED, PATH_PLAIN, PATH_RESTORE
from squall.protocol.records import record

ROWS = 8
"""Of a histogram."""
COLUMNS = 30
WIDE = 8.0
"""Times that differ by more than this factor are put in rows that grow with them."""
SLOW_MS = 20.0
"""What the node itself does is worth one from here on only."""
LARGE_PERCENT = 30.0
"""A phase that takes more of the starts than this is worth a hint."""


@record
class Distribution:
    """Some times, in milliseconds."""

    min_ms: float
    p50_ms: float
    p90_ms: float
    p99_ms: float
    max_ms: float


@record
class Phase:
    """One stretch of a start, over several starts."""

    name: str
    p50_ms: float
    share_percent: float
    """Of all the time that the starts took together."""


def percentile(values: Sequence[float], percent: float) -> float:
    """The smallest of the values that so many percent of them do not exceed."""
    ordered = sorted(values)
    return ordered[max(0, math.ceil(len(ordered) * percent / 100) - 1)]


def distribution(values: Sequence[float]) -> Distribution:
    """Of one value at least."""
    p50, p90, p99 = (percentile(values, percent) for percent in (50, 90, 99))
    return Distribution(min(values), p50, p90, p99, max(values))


def phases(starts: Sequence[ColdStart]) -> list[Phase]:
    """In the order in which they follow each other; a start that had no such phase counts as none of its time."""
    names = list(dict.fromkeys(name for one in starts for name, _ in one.phases))
    # A start may lack some: what comes after them is the further back the more of them there are.
    order = dict.fromkeys(names, 0)
    for one in starts:
        order.update({name: max(order[name], at) for at, (name, _) in enumerate(one.phases)})
    whole_ms = sum(one.total_ms for one in starts) or 1.0
    found = []
    for name in sorted(names, key=lambda name: order[name]):
        taken = [sum(took for called, took in one.phases if called == name) for one in starts]
        found.append(Phase(name, percentile(taken, 50), 100 * sum(taken) / whole_ms))
    return found


def histogram(values: Sequence[float], rows: int = ROWS) -> list[tuple[float, float, int]]:
    """From, to and how many, from the smallest on; rows of one width, or of one factor where the values lie far
    apart."""
    least, most = min(values), max(values)
    if most - least < 1e-9:
        return [(least, most, len(values))]
    if least > 0 and most / least > WIDE:
        edges = [least * (most / least) ** (at / rows) for at in range(rows + 1)]
    else:
        edges = [least + (most - least) * at / rows for at in range(rows + 1)]
    counts = [0] * rows
    for value in values:
        # The last row has its upper edge, too.
        counts[min(rows - 1, sum(value >= edge for edge in edges[1:]))] += 1
    return [(edges[at], edges[at + 1], counts[at]) for at in range(rows)]


def lines_of(spec: FunctionSpec, name: str, first: ColdStart, starts: Sequence[ColdStart]) -> Iterator[str]:
    """What `squall bench start` prints."""
    totals = [one.total_ms for one in starts]
    found = distribution(totals)
    yield f"{name}: {counted(len(starts), 'cold start')}, from the call to its result"
    yield ""
    texts = [shown(value) for value in (found.min_ms, found.p50_ms, found.p90_ms, found.p99_ms, found.max_ms)]
    yield "  " + "".join(f"{heading:<11}" for heading in ("min", "p50", "p90", "p99", "max")).rstrip()
    yield "  " + "".join(f"{text:<11}" for text in texts).rstrip()
    yield ""
    if len(totals) >= ROWS:
        drawn = histogram(totals)
        most = max(count for _, _, count in drawn)
        for begin, end, count in drawn:
            edges = f"{shown(begin)} to {shown(end)}"
            yield f"  {edges:>20}  {bar([Span('run', 0, count)], most, COLUMNS)}  {count or ''}".rstrip()
        yield ""
    by_path = Counter(one.path for one in starts)
    yield "  path    " + ", ".join(f"{count} {path}" for path, count in by_path.most_common())
    yield f"  first   {shown(first.total_ms)}, {first.path}: not counted, for what it had to make first"
    yield ""
    told = phases(starts)
    widest = max(one.share_percent for one in told)
    for one in told:
        share = bar([Span(_kind(one.name), 0, one.share_percent)], max(widest, 1e-9), COLUMNS)
        yield f"  {one.name:>12}  {share}  {shown(one.p50_ms):>8}  {one.share_percent:3.0f} %"
    slowest = max(told, key=lambda one: one.share_percent)
    yield ""
    yield f"Slowest: {slowest.name}, {slowest.share_percent:.0f} % of the time."
    for hint in hints(spec, starts):
        yield f"* {hint}"


def _kind(name: str) -> str:
    return "run" if name in (RUN, "import", "enter hooks") else "start"


def hints(spec: FunctionSpec, starts: Sequence[ColdStart]) -> list[str]:
    """What to do about it, the largest matter first; at times that there is nothing to do."""
    by_path = Counter(one.path for one in starts)
    usual = by_path.most_common(1)[0][0]
    found = [
        f"{count} of {len(starts)} starts took the path {path!r}: {cause}."
        for (path, cause), count in Counter((one.path, one.cause) for one in starts if one.cause).most_common(3)
    ]
    large = {one.name for one in phases(starts) if one.share_percent >= LARGE_PERCENT}
    has_snapshot = spec.is_snapshot_enabled
    has_cause = any(one.cause for one in starts)
    # A fork with a cause is one of the image's template, but for a few that had to be attempted twice.
    is_of_function = has_snapshot and 2 * sum(one.path == usual and bool(one.cause) for one in starts) < by_path[usual]
    if "import" in large and not has_snapshot:
        further = "is restored from what was saved of that" if spec.isolation == GVISOR else "is a fork of that"
        found.append(
            "Most of it is the import of your module: with enable_memory_snapshot=True it is imported once on each"
            f" node, and every further start {further}."
        )
    if "enter hooks" in large:
        found.append(
            "Hooks take long: move what they load into one with @squall.enter(snap=True)"
            + ("." if has_snapshot else ", with enable_memory_snapshot=True: it is run once on each node.")
        )
    if "queued" in large:
        found.append("It waits for a node with room: look at cpu= and memory= of what else runs.")
    if "files" in large or "rootfs" in large:
        found.append("Its files or its image come to the node first: the next starts there find them.")
    if "template" in large:
        found.append("They waited for a template to be made, which the first starts on a node do: measure more starts.")
    slow = {one.name for one in phases(starts) if one.name in large and one.p50_ms >= SLOW_MS}
    if {"network", "sandbox"} & slow and usual in (PATH_PLAIN, PATH_FORK):
        found.append(
            "Much of it is the network, the namespaces and the limits of its container, which the node makes ahead for"
            " what is started often: a machine that is busy, or many starts at once, have them made in the start."
        )
    if {"process", "boot"} & slow and usual == PATH_PLAIN and not has_cause:
        found.append(
            "Much of it is Python that begins: the node had no template to fork. It makes one of the image after a"
            " first start in the app, unless its memory is short: `squall template list`."
        )
    if usual == PATH_RESTORE:
        found.append(
            "Starts are read back from a memory snapshot under gVisor, all of it each time: the less it has"
            " loaded, the sooner it is there."
        )
    if RUN in large:
        found.append("Most of it is the function's own run, which a quicker start leaves as it is.")
    if usual == PATH_PARKED and is_of_function:
        rest = "" if found else ": there is nothing left to gain"
        found.append(f"Starts are parked clones, which are told who they are{rest}.")
    elif usual == PATH_FORK and is_of_function:
        found.append("Starts are forks of the function's template. What is started often is parked ahead by itself.")
    elif usual in (PATH_FORK, PATH_PARKED):
        found.append("Starts are forks of the image template: interpreter and guest were there already.")
    elif usual == PATH_PLAIN and has_snapshot and not found:
        done = "restored" if spec.isolation == GVISOR else "forked"
        found.append(f"It is not {done} though enable_memory_snapshot=True, and the node does not say why.")
    if MESSAGES in large and usual == PATH_PLAIN:
        # In a copy it is mostly pages that are copied when they are first written to.
        found.append("Much of it passes between this program and the container: call from nearer, or with less.")
    return found
