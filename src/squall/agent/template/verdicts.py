"""Why there are no templates of some starts, and until when that is believed.

What is the fault of the code stays: the same code is as unfit the next time. What is the machine's may be over, so it
is tried again, after pauses that grow, `ATTEMPTS_MAX` times in all. Of more than `VERDICTS_MAX` those asked about
longest ago are forgotten.

A class with parameters is as many functions as it has objects, and what speaks against one speaks against all, as a
rule: after `ALIKE_MIN` of one cause the others are not tried, but for one each `PAUSE_S_MAX`, unless one has been fit.
"""

from __future__ import annotations

import collections
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from squall.agent.template.template import Template
from squall.protocol.ids import new_id
from squall.protocol.template import UNFIT, NodeTemplate

VERDICTS_MAX = 4_096
PAUSE_S, PAUSE_S_MAX = 5.0, 600.0
"""After the machine's first failure, and at most."""
ATTEMPTS_MAX = 10
"""So often something is tried that is not well in between: with the pauses, for half an hour at least."""
ALIKE_MIN = 3
"""Variants of one function whose code is unfit for the same cause: it is the code, and not what they were given."""
CAUSE_CHARS_MAX = 500


_GIVEN_UP = " (given up after {} attempts; `squall template drop {}` has it tried again)"


@dataclass(frozen=True, slots=True)
class Verdict:
    """What became of the last template of a key."""

    key: str
    template_id: str
    """An id of its own, where it is on one of several functions: the template of the others lives on."""
    app_id: str
    function_id: str
    kind: str
    cause: str
    made_at: float
    """Seconds since 1970."""
    until: float
    """By the monotonic clock: when it may be tried again."""
    failure_count: int
    family: str = ""
    """See `TemplateKeys.family`; empty where the fault is not the code's."""

    def told(self) -> NodeTemplate:
        """As its server is told of it."""
        return NodeTemplate(
            self.template_id,
            self.app_id,
            self.function_id,
            self.kind,
            UNFIT,
            self.cause,
            made_at=self.made_at,
            used_at=self.made_at,
        )


@dataclass(slots=True)
class _Family:
    """What is unfit of one function's variants."""

    tried_at: float
    """By the monotonic clock: when one of them was found unfit, or let through to be tried."""
    keys: dict[str, dict[str, None]] = field(default_factory=dict)
    """By cause; those added last come last."""


class Verdicts:
    """By key."""

    def __init__(self) -> None:
        self._found: collections.OrderedDict[str, Verdict] = collections.OrderedDict()
        self._families: dict[str, _Family] = {}
        self._fit: collections.OrderedDict[str, None] = collections.OrderedDict()
        """Families one of which was fit; those seen last come last."""

    def __iter__(self) -> Iterator[Verdict]:
        """Those asked about last come last."""
        return iter(self._found.values())

    def find(self, key: str, now: float) -> Verdict | None:
        """The one that holds now."""
        verdict = self._found.get(key)
        if verdict is None:
            return None
        self._found.move_to_end(key)
        return verdict if now < verdict.until else None

    def find_alike(self, family: str, now: float) -> Verdict | None:
        """The one that others of the family have, if it holds for those that nobody has tried.

        None where this one is to be tried: nobody else is meanwhile.
        """
        found = self._families.get(family)
        if found is None or family in self._fit:
            return None
        keys = next((keys for keys in found.keys.values() if len(keys) >= ALIKE_MIN), None)
        if keys is None:
            return None
        if now >= found.tried_at + PAUSE_S_MAX:
            found.tried_at = now
            return None
        for key in keys:
            self._found.move_to_end(key)
        return self._found[next(reversed(keys))]

    def found_fit(self, family: str) -> None:
        """One of the family was: of the others, some may be."""
        if family:
            self._fit[family] = None
            self._fit.move_to_end(family)
        while len(self._fit) > VERDICTS_MAX:
            self._fit.popitem(last=False)

    def _forget(self, key: str) -> Verdict | None:
        verdict = self._found.pop(key, None)
        if verdict is not None and verdict.family:
            causes = self._families[verdict.family].keys
            del causes[verdict.cause][key]
            if not causes[verdict.cause]:
                del causes[verdict.cause]
            if not causes:
                del self._families[verdict.family]
        return verdict

    def add(self, template: Template, cause: str, now: float, *, is_for_good: bool, function_id: str = "") -> None:
        """A template is unfit.

        Args:
            function_id: of the only one that it is unfit for.
        """
        key = of_function(template.key, function_id) if function_id else template.key
        before = self._forget(key)
        family = template.family if is_for_good else ""
        failure_count = (before.failure_count if before is not None else 0) + 1
        template_id = template.template_id
        if function_id:
            template_id = before.template_id if before is not None else new_id("tp")
        pause_s = min(PAUSE_S_MAX, PAUSE_S * 2 ** (min(failure_count, ATTEMPTS_MAX) - 1))
        if not is_for_good and failure_count >= ATTEMPTS_MAX:
            is_for_good = True
            cause = printable(cause, CAUSE_CHARS_MAX - len(_GIVEN_UP) - len(template_id))
            cause += _GIVEN_UP.format(failure_count, template_id)
        record = template.outfit.record
        self._found[key] = Verdict(
            key,
            template_id,
            record.app_id,
            function_id or record.function_id,
            template.kind,
            cause,
            template.made_at,
            math.inf if is_for_good else now + pause_s,
            failure_count,
            family,
        )
        if family:
            found = self._families.setdefault(family, _Family(now))
            found.tried_at = now
            found.keys.setdefault(cause, {})[key] = None
        while len(self._found) > VERDICTS_MAX:
            self._forget(next(iter(self._found)))

    def clear(self, key: str, function_id: str) -> None:
        """A template of the key is as it should be, for this function and so for all."""
        self._forget(key)
        self._forget(of_function(key, function_id))

    def forget_if(self, is_doomed: Callable[[Verdict], bool]) -> list[Verdict]:
        """Forget those that are; returns which there were."""
        gone = [one for one in self._found.values() if is_doomed(one)]
        for one in gone:
            self._forget(one.key)
        return gone


def of_function(key: str, function_id: str) -> str:
    """The key of verdicts on a template for one function of several."""
    return f"{key} {function_id}"


def printable(cause: str, chars_max: int = CAUSE_CHARS_MAX) -> str:
    """A cause, which user code may have written, as one line of bounded length that does nothing to a terminal."""
    shown = "".join(one if one.isprintable() else " " for one in cause[: 4 * CAUSE_CHARS_MAX])
    words = " ".join(shown.split())
    return words if len(words) <= chars_max else words[: chars_max - 1] + "…"
