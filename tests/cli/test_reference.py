"""Files, modules and names in them."""

from __future__ import annotations

import io
import sys
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from squall.cli.reference import Reference, load, parse


@pytest.fixture(autouse=True)
def _restored_modules() -> Iterator[None]:
    modules, path = dict(sys.modules), list(sys.path)
    yield
    sys.path[:] = path
    for name in set(sys.modules) - set(modules):
        del sys.modules[name]


def test_name_follows_two_colons() -> None:
    assert parse("a/b.py::app.main", is_module=False) == Reference("a/b.py", "app.main")


def test_module_without_m_is_told_how() -> None:
    with pytest.raises(click.UsageError, match=r"squall run -m pkg\.mod"):
        parse("pkg.mod", is_module=False)


def test_file_is_loaded_under_its_stem_with_its_folder_on_the_path(tmp_path: Path) -> None:
    (tmp_path / "sq_sibling.py").write_text("VALUE = 4\n")
    (tmp_path / "sq_script.py").write_text("import sq_sibling\nFOUND = sq_sibling.VALUE\n")

    module = load(parse(str(tmp_path / "sq_script.py"), is_module=False))

    assert module.__name__ == "sq_script"
    assert module.FOUND == 4


def test_file_is_loaded_with_this_folder_on_the_path_behind_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "sq_package" / "below").mkdir(parents=True)
    (tmp_path / "sq_package" / "sq_part.py").write_text("VALUE = 5\n")
    (tmp_path / "sq_sibling.py").write_text("VALUE = 'far'\n")
    (tmp_path / "sq_package" / "below" / "sq_sibling.py").write_text("VALUE = 'near'\n")
    program = "import sq_sibling\nfrom sq_package.sq_part import VALUE\nFOUND = VALUE, sq_sibling.VALUE\n"
    (tmp_path / "sq_package" / "below" / "sq_main.py").write_text(program)
    monkeypatch.chdir(tmp_path)

    module = load(parse("sq_package/below/sq_main.py", is_module=False))

    assert module.FOUND == (5, "near")


def test_program_on_standard_input_imports_what_is_beside_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "sq_sibling.py").write_text("VALUE = 6\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "stdin", io.StringIO("from sq_sibling import VALUE\n"))
    monkeypatch.setitem(sys.modules, "__main__", sys.modules["__main__"])

    assert load(parse("-", is_module=False)).VALUE == 6


def test_program_called_main_is_a_module_of_another_name(tmp_path: Path) -> None:
    (tmp_path / "sq_parcel").mkdir()
    path = tmp_path / "sq_parcel" / "__main__.py"
    path.write_text("IS_RUN = __name__ == '__main__'\n")
    before = sys.modules["__main__"]

    module = load(parse(str(path), is_module=False))

    assert (module.__name__, module.IS_RUN) == ("sq_parcel_main", False)
    assert sys.modules["__main__"] is before


def test_syntax_error_shows_the_users_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "sq_broken.py"
    path.write_text("def broken(:\n    pass\n")

    with pytest.raises(click.exceptions.Exit):
        load(parse(str(path), is_module=False))

    shown = capsys.readouterr().err
    assert "sq_broken.py" in shown
    assert "def broken(:" in shown
    assert "SyntaxError" in shown
    assert "squall/cli" not in shown


def test_error_at_import_begins_at_the_users_frame(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "sq_raises.py"
    path.write_text("def fail():\n    raise KeyError('x')\n\nfail()\n")

    with pytest.raises(click.exceptions.Exit):
        load(parse(str(path), is_module=False))

    shown = capsys.readouterr().err
    assert "KeyError" in shown
    assert "importlib" not in shown


@pytest.mark.parametrize(
    ("typed", "said"),
    [
        ("sq_scrit.py", "no such file; did you mean sq_script.py?"),
        ("sq_script", "no file 'sq_script'; did you mean sq_script.py?"),
        ("README.md", "no file 'README.md'"),
    ],
)
def test_misspelt_file_is_looked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, typed: str, said: str) -> None:
    (tmp_path / "sq_script.py").touch()
    monkeypatch.chdir(tmp_path)

    with pytest.raises(click.ClickException) as caught:
        load(parse(typed, is_module=False))

    assert caught.value.message.endswith(said)


def test_missing_file_is_named() -> None:
    with pytest.raises(click.ClickException, match="no such file"):
        load(Reference("/no/such/file.py"))


def test_directory_is_called_one(tmp_path: Path) -> None:
    with pytest.raises(click.ClickException, match="it is a directory; name a file in it"):
        load(parse(str(tmp_path), is_module=False))


def test_file_with_relative_imports_is_to_be_run_as_a_module(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "sq_pkg").mkdir()
    (tmp_path / "sq_pkg" / "sq_job.py").write_text("from . import sibling\n")

    with pytest.raises(click.exceptions.Exit):
        load(parse("sq_pkg/sq_job.py::f", is_module=False))

    assert "squall run -m sq_pkg.sq_job::f" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("folder", "typed", "said"),
    [
        ("sq_out/sq_in", "sq_job.py", "cd ../..; squall run -m sq_out.sq_in.sq_job"),
        ("sq_out", "sq_in/sq_job.py", "cd ..; squall run -m sq_out.sq_in.sq_job"),
        (".", "sq_out/sq_in/sq_job.py", "module: squall run -m sq_out.sq_in.sq_job"),
    ],
)
def test_package_is_to_be_run_from_outside_of_it(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    folder: str,
    typed: str,
    said: str,
) -> None:
    inner = tmp_path / "sq_out" / "sq_in"
    inner.mkdir(parents=True)
    (inner.parent / "__init__.py").touch()
    (inner / "__init__.py").touch()
    (inner / "sq_job.py").write_text("from . import sibling\n")
    monkeypatch.chdir(tmp_path / folder)

    with pytest.raises(click.exceptions.Exit):
        load(parse(typed, is_module=False))

    assert said in capsys.readouterr().err


@pytest.mark.parametrize("command", ["run", "deploy", "serve"])
def test_dotted_module_without_m_is_told_what_to_type(command: str) -> None:
    with pytest.raises(click.UsageError, match=f"to run a module, write: squall {command} -m pkg.mod$"):
        parse("pkg.mod::app", is_module=False, command=command)
