"""Containers as users see them."""

from __future__ import annotations

from squall.protocol.records import field, record, replace

PENDING = "pending"
STARTING = "starting"
IDLE = "idle"
BUSY = "busy"
DRAINING = "draining"
STOPPED = "stopped"


@record
class ContainerInfo:
    """One container as listed."""

    container_id: str
    app_id: str
    app_name: str
    function_id: str
    function_name: str
    node_id: str
    state: str
    created_at: float
    stopped_at: float | None = None
    exit_reason: str = ""
    running_inputs: int = 0
    phase_ms: dict[str, float] = field(default_factory=dict)
    """Milliseconds from the request for it to each phase: placed, process, connected, ready, first_input."""
    path: str = ""
    """How its start came about: `plain`, `fork`, `parked` or `restore` (`ContainerStarted`); empty until it has."""
    path_cause: str = ""
    """Why it took a longer path than it might have, in words for the user."""


@record
class ContainerList:
    """Ask for containers, newest first."""

    app: str = ""
    include_stopped: bool = False
    limit: int = 1_000
    before_at: float | None = None
    """Those that were created before the last one of the page before, or at that time with a smaller id."""
    before_id: str = ""
    environment: str | None = None
    """Those of its apps, or where an app is named, its environment; None is all of them."""

    def following(self, listing: ContainerListing) -> ContainerList | None:
        """The question for the next page."""
        if not listing.is_cut or not listing.containers:
            return None
        last = listing.containers[-1]
        if self.before_at is not None and (last.created_at > self.before_at or last.container_id == self.before_id):
            return None
        left = max(0, self.limit - len(listing.containers))
        return replace(self, limit=left, before_at=last.created_at, before_id=last.container_id)


@record
class ContainerListing:
    """The answer to `ContainerList`: a page of it."""

    containers: tuple[ContainerInfo, ...]
    is_cut: bool = False
    """There are more."""


@record
class ContainerStop:
    """End a container. Its inputs go back to the queue; with `is_graceful` it finishes them first."""

    container_id: str
    is_graceful: bool = False


@record
class ContainerExec:
    """Run a command in a container: a stream of `TerminalOutput`, fed by `TerminalInput`."""

    container_id: str
    argv: tuple[str, ...]
    has_pty: bool = False
    rows: int = 24
    columns: int = 80
    env: dict[str, str] = field(default_factory=dict, repr=False)
    cwd: str = ""


@record
class TerminalInput:
    """Bytes for the process in the body; or a new size of the terminal; or the end of its input."""

    rows: int = 0
    columns: int = 0
    is_end: bool = False


@record
class TerminalOutput:
    """Bytes of the process in the body; the last item has its exit code.

    On a terminal that is offered, an exit code ends one session of a container; another one may follow.
    """

    source: str = "stdout"
    exit_code: int | None = None


@record
class TerminalOffer:
    """A client says: this app's containers may use my terminal (`squall run -i`).

    A stream of `TerminalOutput`, fed by `TerminalInput`; silent until a container asks for it (`breakpoint()`).
    """

    app_id: str
    rows: int = 24
    columns: int = 80
