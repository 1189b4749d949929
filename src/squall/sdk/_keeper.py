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
from squall.sdk._turn import join

CONNECT_S = 90.0
"""How long a lost or first connection is tried before those who wait are told."""
FIRST_CONNECT_S = 10.0
"""The same for a server elsewhere that has never been reached."""
BACKOFF_S = (0.05, 0.1, 0.2, 0.5, 1.0, 2.0)
TAKE_OVER_S = 0.003
"""How long the keeper lets the gap between two blocking calls be before it reads itself."""
TAKE_OVER_S_MAX = 0.05
BROKEN_S = 0.5
"""How long the keeper waits after a failure that nobody has foreseen, before it goes on."""
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

    def fail_waiting(self, error: BaseException) -> None:
        """Tell those who wait that they wait in vain."""

    def drop_leases(self) -> None:
        """There is no connection to be had: do not look for one because of what is held."""


class Keeper:
    """Keeps one client connected; see the module."""

    def __init__(self, kept: Kept, connection: Connection) -> None:
        self._kept = kept
        self._connection = connection
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self._ready: Pending[Welcome] | None = None
        self._delay_s = TAKE_OVER_S
        self._seen_lead = -1
        self.is_closed = False

    def ensure(self) -> Pending[Welcome] | None:
        """See that a connection is made if there is none; what becomes the greeting, or None if all is well."""
        if self._connection.line is not None:
            return None
        with self._lock:
            if self.is_closed:
                raise exception.ClientClosed("the client was closed")
            if self._ready is None or self._ready.is_done:
                self._ready = Pending()
            ready = self._ready
            # Not alive: Ctrl-C came while it was started, or it could not be.
            if self._thread is None or not self._thread.is_alive():
                self._thread = threading.Thread(target=self._keep, name="squall-client", daemon=True)
                self._thread.start()
        self._connection.news.ring()
        return ready

    def close(self) -> None:
        """End the thread."""
        self.is_closed = True
        self._connection.news.ring()
        thread = self._thread
        if thread is not None and thread is not threading.current_thread():
            join(thread, 5.0)

    def _keep(self) -> None:
        # If two were started after all, the later one stays.
        while not self.is_closed and self._thread is threading.current_thread():
            try:
                self._look()
            except Exception as error:  # noqa: BLE001 - top of the thread: those who wait must hear of it
                self._connection.lose("the client broke down")
                self._fail(exception.InternalError(f"the connection to the Squall server broke down: {error!r}"), error)
                time.sleep(BROKEN_S)

    def _look(self) -> None:
        """Do what there is to do, or wait for it."""
        kept, connection = self._kept, self._connection
        if connection.line is None:
            if self._is_wanted():
                self._connect_or_fail()
            else:
                connection.news.wait()
        elif not connection.needs:
            # An app's lease is lost with its server: that must be seen while the program is busy elsewhere.
            if not connection.news.wait(LOOK_S if kept.has_leases() else None):
                connection.poll()
        elif self._seen_lead == connection.lead_count and connection.read_for_others():
            self._delay_s = TAKE_OVER_S
        else:
            # Somebody reads, or did a moment ago: between two blocking calls we keep out of the way.
            is_new = self._seen_lead != connection.lead_count
            self._delay_s = TAKE_OVER_S if is_new else min(TAKE_OVER_S_MAX, self._delay_s * 2)
            self._seen_lead = connection.lead_count
            connection.news.wait(self._delay_s)

    def _is_wanted(self) -> bool:
        ready = self._ready
        is_asked = ready is not None and not ready.is_done
        return is_asked or bool(self._connection.needs) or self._kept.has_work()

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
                    self._give_up(
                        exception.ConnectionError(f"cannot reach the Squall server at {where}: {error}"), error
                    )
                    return
                time.sleep(BACKOFF_S[min(attempt, len(BACKOFF_S) - 1)])
                attempt += 1
            except exception.Error as error:
                self._give_up(error)
                return
            except Exception as error:  # noqa: BLE001 - as above; another try would end like this one
                self._give_up(exception.ConnectionError(f"cannot connect to the Squall server: {error!r}"), error)
                return
            else:
                self._connected(welcome)
                return

    def _connected(self, welcome: Welcome) -> None:
        ready = self._ready
        if ready is not None:
            ready.set(welcome)
        self._connection.wake_followers()
        self._connection.news.ring()

    def _give_up(self, error: BaseException, cause: BaseException | None = None) -> None:
        self._kept.drop_leases()
        self._fail(error, cause)

    def _fail(self, error: BaseException, cause: BaseException | None) -> None:
        if cause is not None:
            error.__cause__ = cause
        # Whoever is told may want a connection again at once: that is another greeting.
        ready, self._ready = self._ready, None
        self._kept.fail_waiting(error)
        if ready is not None:
            ready.fail(error)
