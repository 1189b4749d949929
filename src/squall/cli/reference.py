"""Which file, and what in it: `path.py`, `path.py::name`, `path.py::app.name`, `-m pkg.mod::name`, `-`.

Loading runs the user's file as a module named as in a container, with its folder and this one on the path.
"""

from __future__ import annotations

import importlib
import importlib.util
import os
import shlex
import sys
from pathlib import Path
from types import ModuleType

import click

from squall.protocol.records import record
from squall.sdk import _output
from squall.sdk._source import module_name_of

# Endings of files that people have beside their programs: what is missing is that file, not a module.
_NO_MODULES = (".md", ".ipynb", ".txt", ".toml", ".json", ".yaml", ".yml", ".sh")


@record
class Reference:
    """A parsed reference."""

    source: str
    """A path, a dotted module name, or `-` for standard input."""
    name: str = ""
    """What in it; empty to choose."""
    is_module: bool = False
    command: str = "run"
    """Of ours, that it was given to: for messages."""


def parse(text: str, *, is_module: bool, command: str = "run") -> Reference:
    """Split a reference.

    Raises:
        click.UsageError: it is none; the message says what it should look like.
    """
    source, _, name = text.partition("::")
    if not source:
        raise click.UsageError(f"{text!r} names no file; write path.py, or path.py::name")
    if not is_module and source != "-" and not source.endswith(".py") and not Path(source).exists():
        dotted = source.replace("/", ".")
        if Path(f"{source}.py").is_file():
            hint = f"; did you mean {source}.py?"
        elif all(part.isidentifier() for part in dotted.split(".")) and Path(source).suffix not in _NO_MODULES:
            hint = f"; to run a module, write: squall {command} -m {dotted}"
        else:
            hint = ""
        raise click.UsageError(f"no file {source!r}{hint}")
    return Reference(source, name, is_module, command)


def load(reference: Reference) -> ModuleType:
    """Import what a reference names.

    Raises:
        click.ClickException: it is not there, or its own code failed (the traceback has been shown then).
    """
    # Behind the folder of a file, and for `-` and modules as Python itself has it.
    sys.path.insert(0, str(Path.cwd()))
    if reference.source == "-":
        return _run(_module_of_stdin)
    if reference.is_module:
        return _run(lambda: importlib.import_module(reference.source))
    path = Path(reference.source).resolve()
    if path.is_dir():
        raise click.ClickException(
            f"cannot {reference.command} {reference.source}: it is a directory; name a file in it"
        )
    if not path.is_file():
        raise click.ClickException(f"cannot {reference.command} {reference.source}: no such file{_similar(path)}")
    sys.path.insert(0, str(path.parent))
    try:
        return _run(lambda: _module_of_file(path))
    except click.exceptions.Exit as ended:
        if "attempted relative import with no known parent" in str(ended.__cause__):
            command = _as_module(path, reference.command) + (f"::{reference.name}" if reference.name else "")
            click.echo(f"It imports its package, which a file has none of; run it as a module: {command}", err=True)
        raise


def _similar(path: Path) -> str:
    """A file beside a missing one that may have been meant."""
    folder = path.parent
    beside = [one.name for one in folder.glob("*.py")] if folder.is_dir() else []
    import difflib  # cold start: only for what is wrong

    close = difflib.get_close_matches(path.name, beside, n=1)
    return f"; did you mean {close[0]}?" if close else ""


def _as_module(path: Path, command: str) -> str:
    """The command that runs the file at a path as a module of its package, typed here."""
    cwd, package = Path.cwd(), path.parent
    while (package.parent / "__init__.py").is_file():
        package = package.parent
    # A package is found from outside of it.
    top = cwd if package != cwd and package.is_relative_to(cwd) else package.parent
    change = "" if top == cwd else f"cd {shlex.quote(os.path.relpath(top, cwd))}; "
    return f"{change}squall {command} -m {'.'.join(path.with_suffix('').relative_to(top).parts)}"


def _module_of_file(path: Path) -> ModuleType:
    name = module_name_of(str(path))
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise click.ClickException(f"cannot run {path}: it is no Python file")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


def _module_of_stdin() -> ModuleType:
    module = ModuleType("__main__")
    sys.modules["__main__"] = module
    exec(compile(sys.stdin.read(), "<stdin>", "exec"), module.__dict__)
    return module


def _run(load_module: object) -> ModuleType:
    assert callable(load_module)
    try:
        module = load_module()
    except click.ClickException:
        raise
    except Exception as error:
        show_user_traceback(error)
        raise click.exceptions.Exit(1) from error
    assert isinstance(module, ModuleType)
    return module


def show_user_traceback(error: BaseException) -> None:
    """Print a traceback of the user's own code and of containers: our frames tell them nothing.

    What a container's log has shown of it just now is not printed again. With SQUALL_TRACEBACK all of it is.
    """
    if os.environ.get("SQUALL_TRACEBACK"):
        import traceback  # cold start: when something failed

        click.echo("".join(traceback.format_exception(error)), err=True, nl=False)
        return
    from squall.sdk._traceback import format_for_user  # cold start: when something failed

    click.echo(format_for_user(error, _output.current().has_shown), err=True, nl=False)
