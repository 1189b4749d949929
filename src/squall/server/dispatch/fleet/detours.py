"""What the app's log says of starts that did not begin from the snapshot that was asked for: why, and only once."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from typing import TYPE_CHECKING

from squall.protocol.node import PATH_PLAIN, ContainerStarted

if TYPE_CHECKING:
    from squall.server.dispatch.fleet.container import Container

CAUSES_MAX = 3
"""Of one version of a function: a cause may have a number in it, and be another one each time."""
FUNCTIONS_MAX = 10_000
"""That are remembered: of those not heard of for longest the next cause is told again."""


class Detours:
    """Of all functions."""

    def __init__(self, say: Callable[[Container, str], None]) -> None:
        """`say` puts a line into the log of the container's app."""
        self._say = say
        self._told: OrderedDict[tuple[str, int], set[str]] = OrderedDict()
        """By function and version: variants of a function have their causes in common."""

    def note(self, container: Container, started: ContainerStarted) -> None:
        """It has started, and this is how."""
        spec, cause = container.spec, container.path_cause
        # What began from its snapshot has a cause too, where it took longer than it might have: that is no loss.
        if not (spec.is_snapshot_enabled and cause) or started.has_snapshot:
            return
        key = spec.variant_of or spec.function_id, spec.version
        told = self._told.setdefault(key, set())
        self._told.move_to_end(key)
        while len(self._told) > FUNCTIONS_MAX:
            self._told.popitem(last=False)
        if cause in told or len(told) >= CAUSES_MAX:
            return
        told.add(cause)
        what = container.dispatcher.in_words()
        is_plain = started.path == PATH_PLAIN
        how = "loaded anew, and not copied" if is_plain else "copied from its image's template, and not"
        self._say(container, f"{what} was {how} from a memory snapshot: {cause}")
