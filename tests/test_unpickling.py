"""Values are opaque on their way: only the two ends, the user's program and the container, ever unpickle."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

pytestmark = pytest.mark.long

SRC = Path(__file__).parents[1] / "src" / "squall"
TRUSTED_BY_OTHERS = ("protocol", "runtime", "server", "agent", "main", "cli")
# Each of them can execute what it reads.
DANGEROUS = {"pickle", "_pickle", "cPickle", "cloudpickle", "dill", "joblib", "shelve", "marshal", "code", "runpy"}
DANGEROUS_CALLS = {"eval", "exec", "compile", "__import__"}
ALLOWED = {
    "cli/reference.py": "runs the user's own program, as the user",
    "protocol/records.py": "compiles methods of our own classes, from the names of their fields",
}


def dangers(tree: ast.Module) -> list[str]:
    """What of this module could execute data, with its line."""
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found += [f"{node.lineno}: {one.name}" for one in node.names if one.name.partition(".")[0] in DANGEROUS]
        elif isinstance(node, ast.ImportFrom) and (node.module or "").partition(".")[0] in DANGEROUS:
            found.append(f"{node.lineno}: {node.module}")
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in DANGEROUS_CALLS:
            found.append(f"{node.lineno}: {node.func.id}()")
    return found


@pytest.mark.parametrize("layer", TRUSTED_BY_OTHERS)
def test_no_layer_between_the_two_ends_can_execute_what_it_carries(layer: str) -> None:
    paths = sorted((SRC / layer).rglob("*.py"))
    assert paths, layer

    found = {str(path.relative_to(SRC)): dangers(ast.parse(path.read_text())) for path in paths}

    assert {path: what for path, what in found.items() if what and path not in ALLOWED} == {}


@pytest.mark.parametrize("text", ["import pickle", "from cloudpickle import loads", "x = eval('1')", "import marshal"])
def test_the_search_finds_what_it_looks_for(text: str) -> None:
    assert dangers(ast.parse(text))
