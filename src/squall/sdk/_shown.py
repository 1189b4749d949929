"""Log lines that have been read are shown before a result that came after them is handed out.

Lines are shown by a thread of their own, so that a terminal that blocks does not stop results. Who has a result in
hand looks here first, and waits if lines are ahead of it: a moment at most, and not again before all are shown.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from squall.sdk._pending import Pending

if TYPE_CHECKING:
    from squall.sdk._streams import ClientStream

CATCH_UP_S = 0.1


class Display:
    """What one app's containers say, on its way from the connection to whoever looks."""

    catch_up_s = CATCH_UP_S
    """How long a result waits."""

    def __init__(self) -> None:
        self._stream: ClientStream | None = None
        self._shown_count = 0
        self._waiting: list[tuple[int, Pending[None]]] = []
        self._has_given_up = False

    @property
    def is_behind(self) -> bool:
        """Whether something has been read and is not shown yet."""
        stream = self._stream
        return stream is not None and self._shown_count < stream.item_count

    def begin(self, stream: ClientStream) -> None:
        """Lines come by this stream from now on."""
        self._stream = None
        self._shown_count = 0
        self._wake()
        self._stream = stream

    def end(self) -> None:
        """Nothing more is shown."""
        self._stream = None
        self._wake()

    def has_shown(self) -> None:
        """One more item of the stream is done with."""
        self._shown_count += 1
        if not self.is_behind:
            self._has_given_up = False
        self._wake()

    async def catch_up(self) -> None:
        """Wait until what has been read is shown, but not for long."""
        stream = self._stream
        if stream is None or self._has_given_up:
            return
        signal: Pending[None] = Pending()
        waiting = (stream.item_count, signal)
        try:
            self._waiting.append(waiting)
            # Looked at again after we can be found: whoever shows the last one later will wake us.
            if self.is_behind and self._stream is stream and not await signal.within(self.catch_up_s):
                self._has_given_up = self.is_behind
        finally:
            if waiting in self._waiting:
                self._waiting.remove(waiting)

    def _wake(self) -> None:
        for goal, signal in list(self._waiting):
            if self._stream is None or self._shown_count >= goal:
                signal.set(None)


displays: list[Display] = []
"""Those of the runs of this process. Empty, nothing is ever waited for."""

# The threads that show lines are the parent's.
os.register_at_fork(after_in_child=displays.clear)


def is_behind() -> bool:
    """Whether a result that is there would be handed out before a line that came before it."""
    return any(display.is_behind for display in displays)


async def catch_up() -> None:
    """Wait, a moment at most, until the lines that have been read are shown."""
    for display in list(displays):
        if display.is_behind:
            await display.catch_up()
