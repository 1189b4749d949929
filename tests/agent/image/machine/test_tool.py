"""Programs end in any case: by themselves, in time, or because nobody wants them."""

from __future__ import annotations

import os
import sys
import threading
import time
from pathlib import Path

import pytest

from squall.agent.disk import Space
from squall.agent.image.hidden import Hidden
from squall.agent.image.machine.tool import Output, ToolFailed, Watch, run_tool
from squall.agent.image.machine.write_limit import WriteLimit, WroteTooMuch, size_of

pytestmark = pytest.mark.long

ENVIRON = {"PATH": os.environ["PATH"]}


def run(program: str, watch: Watch, output: Output | None = None) -> None:
    run_tool((sys.executable, "-u", "-c", program), ENVIRON, output or Output(), watch)


def test_lines_are_passed_on_whole_and_bounded() -> None:
    lines: list[str] = []

    run("print('one'); print('x' * 9000); print('last', end='')", Watch(30), Output(lines.append))

    assert lines == ["one", "x" * 500, "last"]


def test_value_that_is_hidden_is_in_no_line_and_no_error_also_where_one_is_cut() -> None:
    lines: list[str] = []

    with pytest.raises(ToolFailed) as caught:
        run(
            "import sys; sys.exit('x' * 498 + 's3cret-value')",
            Watch(30),
            Output(lines.append, hidden=Hidden(["s3cret-value"])),
        )

    assert lines == [caught.value.tail] == ["x" * 498 + "***"]


def test_failure_has_the_last_lines_of_both_outputs() -> None:
    with pytest.raises(ToolFailed, match=r"(?s)^said\ncomplained$") as caught:
        run("import sys; print('said'); sys.exit('complained')", Watch(30))

    assert not caught.value.is_silent
    assert caught.value.reason == ""


def test_silent_program_is_stopped_and_known_as_silent() -> None:
    started = time.monotonic()

    with pytest.raises(ToolFailed, match=r"no answer within 0\.5 s") as caught:
        run("import time; time.sleep(30)", Watch(30, first_line_s=0.5))

    assert caught.value.is_silent
    assert time.monotonic() - started < 10


def test_program_that_stops_making_progress_is_stopped() -> None:
    with pytest.raises(ToolFailed, match=r"no progress for 0\.5 s") as caught:
        run("import time; print('begun'); time.sleep(30)", Watch(30, first_line_s=20, stall_s=0.5))

    assert not caught.value.is_silent


def test_what_it_writes_is_progress(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.touch()
    program = (
        f"import time\nprint('begun')\nwith open({str(path)!r}, 'wb', buffering=0) as file:\n"
        "  for _ in range(10): time.sleep(0.1); file.write(b'x')"
    )

    run(program, Watch(30, first_line_s=20, stall_s=0.6, progress=lambda: path.stat().st_size))

    assert path.stat().st_size == 10


def test_program_that_takes_too_long_is_stopped() -> None:
    with pytest.raises(ToolFailed, match="stopped after 1 s"):
        run("import time\nwhile True: print('busy'); time.sleep(0.1)", Watch(1.0))


def test_program_nobody_wants_is_stopped_though_it_says_nothing() -> None:
    cancelled = threading.Event()
    timer = threading.Timer(0.3, cancelled.set)
    timer.start()

    with pytest.raises(ToolFailed, match="cancelled"):
        run("import time; time.sleep(30)", Watch(30), Output(is_cancelled=cancelled.is_set))
    timer.join()


def limit_of(folder: Path, *, free_bytes: int = 2**40, free_inodes: int = 2**20) -> WriteLimit:
    space = Space(free_bytes, free_inodes, 2**30, 1_000)
    return WriteLimit("writing it", folder, lambda: size_of(folder), 2**20, space=lambda path: space)


def test_program_is_ended_by_the_kernel_when_a_file_is_too_large(tmp_path: Path) -> None:
    # At once, and without a word that the watch could be too late for.
    program = f"open({str(tmp_path / 'file')!r}, 'wb').write(bytes(9 * 2**20))"

    with pytest.raises(
        WroteTooMuch, match=r"writing it takes 1 MiB or more, and one step may have 1 MiB on the disk; give"
    ):
        run(program, Watch(30, limit=limit_of(tmp_path)))

    assert size_of(tmp_path) == 2**20


def test_program_is_ended_when_its_files_together_are_too_large(tmp_path: Path) -> None:
    program = (
        f"import time\nfor number in range(3): open({str(tmp_path)!r} + f'/{{number}}', 'wb').write(bytes(2**19))\n"
        "time.sleep(30)"
    )

    with pytest.raises(WroteTooMuch, match="SQUALL_STEP_BYTES_MAX"):
        run(program, Watch(30, limit=limit_of(tmp_path)))


@pytest.mark.parametrize("free", [{"free_bytes": 2**20}, {"free_inodes": 10}])
def test_program_is_ended_before_it_fills_the_disk(tmp_path: Path, free: dict[str, int]) -> None:
    with pytest.raises(WroteTooMuch, match=r"would have filled the machine's disk .* 1024 MiB and 1000 inodes are"):
        run("import time; time.sleep(30)", Watch(30, limit=limit_of(tmp_path, **free)))
