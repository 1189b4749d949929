"""The project's own files, for the tests that read source: which there are, what they import, what they define."""

from __future__ import annotations

import ast
import contextlib
import functools
import gc
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
SRC = ROOT / "src" / "squall"
# What is neither ours to hold to a style nor there in a fresh clone.
NOT_OURS = {".venv", ".venv-peers", ".git", "__pycache__", ".mypy_cache", ".ruff_cache", ".pytest_cache", ".hypothesis"}


@dataclass(frozen=True, slots=True)
class Imported:
    """One imported name with its place."""

    name: str
    """Dotted, with the name taken from it: `from squall.protocol import ids` is `squall.protocol.ids`."""
    line: int
    is_relative: bool = False
    is_for_types: bool = False
    """Below `if TYPE_CHECKING:`, so it costs nothing when the program runs."""
    function_line: int | None = None
    """Where the innermost function around it begins, or None at module level."""


@functools.cache
def tracked_files() -> tuple[Path, ...]:
    """Files git tracks and that exist; every file when this is no git checkout."""
    listed = subprocess.run(
        ["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, timeout=30, check=False
    )
    if listed.returncode == 0:
        return tuple(path for name in listed.stdout.split("\0") if name and (path := ROOT / name).is_file())
    return tuple(path for path in ROOT.rglob("*") if path.is_file() and not NOT_OURS & set(path.parts))


@functools.cache
def python_files(*folders: str) -> tuple[Path, ...]:
    """Python files in these folders of the project, tracked or not: rules hold before the commit."""
    found = (path for folder in folders for path in sorted((ROOT / folder).rglob("*.py")))
    return tuple(path for path in found if not NOT_OURS & set(path.relative_to(ROOT).parts))


@functools.cache
def read(path: Path) -> str:
    """The text of a file."""
    return path.read_text(encoding="utf-8")


@functools.cache
def parse(path: Path) -> ast.Module:
    """The syntax tree of a file."""
    with _no_garbage_collector():
        return ast.parse(read(path), filename=str(path))


@functools.cache
def nodes(path: Path) -> tuple[ast.AST, ...]:
    """Every node of a file's syntax tree. They are walked once: many rules look at them."""
    tree = parse(path)
    with _no_garbage_collector():
        return tuple(ast.walk(tree))


@contextlib.contextmanager
def _no_garbage_collector() -> Iterator[None]:
    """It looks for cycles in all trees so far: with it, reading all files takes four times as long."""
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


def place(path: Path, line: int = 0) -> str:
    """How findings name a place: `src/squall/x.py:12`."""
    relative = path.relative_to(ROOT)
    return f"{relative}:{line}" if line else str(relative)


def dotted_name(node: ast.AST) -> str:
    """`a.b.c` for a chain of attributes; a call or subscript in it shows as `()`; empty for anything else."""
    if isinstance(node, ast.Name):
        return node.id
    if isinstance(node, ast.Attribute):
        return f"{dotted_name(node.value) or '()'}.{node.attr}"
    if isinstance(node, ast.Call):
        return f"{dotted_name(node.func)}()"
    return ""


@functools.cache
def imports(path: Path) -> tuple[Imported, ...]:
    """Everything a file imports, at any depth."""
    return tuple(_imports_below(parse(path), is_for_types=False, function_line=None))


def _imports_below(node: ast.AST, is_for_types: bool, function_line: int | None) -> Iterator[Imported]:
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.Import):
            for alias in child.names:
                yield Imported(alias.name, child.lineno, False, is_for_types, function_line)
        elif isinstance(child, ast.ImportFrom):
            for alias in child.names:
                name = f"{child.module or ''}.{alias.name}".strip(".")
                yield Imported(name, child.lineno, child.level > 0, is_for_types, function_line)
        elif isinstance(child, ast.If) and dotted_name(child.test).endswith("TYPE_CHECKING"):
            for statement in child.body:
                yield from _imports_below(ast.Module([statement], []), True, function_line)
            for statement in child.orelse:
                yield from _imports_below(ast.Module([statement], []), is_for_types, function_line)
        elif isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef):
            yield from _imports_below(child, is_for_types, child.lineno)
        elif not isinstance(child, ast.expr):
            yield from _imports_below(child, is_for_types, function_line)
