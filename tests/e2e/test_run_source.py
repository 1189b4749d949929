"""How code reaches containers: files, packages, notebooks, pickles."""

from __future__ import annotations

import json
from pathlib import Path
from textwrap import dedent

import pytest

from tests.e2e import flows
from tests.e2e.installation import Installation


def _write(directory: Path, files: dict[str, str]) -> None:
    for name, text in files.items():
        path = directory / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(dedent(text))


LISTING = """
    import os, squall
    app = squall.App("listing")

    @app.function()
    def listing():
        return sorted(
            os.path.relpath(os.path.join(folder, name), "/root")
            for folder, _, names in os.walk("/root") for name in names
            if "__pycache__" not in folder and name not in (".bashrc", ".profile")  # Debian's own
        )

    @app.local_entrypoint()
    def main():
        print(",".join(listing.remote()))
"""


def test_script_is_shipped_without_its_siblings(session_installation: Installation, tmp_path: Path) -> None:
    _write(tmp_path, {"main.py": LISTING, "sibling.py": "X = 1\n", "data.txt": "x"})

    ended = flows.command_ok(session_installation, "run", "main.py", cwd=tmp_path)

    assert ended.out.splitlines()[0] == "main.py"


def test_missing_sibling_is_named_with_what_to_add(session_installation: Installation, tmp_path: Path) -> None:
    importing = LISTING.replace("import os, squall", "import os, squall, sibling")
    _write(tmp_path, {"main.py": importing, "sibling.py": "X = 1\n"})

    ended = flows.command(session_installation, "run", "main.py", cwd=tmp_path)

    assert ended.code == 1
    assert "add_local_python_source('sibling')" in ended.err


def test_package_is_shipped_whole_without_dot_files_and_bytecode(
    session_installation: Installation, tmp_path: Path
) -> None:
    _write(
        tmp_path,
        {
            "parcel/__init__.py": "",
            "parcel/deep/__init__.py": "",
            "parcel/deep/flow.py": LISTING.replace(
                "import os, squall",
                "import os, squall\n    from parcel.other import NAME\n    from ..other import NAME",
            ),
            "parcel/other.py": "NAME = 'other'\n",
            "parcel/data/table.json": "{}",
            "parcel/.hidden": "x",
            "parcel/.git/config": "x",
            "parcel/old.pyc": "x",
            "beside.py": "X = 1\n",
        },
    )

    ended = flows.command_ok(session_installation, "run", "-m", "parcel.deep.flow", cwd=tmp_path)

    assert ended.out.splitlines()[0].split(",") == [
        "parcel/__init__.py",
        "parcel/data/table.json",
        "parcel/deep/__init__.py",
        "parcel/deep/flow.py",
        "parcel/other.py",
    ]


def test_source_that_is_not_included_is_not_there(session_installation: Installation, tmp_path: Path) -> None:
    _write(tmp_path, {"main.py": LISTING.replace("app.function()", "app.function(include_source=False)")})

    ended = flows.command(session_installation, "run", "main.py", cwd=tmp_path)

    assert ended.code == 1
    assert "No module named 'main'" in ended.err


def test_plain_python_runs_a_script_that_runs_its_app(session_installation: Installation, tmp_path: Path) -> None:
    _write(
        tmp_path,
        {
            "script.py": """
                import squall
                from dataclasses import dataclass
                app = squall.App("script")

                @dataclass
                class Pair:
                    a: int
                    b: int

                @app.function()
                def swap(pair):
                    assert isinstance(pair, Pair), type(pair)
                    return Pair(pair.b, pair.a)

                if __name__ == "__main__":
                    with squall.enable_output(), app.run():
                        swapped = swap.remote(Pair(1, 2))
                        print(isinstance(swapped, Pair), swapped)
            """
        },
    )

    ended = flows.script(session_installation, tmp_path / "script.py")

    assert ended.code == 0, str(ended)
    assert ended.out == "True Pair(a=2, b=1)\n"


MAIN = """
    import squall
    from dataclasses import dataclass
    app = squall.App("main")

    @dataclass
    class Pair:
        a: int
        b: int

    @app.function()
    def swap(a: int = 1, b: int = 2) -> Pair:
        return Pair(b, a)

    if __name__ == "__main__":
        with app.run():
            swapped = swap.remote()
            print(isinstance(swapped, Pair), swapped)
"""


