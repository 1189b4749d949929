"""What users see of a traceback: frames of theirs and of containers."""

from __future__ import annotations

import io
import sys
import time
import traceback

import pytest

from squall.exception import DeserializationError, InvalidError, RemoteError, SerializationError
from squall.protocol.call import Failure, TraceFrame, encode_failure
from squall.protocol.log import LogEntry
from squall.sdk._failure import to_exception
from squall.sdk._output import PlainOutput
from squall.sdk._serialization import EXCEPTION_BYTES_MAX, deserialize, encode_exception, raise_failure, serialize
from squall.sdk._traceback import CAUSES_MAX, FRAMES_KEPT, format_for_user

FAILURE = Failure(
    "invalid", "refused", frames=(TraceFrame("/root/app.py", 7, "inner", "broken()"),), container_id="ct-1"
)


def test_our_frames_between_the_users_and_the_containers_are_left_out() -> None:
    try:
        raise_failure(encode_failure(FAILURE))
    except InvalidError as error:
        text = format_for_user(error)

    assert "squall/sdk" not in text
    assert "raise_failure(encode_failure(FAILURE))" in text
    assert 'File "<ct-1>:/root/app.py", line 7, in inner\n    broken()\n' in text


def raised_in(container_id: str) -> tuple[BaseException, list[str]]:
    """An error as its caller has it, and what the container's log says of it."""
    try:
        raise ValueError("wrong")
    except ValueError as error:
        return to_exception(encode_exception(error, container_id)), format_for_user(error).splitlines()


def shown_of(container_id: str, *lines: str) -> PlainOutput:
    output = PlainOutput(io.StringIO(), io.StringIO())
    for line in lines:
        output.log(LogEntry(1.0, "stderr", line, container_id))
        output.log(LogEntry(1.0, "stderr", "of another", "ct-2"))
        output.log(LogEntry(1.0, "stdout", line, "ct-1"))
    return output


def test_frames_of_a_container_that_have_been_shown_are_not_shown_again() -> None:
    error, log = raised_in("ct-1")

    text = format_for_user(error, shown_of("ct-1", *log).has_shown)

    assert text == "Traceback (most recent call last):\n  … in container ct-1, shown above\nValueError: wrong\n"


def test_error_of_ours_stands_for_the_one_that_the_log_has_shown() -> None:
    output = shown_of("ct-1", '  File "/root/app.py", line 7, in inner', "    broken()", "ModuleNotFoundError: gone")

    text = format_for_user(to_exception(encode_failure(FAILURE)), output.has_shown)

    assert "/root/app.py" not in text
    assert text.endswith(
        "  … in container ct-1, shown above\nsquall.exception.InvalidError: refused (container ct-1)\n"
    )


@pytest.mark.parametrize("case", ["of another container", "another text", "another order", "long ago"])
def test_frames_of_a_container_that_have_not_been_shown_are(case: str) -> None:
    error, log = raised_in("ct-1")
    if case == "another text":
        log[-1] = "ValueError: something else"
    elif case == "another order":
        log.reverse()
    elif case == "long ago":
        log += ["later"] * 200
    output = shown_of("ct-2" if case == "of another container" else "ct-1", *log)

    text = format_for_user(error, output.has_shown)

    assert 'test_traceback.py", line' in text
    assert 'raise ValueError("wrong")' in text


def test_cause_in_our_code_is_left_out() -> None:
    try:
        serialize(letter for letter in "x")
    except SerializationError as error:
        text = format_for_user(error)

    assert text.count("Traceback") == 1
    assert "pickle.py" not in text
    assert text.rstrip().splitlines()[-1].startswith("squall.exception.SerializationError: cannot pickle")


def test_cause_of_the_users_stays() -> None:
    try:
        try:
            deserialize(b"no pickle")
        except DeserializationError as error:
            raise ValueError("mine") from error
    except ValueError as error:
        text = format_for_user(error)

    assert text.count("Traceback") == 2
    assert "DeserializationError" in text
    assert "squall/sdk" not in text


def test_frames_in_the_middle_of_a_deep_recursion_are_left_out() -> None:
    def descend(depth: int) -> int:
        return 1 + descend(depth - 1) if depth else 1 // 0

    limit = sys.getrecursionlimit()
    sys.setrecursionlimit(60_000)
    try:
        with pytest.raises(ZeroDivisionError) as caught:
            descend(50_000)
    finally:
        sys.setrecursionlimit(limit)
    started_at = time.monotonic()
    format_for_user(caught.value)  # for the log, before it is sent: shortened once
    value = encode_exception(caught.value)
    elapsed_s = time.monotonic() - started_at

    error = to_exception(value)
    frames = traceback.extract_tb(error.__traceback__)
    assert isinstance(error, ZeroDivisionError)
    assert len(value) < 100_000
    assert elapsed_s < 1.0
    assert 2 * FRAMES_KEPT - 5 < len(frames) <= 2 * FRAMES_KEPT + 1
    assert [frame.name for frame in frames if "left out" in frame.name] == ["<49802 frames left out>"]
    assert "1 // 0" in (frames[-1].line or "")


def test_exception_that_is_too_large_is_told_without_its_object() -> None:
    value = encode_exception(LookupError(b"x" * EXCEPTION_BYTES_MAX))
    error = to_exception(value)

    assert len(value) < 1_000_000
    assert isinstance(error, RemoteError)
    assert str(error).startswith("LookupError: b'xxx")


def test_causes_without_end_are_left_out() -> None:
    error: BaseException = ValueError(0)
    for number in range(1, 20_000):
        following = ValueError(number)
        following.__context__ = error
        error = following

    text = format_for_user(error)

    assert text.count("ValueError") == CAUSES_MAX
    assert text.endswith("ValueError: 19999\n")


def test_error_in_our_code_alone_is_its_message() -> None:
    error = to_exception(encode_failure(Failure("cancelled", "the input was cancelled")))

    assert format_for_user(error) == "squall.exception.RemoteError: the input was cancelled\n"


def test_remote_frames_are_not_told_again_as_text() -> None:
    failure = Failure("import", "cannot load", traceback="Traceback …", frames=FAILURE.frames, container_id="ct-1")

    assert "Traceback …" not in str(to_exception(encode_failure(failure)))
    assert "Traceback …" in str(to_exception(encode_failure(Failure("import", "cannot load", traceback="Traceback …"))))
