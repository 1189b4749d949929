"""Apps: what a user runs or deploys."""

from __future__ import annotations

from squall.protocol.records import field, record, replace

EPHEMERAL = "ephemeral"
DETACHED = "detached"
DEPLOYED = "deployed"
STOPPING = "stopping"
STOPPED = "stopped"


@record
class AppCreate:
    """Make an app, or take one up again after a reconnect. The caller makes the id, so repeating is harmless.

    The channel it comes on holds the app's lease: when the channel is gone and no other takes the app up within the
    grace time, an ephemeral app is stopped. On a container's channel it makes a child of the container's app.
    """

    app_id: str
    name: str = ""
    state: str = EPHEMERAL
    tags: dict[str, str] = field(default_factory=dict)
    environment: str = ""
    created_by: str = ""
    """The user of the program that makes it, as it is shown."""
    web_suffix: str = ""
    """Behind the labels of its web functions, so that they are not those of the app that is deployed; empty for the
    server's own."""


@record
class AppCreated:
    """The app is there."""

    app_id: str
    url: str = ""
    """Of a page where people see the app, which commands print. Empty where the server has none, as all have now: its
    address answers programs only."""


@record
class AppInfo:
    """One app as listed."""

    app_id: str
    name: str
    state: str
    created_at: float
    """Seconds since 1970."""
    stopped_at: float | None = None
    container_count: int = 0
    functions: dict[str, str] = field(default_factory=dict)
    """Function name to function id; only of one app that is asked for."""
    tags: dict[str, str] = field(default_factory=dict)
    parent_app_id: str = ""
    """The app whose container made this one; empty for an app made outside containers."""
    environment: str = ""
    version: int = 0
    """The current one of an app that is deployed."""
    created_by: str = ""
    """As in `AppCreate`; of an app that was deployed first, who did."""


@record
class AppGet:
    """Ask for one app by id, or by name (the newest that is not stopped and no child of another)."""

    app: str
    environment: str = ""
    """Of the app, where it is named."""
    has_functions: bool = True
    """The answer names its functions, of which there may be very many."""


@record
class AppList:
    """Ask for apps, newest first: all that live, and with `include_stopped` also some that do not."""

    limit: int = 100
    """Of those that have stopped; without them, of those that live."""
    include_stopped: bool = True
    environment: str | None = None
    """Those of this environment, of the one that is meant for the empty name; all for None."""
    before_at: float | None = None
    """Those that were created before the last one of the page before, or at that time with a smaller id."""
    before_id: str = ""

    def following(self, listing: AppListing) -> AppList | None:
        """The question for the next page."""
        if not listing.is_cut or not listing.apps:
            return None
        last = listing.apps[-1]
        if self.before_at is not None and (last.created_at > self.before_at or last.app_id == self.before_id):
            return None
        counted = sum(app.state == STOPPED or not self.include_stopped for app in listing.apps)
        return replace(self, limit=max(0, self.limit - counted), before_at=last.created_at, before_id=last.app_id)


@record
class AppListing:
    """The answer to `AppList`: a page of it."""

    apps: tuple[AppInfo, ...]
    is_cut: bool = False
    """There are more."""


@record
class AppStop:
    """Stop an app: cancel its inputs and end its containers. Answered when its containers are gone."""

    app: str
    reason: str = ""
    is_sparing: bool = False
    """The program of a detached app has ended: its own calls are cancelled, and the app is stopped when nothing else of
    it is left to do, such as spawned calls."""


@record
class AppStopped:
    """The app has ended, or goes on."""

    goes_on: bool = False
    """It was spared: it ends by itself."""
    was_stopped: bool = False
    """It was stopped before, or being stopped."""
