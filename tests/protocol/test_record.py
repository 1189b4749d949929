"""A record is a frozen dataclass like any other, to Python and to msgspec."""

from __future__ import annotations

import copy
import dataclasses
import pickle

import msgspec
import pytest

from squall.protocol.records import field, from_wire, record, to_wire


@record
class Inner:
    """In another one."""

    x: int = 0


@record
class Outer:
    """With every kind of field."""

    name: str
    inner: Inner = Inner()
    numbers: tuple[int, ...] = ()
    texts: dict[str, str] = field(default_factory=dict)


def test_fields_are_filled_by_position_name_and_default() -> None:
    made = Outer("a", numbers=(1,))

    assert (made.name, made.inner, made.numbers, made.texts) == ("a", Inner(0), (1,), {})
    assert Outer("a").texts is not Outer("a").texts
    with pytest.raises(TypeError, match="name"):
        Outer()  # type: ignore[call-arg]
    with pytest.raises(TypeError, match="other"):
        Outer("a", other=1)  # type: ignore[call-arg]


def test_records_are_compared_by_class_and_value() -> None:
    assert Outer("a") == Outer("a")
    assert Outer("a") != Outer("b")
    different: object = Outer("a")
    assert Inner(1) != different
    assert hash(Inner(1)) == hash(Inner(1))
    assert repr(Outer("a")) == "Outer(name='a', inner=Inner(x=0), numbers=(), texts={})"


def test_record_cannot_be_changed() -> None:
    made = Inner(1)

    with pytest.raises(dataclasses.FrozenInstanceError, match="'x'"):
        made.x = 2  # type: ignore[misc]
    with pytest.raises(dataclasses.FrozenInstanceError, match="'x'"):
        del made.x


def test_dataclasses_pickle_and_copy_take_it() -> None:
    made = Outer("a", Inner(2))

    assert dataclasses.replace(made, name="b") == Outer("b", Inner(2))
    assert dataclasses.asdict(made)["inner"] == {"x": 2}
    assert pickle.loads(pickle.dumps(made)) == copy.deepcopy(made) == made


def test_both_codecs_take_it() -> None:
    made = Outer("a", Inner(2), (1, 2), {"k": "v"})

    assert from_wire(Outer, to_wire(made)) == made
    assert msgspec.json.decode(msgspec.json.encode(made), type=Outer) == made
    with pytest.raises(msgspec.ValidationError):
        msgspec.json.decode(b'{"name": 1}', type=Outer)
