"""The fast codec and the standard library's read each other, for every record there is, and refuse what is none."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from squall.main.codec import MsgspecCodec
from squall.protocol.call import InputBatch
from squall.protocol.codec import EVENT, Codec, Envelope, JsonCodec
from squall.protocol.server import ServerStop
from tests.protocol.generated_records import record_types, strategy_of

JSON, FAST = JsonCodec(), MsgspecCodec()
PAIRS: dict[str, tuple[Codec, Codec]] = {
    "json-to-fast": (JSON, FAST),
    "fast-to-json": (FAST, JSON),
    "fast-to-fast": (FAST, FAST),
}
# Making up the larger records takes longer than hypothesis thinks is usual.
MADE_UP = settings(max_examples=15, suppress_health_check=list(HealthCheck))


@pytest.mark.parametrize("record_type", record_types(), ids=lambda record_type: record_type.__name__)
@MADE_UP
@given(data=st.data())
def test_every_record_arrives_as_it_was_sent(record_type: type[Any], data: st.DataObject) -> None:
    # Making a record up costs far more than sending it: each goes every way.
    record = data.draw(strategy_of(record_type))

    for way, (sender, receiver) in PAIRS.items():
        envelope = receiver.decode(sender.encode(EVENT, 0, "Some", record))

        assert receiver.record(record_type, envelope.params) == record, way


@pytest.mark.parametrize(("sender", "receiver"), PAIRS.values(), ids=PAIRS)
@MADE_UP
@given(
    kind=st.sampled_from(["req", "rep", "err", "item", "end", "cancel", "credit", "up", "ev"]),
    number=st.integers(0, 2**53),
    method=st.sampled_from(["", "Hello"]),
    count=st.integers(0, 2**31),
)
def test_every_envelope_arrives_as_it_was_sent(
    sender: Codec, receiver: Codec, kind: str, number: int, method: str, count: int
) -> None:
    envelope = receiver.decode(sender.encode(kind, number, method, None, count))

    assert envelope == Envelope(kind, number, method, count, None)


@pytest.mark.parametrize("codec", [JSON, FAST], ids=["json", "fast"])
@pytest.mark.parametrize("header", [b"", b"[]", b'{"i":1}', b'{"k":1}', b"\xff", b'{"k":"ev"', b"null"])
def test_header_that_is_no_envelope_is_refused(codec: Codec, header: bytes) -> None:
    with pytest.raises(ValueError):
        codec.decode(header)


@pytest.mark.parametrize("codec", [JSON, FAST], ids=["json", "fast"])
@pytest.mark.parametrize("params", [b"[" * 50_000, b"[" * 50_000 + b"]" * 50_000, b'{"a":' * 50_000])
def test_header_of_great_depth_is_refused_like_any_other(codec: Codec, params: bytes) -> None:
    with pytest.raises(ValueError):
        codec.record(ServerStop, codec.decode(b'{"k":"ev","m":"ServerStop","p":' + params + b"}").params)


@pytest.mark.parametrize("codec", [JSON, FAST], ids=["json", "fast"])
def test_fields_of_a_newer_version_are_ignored(codec: Codec) -> None:
    envelope = codec.decode(b'{"k":"ev","m":"ServerStop","z":1,"p":{"is_forced":true,"grace_s":[1,{"a":null}]}}')

    assert codec.record(ServerStop, envelope.params) == ServerStop(is_forced=True)


@pytest.mark.parametrize("codec", [JSON, FAST], ids=["json", "fast"])
def test_absent_parameters_are_all_defaults(codec: Codec) -> None:
    assert codec.record(ServerStop, codec.decode(b'{"k":"req","i":1,"m":"ServerStop"}').params) == ServerStop()


@pytest.mark.parametrize("codec", [JSON, FAST], ids=["json", "fast"])
@pytest.mark.parametrize("params", [b"[]", b"7", b'{"call_id":"fc-1"}', b'{"call_id":"fc-1","indexes":7,"sizes":[]}'])
def test_parameters_that_do_not_fit_are_refused(codec: Codec, params: bytes) -> None:
    envelope = codec.decode(b'{"k":"ev","m":"PutInputs","p":' + params + b"}")

    with pytest.raises(ValueError):
        codec.record(InputBatch, envelope.params)


@pytest.mark.parametrize(
    "params", [b'{"is_forced":"yes"}', b'{"is_forced":1}', b'{"is_forced":null}', b'{"is_forced":[true]}']
)
def test_fast_codec_refuses_wrong_types_and_names_the_place(params: bytes) -> None:
    envelope = FAST.decode(b'{"k":"ev","m":"ServerStop","p":' + params + b"}")

    with pytest.raises(ValueError, match="is_forced"):
        FAST.record(ServerStop, envelope.params)