@pytest.mark.parametrize("is_package", [False, True])
@pytest.mark.parametrize("target", ["parcel", "parcel/__main__.py"])
def test_program_called_main_is_run_by_its_file_and_its_folder(
    session_installation: Installation, tmp_path: Path, target: str, is_package: bool
) -> None:
    _write(tmp_path, {"parcel/__main__.py": MAIN} | ({"parcel/__init__.py": ""} if is_package else {}))

    ended = flows.script(session_installation, tmp_path / target)

    assert (ended.code, ended.out) == (0, "True Pair(a=2, b=1)\n"), str(ended)


def test_program_called_main_is_run_by_the_command(session_installation: Installation, tmp_path: Path) -> None:
    _write(tmp_path, {"v1.2/__main__.py": MAIN})

    ended = flows.command_ok(session_installation, "run", "v1.2/__main__.py::swap", "--a", "5", cwd=tmp_path)

    assert ended.out == "Pair(a=2, b=5)\n"


def test_file_with_dots_in_its_name_is_run(session_installation: Installation, tmp_path: Path) -> None:
    _write(tmp_path, {"flow.v2.py": MAIN})

    run = flows.command_ok(session_installation, "run", "flow.v2.py::swap", cwd=tmp_path)
    script = flows.script(session_installation, tmp_path / "flow.v2.py")

    assert run.out == "Pair(a=2, b=1)\n"
    assert script.out == "True Pair(a=2, b=1)\n", str(script)


def test_closures_lambdas_and_local_classes_travel_by_value(session_installation: Installation) -> None:
    source = """
        import json, squall
        app = squall.App("values")
        factor = 2
        class Scale:
            def __init__(self, by): self.by = by
            def __call__(self, x): return self.by * x
        def make(by):
            @app.function(serialized=True, name="closure")
            def inner(x):
                return by * x
            return inner
        closure = make(5)
        plain = app.function(serialized=True, name="lambda")(lambda x: x + factor)
        @app.function(serialized=True)
        def scaled(scale, x):
            return Scale(scale(x))
        @app.function(serialized=True)
        def nested(x):
            return plain.remote(x) + closure.remote(x)
        factor = 100  # later globals count: pickled when the app is run
        with app.run():
            scale = scaled.remote(Scale(3), 4)
            found = [closure.remote(2), plain.remote(1), isinstance(scale, Scale), scale.by, nested.remote(1)]
            print(json.dumps(found))
    """

    printed = flows.program(session_installation, dedent(source))

    assert json.loads(printed) == [10, 101, True, 12, 106]


def test_functions_of_a_notebook_are_run(session_installation: Installation) -> None:
    # A notebook's cells: code without a file, run in an event loop, functions defined again and again.
    source = """
        import asyncio
        cells = [
            "import squall; app = squall.App('notebook')",
            "@app.function()\\ndef double(x):\\n    return 2 * x",
            "@app.function()\\ndef double(x):\\n    return helper(x) * 2\\ndef helper(x):\\n    return x + 1",
            "async with app.run():\\n    found = [x async for x in double.map.aio(range(3))]\\n"
            "    print(await double.remote.aio(3), found)",
        ]
        import ast, inspect, types
        names = vars(__import__("__main__"))
        async def notebook():
            for cell in cells:
                code = compile(cell, "<cell>", "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
                found = eval(code, names)
                if inspect.isawaitable(found):
                    await found
        asyncio.run(notebook())
    """

    printed = flows.program(session_installation, dedent(source))

    assert printed == "8 [2, 4, 6]\n"


def test_two_apps_and_an_included_one(session_installation: Installation, tmp_path: Path) -> None:
    _write(
        tmp_path,
        {
            "parts/__init__.py": "",
            "parts/library.py": """
                import squall
                library = squall.App("library")
                @library.function()
                def add(x, y):
                    return x + y
            """,
            "parts/flow.py": """
                import squall
                from parts.library import add, library
                app = squall.App("outer").include(library)
                other = squall.App("other")
                @app.function()
                def add_twice(x):
                    return add.remote(add.remote(x, 1), 1)
                @other.function()
                def negate(x):
                    return -x
                @app.local_entrypoint()
                def main():
                    with other.run():
                        print(add.remote(1, 2), add_twice.remote(1), negate.remote(4))
            """,
        },
    )

    ended = flows.command_ok(session_installation, "run", "-m", "parts.flow", cwd=tmp_path)

    assert ended.out == "3 3 -4\n"


def test_outside_a_container_everything_is_local(session_installation: Installation) -> None:
    source = """
        import threading, squall
        def look():
            print(squall.is_local(), squall.current_input_id(), squall.current_function_call_id())
        look()
        thread = threading.Thread(target=look)
        thread.start()
        thread.join()
    """

    assert flows.program(session_installation, dedent(source)) == "True None None\n" * 2
