"""The house style as a test: banned calls with their replacement named, ratchets, words, links and leftovers.

A line that has to break a rule says why on the line itself: `# tidy: reason`. There is no other list of
exceptions.
"""

from __future__ import annotations

import ast
import functools
import re
import subprocess
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.tree import ROOT, SRC, dotted_name, imports, nodes, parse, place, python_files, read, tracked_files

pytestmark = pytest.mark.long

COLUMNS_MAX = 120
PROSE_COLUMNS_MAX = 140
LINES_WITH_REASON = 800
# Only these lengths are refused: a function cannot creep past 70 lines, and one that deserves to be long may stay.
RATCHET_LINES = range(71, 76)
FILE_BYTES_MAX = 512 * 1024

TEXT_SUFFIXES = {
    ".py",
    ".md",
    ".toml",
    ".txt",
    ".sh",
    ".lock",
    ".json",
    ".html",
    ".css",
    ".js",
    ".sql",
    ".mako",
    ".ini",
    "",
}
OUR_PYTHON = ("src", "tests", "bench", "examples")


@dataclass(frozen=True, slots=True)
class Ban:
    """A call that has a better one."""

    call: str
    """Regular expression for the whole dotted name called."""
    instead: str
    where: tuple[str, ...] = ("src",)
    but_not: tuple[str, ...] = ()


BANS = [
    Ban(r"time\.time(_ns)?", "the clock passed in (clock.now())", but_not=("clock.py",)),
    Ban(r"datetime(\.datetime)?\.(now|utcnow|today)", "the clock passed in (clock.now())", but_not=("clock.py",)),
    Ban(r"print", "log, or click.echo in the command", but_not=("src/squall/cli/", "a program")),
    Ban(r"shutil\.rmtree", "squall.runtime.removal.remove_tree, which refuses mounts", ("src", "tests", "bench")),
    Ban(r"(os\.removedirs|shutil\.move)", "an explicit rename or remove_tree", ("src", "tests", "bench")),
    Ban(r"os\.(system|popen)", "subprocess.run with a list", ("src", "tests", "bench")),
    Ban(r"asyncio\.get_event_loop", "asyncio.get_running_loop", ("src", "tests", "bench")),
    Ban(
        r"(pickle|cloudpickle|marshal)\.loads?",
        "opaque bytes: only clients and guests unpickle",
        ("src/squall/server", "src/squall/agent", "src/squall/protocol", "src/squall/runtime", "src/squall/main"),
    ),
    Ban(
        r"os\.(getenv|environ\.\w+)",
        "a field of the Config that main/ reads",
        ("src/squall/server", "src/squall/agent", "src/squall/runtime", "src/squall/protocol"),
    ),
    Ban(r"(unittest\.)?(mock\.)?(Magic|Async)?Mock", "the fake that ships in the package", ("src", "tests")),
    Ban(r"(mock\.)?patch(\.\w+)?", "the fake that ships in the package", ("src", "tests")),
    Ban(r"pytest\.mark\.(skip|xfail)", "pytest.skip('needs <the missing feature>') at run time", ("tests",)),
    Ban(r"logging\.basicConfig", "the logging that main/ sets up", but_not=("src/squall/main/", "src/squall/cli/")),
]

# Words with a meaning here have one name each (docs/vocabulary.md). Only names we define are looked at.
UNKNOWN_WORDS = {
    "worker": "container, node or agent",
    "pod": "container",
    "stub": "app, or a fake that ships",
    "task_id": "container_id",
    "job": "call",
    "nodelet": "agent",
}
# Terms of other fields that happen to use one: DNS has stub resolvers.
TERMS_OF_OTHERS = {
    "stub": ("src/squall/runtime/network/", "tests/runtime/test_network.py", "tests/runtime/network/"),
    # A field that programs read by this name.
    "task_id": ("src/squall/sdk/types.py",),
}
EMPTY_NAMES = {"utils", "util", "common", "helpers", "helper", "base", "core", "manager", "managers", "misc"}

UNFINISHED = re.compile(r"\b(" + "|".join(["TODO", "FIXME", "XXX", "HACK"]) + r")\b")
# Registries by name, and paths of a machine somebody works on.
FOREIGN = re.compile(
    r"pypi\.org|pythonhosted\.org|npmjs\.(org|com)|docker\.io|ghcr\.io|quay\.io|\bgcr\.io|(deb|security|snapshot)\.debian"
    r"\.org|archive\.ubuntu\.com|(?<![\w}/.-])/work/(?=\w)|/tmp/squall/|/home/[a-z]+/|\.pyenv\b"
)
CONTROL = re.compile("[\x00-\x08\x0b-\x1f\x7f\u200b-\u200f\u202a-\u202e\u2060-\u2064\ufeff]")

