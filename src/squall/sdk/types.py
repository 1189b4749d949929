"""What methods of Squall's objects return: plain records, without behaviour. Later versions may add fields."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from enum import Enum
from typing import Any, Literal

from squall.sdk.function import FunctionCurrentStats as FunctionCurrentStats

Amount = float | tuple[float, float] | None
"""A request, or a request and a limit; None: a share of what is there."""


@dataclass(frozen=True)
class FunctionAutoscalerSettings:
    """What the autoscaler of a function goes by now: returned by `Function.autoscaler.settings()` and `update()`."""

    min_containers: int | None
    max_containers: int | None
    """None when the function may have as many as it needs."""
    scaledown_window: int | None
    """Seconds."""
    buffer_containers: int | None


@dataclass(frozen=True)
class ServerAutoscalerSettings:
    """What the autoscaler of a server goes by now: returned by `Server.autoscaler.settings()` and `update()`."""

    target_concurrency: int | float | None
    """Requests of a container; None: as many as it may be given at once."""
    min_containers: int | None
    max_containers: int | None
    """None when the server may have as many as it needs."""
    buffer_containers: int | None
    scaleup_window: int | None
    """Seconds; None: more containers start at once."""
    scaledown_window: int | None
    """Seconds."""


@dataclass(frozen=True)
class DictInfo:
    """About a dict."""

    name: str | None
    """None of an ephemeral one."""
    created_at: datetime
    created_by: str | None


@dataclass(frozen=True)
class QueueInfo:
    """About a queue."""

    name: str | None
    """None of an ephemeral one."""
    created_at: datetime
    created_by: str | None


class AppState(Enum):
    """How far an app is."""

    EPHEMERAL = "ephemeral"
    DETACHED = "detached"
    DEPLOYED = "deployed"
    STOPPING = "stopping"
    STOPPED = "stopped"
    INITIALIZING = "initializing"
    DISABLED = "disabled"


@dataclass(frozen=True)
class AppLifecycle:
    """An app's state, and when it came to it."""

    state: AppState
    version: int | None
    created_at: datetime
    created_by: str
    deployed_at: datetime | None = None
    deployed_by: str | None = None
    stopped_at: datetime | None = None
    stopped_by: str | None = None


@dataclass(frozen=True)
class AppInfo:
    """About an app."""

    app_id: str
    description: str
    lifecycle: AppLifecycle
    functions: dict[str, str]
    """Name to id."""
    servers: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class AppStats:
    """What an app did in a stretch of time."""

    @dataclass(frozen=True)
    class CallCounts:
        """Inputs that ended."""

        total: int
        succeeded: int
        failed: int

    @dataclass(frozen=True)
    class ContainerCounts:
        """Containers that were there, and those that failed."""

        errors: int
        total: int

    @dataclass(frozen=True)
    class RequestCounts:
        """Requests to a server."""

        total: int
        ok: int
        failed: int

    @dataclass(frozen=True)
    class FunctionCounts:
        """Of a function, or of several."""

        calls: AppStats.CallCounts
        containers: AppStats.ContainerCounts

    @dataclass(frozen=True)
    class ServerCounts:
        """Of a server, or of several."""

        requests: AppStats.RequestCounts
        containers: AppStats.ContainerCounts

    @dataclass(frozen=True)
    class FunctionStats:
        """Of one function."""

        object_id: str
        counts: AppStats.FunctionCounts

    @dataclass(frozen=True)
    class ServerStats:
        """Of one server."""

        object_id: str
        counts: AppStats.ServerCounts

    @dataclass(frozen=True)
    class FunctionStatsGroup:
        """Of all functions."""

        total: AppStats.FunctionCounts
        by_name: dict[str, AppStats.FunctionStats]

    @dataclass(frozen=True)
    class ServerStatsGroup:
        """Of all servers."""

        total: AppStats.ServerCounts
        by_name: dict[str, AppStats.ServerStats]

    @dataclass(frozen=True)
    class SandboxCounts:
        """Of sandboxes."""

        total: int
        finished: int
        live: int

    since: datetime
    until: datetime
    functions: FunctionStatsGroup
    servers: ServerStatsGroup
    sandboxes: SandboxCounts
    lifecycle: AppLifecycle
    deployment_count: int | None


