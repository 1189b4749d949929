"""The thread that keeps a client connected: it connects, again after each break, and reads for those who cannot.

It begins with the first wish for a connection. It reads only while somebody waits who cannot (an event loop, a
background thread) and nobody else does, so that it never stands in the way of a blocking call.
"""

from __future__ import annotations

import threading
import time
from typing import Protocol

from squall import exception
from squall.protocol.server import Welcome
from squall.sdk._connection import Connection
from squall.sdk._greeting import NotYet
from squall.sdk._local_server import Endpoint
from squall.sdk._pending import Pending

CONNECT_S = 90.0
"""How long a lost or first connection is tried before those who wait are told."""
FIRST_CONNECT_S = 10.0
"""The same for a server elsewhere that has never been reached."""
BACKOFF_S = (0.05, 0.1, 0.2, 0.5, 1.0, 2.0)
TAKE_OVER_S = 0.003
"""How long the keeper lets the gap between two blocking calls be before it reads itself."""
TAKE_OVER_S_MAX = 0.05
LOOK_S = 1.0
"""How often the connection is looked at while nobody waits for anything."""


class Kept(Protocol):
    """Who is kept connected: a client."""

    endpoint: Endpoint
    welcome: Welcome | None

    def connect_once(self) -> Welcome:
        """Make a connection, and send on it what waits.

        Raises:
            OSError: nobody answers.
            NotYet: it is worth trying again.
            Error: it is not.
        """

    def has_work(self) -> bool:
        """Whether anything is under way that wants a connection."""

    def has_leases(self) -> bool:
        """Whether a break must be noticed while nothing is under way."""

    def fail_all(self, error: BaseException) -> None:
        """There is no connection to be had: tell those who wait."""


class Keeper:
    """Keeps one client connected; see the module."""

    def __init__(self, kept: Kept, connection: Connection) -> None:
        self._kept = kept
        self._connection = connection
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self._ready: Pending[Welcome] | None = None
        self.is_closed = False

    def ensure(self) -> Pending[Welcome] | None:
        """See that a connection is made if there is none; what becomes the greeting, or None if all is well."""
        if self._connection.transport is not None:
            return None
        with self._lock:
            if self.is_closed:
                raise exception.ClientClosed("the client was closed")
            if self._ready is None or self._ready.is_done:
                self._ready = Pending()
            ready = self._ready
            if self._thread is None:
                self._thread = threading.Thread(target=self._keep, name="squall-client", daemon=True)
                self._thread.start()
        self._connection.news.set()
        return ready

    def close(self) -> None:
        """End the thread."""
        self.is_closed = True
        self._connection.news.set()
        thread = self._thread
        if thread is not None and thread is not threading.current_thread():
            thread.join(5.0)

    def _keep(self) -> None:
        kept, connection, news = self._kept, self._connection, self._connection.news
        delay = TAKE_OVER_S
        seen = -1
        while not self.is_closed:
            if connection.transport is None:
                if self._is_wanted():
                    self._connect_or_fail()
                else:
                    news.wait()
                    news.clear()
            elif not connection.need_count:
                # An app's lease is lost with its server: that must be seen while the program is busy elsewhere.
                if not news.wait(LOOK_S if kept.has_leases() else None):
                    connection.poll()
                news.clear()
            elif seen == connection.lead_count and connection.read_for_others():
                delay = TAKE_OVER_S
            else:
                # Somebody reads, or did a moment ago: between two blocking calls we keep out of the way.
                delay = TAKE_OVER_S if seen != connection.lead_count else min(TAKE_OVER_S_MAX, delay * 2)
                seen = connection.lead_count
                news.wait(delay)
                news.clear()

    def _is_wanted(self) -> bool:
        ready = self._ready
        is_asked = ready is not None and not ready.is_done
        return is_asked or self._connection.need_count > 0 or self._kept.has_work()

    def _connect_or_fail(self) -> None:
        endpoint = self._kept.endpoint
        # A server elsewhere that never answered is more likely misspelt than restarting.
        is_first = self._kept.welcome is None and bool(endpoint.url)
        deadline = time.monotonic() + (FIRST_CONNECT_S if is_first else CONNECT_S)
        attempt = 0
        while not self.is_closed:
            try:
                welcome = self._kept.connect_once()
            except (OSError, NotYet) as error:
                if time.monotonic() > deadline:
                    where = endpoint.url or endpoint.socket_path
                    self._give_up(exception.ConnectionError(f"cannot reach the Squall server at {where}: {error}"))
                    return
                time.sleep(BACKOFF_S[min(attempt, len(BACKOFF_S) - 1)])
                attempt += 1
            except exception.Error as error:
                self._give_up(error)
                return
            except Exception as error:  # noqa: BLE001 - top of the thread: those who wait must hear of it
                self._give_up(exception.ConnectionError(f"cannot connect to the Squall server: {error!r}"))
                return
            else:
                self._connected(welcome)
                return

    def _connected(self, welcome: Welcome) -> None:
        ready = self._ready
        if ready is not None:
            ready.set(welcome)
        self._connection.wake_followers()
        self._connection.news.set()

    def _give_up(self, error: BaseException) -> None:
        ready = self._ready
        self._kept.fail_all(error)
        if ready is not None:
            ready.fail(error)
