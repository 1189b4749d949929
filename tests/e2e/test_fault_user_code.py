"""What user code does wrong is told to its caller, quickly, and harms nobody else."""

from __future__ import annotations

import itertools
import json
import re
import sys
from pathlib import Path

import pytest

from tests.e2e.installation import Installation


def seconds(text: str) -> float:
    """What a program measured itself."""
    found = re.search(r"^seconds: ([\d.]+)$", text, re.MULTILINE)
    assert found, text
    return float(found[1])


def waits(squall: Installation, function: str) -> list[float]:
    """In milliseconds, of the last call of a function with one input: until each attempt began, and until it ended."""
    calls = squall.command("function", "calls", function, "-n", "1", "--json")
    (call,) = json.loads(calls.out)
    shown = squall.command("call", "show", call["call_id"], "--json")
    (one,) = json.loads(shown.out)["inputs"]
    marks = [at for attempt in one["attempts"] for at in (attempt["began_ms"], attempt["finished_ms"])]
    assert len(marks) >= 2, shown
    return [after - before for before, after in itertools.pairwise([0.0, *marks])]


def test_exception_is_raised_again_as_its_own_type_with_remote_frames(squall: Installation) -> None:
    ended = squall.run("raising.py::own_class")

    assert ended.code == 0, ended
    assert "caught: OutOfCheese no brie left 250" in ended.out, ended
    assert re.search(r'File "<ct-\w+>:/\S*raising\.py", line \d+, in sell\n +weigh\(kind\)', ended.out), ended
    assert re.search(r'File "<ct-\w+>:/\S*raising\.py", line \d+, in weigh\n', ended.out), ended


def test_cause_of_an_exception_comes_along(squall: Installation) -> None:
    ended = squall.run("raising.py::with_cause")

    assert ended.code == 0, ended
    assert "caught: the shop is empty because OutOfCheese('no gouda left')" in ended.out, ended


def test_cause_of_a_class_unknown_here_does_not_take_the_exception_along(squall: Installation) -> None:
    ended = squall.run("raising.py::with_foreign_cause")

    assert ended.code == 0, ended
    assert "caught: no dice because DeserializationError(" in ended.out, ended
    assert "'only_here'" in ended.out, ended


def test_exception_of_a_class_unknown_here_is_described(squall: Installation) -> None:
    ended = squall.run("raising.py::foreign_class")

    assert ended.code == 0, ended
    assert "caught: Foreign: far away (not raised as Foreign itself:" in ended.out, ended
    assert "'only_here'" in ended.out, ended
    assert "in raise_foreign" in ended.out, f"the remote traceback is missing: {ended}"


def test_sys_exit_is_a_result_and_the_container_goes_on(squall: Installation) -> None:
    ended = squall.run("raising.py::exit_in_function")

    assert ended.code == 0, ended
    assert "caught: SystemExit leaving" in ended.out, ended
    assert "still works: 0.5" in ended.out, ended


@pytest.mark.parametrize(("status", "code"), [("", 1), ("0", 1), ("3", 3), ("256", 1), ("'leaving'", 1)])
def test_sys_exit_in_a_function_fails_the_command(squall: Installation, tmp_path: Path, status: str, code: int) -> None:
    path = tmp_path / "leaves.py"
    path.write_text(
        f"import sys\nimport squall\napp = squall.App('leaves')\n@app.function()\ndef f():\n    sys.exit({status})\n"
    )

    ended = squall.run(str(path), timeout_s=30)

    assert ended.code == code, ended
    assert f"A function called sys.exit({status or None}) in its container" in ended.err, ended
    assert "App completed." in ended.err, ended
    assert f'leaves.py", line 6, in f\n    sys.exit({status})\n' in ended.err, ended


def test_keyboard_interrupt_of_a_function_fails_the_command_with_its_traceback(
    squall: Installation, tmp_path: Path
) -> None:
    program = tmp_path / "interrupts.py"
    program.write_text(
        "import squall\napp = squall.App('x')\n@app.function()\ndef f():\n    raise KeyboardInterrupt('mine')\n"
    )

    ended = squall.run(str(program))

    assert ended.code == 1, ended
    assert "KeyboardInterrupt: mine" in ended.err, ended
    assert "App completed." in ended.err, ended


SELF_STARTING = """
import squall
app = squall.App("self-starting")
@app.function()
def f(x):
    return x
try:
    print("answer:", f.remote(1))
except Exception as error:
    print("refused:", error)
if __name__ == "__main__":
    with squall.enable_output(), app.run():
        print("result:", f.remote(2))
"""

DEEP = """
import sys
import traceback
import squall
app = squall.App("deep")
@app.function()
def f(depth):
    sys.setrecursionlimit(depth)
    def descend():
        return descend()
    return descend()
if __name__ == "__main__":
    with app.run():
        try:
            f.remote(300_000)
        except RecursionError as error:
            print("frames:", len(traceback.extract_tb(error.__traceback__)))
            traceback.print_exc(file=sys.stdout)
"""


def test_call_while_a_container_imports_its_module_starts_no_other(squall: Installation, tmp_path: Path) -> None:
    path = tmp_path / "self_starting.py"
    path.write_text(SELF_STARTING)

    ended = squall.command(str(path), executable=(sys.executable,), timeout_s=30)

    assert ended.code == 0, ended
    assert "result: 2" in ended.out, ended
    assert ended.out.count("refused: a call of a function at the top level of a module") == 1, ended
    assert "answer:" not in ended.out, ended


