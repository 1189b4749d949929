"""Output of build steps, through real pipes."""

from __future__ import annotations

import asyncio
import os

from squall.agent.image.hidden import Hidden
from squall.agent.image.output import LINES_MAX, StepOutput

SECRET = "s3cret-value"


async def read_all(*chunks: bytes) -> tuple[list[str], StepOutput]:
    lines: list[str] = []
    output = StepOutput(lines.append, Hidden([SECRET]))
    read_end, write_end = os.pipe()
    os.set_blocking(read_end, False)
    reading = asyncio.ensure_future(output.read(read_end))
    for chunk in chunks:
        await asyncio.to_thread(os.write, write_end, chunk)
        await asyncio.sleep(0)
    os.close(write_end)
    await asyncio.wait_for(reading, 10)
    output.finish()
    os.close(read_end)
    return lines, output


async def test_lines_and_characters_may_be_split_between_chunks() -> None:
    text = "erste\nzwölf\r\n10%\r100%\nlast".encode()

    lines, output = await read_all(text[:8], text[8:9], text[9:])

    assert lines == ["erste", "zwölf", "100%", "last"]
    assert output.tail.endswith("100%\nlast")


async def test_endless_line_is_cut() -> None:
    lines, _ = await read_all(b"x" * 60_000, b"x" * 60_000, b"\nnext\n")

    assert lines[-1] == "next"
    assert max(map(len, lines)) <= 4_000


async def test_secret_that_reaches_over_the_cut_or_over_two_reads_is_in_no_line() -> None:
    lines, output = await read_all(b"x" * 3_995 + SECRET.encode() + b"y\n", SECRET[:5].encode(), SECRET[5:].encode())

    assert lines == ["x" * 3_995 + "***", "***"]
    assert output.tail == "\n".join(lines)


async def test_too_many_lines_are_counted_and_the_last_ones_kept() -> None:
    chunk = b"".join(b"%d\n" % number for number in range(LINES_MAX + 5))
    pieces = [chunk[start : start + 50_000] for start in range(0, len(chunk), 50_000)]

    lines, output = await read_all(*pieces)

    assert len(lines) == LINES_MAX + 1
    assert lines[-1] == "... dropped 5 lines"
    assert output.tail.splitlines()[-1] == str(LINES_MAX + 4)
