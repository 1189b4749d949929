"""Records survive the wire, and bytes of earlier versions keep decoding."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from squall.protocol.app import AppCreate, AppInfo
from squall.protocol.call import CallOpen, CallSpawn, InputBatch
from squall.protocol.errors import ErrorRecord
from squall.protocol.records import RecordError, from_wire, replace, to_wire
from tests.protocol.generated_records import record_types, strategy_of

SAMPLES: dict[str, dict[str, Any]] = {
    f"{path.stem}:{name}": value
    for path in sorted((Path(__file__).parent / "samples").glob("*.json"))
    for name, value in json.loads(path.read_text(encoding="utf-8")).items()
}
BY_NAME = {record_type.__name__: record_type for record_type in record_types()}


@pytest.mark.parametrize("record_type", record_types(), ids=lambda record_type: record_type.__name__)
@settings(max_examples=15, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_every_record_survives_the_wire(record_type: type[Any], data: st.DataObject) -> None:
    record = data.draw(strategy_of(record_type))

    text = json.dumps(to_wire(record))

    assert from_wire(record_type, json.loads(text)) == record


def holds(value: Any, sample: Any) -> bool:
    """Whether a decoded value says everything that its bytes said."""
    if dataclasses.is_dataclass(value):
        return all(holds(getattr(value, name), part) for name, part in sample.items())
    if isinstance(value, dict):
        return value.keys() == sample.keys() and all(holds(value[key], sample[key]) for key in sample)
    if isinstance(value, tuple):
        return len(value) == len(sample) and all(map(holds, value, sample))
    return bool(value == sample)


@pytest.mark.parametrize("name", SAMPLES)
def test_old_bytes_keep_decoding(name: str) -> None:
    record_type = BY_NAME[name.partition(":")[2]]

    record = from_wire(record_type, SAMPLES[name])

    assert holds(record, SAMPLES[name]), f"{record} has lost something of {SAMPLES[name]}"


def test_every_record_has_a_stored_sample() -> None:
    """The samples of a version are written once, when it is released, and never again."""
    assert {name.partition(":")[2] for name in SAMPLES} == set(BY_NAME)


def test_replaced_field_leaves_the_others_and_the_record_as_they_were() -> None:
    before = CallOpen("fc-1", "fu-1", "map")

    assert replace(before, kind="spawn") == CallOpen("fc-1", "fu-1", "spawn")
    assert before.kind == "map"
    with pytest.raises(TypeError, match="no_field"):
        replace(before, no_field=1)


def test_defaults_are_left_out() -> None:
    assert to_wire(CallOpen("fc-1", "fu-1", "map")) == {"call_id": "fc-1", "function_id": "fu-1", "kind": "map"}


def test_nested_records_and_columns_are_plain_json() -> None:
    spawn = CallSpawn(CallOpen("fc-1", "fu-1", "spawn"), InputBatch("fc-1", (0,), (5,)))

    assert to_wire(spawn) == {
        "call": {"call_id": "fc-1", "function_id": "fu-1", "kind": "spawn"},
        "inputs": {"call_id": "fc-1", "indexes": (0,), "sizes": (5,)},
    }


def test_unknown_fields_are_ignored_and_missing_ones_take_their_default() -> None:
    record = from_wire(AppCreate, {"app_id": "ap-1", "invented_later": {"deep": [1]}})

    assert record == AppCreate("ap-1")


@pytest.mark.parametrize("value", [None, [], "x", 7, {}, {"code": "x"}])
def test_value_that_does_not_fit_is_refused_by_name(value: Any) -> None:
    with pytest.raises(RecordError, match="ErrorRecord"):
        from_wire(ErrorRecord, value)


def test_error_in_a_nested_record_names_the_way() -> None:
    with pytest.raises(RecordError, match="CallSpawn: CallOpen"):
        from_wire(CallSpawn, {"call": {"call_id": "fc-1"}, "inputs": {}})


def test_none_is_a_value_where_the_type_says_so() -> None:
    record = AppInfo("ap-1", "hello", "stopped", 1.0, stopped_at=None)

    assert from_wire(AppInfo, to_wire(record)) == record
