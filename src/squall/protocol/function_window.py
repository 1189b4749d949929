"""What a function, or the functions of an app, did in a stretch of time."""

from __future__ import annotations

from squall.protocol.records import field, record, replace

WINDOW_S = 3600.0
WINDOW_S_MAX = 7 * 24 * 3600.0
PERCENTILES = (50.0, 90.0, 95.0, 99.0, 100.0)


@record
class FunctionWindowGet:
    """Ask for a function's numbers between two times; None ends now, and begins an hour before the end."""

    function_id: str
    since: float | None = None
    until: float | None = None
    container_id: str = ""
    """Only this container's; they are those of its whole life."""
    has_variants: bool = False
    """Together with those of its variants. They always count of a class whose objects need parameters."""


@record
class Distribution:
    """Values at `PERCENTILES`, in seconds; empty where nothing was measured."""

    values_s: tuple[float, ...] = ()


@record
class FunctionWindow:
    """The answer to `FunctionWindowGet`."""

    since: float
    until: float
    succeeded_inputs: int = 0
    failed_inputs: int = 0
    timed_out_inputs: int = 0
    cancelled_inputs: int = 0
    running_inputs: int = 0
    """At the end of the window."""
    started_containers: int = 0
    failed_containers: int = 0
    starting_containers: int = 0
    """At the end of the window."""
    container_count: int = 0
    """That were there in the window."""
    variant_count: int = 0
    queue: Distribution = Distribution()
    run: Distribution = Distribution()
    start: Distribution = Distribution()
    """Of containers, from the request for one until it was ready."""
    is_cut: bool = False
    """There was more than one answer is made of: the earliest of it is left out."""
    started_by_path: dict[str, int] = field(default_factory=dict)
    """Of the containers that started, how many took which path (`node.PATHS`); what is not known is left out."""
    responses: dict[str, int] = field(default_factory=dict)
    """Of a server: how many requests were answered with which status of HTTP, also by Squall itself (401, 429, 502, …);
    a WebSocket counts as 101. Not known of a single container."""


@record
class AppWindowGet:
    """Ask for the numbers of an app's functions between two times, as `FunctionWindowGet`."""

    app: str
    since: float | None = None
    until: float | None = None
    after: str = ""
    """Of the functions behind the one of this name: the last one of the page before."""

    def following(self, window: AppWindow) -> AppWindowGet | None:
        """The question for the next page, about the same time."""
        last = max(window.functions, default="")
        if not window.has_more or last <= self.after:
            return None
        return replace(self, since=window.since, until=window.until, after=last)


@record
class AppWindow:
    """The answer to `AppWindowGet`: by name of the function, without percentiles; a page of it."""

    since: float
    until: float
    functions: dict[str, FunctionWindow] = field(default_factory=dict)
    function_ids: dict[str, str] = field(default_factory=dict)
    is_cut: bool = False
    """As in `FunctionWindow`."""
    has_more: bool = False
    """There are more functions."""

    def with_page(self, other: AppWindow) -> AppWindow:
        """This one and the page that follows it, as one."""
        return AppWindow(
            self.since,
            self.until,
            {**self.functions, **other.functions},
            {**self.function_ids, **other.function_ids},
            self.is_cut or other.is_cut,
            other.has_more,
        )


@record
class VariantList:
    """Ask for the variants of a function."""

    function_id: str
    limit: int = 100


@record
class VariantInfo:
    """One variant as listed."""

    function_id: str
    parameters: str = ""
    options: str = ""
    """What it has of its own, as JSON; of its variables the names."""
    version: int = 0
    is_pinned: bool = False
    container_count: int = 0
    queued_inputs: int = 0


@record
class VariantListing:
    """The answer to `VariantList`: the last used first."""

    variants: tuple[VariantInfo, ...]
    is_cut: bool = False
    """There are more."""