@dataclass(frozen=True)
class FunctionInfo:
    """About a function. What there is not in Squall is None, or nothing."""

    @dataclass(frozen=True)
    class WebInfo:
        """Of a web function."""

        web_url: str
        method: str
        unauthenticated: bool

    @dataclass(frozen=True)
    class ImageInfo:
        """Its image."""

        image_name: str | None
        image_id: str

    @dataclass(frozen=True)
    class ClusterInfo:
        """Of a function that runs on several containers at once."""

        size: int
        rdma: bool
        fabric_size: int | None = None

    @dataclass(frozen=True)
    class BatchingInfo:
        """Of one that takes batches."""

        max_batch_size: int
        wait_ms: int

    @dataclass(frozen=True)
    class ConcurrencyInfo:
        """Of one that runs several inputs at once."""

        max_inputs: int
        target_inputs: int | None

    cpu: Amount
    memory_mib: Amount
    gpus: list[tuple[str, int]]
    ephemeral_disk_mib: int | None
    image_info: ImageInfo
    startup_timeout: int | None
    timeout: int
    max_retries: int | None
    nonpreemptible: bool
    regions: list[str] | None
    routing_region: str | None
    cloud: str | None
    cluster_info: ClusterInfo | None
    batching_info: BatchingInfo | None
    concurrency_info: ConcurrencyInfo | None
    schedule: str | None
    restrict_modal_access: bool
    block_network: bool
    single_use_containers: bool
    volumes: dict[str, Any]
    cloud_bucket_mounts: dict[str, CloudBucketMountInfo]
    secrets: list[str]
    web_info: WebInfo | None
    method_names: list[str] | None
    method_details: dict[str, WebInfo] | None


@dataclass(frozen=True)
class StatsPercentile:
    """One percentile of a distribution."""

    percentile: float
    value: float


@dataclass(frozen=True)
class StatsPercentileDistribution:
    """How values are spread; right to about 5 %."""

    unit: str
    percentiles: list[StatsPercentile]


@dataclass(frozen=True)
class FunctionStats:
    """What a function did in a stretch of time; counts at its two ends are right to about a minute."""

    since: datetime
    until: datetime
    input_success_count: int
    input_failure_count: int
    input_timeout_count: int
    input_running_at_end_count: int
    input_percentile_stats: dict[str, StatsPercentileDistribution]
    """`queue_time` and `run_time`."""
    container_started_count: int
    container_error_count: int
    container_creating_at_end_count: int
    container_percentile_stats: dict[str, StatsPercentileDistribution]
    """`startup_time`: from the request for a container until it was ready."""
    container_total_count: int
    variant_count: int
    all_variants: bool


@dataclass(frozen=True)
class ServerInfo:
    """About a server. What there is not in Squall is None, or nothing."""

    @dataclass(frozen=True)
    class ImageInfo:
        """Its image."""

        image_name: str | None
        image_id: str

    @dataclass(frozen=True)
    class ClusterInfo:
        """Of a server that runs on several containers at once."""

        size: int
        rdma: bool
        fabric_size: int | None = None

    server_url: str
    port: int
    """At which it listens in its containers."""
    unauthenticated: bool
    h2_enabled: bool
    routing_region: str | None
    sessioned: bool
    startup_timeout: int
    exit_grace_period: int
    image_info: ImageInfo
    cpu: Amount
    memory_mib: Amount
    gpus: list[tuple[str, int]]
    ephemeral_disk_mib: int | None
    nonpreemptible: bool
    compute_regions: list[str] | None
    cloud: str | None
    cluster_info: ClusterInfo | None
    volumes: dict[str, VolumeMountInfo]
    cloud_bucket_mounts: dict[str, CloudBucketMountInfo]
    secrets: list[str]


