"""Records cross the spawner's socket unchanged."""

from __future__ import annotations

import json
from typing import Any

import pytest

from squall.runtime import codec
from squall.runtime.spec import (
    Bind,
    Bucket,
    ContainerSpec,
    ContainerStatus,
    ContainerUsage,
    ExecSpec,
    ExitStatus,
    IdRange,
    Limits,
    NetworkSlot,
    Volume,
)

SPEC = ContainerSpec(
    container_id="ct-1",
    layers=["/a", "/b"],
    state_dir="/s",
    id_range=IdRange(100_000),
    argv=["sh"],
    env={"A": "ü"},
    user=(1, 2),
    binds=[Bind("/x", "/y", is_read_only=False, is_idmapped=True)],
    buckets=[Bucket("0", "/bucket", "some-bucket", "http://store", "a/", env={"AWS_ACCESS_KEY_ID": "x"})],
    volumes=[Volume("0", "/data", "/t.erofs", "/contents", "/written", "models")],
    limits=Limits(memory_bytes=1, pids_max=None),
    network=NetworkSlot("n", "/n", "10.0.0.2", "10.0.0.1", "nameserver 1.1.1.1", {"P": "q"}),
    labels={"l": "m"},
)


def through_json(values: Any) -> Any:
    return json.loads(json.dumps(values))


def test_container_spec_comes_back_from_json_as_it_was() -> None:
    assert codec.container_spec(through_json(codec.to_json(SPEC))) == SPEC


@pytest.mark.parametrize(
    ("record", "decode"),
    [
        (ExecSpec(["sh"], {}, has_pty=True), codec.exec_spec),
        (ExitStatus(code=None, signal=9, is_oom=True), codec.exit_status),
        (ContainerUsage(1, 2, 3), codec.usage),
    ],
)
def test_small_records_come_back_from_json_as_they_were(record: Any, decode: Any) -> None:
    assert decode(through_json(codec.to_json(record))) == record


@pytest.mark.parametrize("ended", [None, ExitStatus(code=3, signal=None)])
def test_status_comes_back_from_json_as_it_was(ended: ExitStatus | None) -> None:
    status = ContainerStatus("ct-1", 12, {"a": "b"}, ended)

    assert codec.container_status(through_json(codec.status_to_json(status))) == status


def test_unknown_fields_are_ignored_and_missing_ones_default() -> None:
    values = through_json(codec.to_json(SPEC)) | {"of_the_future": 1}
    del values["binds"], values["limits"], values["network"], values["user"]

    spec = codec.container_spec(values)

    assert (spec.binds, spec.limits, spec.network, spec.user) == ([], Limits(), None, (0, 0))
