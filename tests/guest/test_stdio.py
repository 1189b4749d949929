"""Lines of user code carry the input that printed them."""

from __future__ import annotations

import io
import os
import threading

import pytest

from squall.guest.stdio import MarkedStream
from squall.protocol.log import LINE_BYTES_MAX, read_mark, split_mark


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


def read_raw(descriptor: int) -> bytes:
    os.set_blocking(descriptor, False)
    try:
        return os.read(descriptor, 1 << 20)
    except BlockingIOError:
        return b""


def test_flushed_text_leaves_as_a_piece_and_its_line_goes_on() -> None:
    reader, stream = make_stream("in-abc:0")

    print("one ", end="", flush=True, file=stream)
    stream.flush()
    first = read_raw(reader)
    print("two ", end="", flush=True, file=stream)
    print("three\nfour", file=stream)
    stream.flush()

    assert first == b"\x1e+in-abc:0\x1fone \n"
    assert read_raw(reader) == b"\x1e+in-abc:0\x1ftwo \n\x1ein-abc:0\x1fthree\n\x1ein-abc:0\x1ffour\n"


def test_flushed_text_of_an_input_that_ends_is_a_line() -> None:
    reader, stream = make_stream("in-abc:0")

    print("one", end="", flush=True, file=stream)
    stream.end_input("in-abc:0")
    stream.end_input("in-abc:0")
    stream.end()

    assert read_raw(reader) == b"\x1e+in-abc:0\x1fone\n\x1ein-abc:0\x1f\n"


def test_flushed_text_of_threads_that_run_no_input_does_not_mix() -> None:
    reader, stream = make_stream(None)
    thread = threading.Thread(target=lambda: print("there", end="", flush=True, file=stream))

    print("here", end="", flush=True, file=stream)
    thread.start()
    thread.join()
    print(" and on\nplain", file=stream)
    stream.end()

    lines = read_raw(reader).split(b"\n")
    marks = [read_mark(line) for line in lines]
    here, there = marks[0], marks[1]
    assert here is not None
    assert there is not None
    assert here[0] != there[0]
    assert (here[1:], there[1:]) == ((True, b"here"), (True, b"there"))
    assert marks[2] == (here[0], False, b" and on")
    assert lines[3] == b"plain"
    assert marks[4] == (there[0], False, b"")
    assert [split_mark(line)[0] for line in lines] == [""] * 6


def test_progress_bar_is_one_line_of_many_pieces() -> None:
    reader, stream = make_stream("in-abc:0")

    for percent in (10, 20, 30):
        stream.write(f"\r{percent}%")
    stream.write("\r\n")
    stream.write("old\rnew\n")

    texts = [split_mark(line)[1] for line in read_raw(reader).split(b"\n")]
    assert texts == [b"\r10%", b"\r20%", b"\r30%", b"", b"new", b""]


def test_child_does_not_end_a_line_of_its_parent() -> None:
    reader, stream = make_stream("in-abc:0")

    print("one", end="", flush=True, file=stream)
    stream.forked()
    stream.end()

    assert read_raw(reader) == b"\x1e+in-abc:0\x1fone\n"


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