# Fakes ship in the package, so that users can test against them too; our own programs do not use them.
FAKES = {SRC / "runtime/fake.py", SRC / "server/store/memory.py", SRC / "server/store/memory_secret_keys.py"}


def has_reason(path: Path, line: int) -> bool:
    """The line carries `# tidy: reason`."""
    lines = read(path).splitlines()
    return bool(re.search(r"# tidy: \S.{8,}", lines[line - 1]))


@functools.cache
def text_files() -> tuple[Path, ...]:
    """Tracked text files, but the licence, which is not ours to lay out."""
    return tuple(path for path in tracked_files() if path.suffix in TEXT_SUFFIXES and path.name != "LICENSE")


def functions(path: Path) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    for node in nodes(path):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield node


def is_in(path: Path, places: tuple[str, ...]) -> bool:
    """The file is one of these, or in one of these folders; `a program` is any file that can be run by itself."""
    name = place(path)
    if "a program" in places and "\nif __name__ ==" in read(path):
        return True
    return any(name == one or name.startswith(one.rstrip("/") + "/") or name.endswith("/" + one) for one in places)


def test_banned_calls_are_not_made() -> None:
    found = []
    for path in python_files(*OUR_PYTHON):
        bans = [(re.compile(ban.call), ban) for ban in BANS if is_in(path, ban.where) and not is_in(path, ban.but_not)]
        any_ban = re.compile("|".join(f"(?:{ban.call})" for _, ban in bans) or r"(?!)")
        for node in nodes(path):
            if not isinstance(node, ast.Call | ast.Attribute):
                continue
            name = dotted_name(node.func if isinstance(node, ast.Call) else node)
            for pattern, ban in bans if any_ban.fullmatch(name) else ():
                is_reference = not isinstance(node, ast.Call) and not ban.call.startswith(("pytest", r"os\.(getenv"))
                if not is_reference and pattern.fullmatch(name) and not has_reason(path, node.lineno):
                    found.append(f"{place(path, node.lineno)}: {name}: use {ban.instead}")

    assert not found, "\n".join(sorted(set(found)))


def test_tasks_have_an_owner() -> None:
    """asyncio keeps only a weak reference: what nobody holds can vanish, and what nobody awaits fails unseen."""
    found = []
    for path in python_files("src"):
        for node in nodes(path):
            if not isinstance(node, ast.Expr) or not isinstance(node.value, ast.Call):
                continue
            name = dotted_name(node.value.func)
            owner = name.rpartition(".")[0]
            is_loop = owner in {"asyncio", "loop"} or owner.endswith(("_loop", "loop()", ".loop"))
            if name.endswith((".create_task", ".ensure_future")) and is_loop and not has_reason(path, node.lineno):
                found.append(
                    f"{place(path, node.lineno)}: task without an owner; use a task group, or keep it and await it"
                )

    assert not found, "\n".join(found)


def test_trees_are_deleted_on_one_file_system() -> None:
    """`rm -r` through a bind mount has emptied a machine's /dev before."""
    deletes = re.compile(r"\brm (-[a-zA-Z]*[rR][a-zA-Z]*|--recursive)\b(?!.*--one-file-system)")
    paths = [path for path in text_files() if path.suffix != ".md" and path.name != "test_tidy.py"]
    found = [
        f"{place(path, number)}: rm -r without --one-file-system"
        for path in paths
        for number, line in enumerate(read(path).splitlines(), 1)
        if deletes.search(line) and not line.lstrip().startswith("#") and not has_reason(path, number)
    ]

    assert not found, "\n".join(found)


def test_functions_do_not_creep_past_seventy_lines() -> None:
    found = [
        f"{place(path, node.lineno)}: {node.name} has {length} lines; split it by phase"
        for path in python_files("src", "tests", "bench")
        for node in functions(path)
        if (length := (node.end_lineno or 0) - node.lineno + 1) in RATCHET_LINES
    ]

    assert not found, "\n".join(found)


def test_long_files_say_why_they_are_one_thing() -> None:
    found = [
        f"{place(path)}: {count} lines; its docstring must say in a sentence why it is one thing, or it holds two"
        for path in python_files("src", "tests", "bench")
        if (count := read(path).count("\n")) > LINES_WITH_REASON
        and "one thing" not in (ast.get_docstring(parse(path)) or "")
    ]

    assert not found, "\n".join(found)


