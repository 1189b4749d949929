"""Cells of a notebook, in a real kernel: blocking forms are as usual there as in a script."""

from __future__ import annotations

import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.sdk.double import ServerDouble

nbclient: Any = pytest.importorskip("nbclient", reason="`make setup` installs what runs cells")
v4: Any = pytest.importorskip("nbformat").v4
pytestmark = pytest.mark.long

Cells = Callable[..., list[str]]

DEFINED = """
    import squall
    app = squall.App("notebook")

    @app.function()
    def square(x):
        return x * x

    @app.function()
    def count_to(n):
        yield from range(n)
"""


@pytest.fixture
def run_cells(server: ServerDouble, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Cells:
    """Runs cells in one kernel; returns what each printed, warnings and errors too."""
    monkeypatch.setenv("HOME", str(tmp_path))  # where IPython writes, and reads what a person has set

    def run(*cells: str) -> list[str]:
        made = v4.new_notebook()
        made.cells = [v4.new_code_cell(textwrap.dedent(cell).strip()) for cell in (DEFINED, *cells)]
        client = nbclient.NotebookClient(made, timeout=30, allow_errors=True, kernel_name="python3")
        client.execute(cwd=str(tmp_path))
        return [said(cell) for cell in made.cells[1:]]

    def count_to(n: int) -> Iterator[int]:
        yield from range(n)

    server.callables.update(square=lambda x: x * x, count_to=count_to)
    return run


def said(cell: Any) -> str:
    """The output of a cell."""
    return "".join([one.get("text") or f"{one['ename']}: {one['evalue']}\n" for one in cell.outputs])


def test_blocking_forms_work_in_a_cell_and_warn_of_nothing(run_cells: Cells) -> None:
    remote, mapped, items, rest = run_cells(
        """
        with app.run():
            print(square.remote(3))
        """,
        """
        with app.run():
            print(list(square.map(range(5))), list(square.starmap([(7,)])), next(square.map([2])))
        """,
        """
        with app.run():
            print([item for item in count_to.remote_gen(3)])
        """,
        """
        with app.run():
            square.for_each([1, 2])
            print(square.spawn(4).get())
            print([square.remote(x) for x in square.map([1, 2])])
        """,
    )

    assert remote == "9\n"
    assert mapped == "[0, 1, 4, 9, 16] [49] 4\n"
    assert items == "[0, 1, 2]\n"
    assert rest == "16\n[1, 16]\n"


def test_async_forms_work_in_a_cell_beside_blocking_ones(run_cells: Cells) -> None:
    (both,) = run_cells(
        """
        async with app.run():
            print(await square.remote.aio(3), [x async for x in square.map.aio([1, 2])], square.remote(4))
        """,
    )

    assert both == "9 [1, 4] 16\n"


def test_blocking_in_an_async_function_of_a_notebook_warns_and_maps_are_refused(run_cells: Cells) -> None:
    warned, refused = run_cells(
        """
        async def main():
            return square.remote(3)
        async with app.run():
            print(await main())
        """,
        """
        async def main():
            return list(square.map([3]))
        async with app.run():
            print(await main())
        """,
    )

    assert "AsyncUsageWarning" in warned
    assert "9\n" in warned
    assert "InvalidError: .map() cannot be iterated in an event loop" in refused


def test_async_iterators_in_a_cell_need_the_async_form(run_cells: Cells) -> None:
    numbers = """
        async def numbers():
            for x in range(3):
                yield x
    """
    _, blocking, each, spawned, waited = run_cells(
        numbers,
        "with app.run(): list(square.map(numbers()))",
        "with app.run(): square.for_each(numbers())",
        "with app.run(): square.spawn_map(numbers())",
        "async with app.run(): print([x async for x in square.map.aio(numbers())])",
    )

    assert "square.map(): async iterators" in blocking
    assert "square.for_each(): async iterators" in each
    assert "square.spawn_map(): async iterators" in spawned
    assert waited == "[0, 1, 4]\n"
