"""A minute is what it was when it is read again."""

from __future__ import annotations

from squall.server.model.function_minute import FunctionMinute, add_all


def test_a_minute_is_read_as_it_was_written() -> None:
    minute = FunctionMinute("fu-1", 60.0, "fu-0", succeeded=3, started=2, paths={"parked": 2})
    add_all(minute.start_us, [4_000, 5_000])

    assert FunctionMinute.decoded("fu-1", 60.0, minute.encoded(), "fu-0") == minute


def test_what_was_written_before_paths_were_known_has_none() -> None:
    assert FunctionMinute.decoded("fu-1", 60.0, '{"started":2}').paths == {}