def test_deep_recursion_is_the_error_it_is_with_few_of_its_frames(squall: Installation, tmp_path: Path) -> None:
    path = tmp_path / "deep.py"
    path.write_text(DEEP)

    ended = squall.command(str(path), executable=(sys.executable,), timeout_s=30)

    assert ended.code == 0, ended
    assert "RecursionError: maximum recursion depth exceeded" in ended.out, ended
    assert re.search(r"in <\d{6} frames left out>", ended.out), ended
    found = re.search(r"frames: (\d+)", ended.out)
    assert found, ended
    assert 150 < int(found[1]) < 250, ended


def test_exceptions_of_a_map_take_the_place_of_their_results(squall: Installation) -> None:
    ended = squall.run("raising.py::in_map")

    assert ended.code == 0, ended
    results = re.findall(r"^result: (.*)$", ended.out, re.MULTILINE)
    assert results[0] == "1.0", ended
    assert "ZeroDivisionError('division by zero')" in results[1], ended
    assert results[2] == "1.5", ended


def test_uncaught_exception_ends_the_command_with_its_traceback(squall: Installation) -> None:
    ended = squall.run("raising.py::uncaught")

    assert ended.code == 1, ended
    assert "ZeroDivisionError: division by zero" in ended.err, ended
    assert re.search(r"in uncaught\n +divide\.remote\(1, 0\)", ended.err), ended
    assert re.search(
        r"in uncaught\n +divide.*\n(.*\^\n)?  … in container ct-\w+, shown above\nZeroDivision", ended.err
    ), ended
    assert len(re.findall(r'File "\S*raising\.py", line \d+, in divide', ended.err)) == 1, ended
    assert "squall/cli" not in ended.err, f"frames of the command: {ended}"


def test_package_missing_in_the_image_is_named_with_the_users_traceback(squall: Installation) -> None:
    ended = squall.run("missing_package.py", timeout_s=30)

    assert ended.code == 1, ended
    assert "cannot load function use: No module named 'click'" in ended.err, ended
    assert "The image has no package 'click': add it with image.pip_install('click')" in ended.err, ended
    assert re.search(r'File "/\S*missing_package\.py", line 3, in <module>\n +import click', ended.err), ended
    assert ended.err.count("import click\n") == 1, f"in the log, and not again in the traceback: {ended}"


def test_exit_and_segfault_are_clear_errors_quickly(squall: Installation) -> None:
    ended = squall.run("crashing.py::exits", timeout_s=60)

    assert ended.code == 0, ended
    errors = re.findall(r"^caught: (.*)$", ended.out, re.MULTILINE)
    assert len(errors) == 2, ended
    assert "the container ended while it ran this input (" in errors[0], ended
    assert "7" in errors[0].partition(";")[0], f"does not say the exit code: {errors[0]}"
    assert "os._exit, a fatal signal or a crash in native code" in errors[0], ended
    assert re.search(r"SIGSEGV|signal 11|139", errors[1]), f"does not say the signal: {errors[1]}"
    assert re.search(r"\(container ct-\w+\)", errors[1]), errors[1]
    assert max(waits(squall, "crashing/exit_at_once") + waits(squall, "crashing/read_null")) < 8_000, ended


def test_exit_in_a_map_costs_its_own_input_only(squall: Installation) -> None:
    ended = squall.run("crashing.py::exit_in_map", timeout_s=45)

    assert ended.code == 0, ended
    results = re.findall(r"^result: (.*)$", ended.out, re.MULTILINE)
    assert "the container ended while it ran this input" in results[5], ended
    assert results[:5] + results[6:] == [str(x * 10) for x in range(12) if x != 5], ended


def test_too_much_memory_names_the_option_that_gives_more(squall: Installation) -> None:
    ended = squall.run("crashing.py::memory", timeout_s=45)

    assert ended.code == 0, ended
    said = "caught: function fill: the container ran out of memory while it ran this input "
    assert f"{said}(it went over its memory limit of 128 MiB)" in ended.out, ended
    assert "give the function more with memory=, or let it use less" in ended.out, ended
    assert ended.out.count("little: 8") == 2, ended


def test_input_over_its_time_limit_is_stopped_and_the_limit_named(squall: Installation) -> None:
    ended = squall.run("sleeping.py::overdue", timeout_s=45)

    assert ended.code == 0, ended
    assert re.search(r"caught: .*timeout=", ended.out), ended
    assert 0.9 < seconds(ended.out) < 10, ended
    assert "in time: 0.1" in ended.out, ended


def test_input_that_swallows_the_end_of_its_time_is_ended_soon_after(squall: Installation) -> None:
    ended = squall.run("sleeping.py::deaf", timeout_s=45)

    assert ended.code == 0, ended
    assert re.search(r"caught: .*timeout of 1 s", ended.out), ended
    assert 2.5 < seconds(ended.out) < 4.9, ended
    assert "in time: 0.1" in ended.out, ended


def test_cancelled_call_ends_its_input_and_tells_the_caller(squall: Installation) -> None:
    ended = squall.run("sleeping.py::cancelled", timeout_s=45)

    assert ended.code == 0, ended
    assert "not yet: OutputTimeoutError" in ended.out, ended
    assert re.search(r"caught: \w+ .*cancelled", ended.out), ended
    assert seconds(ended.out) < 8, ended
    assert "slept: 0.1" in ended.out, ended


def test_hooks_are_run_in_a_container_that_ends_for_a_thread(squall: Installation) -> None:
    ended = squall.run("stuck_thread.py", timeout_s=60)

    assert ended.code == 0, ended
    first, second = (re.search(f"^{which}: (.*)$", ended.out, re.MULTILINE) for which in ("first", "second"))
    assert first is not None, ended
    assert second is not None, ended
    assert first[1] != second[1], ended
    assert f"left {first[1]}" in ended.out, ended
    assert f"entered {second[1]}" in ended.out, ended
