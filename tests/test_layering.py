"""Imports point one way, and the parts that run everywhere stay light (docs/architecture.md draws the layers)."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from tests.tree import ROOT, SRC, Imported, dotted_name, imports, nodes, place, python_files, read

pytestmark = pytest.mark.long

MAY_IMPORT: dict[str, set[str]] = {
    "protocol": set(),
    "runtime": set(),
    "erofs": set(),
    "sdk": {"protocol"},
    "cli": {"protocol", "sdk"},
    "guest": {"protocol", "sdk"},
    "agent": {"protocol", "runtime", "erofs"},
    "server": {"protocol"},
    "main": {"protocol", "runtime", "erofs", "agent", "server"},
}

# Inside server/: records and rules at the bottom, pure decisions above them, then what does the work. The siblings do
# not know one another: main/ hands one to the other. Folders not named here may import any but the siblings.
SERVER_PURE = {
    "model": set[str](),
    "scheduler": {"model"},
    "autoscaler": {"model"},
    "policy": {"model"},
    "schedule": {"model"},
}
SERVER_SIBLINGS = {"store", "api", "dashboard"}
# A contract and its records are where siblings meet: `server/store/contract.py` is the specification, no SQL in it.
CONTRACTS = {"contract"}
# Snapshot in, plan out: nothing that reads the clock, the network, the disk or chance.
IMPURE = {"asyncio", "time", "random", "secrets", "socket", "os", "subprocess", "pathlib", "sqlalchemy", "threading"}

# Layers that run in users' programs and in any image, on Python 3.10 to 3.14.
LIGHT = ("protocol", "sdk", "guest")
# The command runs where the library does; it may need more, but no newer Python.
ON_PYTHON_3_10 = (*LIGHT, "cli")
LIGHT_AT_IMPORT = {"cloudpickle"}
# Third parties they may import when first used, below `# cold start:`, each with its reason.
LIGHT_WHEN_USED = {
    "websockets": "a server on another machine",
    "msgspec": "the server's fast decoder of the same records",
    "uvloop": "a faster loop where it is installed",
    "rich": "progress on a terminal",
    "dotenv": "a file of secrets, read by the client",
    "tomli": "a project's dependencies, read by the client; Python has a reader from 3.11 on only",
    "cronsim": "cron expressions, read where a schedule is made and by the server",
}
# In the standard library of 3.11 and newer only.
TOO_NEW = {"tomllib", "asyncio.TaskGroup", "asyncio.timeout", "asyncio.Runner", "typing.Self", "enum.StrEnum"}
TOO_NEW |= {"typing.assert_never", "typing.Never", "typing.LiteralString", "typing.NotRequired", "typing.Required"}
TOO_NEW |= {"datetime.UTC", "typing.override", "typing.Unpack", "typing.TypeVarTuple", "asyncio.Barrier"}

# Layers whose start a person waits for, where an import may wait until it is needed; elsewhere imports are at the top.
MAY_IMPORT_LATE = {"protocol", "sdk", "guest", "cli", "main"}

DISTRIBUTION_OF = {"psycopg_pool": "psycopg", "dotenv": "python-dotenv", "yaml": "pyyaml"}


def layer_of(path: Path) -> str:
    """`sdk` for src/squall/sdk/x.py; the package's own __init__ is a layer without a name, above sdk."""
    parts = path.relative_to(SRC).parts
    return parts[0] if len(parts) > 1 else ""


def layer_imported(name: str) -> str:
    """`sdk` for squall.sdk.x and for public names beside the layers (squall.exception); empty for others'."""
    root, _, rest = name.partition(".")
    target = rest.partition(".")[0]
    # `import squall` alone loads nothing that is not loaded anyway; some ask it where the package is.
    if root != "squall" or not target:
        return ""
    return target if target in MAY_IMPORT else "sdk"


def is_third_party(name: str) -> bool:
    # `annotationlib` came with Python 3.14.
    return name.partition(".")[0] not in sys.stdlib_module_names | {"squall", "annotationlib"}


def has_cold_start_note(path: Path, found: Imported) -> bool:
    """A `# cold start: why` on the import, in the comment above it, or on or above the function it is in."""
    lines = read(path).splitlines()
    for number in (found.line, found.function_line or 0):
        if number and "# cold start:" in lines[number - 1]:
            return True
        above = number - 2
        while above >= 0 and (text := lines[above].strip()) and text.startswith(("#", "@", "from ", "import ")):
            if "# cold start:" in text:
                return True
            above -= 1
    return False


def test_layers_are_the_known_ones() -> None:
    folders = {path.name for path in SRC.iterdir() if path.is_dir() and path.name != "__pycache__"}

    assert folders <= set(MAY_IMPORT), "a new layer enters docs/architecture.md and MAY_IMPORT first"


def test_imports_point_one_way() -> None:
    wrong = []
    for path in python_files("src"):
        layer = layer_of(path)
        allowed = MAY_IMPORT.get(layer, set()) if layer else {"sdk", "protocol"}
        for found in imports(path):
            target = layer_imported(found.name)
            if found.is_relative:
                wrong.append(f"{place(path, found.line)}: relative import hides the layer; write squall.{layer}...")
            elif target and target not in allowed | {layer}:
                wrong.append(f"{place(path, found.line)}: {layer or 'squall'} imports {target} ({found.name})")

    assert not wrong, "\n".join(wrong)


