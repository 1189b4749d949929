"""What a server refuses, told to people who know none of its methods."""

from __future__ import annotations

import pytest

from squall.exception import ConflictError, Error, OutputExpiredError, ServiceError
from squall.protocol.errors import CONFLICT, EXPIRED, HTTP_STATUS, PlatformError
from squall.sdk._refusals import translate


@pytest.mark.parametrize(
    ("message", "said"),
    [
        ("LogRead: app 'x' has no function 'f'", "cannot read the logs: app 'x' has no function 'f'"),
        ("app x: is stopped", "app x: is stopped"),
        ("no colon at all", "no colon at all"),
    ],
)
def test_method_is_told_in_words(message: str, said: str) -> None:
    error = translate(PlatformError(CONFLICT, message))

    assert isinstance(error, ConflictError)
    assert str(error) == said


def test_outputs_that_have_expired_are_told_from_calls_that_never_were() -> None:
    assert isinstance(translate(PlatformError(EXPIRED, "CallGet: its outputs have expired")), OutputExpiredError)


def test_every_code_has_an_exception() -> None:
    found = {code: type(translate(PlatformError(code, "x"))) for code in HTTP_STATUS}

    assert all(issubclass(one, Error) for one in found.values())
    assert {code for code, one in found.items() if one is ServiceError} == {"timed_out", "unavailable"}
