"""Codes are few, known to HTTP, and survive the wire."""

from __future__ import annotations

import pytest

from squall.protocol import errors
from squall.protocol.errors import HTTP_STATUS, ChannelClosed, ErrorRecord, PlatformError


def test_every_code_has_a_status_and_one_of_its_own_where_http_has_one() -> None:
    codes = {value for name, value in vars(errors).items() if name.isupper() and isinstance(value, str)}

    assert codes == set(HTTP_STATUS)
    assert len(set(HTTP_STATUS.values())) == len(HTTP_STATUS) - 1
    assert HTTP_STATUS["exists"] == HTTP_STATUS["conflict"]
    assert all(status >= 400 for status in HTTP_STATUS.values())


@pytest.mark.parametrize("code", HTTP_STATUS)
def test_error_survives_the_wire(code: str) -> None:
    error = ErrorRecord(code, "what to do").to_error()

    assert (error.code, error.message, str(error)) == (code, "what to do", "what to do")


def test_unknown_code_of_a_newer_version_is_internal() -> None:
    assert PlatformError("invented_later", "x").code == "internal"


def test_closed_channel_is_unavailable() -> None:
    assert ChannelClosed().code == "unavailable"
