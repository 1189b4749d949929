"""Output of containers: by line, in order, within bounds, and complete before the end."""

from __future__ import annotations

import asyncio
import fcntl
import os
import struct
import termios
import time
from collections.abc import AsyncIterator, Awaitable
from pathlib import Path

import pytest

from squall.agent import logs
from squall.agent.flood import END_BYTES_MAX
from squall.agent.logs import Logs
from squall.main.codec import MsgspecCodec
from squall.protocol.frames import HEADER_BYTES_MAX
from squall.protocol.log import GOES_ON, LINE_BYTES_MAX, MARK, SEPARATOR, LogEntry
from squall.protocol.log_batches import BATCH_LINES
from squall.protocol.pages import size_of
from tests.agent.parts import until


class Printer:
    """A container's ends of its pipes."""

    def __init__(self, into: Logs, container_id: str = "ct-1") -> None:
        stdout_fd, self.stdout = os.pipe()
        stderr_fd, self.stderr = os.pipe()
        for descriptor in (stdout_fd, stderr_fd):
            os.set_blocking(descriptor, False)
        self.catch_up = into.add(container_id, "ap-1", "fu-1", stdout_fd, stderr_fd)

    async def has_been_read(self) -> None:
        """Return when what was printed to stdout has been taken out of its pipe."""
        await until(lambda: not _unread_bytes(self.stdout))

    def end(self) -> None:
        for name in ("stdout", "stderr"):
            if getattr(self, name) >= 0:
                os.close(getattr(self, name))
                setattr(self, name, -1)


def _unread_bytes(pipe: int) -> int:
    (count,) = struct.unpack("i", fcntl.ioctl(pipe, termios.FIONREAD, bytes(4)))
    return int(count)


def taken(from_logs: Logs) -> list[LogEntry]:
    entries: list[LogEntry] = []
    while (batch := from_logs.take()) is not None:
        assert len(batch.entries) <= BATCH_LINES
        entries.extend(batch.entries)
    return entries


async def taken_until(from_logs: Logs, text: str) -> list[LogEntry]:
    """What comes, until a line with this text has."""
    entries: list[LogEntry] = []

    def is_there() -> bool:
        entries.extend(taken(from_logs))
        return any(entry.text == text for entry in entries)

    await until(is_there)
    return entries


@pytest.fixture
async def reading() -> AsyncIterator[tuple[Logs, Printer]]:
    made = Logs(now=lambda: 12.5)
    printer = Printer(made)
    yield made, printer
    printer.end()
    made.close()