def test_every_module_has_a_docstring() -> None:
    found = [
        place(path)
        for path in python_files("src", "tests", "bench")
        if read(path).strip() and not ast.get_docstring(parse(path))
    ]

    assert not found, "\n".join(found)


def test_modules_are_named_for_what_they_are() -> None:
    found = [place(path) for path in python_files("src") if {path.stem, path.parent.name} & EMPTY_NAMES]

    assert not found, f"a name that says nothing: {found}"


def defined_names(path: Path) -> Iterator[tuple[int, str]]:
    """Names a file defines: functions, classes, arguments, variables, attributes. Not names of others it only uses."""
    for node in nodes(path):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            yield node.lineno, node.name
        elif isinstance(node, ast.arg):
            yield node.lineno, node.arg
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            yield node.lineno, node.id
        elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store):
            yield node.lineno, node.attr


def words_of(name: str) -> str:
    """`_worker_stub_` for workerStub, WorkerStub and worker_stub."""
    return "_" + re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name).lower().strip("_") + "_"


def test_every_word_is_in_the_vocabulary() -> None:
    found = [
        f"{place(path, line)}: {name}: say {instead}"
        for path in python_files("src", "tests", "bench")
        for line, name in defined_names(path)
        for word, instead in UNKNOWN_WORDS.items()
        if f"_{word}_" in words_of(name) and not is_in(path, TERMS_OF_OTHERS.get(word, ()))
        if not has_reason(path, line)
    ]

    assert not found, "\n".join(sorted(set(found)))


@pytest.mark.parametrize(
    ("pattern", "why"), [(UNFINISHED, "finish it, or file it"), (FOREIGN, "no fresh clone has this")]
)
def test_text_holds_no_leftovers(pattern: re.Pattern[str], why: str) -> None:
    found = [
        f"{place(path, number)}: {matched[0]}: {why}"
        for path in text_files()
        if path.name != "test_tidy.py"  # holds the patterns
        for number, line in enumerate(read(path).splitlines(), 1)
        if (matched := pattern.search(line)) and not has_reason(path, number)
    ]

    assert not found, "\n".join(found)


def test_nothing_is_left_unwritten() -> None:
    found = [
        f"{place(path, node.lineno)}: write it, or do not declare it"
        for path in python_files("src")
        for node in nodes(path)
        if isinstance(node, ast.Name) and node.id == "NotImplementedError" and not has_reason(path, node.lineno)
    ]

    assert not found, "\n".join(found)


def test_text_is_laid_out_alike() -> None:
    found = []
    for path in text_files():
        text = read(path)
        is_prose = path.suffix == ".md"
        if text and not text.endswith("\n"):
            found.append(f"{place(path)}: no newline at the end")
        for number, line in enumerate(text.split("\n"), 1):
            if CONTROL.search(line) or ("\t" in line and path.name != "Makefile"):
                found.append(f"{place(path, number)}: control character")
            if line != line.rstrip():
                found.append(f"{place(path, number)}: space at the end")
            is_free = path.suffix in {".json", ".lock", ".txt"} or (
                is_prose and ("|" in line or "](" in line or "://" in line)
            )
            columns_max = PROSE_COLUMNS_MAX if is_prose else COLUMNS_MAX
            if len(line) > columns_max and not is_free and path.suffix != ".py":  # Python is the linter's
                found.append(f"{place(path, number)}: {len(line)} columns, at most {columns_max}")

    assert not found, "\n".join(found)