def test_server_folders_point_one_way() -> None:
    wrong = []
    for path in python_files("src/squall/server"):
        folder = path.relative_to(SRC / "server").parts[0]
        for found in imports(path):
            parts = found.name.split(".")
            if parts[:2] != ["squall", "server"] or len(parts) < 3 or (target := parts[2]) == folder:
                continue
            is_meeting_point = len(parts) > 3 and parts[3] in CONTRACTS
            is_wrong = target not in SERVER_PURE[folder] if folder in SERVER_PURE else target in SERVER_SIBLINGS
            if is_wrong and not is_meeting_point and not folder.endswith(".py"):
                wrong.append(f"{place(path, found.line)}: server/{folder} imports server/{target}")

    assert not wrong, "\n".join(wrong)


def test_decisions_are_pure() -> None:
    wrong = []
    for path in [file for folder in SERVER_PURE for file in python_files(f"src/squall/server/{folder}")]:
        for found in imports(path):
            if found.name.partition(".")[0] in IMPURE and not found.is_for_types:
                wrong.append(
                    f"{place(path, found.line)}: imports {found.name}; what it needs is passed in (now, rng, snapshot)"
                )

    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize("layer", LIGHT)
def test_light_layers_import_little_and_late(layer: str) -> None:
    wrong = []
    for path in python_files(f"src/squall/{layer}"):
        for found in imports(path):
            name = found.name.partition(".")[0]
            if found.is_for_types or not is_third_party(found.name) or name in LIGHT_AT_IMPORT:
                continue
            if name not in LIGHT_WHEN_USED:
                wrong.append(f"{place(path, found.line)}: {layer} may not need {name}; see LIGHT_WHEN_USED")
            elif found.function_line is None:
                wrong.append(
                    f"{place(path, found.line)}: import {name} in the function that uses it, with `# cold start:`"
                )

    assert not wrong, "\n".join(wrong)


def test_client_is_loaded_without_an_event_loop() -> None:
    """A third of what there is to load, for programs that only block."""
    for module in ("squall.sdk._client", "squall.sdk._map", "squall.cli.run"):
        code = f"import sys, {module}; sys.exit('asyncio' in sys.modules)"

        loaded = subprocess.run([sys.executable, "-c", code], env={"PYTHONPATH": str(SRC.parent)}, check=False)

        assert loaded.returncode == 0, module


@pytest.mark.parametrize("layer", ON_PYTHON_3_10)
def test_layers_of_users_run_on_python_3_10(layer: str) -> None:
    wrong = []
    for path in python_files(f"src/squall/{layer}"):
        try:
            ast.parse(read(path), feature_version=(3, 10))
        except SyntaxError as error:
            wrong.append(f"{place(path, error.lineno or 0)}: {error.msg}")
        for found in imports(path):
            if found.name in TOO_NEW and not found.is_for_types:
                wrong.append(f"{place(path, found.line)}: {found.name} is not in Python 3.10")
        for node in nodes(path):
            if isinstance(node, ast.Attribute) and dotted_name(node) in TOO_NEW:
                wrong.append(f"{place(path, node.lineno)}: {dotted_name(node)} is not in Python 3.10")
            if isinstance(node, ast.Name) and node.id in {"ExceptionGroup", "BaseExceptionGroup"}:
                wrong.append(f"{place(path, node.lineno)}: {node.id} is not in Python 3.10")
            if isinstance(node, ast.TryStar):
                wrong.append(f"{place(path, node.lineno)}: except* is not in Python 3.10")

    assert not wrong, "\n".join(wrong)


def test_imports_are_at_the_top() -> None:
    wrong = []
    for path in python_files("src"):
        layer = layer_of(path)
        for found in imports(path):
            if found.function_line is None:
                continue
            if layer and layer not in MAY_IMPORT_LATE:
                wrong.append(f"{place(path, found.line)}: {found.name} in a function; {layer} imports at the top")
            elif not has_cold_start_note(path, found):
                wrong.append(f"{place(path, found.line)}: {found.name} in a function without `# cold start: why`")

    assert not wrong, "\n".join(wrong)


def test_third_parties_are_declared_for_those_who_need_them() -> None:
    project = tomllib.loads(read(ROOT / "pyproject.toml"))["project"]
    everyone = {distribution(text) for text in project["dependencies"]}
    server = everyone | {distribution(text) for text in project["optional-dependencies"]["server"]}
    for extra in ("postgres", "aws"):
        server |= {distribution(text) for text in project["optional-dependencies"][extra]}

    wrong = []
    for path in python_files("src"):
        declared = everyone if layer_of(path) in {"", "cli"} else server
        for found in imports(path):
            name = found.name.partition(".")[0]
            needed = DISTRIBUTION_OF.get(name, name).replace("_", "-")
            if is_third_party(found.name) and not found.is_for_types and needed not in declared:
                wrong.append(f"{place(path, found.line)}: {name} is not declared in pyproject.toml for its layer")

    assert not wrong, "\n".join(wrong)


def distribution(requirement: str) -> str:
    """`psycopg` for `psycopg[binary]>=3.1`."""
    matched = re.match(r"[A-Za-z0-9._-]+", requirement)
    assert matched is not None
    return matched[0].lower().replace("_", "-")
