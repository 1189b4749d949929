"""The library containers find: complete, compiled, shared no further than it may be."""

from __future__ import annotations

import asyncio
import importlib.util
import subprocess
import sys
from collections.abc import AsyncIterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from squall.agent.guest_library import COMPILER, SERIES, GuestLibrary
from squall.protocol.guest import LIBRARY_DIR
from squall.protocol.image import ImageConfig
from squall.runtime.errors import RuntimeFailure

OWN = ImageConfig(python_path="/usr/bin/python3", python_version=f"{SERIES}.9", layers=("ly-a",))
OTHER = ImageConfig(python_path="/usr/bin/python3", python_version="3.99.1", layers=("ly-a", "ly-b"))


class Made:
    """A library, and the programs it had run by other Pythons."""

    def __init__(self, data_dir: Path, threads: ThreadPoolExecutor) -> None:
        self.data_dir = data_dir
        self.threads = threads
        self.runs: list[tuple[Sequence[str], str]] = []
        self.printed: bytes | RuntimeFailure = b""
        self.library = self.successor()

    def successor(self) -> GuestLibrary:
        library = GuestLibrary(self.data_dir, self.threads, self.run_python)
        library.prepare()
        return library

    async def run_python(self, layers: Sequence[str], python_path: str, program: str, library_dir: str) -> bytes:
        self.runs.append((tuple(layers), python_path))
        if isinstance(self.printed, RuntimeFailure):
            raise self.printed
        return self.printed


@pytest.fixture
async def made(data_dir: Path) -> AsyncIterator[Made]:
    with ThreadPoolExecutor(2) as threads:
        yield Made(data_dir, threads)


def run_alone(program: str) -> subprocess.CompletedProcess[bytes]:
    """Run a program by this Python, without site-packages."""
    return subprocess.run([sys.executable, "-I", "-S", "-c", program], capture_output=True, timeout=30)


def layer(tmp_path: Path, name: str, has_python: bool) -> str:
    (tmp_path / name / "usr" / "bin").mkdir(parents=True)
    if has_python:
        (tmp_path / name / "usr" / "bin" / "python3").touch()
    return str(tmp_path / name)


@pytest.mark.long
async def test_the_library_is_complete_and_can_be_imported_without_anything_else(made: Made) -> None:
    place = await made.library.get((), OWN, "im-1")

    program = f"import sys; sys.path[:0] = [{place!r}]; import cloudpickle, squall.protocol.peer, squall.guest"
    ended = await asyncio.to_thread(run_alone, program)
    assert ended.returncode == 0, ended.stderr
    assert not (Path(place) / "squall" / "server").exists()
    assert not (Path(place) / "squall" / "runtime").exists()


async def test_bytecode_is_there_for_every_module_and_names_the_path_inside(made: Made) -> None:
    place = Path(await made.library.get((), OWN, "im-1"))

    sources = list(place.rglob("*.py"))
    assert len(sources) > 30
    for source in sources:
        compiled = Path(importlib.util.cache_from_source(str(source))).read_bytes()
        assert compiled[4:8] == (1).to_bytes(4, "little"), "checked against nothing"
        assert LIBRARY_DIR.encode() in compiled
    for path in [place, *place.rglob("*")]:
        assert path.stat().st_mode & 0o005


async def test_it_is_made_once_and_found_by_the_next_agent(made: Made) -> None:
    first = await made.library.get((), OWN, "im-1")
    inode = Path(first).stat().st_ino

    again = await made.successor().get((), OWN, "im-2")

    assert (again, Path(again).stat().st_ino) == (first, inode)
    assert not list(Path(first).parent.glob(".new-*"))


async def test_another_python_compiles_by_the_base_layer_alone(made: Made, tmp_path: Path) -> None:
    layers = (layer(tmp_path, "base", True), layer(tmp_path, "users", True))
    made.printed = b"squall/protocol/__pycache__/ids.cpython-399.pyc QUJD\n"

    first = await made.library.get(layers, OTHER, "im-1")
    second = await made.library.get(layers, OTHER, "im-2")

    assert first == second
    assert made.runs == [((layers[0],), "/usr/bin/python3")]
    assert (Path(first) / "squall/protocol/__pycache__/ids.cpython-399.pyc").read_bytes() == b"ABC"


async def test_a_python_that_a_user_installed_compiles_for_its_image_only(made: Made, tmp_path: Path) -> None:
    layers = (layer(tmp_path, "base", False), layer(tmp_path, "users", True))

    first = await made.library.get(layers, OTHER, "im-1")
    second = await made.library.get(layers, OTHER, "im-2")

    assert first != second
    assert [used for used, _ in made.runs] == [layers, layers]


@pytest.mark.parametrize(
    "line",
    [
        b"../../x/__pycache__/a.pyc QUJD",
        b"/etc/__pycache__/a.pyc QUJD",
        b"squall/protocol/ids.py QUJD",
        b"squall/__pycache__/../protocol/ids.py QUJD",
        b"squall/nowhere/__pycache__/a.pyc QUJD",
        b"squall/__pycache__/a.pyc !!",
        b"\xff\xff",
    ],
)
async def test_what_a_compiler_prints_leads_nowhere_else(made: Made, tmp_path: Path, line: bytes) -> None:
    made.printed = line + b"\n"

    place = Path(await made.library.get((layer(tmp_path, "base", True),), OTHER, "im-1"))

    assert place.name.endswith("-plain")
    assert not list(place.rglob("*.pyc"))
    assert not list(made.data_dir.rglob("a.pyc"))


async def test_without_a_compiler_containers_get_the_sources(made: Made, tmp_path: Path) -> None:
    made.printed = RuntimeFailure("no such program")

    place = Path(await made.library.get((layer(tmp_path, "base", True),), OTHER, "im-1"))

    assert (place / "squall" / "guest" / "__init__.py").exists()


async def test_the_compiler_prints_what_is_taken(made: Made, tmp_path: Path) -> None:
    top = tmp_path / "lib"
    (top / "squall").mkdir(parents=True)
    (top / "squall" / "__init__.py").write_text("x = 1\n")
    (top / "squall" / "broken.py").write_text("x = (\n")
    program = COMPILER.replace(repr(LIBRARY_DIR), repr(str(top)))

    ended = await asyncio.to_thread(run_alone, program)
    assert ended.returncode == 0, ended.stderr
    made.printed = ended.stdout
    place = Path(await made.library.get((layer(tmp_path, "base", True),), OTHER, "im-1"))

    assert [path.name for path in place.rglob("*.pyc")] == [f"__init__.{sys.implementation.cache_tag}.pyc"]
