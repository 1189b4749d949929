"""Lines of user code carry the input that printed them."""

from __future__ import annotations

import io
import os
import threading

import pytest

from squall.guest.stdio import MarkedStream
from squall.protocol.log import LINE_BYTES_MAX, split_mark


def read_lines(descriptor: int) -> list[tuple[str, bytes]]:
    os.set_blocking(descriptor, False)
    data = b""
    try:
        while chunk := os.read(descriptor, 1 << 20):
            data += chunk
    except BlockingIOError:
        pass
    return [split_mark(line) for line in data.splitlines()]


def make_stream(input_id: str | None) -> tuple[int, MarkedStream]:
    reader, writer = os.pipe()
    return reader, MarkedStream(writer, "<stdout>", lambda: input_id)


def test_each_line_names_its_input() -> None:
    reader, stream = make_stream("in-abc:4")

    print("one\ntwo", file=stream)

    assert read_lines(reader) == [("in-abc:4", b"one"), ("in-abc:4", b"two")]


def test_lines_outside_inputs_carry_no_mark() -> None:
    reader, stream = make_stream(None)

    print("loading", file=stream)

    assert read_lines(reader) == [("", b"loading")]


def test_unfinished_line_leaves_with_its_input() -> None:
    reader, stream = make_stream("in-abc:0")

    stream.write("no newline")
    before = read_lines(reader)
    stream.end_input("in-abc:0")

    assert before == []
    assert read_lines(reader) == [("in-abc:0", b"no newline")]


def test_unfinished_line_of_a_thread_leaves_when_an_input_ends_after_it() -> None:
    reader, stream = make_stream(None)
    go_on = threading.Event()
    ended = threading.Thread(target=stream.write, args=("of one that ended",))
    going_on = threading.Thread(target=lambda: (stream.write("of one "), go_on.wait(5), stream.write("that goes on\n")))

    ended.start()
    ended.join()
    going_on.start()
    stream.end_input("in-abc:0")
    before = read_lines(reader)
    go_on.set()
    going_on.join()

    assert before == [("", b"of one that ended")]
    assert read_lines(reader) == [("", b"of one that goes on")]


def test_unfinished_lines_of_threads_do_not_mix() -> None:
    reader, stream = make_stream(None)
    thread = threading.Thread(target=stream.write, args=("there\n",))

    stream.write("here")
    thread.start()
    thread.join()
    stream.write(" and on\n")

    assert read_lines(reader) == [("", b"there"), ("", b"here and on")]


def test_nothing_is_left_when_the_process_ends() -> None:
    reader, stream = make_stream(None)

    stream.write("loading")
    stream.end()

    assert read_lines(reader) == [("", b"loading")]


def test_progress_bar_becomes_lines() -> None:
    reader, stream = make_stream(None)

    stream.write("\r10%")
    stream.write("\r20%\r\n")

    assert [text for _, text in read_lines(reader)] == [b"", b"10%", b"20%"]


def test_long_line_is_cut_and_nothing_is_lost() -> None:
    reader, stream = make_stream("in-abc:0")

    print("x" * (2 * LINE_BYTES_MAX + 5), file=stream)

    lines = read_lines(reader)
    assert [len(text) for _, text in lines] == [LINE_BYTES_MAX, LINE_BYTES_MAX, 5]
    assert {input_id for input_id, _ in lines} == {"in-abc:0"}


def test_what_cannot_be_encoded_is_escaped() -> None:
    reader, stream = make_stream(None)

    print("\udcff", file=stream)

    assert read_lines(reader) == [("", b"\\udcff")]


def test_lines_of_threads_do_not_mix() -> None:
    reader, writer = os.pipe()
    local = threading.local()
    stream = MarkedStream(writer, "<stdout>", lambda: getattr(local, "input_id", None))

    def speak(number: int) -> None:
        local.input_id = f"in-x:{number}"
        for _ in range(50):
            stream.write(f"{number}")
            stream.write(f"{number}\n")

    threads = [threading.Thread(target=speak, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    lines = read_lines(reader)
    assert len(lines) == 200
    assert all(text.decode() == input_id[-1] * 2 for input_id, text in lines)


def test_bytes_pass_through_the_buffer() -> None:
    reader, stream = make_stream("in-abc:0")

    buffer = stream.buffer
    buffer.write(b"raw\n")
    buffer.flush()

    assert read_lines(reader) == [("", b"raw")]


def test_stream_is_configured_as_a_plain_one_and_stays_what_it_is() -> None:
    reader, stream = make_stream("in-abc:0")

    stream.reconfigure(line_buffering=True, encoding="utf-8", errors="strict")
    print("line", file=stream)

    assert (stream.line_buffering, stream.write_through) == (True, False)
    assert read_lines(reader) == [("in-abc:0", b"line")]
    with pytest.raises(TypeError, match="buffering"):
        stream.reconfigure(buffering=1)  # type: ignore[call-arg]
    with pytest.raises(io.UnsupportedOperation, match="latin-1"):
        stream.reconfigure(encoding="latin-1")