@pytest.fixture
def narrow(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nearly nothing may be printed without being a flood."""
    monkeypatch.setattr(logs, "BURST_BYTES", 200_000)
    monkeypatch.setattr(logs, "RATE_BYTES_S", 1)


Reading = tuple[Logs, Printer]


async def test_lines_come_with_their_source_time_and_input(reading: Reading) -> None:
    made, printer = reading
    os.write(printer.stdout, MARK + b"in-abc:0" + SEPARATOR + b"hello\nplain\r\n")
    os.write(printer.stderr, "größe\n".encode())

    await asyncio.wait_for(made.wait(), 5)
    entries = {entry.text: entry for entry in taken(made)}

    assert entries["hello"] == LogEntry(12.5, "stdout", "hello", "ct-1", "in-abc:0", "ap-1", "fu-1")
    assert entries["plain"].input_id == ""
    assert entries["größe"].source == "stderr"


async def test_a_line_that_comes_in_pieces_is_one_line(reading: Reading) -> None:
    made, printer = reading
    os.write(printer.stdout, b"be")
    await printer.has_been_read()
    os.write(printer.stdout, b"gin")
    await printer.has_been_read()
    assert made.take() is None
    os.write(printer.stdout, b"ning\n\n")

    await asyncio.wait_for(made.wait(), 5)

    assert [entry.text for entry in taken(made)] == ["beginning", ""]


async def test_a_long_line_is_cut_and_its_pieces_keep_their_input(reading: Reading) -> None:
    made, printer = reading
    text = b"x" * (2 * LINE_BYTES_MAX + 10)
    os.write(printer.stdout, MARK + b"in-abc:7" + SEPARATOR + text[:30_000])
    await printer.has_been_read()
    os.write(printer.stdout, text[30_000:] + b"\nnext\n")

    await printer.has_been_read()
    entries = taken(made)

    assert "".join(entry.text for entry in entries[:-1]) == text.decode()
    assert {entry.input_id for entry in entries[:-1]} == {"in-abc:7"}
    assert (entries[-1].text, entries[-1].input_id) == ("next", "")
    assert all(len(entry.text) <= LINE_BYTES_MAX for entry in entries)


@pytest.mark.long
async def test_batches_fit_a_frame_whatever_is_in_the_lines(reading: Reading) -> None:
    made, printer = reading
    for _ in range(100):
        os.write(printer.stdout, LINE_BYTES_MAX * b"\x1b" + b"\n")
        await printer.has_been_read()

    batches = list(iter(made.take, None))

    assert sum(len(batch.entries) for batch in batches) == 100
    assert max(size_of(MsgspecCodec(), batch) for batch in batches) < HEADER_BYTES_MAX / 4


async def test_what_is_in_the_pipes_at_the_end_is_taken_without_waiting(reading: Reading) -> None:
    made, printer = reading
    os.write(printer.stdout, b"one\ntwo\nno newline")
    os.write(printer.stderr, b"bad\n")

    made.finish("ct-1")

    assert sorted(entry.text for entry in taken(made)) == ["bad", "no newline", "one", "two"]


async def test_finishing_does_not_wait_for_a_pipe_that_somebody_holds_open(reading: Reading) -> None:
    made, printer = reading

    started = time.monotonic()
    made.finish("ct-1")
    made.finish("ct-1")

    assert time.monotonic() - started < 1
    with pytest.raises(BrokenPipeError):
        os.write(printer.stdout, b"x")


@pytest.mark.long
async def test_a_flood_is_dropped_visibly_within_bounds_and_never_blocks_its_writer() -> None:
    made = Logs(now=lambda: 0.0)
    printer = Printer(made)
    line = b"y" * 99 + b"\n"
    count = 100 * 2**20 // len(line)
    bytes_written = 0

    def flood() -> None:
        nonlocal bytes_written
        chunk = line * 600
        for _ in range(count // 600):
            bytes_written += os.write(printer.stdout, chunk)
        printer.end()

    started = time.monotonic()
    flooding = asyncio.get_running_loop().run_in_executor(None, flood)
    entries: list[LogEntry] = []
    while not flooding.done():
        await asyncio.sleep(0.01)
        assert made._pending_bytes <= logs.PENDING_BYTES_MAX
        entries.extend(taken(made))
    await flooding
    await asyncio.sleep(0.05)
    made.finish("ct-1")
    entries.extend(taken(made))
    took_s = time.monotonic() - started

    dropped = sum(int(entry.text.split()[1]) for entry in entries if entry.source == "system")
    kept = sum(entry.source != "system" for entry in entries)
    kept_bytes_max = logs.BURST_BYTES + (took_s + 1) * logs.RATE_BYTES_S
    assert took_s < 30
    assert 0 < kept * len(line) <= kept_bytes_max
    assert kept + dropped == bytes_written // len(line)
    assert sum(entry.source == "system" for entry in entries) <= took_s / logs.OVER_S + 2


@pytest.mark.long
async def test_one_flood_does_not_cost_another_container_a_line() -> None:
    made = Logs(now=lambda: 0.0)
    noisy, quiet = Printer(made, "ct-noisy"), Printer(made, "ct-quiet")
    os.set_blocking(noisy.stdout, False)

    for number in range(200):
        try:
            os.write(noisy.stdout, b"n\n" * 30_000)
        except BlockingIOError:
            pass
        os.write(quiet.stdout, f"line {number}\n".encode())
        await asyncio.sleep(0.002)
    made.finish("ct-quiet")
    entries = taken(made)
    noisy.end()
    quiet.end()
    made.close()

    assert [entry.text for entry in entries if entry.container_id == "ct-quiet"] == [f"line {n}" for n in range(200)]
    assert any(entry.source == "system" for entry in [*entries, *taken(made)])


def piece(text: bytes, label: bytes = b"in-abc:0") -> bytes:
    return MARK + GOES_ON + label + SEPARATOR + text + b"\n"


def whole(text: bytes, label: bytes = b"in-abc:0") -> bytes:
    return MARK + label + SEPARATOR + text + b"\n"


@pytest.mark.long
async def test_text_that_was_flushed_is_told_soon_and_once_more_as_a_whole_line(reading: Reading) -> None:
    made, printer = reading
    os.write(printer.stdout, piece(b"one ") + piece(b"two "))

    passing = await taken_until(made, "one two ")
    await asyncio.sleep(0.3)
    silence = taken(made)
    os.write(printer.stdout, whole(b"three"))
    (line,) = await taken_until(made, "one two three")

    assert [(entry.stage, entry.input_id, entry.source) for entry in passing] == [("passing", "in-abc:0", "stdout")]
    assert silence == []
    assert line.stage == ""


async def test_pieces_of_several_inputs_and_threads_make_lines_of_their_own(reading: Reading) -> None:
    made, printer = reading
    os.write(printer.stdout, piece(b"a") + piece(b"b", b"in-abc:1") + piece(b"c", b"~7") + piece(b"d", b"~8"))
    os.write(printer.stdout, whole(b"A", b"in-abc:0") + whole(b"D", b"~8") + whole(b"C", b"~7") + b"plain\n")
    made.finish("ct-1")

    assert [(entry.input_id, entry.text) for entry in taken(made)] == [
        ("in-abc:0", "aA"),
        ("", "dD"),
        ("", "cC"),
        ("", "plain"),
        ("in-abc:1", "b"),
    ]


async def test_progress_is_told_as_it_is_then_and_kept_as_it_was_last(reading: Reading) -> None:
    made, printer = reading
    for percent in range(100):
        os.write(printer.stdout, piece(b"\r%d%%" % percent))
    os.write(printer.stdout, b"from a child: 1%\rfrom a child: 2%\r\n")
    passing = await taken_until(made, "99%")
    os.write(printer.stdout, piece(b"\r100%") + whole(b""))
    (last,) = await taken_until(made, "100%")

    assert [(entry.text, entry.stage) for entry in passing if entry.input_id] == [("99%", "passing")]
    assert [entry.text for entry in passing if not entry.input_id] == ["from a child: 2%"]
    assert last.stage == ""


@pytest.mark.long
async def test_line_that_goes_on_for_long_is_told_to_all_now_and_then(
    reading: Reading, monkeypatch: pytest.MonkeyPatch
) -> None:
    made, printer = reading
    monkeypatch.setattr(logs, "STANDING_S", 0.3)
    entries: list[LogEntry] = []
    for percent in range(100):
        os.write(printer.stdout, piece(b"\r%d%%" % percent))
        await asyncio.sleep(0.01)
        entries.extend(taken(made))
    await asyncio.sleep(0.5)
    entries.extend(taken(made))
    await asyncio.sleep(0.5)

    standing = [entry.text for entry in entries if entry.stage == "standing"]
    assert 2 <= len(standing) <= 6
    assert standing[-1] == "99%"
    assert len([entry for entry in entries if entry.stage == "passing"]) <= 20
    assert taken(made) == []


async def test_lines_that_go_on_without_end_stay_within_bounds(reading: Reading) -> None:
    made, printer = reading
    for number in range(500):
        os.write(printer.stdout, piece(b"begun", b"in-abc:%d" % number))
    for _ in range(20):
        os.write(printer.stdout, piece(b"x" * 10_000, b"in-long:0"))
    await printer.has_been_read()
    made.finish("ct-1")

    entries = [entry for entry in taken(made) if not entry.stage]
    begun = [entry.input_id for entry in entries if entry.text == "begun"]
    assert sorted(begun) == sorted(f"in-abc:{number}" for number in range(500))
    assert sum(len(entry.text) for entry in entries if entry.input_id == "in-long:0") == 200_000
    assert all(len(entry.text) <= LINE_BYTES_MAX for entry in entries)


async def test_text_that_was_flushed_before_a_container_died_is_a_line(reading: Reading) -> None:
    made, printer = reading
    os.write(printer.stdout, piece(b"about to crash"))

    made.finish("ct-1")

    assert [(entry.text, entry.stage, entry.input_id) for entry in taken(made)] == [("about to crash", "", "in-abc:0")]


FLOOD = b"".join(b"line %d of the flood\n" % number for number in range(40_000))


def pour(printer: Printer, data: bytes) -> Awaitable[None]:
    """Print it, as fast as it is read, in a thread."""

    def write() -> None:
        view = memoryview(data)
        while view:
            view = view[os.write(printer.stdout, view) :]

    return asyncio.get_running_loop().run_in_executor(None, write)


def left_out(entries: list[LogEntry]) -> int:
    return sum(int(entry.text.split()[1]) for entry in entries if entry.source == "system")


async def test_end_of_a_flood_comes_when_it_is_over(narrow: None, reading: Reading) -> None:
    made, printer = reading

    await pour(printer, FLOOD + MARK + b"in-abc:0" + SEPARATOR + b"the result\n")
    entries = await taken_until(made, "the result")

    (said,) = (number for number, entry in enumerate(entries) if entry.source == "system")
    assert left_out(entries) + len(entries) - 1 == 40_001
    assert [entry.text for entry in entries[:said]] == [f"line {number} of the flood" for number in range(said)]
    first = 40_001 - (len(entries) - said - 1)
    assert [entry.text for entry in entries[said + 1 : -1]] == [
        f"line {number} of the flood" for number in range(first, 40_000)
    ]
    assert entries[-1].input_id == "in-abc:0"


async def test_pieces_of_a_line_count_for_the_rate(narrow: None, reading: Reading) -> None:
    made, printer = reading

    await pour(printer, piece(b"step\r") * 40_000 + MARK + b"in-abc:0" + SEPARATOR + b"the result\n")

    entries = await taken_until(made, "the result")
    assert left_out(entries) > 0


async def test_end_of_a_flood_comes_before_what_comes_after_it(narrow: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logs, "FLOOD_S", 60.0)
    made = Logs(now=lambda: 0.0)
    printer = Printer(made)
    await pour(printer, FLOOD)
    before = taken(made)
    os.write(printer.stdout, b"the result\n")

    assert printer.catch_up()

    entries = taken(made)
    assert [entry.text for entry in entries[-1:]] == ["the result"]
    assert left_out(entries) + len(before) + len(entries) - 1 == 40_001
    os.write(printer.stdout, b"soon after\n")
    assert not printer.catch_up()  # a flood between results is not read to its end for each of them
    printer.end()
    made.close()
    assert [entry.text for entry in taken(made)] == []


@pytest.mark.long
async def test_lines_soon_after_a_flood_are_all_kept(narrow: None, reading: Reading) -> None:
    made, printer = reading
    await pour(printer, FLOOD)
    await until(lambda: any(entry.source == "system" for entry in taken(made)))

    for number in range(30):
        os.write(printer.stdout, b"line %d\n" % number)
        await asyncio.sleep(0.01)
    entries = await taken_until(made, "line 29")

    assert [entry.text for entry in entries] == [f"line {number}" for number in range(30)]


async def test_flood_on_one_pipe_takes_nothing_of_the_other(narrow: None, reading: Reading) -> None:
    made, printer = reading

    await pour(printer, FLOOD)
    for number in range(5_000):
        os.write(printer.stderr, b"frame %d\n" % number)
    entries = await taken_until(made, "frame 4999")

    said = [entry.text for entry in entries if entry.source == "stderr"]
    assert said == [f"frame {number}" for number in range(5_000)]


async def test_flood_without_ends_of_lines_is_shown_to_its_end_and_no_mark_of_it_is_taken_for_another(
    narrow: None, reading: Reading
) -> None:
    made, printer = reading

    await pour(printer, MARK + b"in-abc:0" + SEPARATOR + b"x" * (2 * 2**20) + b"the end")
    await printer.has_been_read()
    made.finish("ct-1")
    entries = taken(made)

    (said,) = (number for number, entry in enumerate(entries) if entry.source == "system")
    assert entries[said].text.startswith("dropped 1 line of stdout here: ")
    assert {entry.input_id for entry in entries[:said]} == {"in-abc:0"}
    assert {entry.input_id for entry in entries[said + 1 :]} == {""}
    assert entries[-1].text.endswith("xxthe end")
    assert sum(len(entry.text) for entry in entries[said + 1 :]) <= END_BYTES_MAX


async def test_ends_of_floods_nobody_takes_stay_within_bounds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logs, "PENDING_BYTES_MAX", 0)
    monkeypatch.setattr(logs, "ENDS_BYTES_MAX", 100_000)
    made = Logs(now=lambda: 0.0)

    for number in range(20):
        printer = Printer(made, f"ct-{number}")
        await pour(printer, FLOOD[:200_000])
        made.finish(f"ct-{number}")
        printer.end()
    entries = taken(made)

    assert sum(len(entry.text) for entry in entries if entry.source != "system") < 100_000 + END_BYTES_MAX
    assert left_out(entries) + sum(entry.source != "system" for entry in entries) == 20 * (
        FLOOD[:200_000].count(b"\n") + 1
    )


async def test_lines_nobody_takes_stay_within_bounds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logs, "PENDING_BYTES_MAX", 100_000)
    made = Logs(now=lambda: 0.0)
    printer = Printer(made)

    for _ in range(40):
        os.write(printer.stdout, b"z" * 99 + b"\n" + b"w" * 5_000 + b"\n")
        await asyncio.sleep(0.001)
    await asyncio.sleep(0.01)
    made.finish("ct-1")
    printer.end()
    entries = taken(made)

    (said,) = (number for number, entry in enumerate(entries) if entry.source == "system")
    assert sum(len(entry.text) for entry in entries[:said]) < 100_000
    assert sum(len(entry.text) for entry in entries[said + 1 :]) <= END_BYTES_MAX
    assert entries[said].text.startswith(f"dropped {80 - len(entries) + 1} lines of stdout here: ")
    assert [len(entry.text) for entry in entries[-2:]] == [99, 5_000]


async def test_closing_leaves_the_rest_in_the_pipe_for_the_next_agent() -> None:
    made = Logs(now=lambda: 0.0)
    read_fd, write_fd = os.pipe()
    os.set_blocking(read_fd, False)
    copy_fd = os.dup(read_fd)
    error_read, error_write = os.pipe()
    os.set_blocking(error_read, False)
    made.add("ct-1", "ap-1", "fu-1", read_fd, error_read)

    made.close()
    os.write(write_fd, b"later\n")

    assert os.read(copy_fd, 100) == b"later\n"
    for descriptor in (copy_fd, write_fd, error_write):
        os.close(descriptor)


async def test_mark_behind_an_unfinished_line_of_a_child_begins_a_line(reading: Reading) -> None:
    made, printer = reading
    os.write(printer.stdout, b"from a child")
    os.write(printer.stdout, MARK + b"in-abc:0" + SEPARATOR + b"from the guest \x1e here\n")

    await asyncio.wait_for(made.wait(), 5)

    assert [(entry.input_id, entry.text) for entry in taken(made)] == [
        ("", "from a child"),
        ("in-abc:0", "from the guest \x1e here"),
    ]


async def test_catching_up_after_the_end_reads_no_descriptor_of_another() -> None:
    made = Logs(now=lambda: 12.5)
    stdout_fd, stdout = os.pipe()
    stderr_fd, stderr = os.pipe()
    for descriptor in (stdout_fd, stderr_fd):
        os.set_blocking(descriptor, False)
    catch_up = made.add("ct-1", "ap-1", "fu-1", stdout_fd, stderr_fd)
    os.write(stdout, b"last\n")
    os.close(stdout)
    os.close(stderr)

    had_news = catch_up()
    made.finish("ct-1")
    other, writer = os.pipe()
    os.write(writer, b"of another\n")

    assert had_news
    assert not catch_up()
    assert [entry.text for entry in taken(made)] == ["last"]
    os.close(other)
    os.close(writer)


async def test_pipes_that_cannot_be_watched_are_closed(tmp_path: Path) -> None:
    made = Logs(now=lambda: 12.5)
    open_before = os.listdir("/proc/self/fd")
    stdout_fd, stdout = os.pipe()
    # The kernel watches no file.
    no_pipe = os.open(tmp_path / "file", os.O_RDONLY | os.O_CREAT)

    with pytest.raises(PermissionError):
        made.add("ct-1", "ap-1", "fu-1", stdout_fd, no_pipe)

    os.close(stdout)
    assert os.listdir("/proc/self/fd") == open_before
    made.close()
