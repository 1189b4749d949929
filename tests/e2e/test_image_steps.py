"""Images: every step, the cache, a build that fails, other versions of Python."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from textwrap import dedent
from typing import Any

import pytest

from tests.e2e import flows
from tests.e2e.installation import Installation


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Files to add, and two modules."""
    top = tmp_path_factory.mktemp("tree")
    for name, text in {
        "file.txt": "file\n",
        "folder/inner/a.txt": "a\n",
        "folder/b.txt": "b\n",
        "folder/noise.log": "x",
        "borrowed/__init__.py": "VALUE = 'borrowed'\n",
        "borrowed/data.txt": "not code",
        "lent.py": "VALUE = 'lent'\n",
    }.items():
        path = top / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return top


@pytest.fixture(scope="module")
def pictures(session_installation: Installation, tree: Path) -> Iterator[Any]:
    """The module `programs/flows/pictures.py`, its app running, its images built."""
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setenv("TREE", str(tree))
        monkeypatch.syspath_prepend(tree)
        with flows.running(session_installation, "pictures") as module:
            yield module


@pytest.mark.timeout(240)
def test_every_step_is_seen_by_later_ones_and_by_containers(pictures: Any) -> None:
    assert pictures.look.remote() == {
        "tree": "/usr/bin/tree",
        "tree runs": 0,
        "six": True,
        "greeting": ["hello", "/srv/made", "0"],
        "cwd": "/srv/made",
        "copied": ["b.txt", "inner/a.txt"],
        "attached": ["file.txt", "folder/b.txt", "folder/inner/a.txt"],
        "seen": "file\na\n",
        "borrowed": ("/root/borrowed/__init__.py", "borrowed"),
        "lent": ("/root/lent.py", "lent"),
        "greeting variable": "hello",
    }
    # The other function has an image of its own, without any of this.
    assert pictures.version.remote() == list(sys.version_info[:2])


def test_built_image_is_not_built_again(session_installation: Installation, pictures: Any, tree: Path) -> None:
    source = f"""
        import os, sys, time
        os.environ["TREE"] = {str(tree)!r}
        sys.path.insert(0, {str(tree)!r})
        import squall, pictures
        started = time.monotonic()
        with squall.enable_output(), pictures.app.run():
            print(time.monotonic() - started)
    """

    seconds = float(flows.program(session_installation, dedent(source)).split()[0])

    assert seconds < 3


def test_failing_step_shows_its_last_lines(session_installation: Installation) -> None:
    source = """
        import squall
        image = squall.Image.debian_slim().run_commands("echo a word before the end; ls /no-such-directory")
        app = squall.App("broken", image=image)
        @app.function(serialized=True)
        def f(): pass
        try:
            with app.run():
                print("runs")
        except squall.exception.ImageBuildError as error:
            print(error)
    """

    printed = flows.program(session_installation, dedent(source))

    # Also named in the step itself, whose command it is of.
    assert printed.count("\na word before the end") == 1
    assert printed.count("last lines") == 1
    assert "/no-such-directory" in printed
    assert "run_commands" in printed


def test_failing_build_is_shown_by_the_command(session_installation: Installation, tmp_path: Path) -> None:
    (tmp_path / "missing.py").write_text(
        "import squall\n"
        "app = squall.App('missing', image=squall.Image.debian_slim().pip_install('no-such-package-of-squall'))\n"
        "@app.function()\ndef f(): pass\n"
    )

    ended = flows.command(session_installation, "run", "missing.py", cwd=tmp_path)

    assert ended.code == 1
    assert "no-such-package-of-squall" in ended.err
    assert "Error:" in ended.err
    assert "Traceback" not in ended.err


def test_version_that_cannot_be_had_lists_what_can(session_installation: Installation, tmp_path: Path) -> None:
    (tmp_path / "old.py").write_text(
        "import squall\napp = squall.App('old', image=squall.Image.debian_slim('3.4'))\n"
        "@app.function()\ndef f(): pass\n"
    )

    ended = flows.command(session_installation, "run", "old.py", cwd=tmp_path)

    assert ended.code == 1
    assert "there are bases of 3.10 to 3.15" in ended.err


@pytest.mark.timeout(240)
def test_other_python_runs_functions_of_a_file(session_installation: Installation, tmp_path: Path) -> None:
    (tmp_path / "newer.py").write_text(
        dedent(
            """
            import asyncio, sys, squall
            app = squall.App("newer", image=squall.Image.debian_slim("3.13"))
            @app.function()
            def version():
                return sys.version_info[:2]
            @app.function()
            async def later(x):
                await asyncio.sleep(0.01)
                return x + 1
            @app.function()
            def items(n):
                yield from range(n)
            @app.function()
            def failing():
                raise ValueError("in 3.13")
            @app.function()
            def nested():
                return list(later.map(range(3)))
            @app.local_entrypoint()
            def main():
                print(version.remote(), later.remote(1), list(items.remote_gen(3)), nested.remote())
                try:
                    failing.remote()
                except ValueError as error:
                    print(error)
            """
        )
    )

    ended = flows.command(session_installation, "run", "-q", "newer.py", cwd=tmp_path, timeout_s=200)

    if ended.code != 0 and "trixie" in ended.err:
        pytest.skip(f"no Debian suite with Python 3.13 can be had here: {ended.err[-300:]}")
    assert ended.code == 0, str(ended)
    assert ended.out == "(3, 13) 2 [0, 1, 2] [1, 2, 3]\nin 3.13\n"


def test_pickle_of_another_python_is_refused_with_what_to_do(session_installation: Installation) -> None:
    source = """
        import squall, sys
        other = "3.13" if sys.version_info[:2] != (3, 13) else "3.11"
        app = squall.App("mismatch", image=squall.Image.debian_slim(other))
        @app.function(serialized=True)
        def f():
            return 1
        with app.run():
            try:
                f.remote()
            except squall.Error as error:
                print(type(error).__name__, error)
    """

    printed = flows.program(session_installation, dedent(source), timeout_s=200)

    assert "use an image with Python" in printed
