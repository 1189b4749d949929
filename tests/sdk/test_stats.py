"""What is said about functions, apps and calls, as `squall.types` has it."""

from __future__ import annotations

from dataclasses import fields
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

import squall
from squall.exception import InvalidError
from squall.protocol.bucket import BucketMount
from squall.protocol.function import (
    CRON,
    PERIOD,
    Batching,
    Definition,
    FunctionSpec,
    Hosting,
    MethodSpec,
    Resources,
    RetryPolicy,
    Scaling,
    Schedule,
)
from squall.sdk import _stats
from squall.sdk._stats import _bucket
from squall.types import FunctionInfo, InputStatus


def spec(**values: Any) -> FunctionSpec:
    return FunctionSpec("fu-1", "ap-1", "f", values.pop("definition", Definition("file")), "im-1", **values)


@pytest.mark.parametrize("days", [0, -1, 7.1])
def test_window_that_cannot_be_is_refused_with_what_may(days: float) -> None:
    until = datetime(2026, 3, 1)

    with pytest.raises(InvalidError, match=r"f\.stats\(\): .*(since must be before until|at most 7 days)"):
        _stats.window("f.stats()", until - timedelta(days=days), until)


@pytest.mark.parametrize("value", ["2h", 5, 1.5])
def test_window_takes_datetimes_only(value: object) -> None:
    with pytest.raises(InvalidError, match="since must be a datetime"):
        _stats.window("f.stats()", value, None)


def test_time_without_a_zone_is_local() -> None:
    here = datetime(2026, 3, 1, 12)

    assert _stats.window("f", here - timedelta(hours=1), here)[1] == here.astimezone(UTC).timestamp()
    assert _stats.window("f", None, None) == (None, None)


def test_app_that_does_not_run_has_no_numbers() -> None:
    with pytest.raises(InvalidError, match="has no id yet"):
        squall.App("x").stats()
    with pytest.raises(InvalidError, match="has no id yet"):
        squall.App("x").info()


def test_function_info_says_what_it_runs_with() -> None:
    found = _stats.info_of(
        spec(
            resources=Resources(1500, 2000, 512, None, 1024),
            scaling=Scaling(max_inputs=8, target_inputs=4, is_single_use=False),
            retries=RetryPolicy(3),
            schedule=Schedule(CRON, cron="0 6 * * *", timezone="Europe/Berlin"),
            is_network_blocked=True,
            hosting=Hosting("aws", ("us-east",), "eu", is_nonpreemptible=True),
        ),
        "web:latest",
    )

    assert (found.cpu, found.memory_mib, found.ephemeral_disk_mib) == ((1.5, 2.0), 512, 1024)
    assert found.concurrency_info == FunctionInfo.ConcurrencyInfo(8, 4)
    assert (found.max_retries, found.schedule, found.block_network) == (3, "0 6 * * * (Europe/Berlin)", True)
    assert found.image_info == FunctionInfo.ImageInfo("web:latest", "im-1")
    assert (found.cloud, found.regions, found.routing_region) == ("aws", ["us-east"], "eu")
    assert found.nonpreemptible
    assert found.batching_info is None
    assert found.method_names is None


def test_function_info_of_batches_classes_and_periods() -> None:
    methods = (MethodSpec("one"), MethodSpec("two"))
    found = _stats.info_of(
        spec(
            definition=Definition("file", is_class=True, methods=methods),
            batching=Batching(16, 50),
            scaling=Scaling(max_inputs=16),
            schedule=Schedule(PERIOD, months=1, seconds=60),
        ),
        None,
    )

    assert found.batching_info == FunctionInfo.BatchingInfo(16, 50)
    assert found.concurrency_info is None, "a batch is not several inputs at once"
    assert (found.method_names, found.schedule) == (["one", "two"], "every 1 months and 60 s")
    assert (found.cpu, found.max_retries) == (None, None)


def test_every_status_of_the_wire_has_one_of_the_surface() -> None:
    from squall.protocol.call import STATUS_NAMES

    assert {_stats._STATUSES[name] for name in STATUS_NAMES} >= {
        InputStatus.SUCCESS, InputStatus.FAILURE, InputStatus.TIMEOUT, InputStatus.TERMINATED,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("name", "decided"),
    [
        ("AppInfo", "app_id description lifecycle functions servers"),
        ("AppLifecycle", "state version created_at created_by deployed_at deployed_by stopped_at stopped_by"),
        ("AppStats", "since until functions servers sandboxes lifecycle deployment_count"),
        ("InputInfo", "input_id function_call_id task_id status function_name module_name children"),
        ("StatsPercentile", "percentile value"),
        ("StatsPercentileDistribution", "unit percentiles"),
        ("CloudBucketMountInfo", "bucket_name bucket_type read_only key_prefix"),
        ("LogEntry", "message timestamp source object_id context_ids"),
        (
            "FunctionStats",
            "since until input_success_count input_failure_count input_timeout_count input_running_at_end_count "
            "input_percentile_stats container_started_count container_error_count container_creating_at_end_count "
            "container_percentile_stats container_total_count variant_count all_variants",
        ),
        (
            "FunctionInfo",
            "cpu memory_mib gpus ephemeral_disk_mib image_info startup_timeout timeout max_retries nonpreemptible "
            "regions routing_region cloud cluster_info batching_info concurrency_info schedule restrict_modal_access "
            "block_network single_use_containers volumes cloud_bucket_mounts secrets web_info "
            "method_names method_details",
        ),
    ],
)
def test_fields_are_the_decided_ones_in_order(name: str, decided: str) -> None:
    assert [field.name for field in fields(getattr(squall.types, name))] == decided.split()


@pytest.mark.parametrize(
    ("url", "kind"),
    [
        ("", "s3"),
        ("https://store.example.com", "s3"),
        ("https://account.r2.cloudflarestorage.com", "r2"),
        ("https://storage.googleapis.com", "gcp"),
    ],
)
def test_a_bucket_is_shown_with_the_kind_of_its_store(url: str, kind: str) -> None:
    shown = _bucket(BucketMount("the-bucket", "/data", url, "a/", is_read_only=True))

    assert (shown.bucket_name, shown.bucket_type, shown.read_only, shown.key_prefix) == ("the-bucket", kind, True, "a/")
