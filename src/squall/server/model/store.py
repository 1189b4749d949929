"""What the server remembers, and the contract of whatever remembers it.

Rows are the store's own records; where a row is all of a wire record (a function's spec, a mount's manifest) it holds
that. Implementations are in `server/store/` and pass tests/conformance/test_store.py.

Invariants every implementation keeps:
  * when a `put_...`, `set_...` or `expire` returns, what it wrote survives `kill -9` and power loss
  * repeating a write with the same ids is harmless: the caller may not know whether the first one was carried out
  * an input has at most one output, the first that came
  * the event loop is never blocked; concurrent durable writes share transactions
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from squall.protocol.app import EPHEMERAL
from squall.protocol.function import FunctionSpec, Scaling
from squall.protocol.image_catalog import ImageRef
from squall.protocol.mount import MountManifest
from squall.server.model.asset import AssetStore
from squall.server.model.dict import DictStore
from squall.server.model.flight import FlightLimits, StoredFlight, StoredMinute
from squall.server.model.image import StoredImage, StoredImageName
from squall.server.model.proxy_token import ProxyTokenStore
from squall.server.model.queue import QueueStore
from squall.server.model.schedule import StoredSchedule
from squall.server.model.secret import SecretStore
from squall.server.model.variant import StoredVariant
from squall.server.model.version import StoredVersion
from squall.server.model.volume import VolumeStore


@dataclass(frozen=True, slots=True)
class StoredApp:
    """One app."""

    app_id: str
    name: str
    state: str = EPHEMERAL
    created_at: float = 0.0
    """Seconds since 1970, as all times here."""
    stopped_at: float | None = None
    tags: dict[str, str] = field(default_factory=dict)
    environment: str = ""
    ancestors: tuple[str, ...] = ()
    """Of a child, an app made inside a container: the apps above it, the one made outside first, its parent last."""
    created_by: str = ""
    """Who made it, by what the program that did said of its user; empty where that is not known."""
    web_suffix: str = ""
    """Behind the labels of its web functions, while it is not deployed; empty for the usual one."""

    @property
    def parent_app_id(self) -> str:
        """The app whose container made this one; empty when it was made outside."""
        return self.ancestors[-1] if self.ancestors else ""

    @property
    def root_app_id(self) -> str:
        """The app made outside containers that this one is, or descends from."""
        return self.ancestors[0] if self.ancestors else self.app_id


@dataclass(frozen=True, slots=True)
class StoredCall:
    """A durable call."""

    call_id: str
    function_id: str
    app_id: str
    kind: str
    created_at: float
    input_count: int = 1
    parent_input_id: str = ""
    is_cancelled: bool = False
    """What of it has no output is not to be run (any more)."""
    method: str = ""
    """Of a class."""
    is_growing: bool = False
    """More inputs may come."""


@dataclass(frozen=True, slots=True)
class StoredInput:
    """One input of a durable call: its value, or the blob that holds it."""

    call_id: str
    index: int
    value: bytes = b""
    blob_sha256: str = ""


@dataclass(frozen=True, slots=True)
class OutputCounts:
    """How many outputs a call has."""

    by_status: dict[int, int] = field(default_factory=dict)
    last_at: float = 0.0
    """When the last of them came; 0 where that is not known."""


@dataclass(frozen=True, slots=True)
class Portion:
    """Consecutive inputs of a durable call that came with one request: they are kept, and read again, together."""

    call: StoredCall
    first: int
    """Index of the first of them, whether it is among those that were read or not."""
    made_at: float
    inputs: tuple[StoredInput, ...]

    @property
    def place(self) -> Place:
        """Where it stands among all portions of its function."""
        return self.made_at, self.call.call_id, self.first

    @property
    def size_bytes(self) -> int:
        """Of the values of those inputs that were read."""
        return sum(len(one.value) for one in self.inputs)


Place = tuple[float, str, int]
"""Portions are read in this order: by the time they were made, then by call and first index."""
BEGINNING: Place = (0.0, "", -1)


@dataclass(frozen=True, slots=True)
class StoredOutput:
    """One output of a durable call; `status` and `value` as in `OutputBatch`."""

    call_id: str
    index: int
    status: int
    value: bytes = b""
    blob_sha256: str = ""
    attempt: int = 0
    run_us: int = 0
    finished_at: float = 0.0
    queued_at: float = 0.0
    """When its last attempt began to wait; 0: not known."""
    container_id: str = ""
    """That brought it."""


class Store(Protocol):
    """The server's memory. Opened and closed by `main`; used from one event loop.

    Every method raises PlatformError: `exhausted` when the disk is full (with what to do), `unavailable` when the
    database cannot be reached, `conflict` where stated.
    """

    assets: AssetStore
    """What users keep on the server."""
    volumes: VolumeStore
    """What is in volumes."""
    secrets: SecretStore
    """What is in their secrets, encrypted."""
    dicts: DictStore
    """What is in dicts."""
    queues: QueueStore
    """What is in queues."""
    proxy_tokens: ProxyTokenStore
    """What opens web functions."""

    # Apps

    async def put_app(self, app: StoredApp) -> None:
        """Create the app, or replace all that is known of it but `created_at`."""

    async def get_app(self, app_id: str) -> StoredApp:
        """One app. Raises PlatformError `not_found`."""

    async def get_apps(self, app_ids: Collection[str]) -> tuple[StoredApp, ...]:
        """Those of these apps that there are, in any order."""

    async def find_app(self, name: str, environment: str = "") -> StoredApp | None:
        """The app of that name that is deployed, or else the newest that is neither stopping nor stopped, and no child.

        One who tries out a program must not take the callers of what was deployed from it.

        Children have names that code in containers chose: none may stand in for an app that a user named.
        """

    async def list_apps(
        self, limit: int = 100, states: tuple[str, ...] = (), environment: str | None = None, name: str = "",
        before: tuple[float, str] | None = None,
    ) -> tuple[StoredApp, ...]:  # fmt: skip
        """Apps, newest first; with `states`, those in one of them, with an environment, those in it, with a name, those
        that have it, with `before`, those that come after the app that was created then and has that id."""

    async def set_app_state(self, app_id: str, state: str, stopped_at: float | None = None) -> None:
        """Change an app's state; `stopped_at` of None leaves the time it stopped as it is.

        Of the versions of one that has stopped only what is listed is kept: nothing goes back to them any more.

        Raises PlatformError `not_found`.
        """

    async def forget_children(self, root_app_id: str, keep: int) -> tuple[str, ...]:
        """Forget stopped apps that descend from that one, with their functions, but the newest `keep`; their ids."""

    # Functions

    async def put_functions(self, functions: tuple[FunctionSpec, ...]) -> None:
        """Create or replace functions, all of them or none.

        Raises PlatformError `conflict` when an app has another function of the same name, `not_found` when the app
        does not exist.
        """

    async def get_function(self, function_id: str) -> FunctionSpec:
        """One function. Raises PlatformError `not_found`."""

    async def find_function(self, app_id: str, name: str) -> FunctionSpec | None:
        """The app's function of that name."""

    async def page_functions(self, app_id: str, after: str, limit: int) -> tuple[FunctionSpec, ...]:
        """The next functions of an app after a name, in an order of the store's own; the first ones after none."""

    async def list_functions(self, app_id: str) -> tuple[FunctionSpec, ...]:
        """The app's functions, by name."""

    # Variants

    async def put_variant(self, variant: StoredVariant) -> None:
        """Keep a variant, or note that it is used now. Callers at the same time share a transaction."""

    async def get_variants(self, function_ids: frozenset[str]) -> tuple[StoredVariant, ...]:
        """Those of these that are variants."""

    async def list_variants(self, base_id: str, limit: int) -> tuple[StoredVariant, ...]:
        """Variants of a function, the last used first."""

    async def count_variants(self, base_id: str) -> int:
        """How many variants of a function there are."""

    async def count_variants_below(self, root_app_id: str) -> int:
        """How many variants there are of functions of an app and of all that descend from it."""

    async def use_variants(self, function_ids: frozenset[str], now: float) -> None:
        """They are used now; unknown ones are passed over."""

    async def forget_variants(self, before: float) -> int:
        """Forget those that were used before that time and of which no call has unfinished inputs, and what their
        autoscalers go by; how many."""

    # Autoscalers

    async def set_scaling(self, app_id: str, function_id: str, scaling: Scaling) -> None:
        """Keep what the autoscaler of a function or variant goes by, until the function is put again, or a version of
        its app is published."""

    async def list_scaling(self, app_id: str) -> dict[str, Scaling]:
        """What was kept so, by id of the function."""

    # Environments

    async def put_environment(self, name: str, now: float) -> None:
        """There is an environment of that name; one that was there before keeps its age."""

    async def list_environments(self) -> dict[str, float]:
        """Name to when it was made; the default is not kept."""

    async def delete_environment(self, name: str) -> None:
        """Forget it; what is in it is somebody else's to take away."""

    # Versions

    async def publish_version(
        self, app: StoredApp, version: StoredVersion, functions: tuple[FunctionSpec, ...], gone_ids: frozenset[str],
        keep: int,
    ) -> None:  # fmt: skip
        """Put the app, forget the functions that are gone, put the others, and keep both as a version of the app: all
        of it or nothing. Versions of the app but the newest `keep`, and those that functions are held to, are
        forgotten.

        Raises PlatformError `conflict` when the app has a version of that number, or as `put_functions`.
        """

    async def list_versions(self, app_id: str) -> tuple[StoredVersion, ...]:
        """The versions of an app that are kept, newest first."""

    async def list_version_functions(self, app_id: str, version: int) -> tuple[FunctionSpec, ...]:
        """The functions of a version, as they were published.

        Raises PlatformError `not_found` when it is not kept.
        """

    # Mounts

    async def put_mount(self, manifest: MountManifest, now: float) -> str:
        """Keep a manifest, which is used now; returns its id."""

    async def use_mounts(self, mount_ids: frozenset[str], now: float) -> None:
        """They are about to be named by functions: `prune_mounts` leaves them for as long.

        Raises PlatformError `not_found`, naming one that there is not.
        """

    async def prune_mounts(self, before: float) -> int:
        """Forget mounts that were used before that time and that neither functions nor versions of an app name that
        has not stopped; how many. An app that has stopped is never taken up again."""

    async def get_mount(self, mount_id: str) -> MountManifest:
        """One manifest. Raises PlatformError `not_found`."""

    # Images

    async def put_image(self, image: StoredImage) -> None:
        """Remember an image that was built, or replace all that is known of it."""

    async def get_image(self, image_id: str) -> StoredImage:
        """One image. Raises PlatformError `not_found`."""

    async def list_images(self, limit: int = 100, before: tuple[float, str] | None = None) -> tuple[StoredImage, ...]:
        """Images, the last used first; with `before`, those that come after the image that was used then and has that
        id."""

    async def use_images(self, image_ids: frozenset[str], now: float) -> None:
        """They are used now; unknown ones are passed over."""

    async def forget_images(self, image_ids: frozenset[str]) -> frozenset[str]:
        """Forget those of these images that no name points to; which were forgotten."""

    async def publish_image(self, name: StoredImageName) -> StoredImageName:
        """Let a name point to an image, and keep in mind what it pointed to before; what is there now.

        A name that points to it already stays as it is. Raises PlatformError `not_found` for an unknown image.
        """

    async def find_image_name(self, ref: ImageRef) -> StoredImageName | None:
        """What a name points to."""

    async def list_image_names(
        self, environment: str | None = None, prefix: str = "", *, earlier: bool = False
    ) -> tuple[StoredImageName, ...]:
        """Names whose `name:tag` begins so, by name; of one environment, or of all.

        With `earlier` also what they pointed to before and names that were taken away; of one name the newest first.
        """

    async def delete_image_name(self, ref: ImageRef) -> bool:
        """Take a name away; whether it was there."""

    # Durable calls

    async def put_call(self, call: StoredCall, inputs: tuple[StoredInput, ...]) -> bool:
        """Keep a call with its first inputs; whether it is new. A call that is there already stays as it is.

        Callers at the same time share one transaction every few milliseconds.
        """

    async def put_calls(self, calls: tuple[tuple[StoredCall, tuple[StoredInput, ...]], ...]) -> tuple[bool, ...]:
        """As `put_call`, several: all of them or none."""

    async def extend_call(
        self, call_id: str, first: int, inputs: tuple[StoredInput, ...], made_at: float, *, is_last: bool
    ) -> Portion:
        """Add inputs to a call that grows, at index `first`; with `is_last` it grows no more.

        The answer tells the call as it is then, and when these inputs were made: earlier than now when the call had
        them already, and nothing was added. Shares transactions as `put_call` does.

        Raises PlatformError `not_found`; `conflict` when they do not follow those the call has, and when the call was
        cancelled or grows no more.
        """

    async def get_calls(self, call_ids: Sequence[str]) -> tuple[StoredCall, ...]:
        """Those of these calls that there are, in no order."""

    async def get_call(self, call_id: str) -> StoredCall:
        """One call. Raises PlatformError `not_found`."""

    async def cancel_call(self, call_id: str) -> StoredCall:
        """Remember that the call is cancelled, if it has unfinished inputs or grows; the call as it is then.

        Raises PlatformError `not_found`.
        """

    async def unfinished_counts(self) -> dict[str, int]:
        """Function to number of inputs without an output; functions that have some."""

    async def unfinished_inputs(
        self, function_id: str, after: Place = BEGINNING, limit: int = 1_000, bytes_max: int = 2**22
    ) -> tuple[Portion, ...]:
        """A function's portions with inputs that have no output, and those inputs by index; oldest portion first.

        Those after a place, until together they have `limit` inputs or more, or values of `bytes_max` or more.
        """

    async def unfinished_indexes(self, call_id: str, first: int = 0, limit: int = 1_000) -> tuple[int, ...]:
        """Indexes of a call's inputs that have no output, from `first` on, at most `limit`."""

    async def put_outputs(self, outputs: tuple[StoredOutput, ...]) -> tuple[bool, ...]:
        """Keep outputs; for each, whether it is the first of its input (the others are forgotten).

        An output whose call does not exist (any more) is not kept: False. Shares transactions as `put_call` does.
        """

    async def get_output(self, call_id: str, index: int) -> StoredOutput | None:
        """The output of one input, or None while there is none.

        Raises PlatformError `not_found` when there is no such call.
        """

    async def first_outputs(self, call_ids: Sequence[str], bytes_max: int = 2**22) -> tuple[StoredOutput, ...]:
        """The outputs of the first inputs of these calls, as many as there are.

        They end with the one that makes their values `bytes_max` or more.
        """

    async def read_outputs(
        self, call_id: str, first: int, count: int, bytes_max: int = 2**22
    ) -> tuple[StoredOutput, ...]:
        """The outputs of input `first` and those after it up to the first one without, at most `count`.

        They end with the one that makes their values `bytes_max` or more. Raises PlatformError `not_found` when there
        is no such call.
        """

    async def output_statuses(self, call_id: str, limit: int = 1_000) -> dict[int, int]:
        """Index to status for those of the first `limit` inputs that have an output."""

    async def expire(self, before: float) -> int:
        """Forget calls whose last input and last output came before that time and which have no unfinished input; how
        many. One that still grows then never will."""

    async def live_blobs(self) -> frozenset[str]:
        """SHA-256 of every blob that a mount, a function, a version, a call or an entry of a dict still names."""

    # What became of calls

    async def list_calls(
        self,
        function_ids: tuple[str, ...],
        limit: int,
        since: float = 0.0,
        until: float | None = None,
        *,
        app_ids: tuple[str, ...] = (),
    ) -> tuple[StoredCall, ...]:
        """Durable calls of these functions, or of these apps (of all, if none is named), newest first."""

    async def get_input(self, call_id: str, index: int) -> StoredInput | None:
        """The arguments of an input: of a durable call, or kept because it failed. None where there are none."""

    async def list_outputs(
        self, call_id: str, first: int, limit: int, *, failed: bool = False
    ) -> tuple[StoredOutput, ...]:
        """Outputs of a durable call from an index on, in order; values only of those that failed.

        With `failed` only these.
        """

    async def count_outputs(self, call_ids: tuple[str, ...]) -> dict[str, OutputCounts]:
        """Of each of these calls that has outputs, how many."""

    async def put_flights(self, flights: tuple[StoredFlight, ...], inputs: tuple[StoredInput, ...], now: float) -> None:
        """Keep flights, in the place of earlier ones of the same calls, and the arguments of inputs that failed."""

    async def get_flight(self, call_id: str) -> StoredFlight | None:
        """What is kept of the call beside its outputs."""

    async def list_flights(
        self,
        function_ids: tuple[str, ...],
        limit: int,
        since: float = 0.0,
        until: float | None = None,
        *,
        failed: bool = False,
        app_ids: tuple[str, ...] = (),
    ) -> tuple[StoredFlight, ...]:
        """Flights of calls of these functions, or of these apps (of all, if none is named), newest first, without
        details.

        With `failed` only those of calls with an input that failed.
        """

    async def kept_inputs(self, call_id: str) -> frozenset[int]:
        """Indexes of the inputs whose arguments are kept because they failed."""

    async def prune_flights(self, limits: FlightLimits) -> int:
        """Forget what is beyond the limits; how many flights and inputs."""

    async def put_minutes(self, minutes: tuple[StoredMinute, ...]) -> None:
        """Keep minutes of functions, in the place of those of the same beginning."""

    async def list_minutes(
        self,
        function_ids: tuple[str, ...],
        since: float,
        until: float,
        limit: int,
        *,
        base_ids: tuple[str, ...] = (),
    ) -> tuple[StoredMinute, ...]:
        """Minutes of these functions, and of all variants of those, that began in that time, by their beginning; of
        more than `limit` the last."""

    async def prune_minutes(self, before: float, count_max: int) -> int:
        """Forget minutes that began before that time, then the oldest beyond that number; how many."""

    # Schedules

    async def put_schedules(self, schedules: tuple[StoredSchedule, ...]) -> None:
        """Keep schedules, each in place of what is there of its function. Shares transactions as `put_call` does."""

    async def forget_schedules(self, function_ids: frozenset[str]) -> None:
        """Forget the schedules of these functions."""

    async def list_schedules(self) -> tuple[StoredSchedule, ...]:
        """All schedules, in no order."""

    # Settings

    async def get_setting(self, name: str) -> str | None:
        """A value kept under a name."""

    async def put_setting(self, name: str, value: str) -> None:
        """Keep a value under a name."""
