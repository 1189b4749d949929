"""Which file, and what in it: `path.py`, `path.py::name`, `path.py::app.name`, `-m pkg.mod::name`, `-`.

Loading runs the user's file as a module named like its stem, with its folder on the path, as in a container.
"""

from __future__ import annotations

import importlib
import importlib.util
import sys
import traceback
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

import click


@dataclass(frozen=True)
class Reference:
    """A parsed reference."""

    source: str
    """A path, a dotted module name, or `-` for standard input."""
    name: str = ""
    """What in it; empty to choose."""
    is_module: bool = False


def parse(text: str, *, is_module: bool) -> Reference:
    """Split a reference.

    Raises:
        click.UsageError: it is none; the message says what it should look like.
    """
    source, _, name = text.partition("::")
    if not source:
        raise click.UsageError(f"{text!r} names no file; write path.py, or path.py::name")
    if not is_module and source != "-" and not source.endswith(".py") and not Path(source).exists():
        dotted = source.replace("/", ".")
        raise click.UsageError(f"no file {source!r}; to run a module, write: squall run -m {dotted}")
    return Reference(source, name, is_module)


def load(reference: Reference) -> ModuleType:
    """Import what a reference names.

    Raises:
        click.ClickException: it is not there, or its own code failed (the traceback has been shown then).
    """
    if reference.source == "-":
        return _run(_module_of_stdin)
    if reference.is_module:
        sys.path.insert(0, str(Path.cwd()))
        return _run(lambda: importlib.import_module(reference.source))
    path = Path(reference.source).resolve()
    if not path.is_file():
        raise click.ClickException(f"cannot run {reference.source}: no such file")
    sys.path.insert(0, str(path.parent))
    return _run(lambda: _module_of_file(path))


def _module_of_file(path: Path) -> ModuleType:
    name = path.stem
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
    """Print a traceback that begins with the user's own code: our frames and importlib's tell them nothing."""
    frames = traceback.extract_tb(error.__traceback__)
    ours = str(Path(__file__).resolve().parent.parent)
    first = next(
        (
            number
            for number, frame in enumerate(frames)
            if not frame.filename.startswith((ours, "<frozen")) and "/importlib/" not in frame.filename
        ),
        len(frames),
    )
    shown = traceback.TracebackException(type(error), error, error.__traceback__)
    shown.stack = traceback.StackSummary.from_list(frames[first:])
    click.echo("".join(shown.format()), err=True, nl=False)
