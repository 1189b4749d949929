"""`squall run`: what is run, with which arguments, and what is shown where."""

from __future__ import annotations

import json
import signal
import subprocess
from pathlib import Path

import pytest

from tests.e2e import flows
from tests.e2e.installation import PROGRAMS, RUN_S, SQUALL, Installation, wait_until
from tests.e2e.terminal import Terminal


def test_output_of_functions_is_shown_where_it_was_written(session_installation: Installation) -> None:
    ended = flows.command_ok(session_installation, "run", "entries.py::talk")

    assert sorted(ended.out.splitlines()) == sorted(
        ["from here", "from print", "from a thread", "from a child", "from the C level", "without an end"]
    )
    assert "to stderr" in ended.err.splitlines()
    assert "child to stderr" in ended.err.splitlines()
    assert "App completed." in ended.err


def test_quiet_run_shows_what_the_entrypoint_prints_alone(session_installation: Installation) -> None:
    ended = flows.command_ok(session_installation, "run", "--quiet", "entries.py::talk")

    assert (ended.out, ended.err) == ("from here\n", "")


def test_quiet_run_of_a_function_shows_neither_result_nor_items(session_installation: Installation) -> None:
    value = flows.command_ok(session_installation, "run", "-q", "ordered.py::square", "--x", "7")
    items = flows.command_ok(session_installation, "run", "-q", "ordered.py::count_up", "--n", "3")
    loud = flows.command_ok(session_installation, "run", "ordered.py::count_up", "--n", "3")

    assert (value.out, value.err) == ("", "")
    assert (items.out, items.err) == ("", "")
    assert [line for line in loud.out.splitlines() if line.isdigit()] == ["0", "1", "2"]


def test_items_of_a_generator_are_no_result_to_write(session_installation: Installation, tmp_path: Path) -> None:
    ended = flows.command(session_installation, "run", "-w", str(tmp_path / "out"), "ordered.py::count_up", "--n", "3")

    assert ended.code == 2
    assert "count_up is a generator" in ended.err
    assert "App " not in ended.err


def test_result_that_is_no_text_is_refused_before_it_runs_where_the_function_says_so(
    session_installation: Installation, tmp_path: Path
) -> None:
    (tmp_path / "silent.py").write_text(
        "import squall\napp = squall.App('silent')\n@app.function()\ndef f(n: int = 7):\n    return n * n\n"
    )

    said = flows.command(session_installation, "run", "-w", str(tmp_path / "out"), "ordered.py::square", "--x", "7")
    silent = flows.command(session_installation, "run", "-w", "out", "silent.py", cwd=tmp_path)

    assert (said.code, said.out) == (2, "")
    assert "square returns int" in said.err
    assert (silent.code, silent.out) == (1, "49\n")
    assert "cannot write the result to out: it is int" in silent.err
    assert not any(tmp_path.glob("out*"))


def test_options_become_typed_arguments(session_installation: Installation) -> None:
    options = [
        "--count",
        "3",
        "--rate",
        "0.25",
        "--name=n",
        "--is-fast",
        "--when",
        "2026-01-02T03:04:05",
        "--kind",
        "b",
    ]

    ended = flows.command_ok(session_installation, "run", "-q", "entries.py::typed", *options)

    assert json.loads(ended.out) == [3, 0.25, "n", True, "2026-01-02T03:04:05", "b"]


def test_wrong_arguments_are_refused_before_anything_runs(session_installation: Installation) -> None:
    for options, expected in (
        ([], "--count"),
        (["--count", "three"], "three"),
        (["--count", "1", "--kind", "c"], "c"),
        (["--count", "1", "--nothing", "2"], "--nothing"),
        (["1"], "--count"),
    ):
        ended = flows.command(session_installation, "run", "entries.py::typed", *options)

        assert ended.code == 2, str(ended)
        assert expected in ended.err
        assert "App " not in ended.err


def test_raw_arguments_are_passed_on(session_installation: Installation) -> None:
    ended = flows.command_ok(session_installation, "run", "-q", "entries.py::raw", "--x", "1", "y", "-q")

    assert json.loads(ended.out) == ["--x", "1", "y", "-q"]


def test_async_entrypoint_runs_in_a_loop(session_installation: Installation) -> None:
    ended = flows.command_ok(session_installation, "run", "-q", "entries.py::in_a_loop", "--n", "2")

    assert ended.out == "['', 'B']\n"


def test_function_is_run_with_options_and_its_result_written(
    session_installation: Installation, tmp_path: Path
) -> None:
    path = tmp_path / "result.txt"

    flows.command_ok(
        session_installation, "run", "-w", str(path), "entries.py::app.shout", "--text", "ab", "--times", "2"
    )

    assert path.read_text() == "ABAB"
    flows.command_ok(session_installation, "run", "-w", str(path), "entries.py::result")
    assert path.read_text() == "KEPT"


def test_candidates_are_listed_when_there_is_a_choice(session_installation: Installation) -> None:
    without = flows.command(session_installation, "run", "entries.py")
    misspelt = flows.command(session_installation, "run", "entries.py::tpyed")

    assert without.code == misspelt.code == 2
    assert "in_a_loop" in without.err
    assert "did you mean 'typed'?" in misspelt.err


def test_choice_is_shown_as_it_is_typed(session_installation: Installation) -> None:
    ended = flows.command(session_installation, "run", "calls.py")

    assert ended.code == 2, str(ended)
    assert "name one, as in calls.py::square" in " ".join(ended.err.split())


