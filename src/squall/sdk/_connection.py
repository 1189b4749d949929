"""The connection there is at the moment, if any: written by any thread, read by those who wait.

At any moment it is one thread's turn at most to read; it hands out what comes, for all who wait, and when it has what
it waited for itself, it wakes another one to go on. Threads that cannot read (an event loop, a background thread) say
that they `need` a reader: the keeper reads for them while nobody else does.

An exception may come at any point of a thread that reads (Ctrl-C, a signal handler of the user's, the end of an input
in a container). Then its turn ends, somebody else is woken, and if bytes may have been lost the connection is, too:
only a new one is whole again. Whoever sleeps looks up a few times a second, should even that have been interrupted.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any

from squall.protocol.frames import Frame, FrameDecoder, FrameError
from squall.sdk._pending import Pending
from squall.sdk._transport import Transport, UnixTransport
from squall.sdk._turn import SIGNALS_S, Bell, Turn

LONG_LEAD_S = 0.02
"""The keeper looks rarely while one thread reads on; after that long it is told when the thread stops."""
FOLLOW_S = SIGNALS_S
"""How long a thread that waits relies on being woken to read on."""


class Line:
    """One transport, with what has come of a frame that is not whole yet."""

    __slots__ = ("decoder", "is_whole", "transport")

    def __init__(self, transport: Transport, decoder: FrameDecoder) -> None:
        self.transport = transport
        self.decoder = decoder
        self.is_whole = True
        """Whether all that was read has been handed out; False while that goes on."""


class Connection:
    """See `Reader`; everything else is for the client and its keeper."""

    def __init__(
        self, take: Callable[[list[Frame]], None], lost: Callable[[str, bool], None], ensure: Callable[[], object]
    ) -> None:
        """`take` hands out what came, `lost` hears why the connection is gone and whether what came could not be read,
        `ensure` has one made."""
        self._take = take
        self._lost = lost
        self._ensure = ensure
        self.line: Line | None = None
        self._losing = threading.RLock()
        self._turn = Turn()
        self._followers: dict[Pending[Any], Pending[Any] | None] = {}
        self.lead_count = 0
        """Grows whenever a thread begins to read."""
        self.needs: set[object] = set()
        """Who waits and cannot read."""
        self.news = Bell()
        """For the keeper: look again what there is to do."""

    # Waiting: the thread that waits reads

    def wait(self, pending: Pending[Any], deadline: float | None = None) -> bool:
        """See `Reader`."""
        turn = self._turn
        try:
            if turn.is_mine:
                turn.leave()  # we are a signal handler, in the middle of reading; or were interrupted twice
            while not pending.is_done:
                if deadline is not None and time.monotonic() >= deadline:
                    return False
                if self.line is not None and turn.take():
                    self._lead_and_pass_on(pending, deadline)
                else:
                    self._follow(pending, deadline)
            return True
        finally:
            # Whether done, late or interrupted: if it was our turn to read on, it is another's now.
            self._pass_on()

    def _lead_and_pass_on(self, pending: Pending[Any], deadline: float | None) -> None:
        try:
            self._lead(pending, deadline)
        finally:
            self._pass_on()

    def _pass_on(self) -> None:
        """If it is our turn, it is another's now. Done twice, in case a Ctrl-C comes in between."""
        self._turn.leave()
        if self._followers and not self._turn.is_taken:
            self._nudge_follower()

    def _lead(self, pending: Pending[Any], deadline: float | None) -> None:
        self.lead_count += 1
        started = time.monotonic() if self.needs else 0.0
        # The turn is not ours any more if a signal handler used the client.
        while not pending.is_done and self._turn.is_mine:
            if not self._read_once(deadline):
                return
        if self.needs and time.monotonic() - started > LONG_LEAD_S:
            self.news.ring()

    def _follow(self, pending: Pending[Any], deadline: float | None) -> None:
        """Sleep until it is done, or nobody reads."""
        if self.line is None:
            self._ensure()
        look_at = time.monotonic() + FOLLOW_S
        try:
            pending.prepare()
            self._followers[pending] = None
            # Looked at again after we can be found: whoever stops reading later will wake us.
            if self.line is None or self._turn.is_taken:
                pending.sleep(look_at if deadline is None else min(deadline, look_at))
        finally:
            # After Ctrl-C, too: the one nudge there is would go to somebody who has left. Not in it: woken to read on.
            self._followers.pop(pending, None)

    def _nudge_follower(self) -> None:
        for pending in list(self._followers):
            # By one of those who look at the same time, and not if it has given up meanwhile.
            if self._followers.pop(pending, pending) is None:
                pending.nudge()
                return

    def need(self, who: object) -> None:
        """See `Reader`."""
        self.needs.add(who)
        self._ensure()
        self.news.ring()

    def unneed(self, who: object) -> None:
        """See `Reader`."""
        self.needs.discard(who)

    # Reading

    def poll(self) -> None:
        """Take in what has arrived already, if nobody else is reading."""
        if self._turn.is_mine:
            return
        try:
            if self.line is not None and self._turn.take():
                self._read_once(0.0)
        finally:
            self._pass_on()

    def read_for_others(self) -> bool:
        """Read while somebody needs it and nobody else can; whether there was a turn to be had."""
        if not self._turn.take():
            return False
        try:
            while self.needs and not self._followers:
                if not self._read_once(None):
                    break
        finally:
            if self._followers:
                self.lead_count += 1
            self._pass_on()
        return True

    def _read_once(self, deadline: float | None) -> bool:
        """Read and hand out one piece; False when nothing came before the deadline, or the connection is gone."""
        line = self.line
        if line is None:
            return False
        if not line.is_whole:
            self.lose("reading was interrupted", line)
            return False
        try:
            line.is_whole = False
            data = line.transport.read(deadline)
            if data is None:
                line.is_whole = True
                return False
            if not data:
                self.lose("the server closed the connection", line)
                return False
            self._take(line.decoder.feed(data))
            line.is_whole = True
        except FrameError as error:
            self.lose(str(error), line, is_unreadable=True)
            return False
        except BaseException:
            # Ctrl-C between reading bytes and handing them out loses them: only a new connection is whole again.
            self.lose("reading was interrupted", line)
            raise
        return True

    # Writing

    def write(self, data: bytes, body: Any = b"", over: Line | None = None) -> bool:
        """Send whole frames; whether they are out. Without a connection they are not, and nothing is raised.

        Args:
            over: over this one, or not at all.
        """
        line = self.line
        if line is None or over not in (None, line):
            return False  # what matters is kept, and sent when there is a connection
        try:
            line.transport.write(data, body)
        except OSError as error:
            self.lose(str(error), line)
            return False
        except BaseException:
            self.lose("writing was interrupted", line)  # half a frame may be out
            raise
        return True

    # Made and lost

    def adopt(self, transport: Transport, decoder: FrameDecoder) -> None:
        """From now on this is the connection."""
        transport.reader = self
        self.line = Line(transport, decoder)

    def wake_followers(self) -> None:
        """There is something to read from."""
        for pending in list(self._followers):
            pending.nudge()

    def lose(self, reason: str, line: Line | None = None, *, is_unreadable: bool = False) -> None:
        """The connection, or that one if it still is the connection, is of no use any more."""
        # The connection counts as lost when the rest is done: should that be interrupted, the next who reads does it.
        with self._losing:
            lost = self.line
            if lost is None or (line is not None and line is not lost):
                return
            lost.transport.close()
            self._lost(reason, is_unreadable)
            self.line = None
        self.news.ring()

    def forget(self) -> None:
        """In a forked child: let go of the parent's."""
        line, self.line = self.line, None
        if line is not None and isinstance(line.transport, UnixTransport):
            line.transport.forget()