@dataclass(frozen=True)
class ServerStats:
    """What a server did in a stretch of time; counts at its two ends are right to about a minute."""

    @dataclass(frozen=True)
    class InferenceStats:
        """Of a server of a language model."""

        engine: str
        status: str
        percentile_stats: dict[str, StatsPercentileDistribution]
        scalar_stats: dict[str, float]

    since: datetime
    until: datetime
    request_count: int
    request_count_by_status_code: dict[int, int]
    """Empty: requests are not counted by their status."""
    request_rate_per_second: float
    request_percentile_stats: dict[str, StatsPercentileDistribution]
    """`queue_time` and `run_time`."""
    container_started_count: int
    container_error_count: int
    container_creating_at_end_count: int
    container_total_count: int
    container_percentile_stats: dict[str, StatsPercentileDistribution]
    """`startup_time`: from the request for a container until something listened."""
    inference: InferenceStats | None


@dataclass(frozen=True)
class LogEntry:
    """One line."""

    message: str
    timestamp: datetime
    """When it was printed, in UTC."""
    source: Literal["stdout", "stderr", "system"]
    object_id: str
    """Of what it is a line: an image, a function, or an app."""
    context_ids: list[str] = field(default_factory=list)
    """The app, the container and the input, as far as there are any."""


class InputStatus(Enum):
    """How far an input is."""

    PENDING = "pending"
    SUCCESS = "success"
    FAILURE = "failure"
    INIT_FAILURE = "init_failure"
    TERMINATED = "terminated"
    TIMEOUT = "timeout"


@dataclass(frozen=True)
class InputInfo:
    """One input of a call graph."""

    input_id: str
    function_call_id: str
    task_id: str
    """The container that ran it last; empty while none has."""
    status: InputStatus
    function_name: str
    module_name: str
    children: list[InputInfo] = field(default_factory=list)


class FileEntryType(Enum):
    """What is at a path of a volume."""

    UNSPECIFIED = 0
    FILE = 1
    DIRECTORY = 2
    SYMLINK = 3
    FIFO = 4
    SOCKET = 5


@dataclass(frozen=True)
class FileEntry:
    """What is in a directory of a volume: returned by `Volume.listdir()` and `iterdir()`."""

    path: str
    """From the top of the volume, without a slash before it."""
    type: FileEntryType
    mtime: int
    """Seconds since 1970."""
    size: int
    """Bytes; 0 of a directory."""


@dataclass(frozen=True)
class ProxyTokenInfo:
    """About a proxy token; never its secret: returned by `Workspace.proxy_tokens.list()`."""

    token_id: str
    created_at: datetime
    scoped: bool
    """It opens web functions of `environment_names` only; else of every environment."""
    name: str
    created_by: str
    environment_names: list[str] = field(default_factory=list)
    last_used: datetime | None = None
    """When it opened something last, as of an hour ago at most after a restart of the server."""


@dataclass(frozen=True)
class TokenData:
    """A token that was just made: returned by `Workspace.proxy_tokens.create()`."""

    token_id: str
    token_secret: str = field(repr=False)
    """Nobody else has it: keep it."""


@dataclass(frozen=True)
class SecretInfo:
    """About a secret; never what is in it."""

    name: str | None
    environment_name: str
    created_at: datetime
    created_by: str | None
    last_used: datetime | None
    """When a container or a build was last given it."""


@dataclass(frozen=True)
class VolumeMountInfo:
    """A volume of a function: in `FunctionInfo.volumes`, by the path it is mounted at."""

    name: str | None
    volume_id: str | None
    read_only: bool
    sub_path: str | None


@dataclass(frozen=True)
class CloudBucketMountInfo:
    """A bucket of a function: in `FunctionInfo.cloud_bucket_mounts`, by the path it is mounted at."""

    bucket_name: str
    bucket_type: Literal["s3", "r2", "gcp"]
    read_only: bool
    key_prefix: str | None


@dataclass(frozen=True)
class VolumeInfo:
    """About a volume."""

    name: str | None
    """None of an ephemeral one."""
    created_at: datetime
    created_by: str | None


@dataclass(frozen=True)
class VolumeCreateOptions:
    """How to make a volume, for programs of elsewhere; none of it means anything here."""

    experimental_options: dict[str, Any] = field(default_factory=dict)
