"""What a server refuses, told to people who know none of its methods."""

from __future__ import annotations

import pytest

from squall.exception import ConflictError, Error, OutputExpiredError, ServiceError
from squall.protocol.call import Failure, encode_failure
from squall.protocol.errors import CONFLICT, EXPIRED, HTTP_STATUS, PlatformError
from squall.protocol.methods import CLIENT, METHODS
from squall.sdk._failure import to_exception
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


@pytest.mark.parametrize("name", sorted(name for name, method in METHODS.items() if method.asked_by == CLIENT))
def test_no_method_that_a_client_asks_is_told_by_its_name(name: str) -> None:
    assert name not in str(translate(PlatformError(CONFLICT, f"{name}: no")))


def test_call_that_is_refused_is_told_in_words() -> None:
    refused = Failure("exhausted", "CallOpen: call fc-1: too many calls are open; let some of them end first")

    said = str(to_exception(encode_failure(refused)))

    assert said == "cannot call the function: call fc-1: too many calls are open; let some of them end first"


def test_outputs_that_have_expired_are_told_from_calls_that_never_were() -> None:
    assert isinstance(translate(PlatformError(EXPIRED, "CallGet: its outputs have expired")), OutputExpiredError)


def test_every_code_has_an_exception() -> None:
    found = {code: type(translate(PlatformError(code, "x"))) for code in HTTP_STATUS}

    assert all(issubclass(one, Error) for one in found.values())
    assert {code for code, one in found.items() if one is ServiceError} == {"timed_out", "unavailable"}
