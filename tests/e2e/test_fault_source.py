"""What is wrong with the user's file or command line is said before anything runs."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.e2e.installation import PROGRAMS, Installation


def test_syntax_error_is_shown_with_its_line_and_nothing_of_ours(squall: Installation, tmp_path: Path) -> None:
    program = tmp_path / "broken.py"
    program.write_text("import squall\n\napp = squall.App(\n\ndef f(:\n    pass\n")

    ended = squall.command("run", str(program))

    assert ended.code == 1, ended
    assert f'File "{program}", line ' in ended.err, ended
    assert "SyntaxError" in ended.err, ended
    assert "squall/cli" not in ended.err, f"frames of the command: {ended}"
    assert ended.out == "", ended


def test_error_while_the_file_is_loaded_shows_the_users_own_frames(squall: Installation, tmp_path: Path) -> None:
    program = tmp_path / "failing.py"
    program.write_text("def load():\n    return {}['nothing']\n\n\nload()\n")

    ended = squall.command("run", str(program))

    assert ended.code == 1, ended
    assert f'File "{program}", line 2, in load' in ended.err, ended
    assert "KeyError: 'nothing'" in ended.err, ended
    assert "squall/cli" not in ended.err, f"frames of the command: {ended}"


def test_function_that_is_not_there_is_named_with_the_nearest(squall: Installation) -> None:
    ended = squall.run("square.py::sqare")

    assert ended.code == 2, ended
    assert "square.py has no function or entrypoint 'sqare'; did you mean 'square'?" in ended.err, ended
    assert "main, square" in ended.err, ended


def test_several_to_run_are_listed(squall: Installation) -> None:
    ended = squall.run("raising.py")

    assert ended.code == 2, ended
    assert "raising.py has several to run; name one, as in /" in ended.err, ended
    assert "/raising.py::own_class: own_class, with_cause" in ended.err, ended


def test_two_functions_of_one_name_warn_and_the_later_one_counts(squall: Installation) -> None:
    ended = squall.run("duplicate_names.py::main")

    assert ended.code == 0, ended
    assert "has two functions named which: the later one counts; give one of them name=" in ended.err, ended
    assert "duplicate_names.py" in ended.err, f"the warning does not say where: {ended}"
    assert "answer: second" in ended.out, ended


def test_replaced_function_cannot_be_called_by_mistake(squall: Installation) -> None:
    ended = squall.run("duplicate_names.py::first")

    assert ended.code == 1, ended
    assert "answer: second" not in ended.out, ended
    assert "which" in ended.err.splitlines()[-1], ended


@pytest.mark.parametrize(
    ("reference", "said"),
    [
        ("nowhere.py", "cannot run nowhere.py: no such file"),
        ("nowhere/module", "no file 'nowhere/module'; to run a module, write: squall run -m nowhere.module"),
        ("::square", "'::square' names no file; write path.py, or path.py::name"),
    ],
)
def test_wrong_reference_says_what_one_looks_like(squall: Installation, reference: str, said: str) -> None:
    ended = squall.command("run", reference)

    assert ended.code in (1, 2), ended
    assert said in ended.err, ended


@pytest.mark.parametrize("name", ["main", "values", "runner"])
def test_file_named_like_a_module_of_ours_is_the_users(squall: Installation, tmp_path: Path, name: str) -> None:
    program = tmp_path / f"{name}.py"
    program.write_text((PROGRAMS / "square.py").read_text())

    ended = squall.command("run", str(program))

    assert ended.code == 0, ended
    assert ended.out == "49\n", ended


def test_file_without_an_app_says_how_to_make_one(squall: Installation, tmp_path: Path) -> None:
    (tmp_path / "plain.py").write_text("x = 1\n")

    ended = squall.command("run", "plain.py", cwd=tmp_path)

    assert ended.code == 2, ended
    assert "plain.py has no app: make one at the top level, `app = squall.App()`" in ended.err, ended


def test_unknown_options_are_refused_with_the_nearest(squall: Installation) -> None:
    of_entrypoint = squall.run("square.py", "--xx", "3")
    wrong_value = squall.run("square.py", "--x", "three")
    of_command = squall.command("app", "list", "--jsn")
    command = squall.command("rnu", "x.py")

    assert of_entrypoint.code == 2, of_entrypoint
    assert "--xx" in of_entrypoint.err, of_entrypoint
    assert "--x" in of_entrypoint.err.replace("--xx", ""), f"does not say what there is: {of_entrypoint}"
    assert wrong_value.code == 2, wrong_value
    assert "--x" in wrong_value.err, wrong_value
    assert "three" in wrong_value.err, wrong_value
    assert of_command.code == 2, of_command
    assert "--json" in of_command.err, of_command
    assert command.code == 2, command
    assert "no command 'rnu'; did you mean 'run'?" in command.err, command


def test_unknown_option_before_the_file_is_refused(squall: Installation) -> None:
    ended = squall.command("run", "--quite", str(PROGRAMS / "square.py"))

    assert ended.code == 2, ended
    assert "--quite" in ended.err, ended
