"""The connection there is at the moment, if any: written by any thread, read by those who wait.

At any moment one thread at most holds `_reading` and hands out what comes, for all who wait; when it has what it waited
for itself, it wakes another one to go on. Threads that cannot read (an event loop, a background thread) say that they
`need` a reader: the keeper reads for them while nobody else does.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Any

from squall.protocol.frames import Frame, FrameDecoder, FrameError
from squall.sdk._pending import Pending
from squall.sdk._transport import Transport, UnixTransport

LONG_LEAD_S = 0.02
"""The keeper looks rarely while one thread reads on; after that long it is told when the thread stops."""


class Connection:
    """See `Reader`; everything else is for the client and its keeper."""

    def __init__(
        self, take: Callable[[list[Frame]], None], lost: Callable[[str], None], ensure: Callable[[], object]
    ) -> None:
        """`take` hands out what came, `lost` hears why the connection is gone, `ensure` has one made."""
        self._take = take
        self._lost = lost
        self._ensure = ensure
        self.transport: Transport | None = None
        self._decoder = FrameDecoder()
        self._reading = threading.Lock()
        self._followers: deque[Pending[Any]] = deque()
        self.lead_count = 0
        """Grows whenever a thread begins to read."""
        self.need_count = 0
        """How many wait who cannot read."""
        self.news = threading.Event()
        """For the keeper: look again what there is to do."""
        self._state_lock = threading.Lock()

    # Waiting: the thread that waits reads

    def wait(self, pending: Pending[Any], deadline: float | None = None) -> bool:
        """See `Reader`."""
        try:
            while not pending.is_done:
                if deadline is not None and time.monotonic() >= deadline:
                    return False
                if self.transport is not None and self._reading.acquire(False):
                    self._lead_or_release(pending, deadline)
                else:
                    self._follow(pending, deadline)
            return True
        finally:
            # Whether done, late or interrupted: if it was our turn to read on, it is another's now.
            if self._followers and not self._reading.locked():
                self._nudge_follower()

    def _lead_or_release(self, pending: Pending[Any], deadline: float | None) -> None:
        try:
            self._lead(pending, deadline)
        finally:
            self._reading.release()
            if self._followers:
                self._nudge_follower()

    def _lead(self, pending: Pending[Any], deadline: float | None) -> None:
        self.lead_count += 1
        started = time.monotonic() if self.need_count else 0.0
        while not pending.is_done:
            if not self._read_once(deadline):
                return
        if self.need_count and time.monotonic() - started > LONG_LEAD_S:
            self.news.set()

    def _follow(self, pending: Pending[Any], deadline: float | None) -> None:
        """Sleep until it is done, or nobody reads."""
        try:
            pending.prepare()
            self._followers.append(pending)
            # Looked at again after we can be found: whoever stops reading later will wake us.
            if self.transport is None or self._reading.locked():
                pending.sleep(deadline)
        finally:
            # After Ctrl-C, too: the one nudge there is would go to somebody who has left.
            try:
                self._followers.remove(pending)
            except ValueError:
                pass  # we were woken to read on

    def _nudge_follower(self) -> None:
        try:
            self._followers.popleft().nudge()
        except IndexError:
            return  # it gave up meanwhile

    def need(self) -> None:
        """See `Reader`."""
        with self._state_lock:
            self.need_count += 1
        self._ensure()
        self.news.set()

    def unneed(self) -> None:
        """See `Reader`."""
        with self._state_lock:
            self.need_count -= 1

    # Reading

    def poll(self) -> None:
        """Take in what has arrived already, if nobody else is reading."""
        if self.transport is not None and self._reading.acquire(False):
            try:
                self._read_once(0.0)
            finally:
                self._reading.release()
                if self._followers:
                    self._nudge_follower()

    def read_for_others(self) -> bool:
        """Read while somebody needs it and nobody else can; whether there was a turn to be had."""
        if not self._reading.acquire(False):
            return False
        try:
            while self.need_count and not self._followers:
                if not self._read_once(None):
                    break
        finally:
            self._reading.release()
            if self._followers:
                self.lead_count += 1
                self._nudge_follower()
        return True

    def _read_once(self, deadline: float | None) -> bool:
        """Read and hand out one piece; False when nothing came before the deadline, or the connection is gone."""
        transport = self.transport
        if transport is None:
            return False
        try:
            data = transport.read(deadline)
            if data is None:
                return False
            if not data:
                self.lose("the server closed the connection", transport)
                return False
            self._take(self._decoder.feed(data))
        except FrameError as error:
            self.lose(str(error), transport)
            return False
        except BaseException:
            # Ctrl-C between reading bytes and handing them out loses them: only a new connection is whole again.
            self.lose("reading was interrupted", transport)
            raise
        return True

    # Writing

    def write(self, data: bytes, body: Any = b"") -> bool:
        """Send whole frames; whether they are out. Without a connection they are not, and nothing is raised."""
        transport = self.transport
        if transport is None:
            return False  # what matters is kept, and sent when there is a connection
        try:
            transport.write(data, body)
        except OSError as error:
            self.lose(str(error), transport)
            return False
        except BaseException:
            self.lose("writing was interrupted", transport)  # half a frame may be out
            raise
        return True

    # Made and lost

    def adopt(self, transport: Transport, decoder: FrameDecoder) -> None:
        """From now on this is the connection."""
        transport.reader = self
        with self._reading:
            self._decoder = decoder
            self.transport = transport

    def wake_followers(self) -> None:
        """There is something to read from."""
        for pending in list(self._followers):
            pending.nudge()

    def lose(self, reason: str, transport: Transport | None = None) -> None:
        """The connection, or that one if it still is the connection, is of no use any more."""
        with self._state_lock:
            if self.transport is None or (transport is not None and transport is not self.transport):
                return
            lost, self.transport = self.transport, None
        lost.close()
        self._lost(reason)
        self.news.set()

    def forget(self) -> None:
        """In a forked child: let go of the parent's."""
        transport, self.transport = self.transport, None
        if isinstance(transport, UnixTransport):
            transport.forget()