def module_name(path: Path) -> str:
    """`squall.sdk.app` for src/squall/sdk/app.py; a package is named without __init__."""
    parts = path.relative_to(SRC.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def test_every_module_is_used() -> None:
    """Imported by another module, or started as a program by a dotted name in a string, a script or pyproject.toml."""
    modules = {module_name(path): path for path in python_files("src")}
    readers = python_files("src", "bench")
    used: set[str] = set()
    for path in readers:
        for found in imports(path):
            used |= {found.name, found.name.rpartition(".")[0]} - {
                module_name(path) if path.is_relative_to(SRC) else ""
            }
    started = "\n".join(
        read(path) for path in [*readers, *ROOT.glob("scripts/*"), ROOT / "pyproject.toml"] if path.is_file()
    )

    unused = [
        place(path)
        for name, path in modules.items()
        if path.name not in {"__init__.py", "__main__.py", "env.py"}
        and path.parent != SRC  # public modules are for users to import
        and path not in FAKES
        and "versions" not in path.parts  # migrations are found by their folder
        and name not in used
        and not re.search(rf"(?<![\w.]){re.escape(name)}(?![\w.])", started)
        and not re.search(rf"(?<![\w/]){re.escape(name.replace('.', '/'))}\.py", started)
    ]

    assert not unused, f"nothing uses {unused}; delete, or wire in"


def test_what_git_tracks_is_complete() -> None:
    """A module that works here and is missing in a fresh clone: a tracked file imports what was never added."""
    tracked = set(tracked_files())
    by_name = {module_name(path): path for path in python_files("src")}
    found = []
    for path in tracked:
        if path.suffix != ".py" or not path.is_relative_to(ROOT):
            continue
        for imported in imports(path):
            for name in (imported.name, imported.name.rpartition(".")[0]):
                if name in by_name and by_name[name] not in tracked:
                    found.append(
                        f"{place(path, imported.line)}: imports {place(by_name[name])}, which git does not track"
                    )

    assert not found, "\n".join(sorted(set(found)))


def test_tracked_files_are_small() -> None:
    found = [
        f"{place(path)}: {size} bytes" for path in tracked_files() if (size := path.stat().st_size) > FILE_BYTES_MAX
    ]

    assert not found, "\n".join(found)


LINK = re.compile(r"(?<!!)\[[^\]]*\]\(([^)\s]+)\)")


def heading_anchors(path: Path) -> set[str]:
    """Anchors of the headings of a page, as the usual viewers make them."""
    headings = re.findall(r"^#+ +(.*)$", read(path), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).strip().replace(" ", "-") for heading in headings}


def test_links_in_pages_lead_somewhere() -> None:
    found = []
    for path in (path for path in tracked_files() if path.suffix == ".md"):
        for link in LINK.findall(re.sub(r"```.*?```", "", read(path), flags=re.DOTALL)):
            target, _, anchor = link.partition("#")
            if "://" in target or target.startswith("mailto:"):
                continue
            page = (path.parent / target).resolve() if target else path
            if not page.exists():
                found.append(f"{place(path)}: {link}: no such file")
            elif anchor and page.suffix == ".md" and anchor not in heading_anchors(page):
                found.append(f"{place(path)}: {link}: no such heading")

    assert not found, "\n".join(found)


def test_files_named_in_pages_exist() -> None:
    """Checklists and pages name files in backticks; those of this tree must be there."""
    named = re.compile(r"`((?:src/squall|tests|scripts|docs|bench|examples)/[\w./-]+)`")
    found = [
        f"{place(path)}: `{name}`: no such file"
        for path in tracked_files()
        if path.suffix == ".md" and "decisions" not in path.parts and path.name != "CHANGELOG.md"
        for name in named.findall(read(path))
        if not (ROOT / name).exists()
    ]

    assert not found, "\n".join(found)


def test_decisions_are_numbered_once_and_complete() -> None:
    pages = sorted((ROOT / "docs" / "decisions").glob("*.md"))
    numbers = [path.name[:4] for path in pages]

    assert all(re.fullmatch(r"\d{4}-[a-z0-9-]+\.md", path.name) for path in pages), [path.name for path in pages]
    assert len(numbers) == len(set(numbers)), f"two decisions of one number: {numbers}"
    for path in pages:
        for part in ("## Context", "## Choice", "## Alternatives refused"):
            assert part in read(path), f"{place(path)} lacks {part}"


def test_dependencies_say_why() -> None:
    """Each line of a dependency list in pyproject.toml has a comment above it (or above its group)."""
    text = read(ROOT / "pyproject.toml")
    project = tomllib.loads(text)["project"]
    lines = [line.strip() for line in text.splitlines()]
    found = []
    for requirement in [*project["dependencies"], *project["optional-dependencies"]["server"]]:
        number = lines.index(f'"{requirement}",')
        if not lines[number - 1].startswith("#"):
            found.append(requirement)

    assert not found, f"no reason given for {found}"


def test_scripts_are_well_formed() -> None:
    """Executable, and bash can read them."""
    scripts = [path for path in [*ROOT.glob("scripts/*"), ROOT / ".ci" / "run"] if path.is_file()]
    for path in scripts:
        if read(path).startswith("#!/usr/bin/env bash"):
            assert path.stat().st_mode & 0o100, f"{place(path)} is not executable"
            subprocess.run(["bash", "-n", str(path)], check=True, timeout=10)