def test_value_of_a_function_is_printed_unless_quiet(session_installation: Installation) -> None:
    shown = flows.command_ok(session_installation, "run", "calls.py::square", "--x", "3")
    quiet = flows.command_ok(session_installation, "run", "-q", "calls.py::square", "--x", "3")

    assert shown.out == "9\n"
    assert quiet.out == ""


def test_person_is_shown_the_beginning_of_a_large_result(session_installation: Installation, tmp_path: Path) -> None:
    program = tmp_path / "large.py"
    program.write_text(
        "import squall\napp = squall.App('large')\n@app.function()\ndef f():\n    return 'x' * 3_000_000 + 'end'\n"
    )

    piped = flows.command_ok(session_installation, "run", str(program))
    with Terminal(session_installation, "run", str(program)) as terminal:
        assert terminal.wait(RUN_S) == 0

    assert piped.out == "x" * 3_000_000 + "end\n"
    assert terminal.said.count("x") < 11_000
    assert "the first 10,000 characters. With `> FILE` all of it goes to a file" in terminal.said


def test_option_of_the_command_after_the_reference_is_told_its_place(session_installation: Installation) -> None:
    ended = flows.command(session_installation, "run", "calls.py::square", "--x", "3", "-w", "out.txt")

    assert ended.code == 2, str(ended)
    assert "options of `squall run` come before what is run: squall run -w" in " ".join(ended.err.split())


def test_program_comes_from_standard_input(session_installation: Installation) -> None:
    source = "import squall\napp = squall.App('stdin')\n@app.function()\ndef f():\n    print('in', 6 * 7)\n"

    ended = flows.command(session_installation, "run", "-", given=source)

    assert ended.code == 0, str(ended)
    assert ended.out == "in 42\n"


def test_users_exception_ends_with_its_traceback(session_installation: Installation) -> None:
    ended = flows.command(session_installation, "run", "entries.py::failing")

    assert ended.code == 1
    assert ended.err.rstrip().splitlines()[-1] == "ValueError: wrong on purpose"
    assert "fail.remote()" in ended.err
    assert 'raise ValueError("wrong on purpose")' in ended.err


def test_pool_of_processes_in_an_entrypoint_ends_quietly(session_installation: Installation) -> None:
    ended = session_installation.command("run", "-q", str(PROGRAMS / "pooling.py"))

    assert ended.code == 0, ended
    assert ended.out == "doubled: [0, 2, 4, 6] 9\n", ended
    assert ended.err == "", ended


def test_timestamps_begin_the_lines(session_installation: Installation) -> None:
    ended = flows.command_ok(
        session_installation, "run", "--timestamps", "--name", "renamed", "entries.py::shout", "--text", "x"
    )

    assert ended.err.startswith("App renamed ")
    assert any(line[2] == ":" and line.endswith("shouting x") for line in ended.out.splitlines())


def test_result_and_items_come_before_the_end_of_the_app(session_installation: Installation) -> None:
    for typed in ("ordered.py::square --x 7", "ordered.py::count_up --n 3"):
        said = subprocess.run(
            [SQUALL, "run", *typed.split()],
            cwd=flows.FLOWS,
            env=session_installation.environ(),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=RUN_S,
            check=True,
        ).stdout

        *_, shown, last = said.splitlines()
        assert (shown.isdigit(), last) == (True, "App completed."), said


@pytest.mark.timeout(90)
def test_detached_app_goes_on_until_what_it_spawned_is_done(squall: Installation) -> None:
    left = flows.command_ok(squall, "run", "--detach", "entries.py::leaving")

    assert "App completed." not in left.err
    assert "goes on" in left.err.splitlines()[-1]
    call_id = left.out.splitlines()[0]
    got = f"from squall import FunctionCall; print(FunctionCall.from_id({call_id!r}).get(timeout=30))"
    assert flows.program(squall, got) == "ticked\n"

    def is_stopped() -> bool:
        listed = json.loads(squall.command("app", "list", "--json").out)
        return {one["state"] for one in listed if one["description"] == "entries"} == {"stopped"}

    wait_until(is_stopped, "the app has ended by itself", 8)


@pytest.mark.timeout(90)
def test_app_that_is_stopped_from_elsewhere_is_not_called_completed(squall: Installation) -> None:
    client = squall.start("run", str(flows.FLOWS / "entries.py::tick"), "--seconds", "60")
    client.wait_said("tick", 60)

    stopped = squall.command("app", "stop", "entries", "--yes")
    ended = client.wait(20)

    assert stopped.code == 0, str(stopped)
    assert ended.code == 1, str(ended)
    assert "App stopped." in ended.err
    assert "App completed." not in ended.err
    assert "was stopped: squall app stop" in ended.err


@pytest.mark.timeout(90)
def test_detached_app_goes_on_until_it_is_stopped(squall: Installation) -> None:
    client = squall.start("run", "--detach", str(flows.FLOWS / "entries.py::spawning"))
    client.wait_said("tick", 60)

    client.signal(signal.SIGKILL)
    client.process.wait(10)

    apps = json.loads(squall.command("app", "list", "--json").out)
    app = next(one for one in apps if one["description"] == "entries" and one["state"] == "detached")
    read = squall.command("app", "logs", app["app_id"], "--tail", "1000").out.count("tick")
    wait_until(
        lambda: squall.command("app", "logs", app["app_id"], "--tail", "1000").out.count("tick") > read,
        "it still prints",
        10,
    )
    stopped = squall.command("app", "stop", app["app_id"], "--yes")
    assert stopped.code == 0, str(stopped)
    squall.wait_no_processes(10)
    listed = json.loads(squall.command("app", "list", "--json").out)
    assert {one["app_id"]: one["state"] for one in listed}[app["app_id"]] == "stopped"
