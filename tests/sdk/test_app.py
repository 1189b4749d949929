"""Building and running an app: what is refused, what reaches the server, what is taken off again."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import threading
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import squall
from squall.exception import ImageBuildError, InvalidError, NotFoundError
from squall.protocol.app import DETACHED, EPHEMERAL
from squall.protocol.errors import PlatformError
from squall.protocol.function import BY_FILE, BY_PACKAGE, SERIALIZED, Definition
from squall.protocol.guest import Boot
from squall.protocol.image import BuildEvent
from squall.sdk import _container, _later
from squall.sdk.retries import Retries
from tests.sdk.double import Connection, ServerDouble


def identity(x: Any) -> Any:
    """Something at the top level of a module."""
    return x


def other(x: Any) -> Any:
    return x


def numbers() -> Iterator[int]:
    yield 1


class Holder:
    def method(self) -> None:
        """Not a function of an app."""


@pytest.mark.parametrize("name", ["", "a b", "x" * 65, "ä", "ap-" + "0" * 22, 7])
def test_impossible_app_names_are_refused(name: Any) -> None:
    with pytest.raises(InvalidError, match="app name"):
        squall.App(name)


def test_apps_of_wrong_parts_are_refused() -> None:
    with pytest.raises(InvalidError, match="tag"):
        squall.App("x", tags={"a b": "c"})
    with pytest.raises(InvalidError, match="these are 100,000, and an app has 100 at most"):
        squall.App("x", tags={str(number): "c" for number in range(100_000)})
    with pytest.raises(InvalidError, match="image"):
        squall.App("x", image="debian")  # type: ignore[arg-type]
    with pytest.raises(InvalidError, match=r"app x: secrets= must be a list of squall.Secret objects, not str"):
        squall.App("x", secrets="token")
    with pytest.raises(InvalidError, match=r"app x: include_source=3 must be True or False"):
        squall.App("x", include_source=3)  # type: ignore[arg-type]


def test_repr_names_the_app() -> None:
    assert repr(squall.App("x")) == "App('x')"


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"gpu": "H100"}, "gpu= is not in this version"),
        ({"include_source": "yes"}, "include_source='yes' must be True or False"),
        ({"secrets": [1]}, "secrets="),
        ({"volumes": {"/x": 1}}, "volumes="),
        ({"enable_memory_snapshot": 1}, "enable_memory_snapshot=1 must be True or False"),
        ({"isolation": "docker"}, """isolation='docker' must be "namespaces" or "gvisor\""""),
        ({"timeout": None}, "timeout=None"),
        ({"timeout": 0}, "from 1 to 86400"),
        ({"cpu": (2, 1)}, "the limit is less"),
        ({"cpu": "2"}, "cpu='2'"),
        ({"memory": 0}, "memory=0"),
        ({"min_containers": 3, "max_containers": 2}, "less than min_containers"),
        ({"min_containers": 1.5}, "must be an integer"),
        ({"scaledown_window": 1}, "from 2 to 3,600"),
        ({"retries": -1}, "retries=-1 must be an integer from 0 to 100"),
        ({"retries": "often"}, "retries='often'"),
        ({"env": {"A": 1}}, "env 'A'=1"),
        ({"name": "a b"}, "function name"),
        ({"image": "debian"}, "image='debian'"),
    ],
)
def test_impossible_parameters_are_refused(given: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidError) as caught:
        squall.App("x").function(**given)(identity)

    assert message in str(caught.value)


def test_what_is_no_function_is_refused() -> None:
    app = squall.App("x")

    def nested() -> None:
        return None

    with pytest.raises(TypeError, match="class Holder"):
        app.function()(Holder)
    with pytest.raises(InvalidError, match="it is a method"):
        app.function()(Holder.method)
    with pytest.raises(InvalidError, match="serialized=True"):
        app.function()(nested)
    with pytest.raises(InvalidError, match="parentheses"):
        app.function(identity)
    with pytest.raises(InvalidError, match="decorated already"):
        app.function()(app.function()(identity))
    with pytest.raises(InvalidError, match="retries"):
        app.function(retries=3)(numbers)


def test_two_functions_of_one_name_warn_and_the_later_counts() -> None:
    app = squall.App("x")
    app.function(name="same")(identity)

    with pytest.warns(UserWarning, match="two functions named same") as warned:
        later = app.function(name="same")(other)

    lines = [function.__code__.co_firstlineno for function in (identity, other)]
    assert str(warned[0].message).endswith(f"(test_app.py:{lines[0]} and test_app.py:{lines[1]})")
    assert warned[0].filename == __file__
    assert app.registered_functions["same"] is later


def test_entrypoints_are_callable_and_unique() -> None:
    app = squall.App("x")

    @app.local_entrypoint(name="main")
    def main(n: int = 3) -> int:
        return n + 1

    assert main(4) == 5
    assert list(app.registered_entrypoints) == ["main"]
    with pytest.raises(InvalidError, match="two local entrypoints named main"):
        app.local_entrypoint(name="main")(main.raw_f)


def test_include_takes_an_app_only() -> None:
    with pytest.raises(InvalidError, match="takes an App, not int"):
        squall.App("x").include(3)  # type: ignore[arg-type]


def test_include_says_what_it_replaces_and_only_then() -> None:
    app, part = squall.App("x"), squall.App("part")
    own = app.function(name="identity")(identity)
    part.function(name="identity")(identity)

    with pytest.warns(UserWarning, match=r"App\('x'\): function identity is replaced by that of App\('part'\)"):
        app.include(part)
    app.include(part)

    assert app.registered_functions["identity"] is part.registered_functions["identity"]
    assert app.registered_functions["identity"] is not own


def test_include_leaves_tags_where_they_are_not_inherited(server: ServerDouble) -> None:
    app, part = squall.App("x", tags={"a": "1"}), squall.App("part", tags={"b": "2"})

    app.include(part, inherit_tags=False)

    with app.run():
        assert next(iter(server.apps.values())).tags == {"a": "1"}


def test_include_takes_functions_and_tags_along(server: ServerDouble) -> None:
    app, part = squall.App("x", tags={"a": "1"}), squall.App("part", tags={"a": "0", "b": "2"}, include_source=False)
    part.function(name="identity")(identity)

    assert app.include(part) is app

    with app.run():
        assert app.registered_functions["identity"].remote(3) == 3
    assert next(iter(server.apps.values())).tags == {"a": "1", "b": "2"}


def test_a_run_creates_and_stops_the_app(server: ServerDouble) -> None:
    app = squall.App("x", include_source=False)
    app.function()(identity)

    with app.run() as running:
        assert running is app
        app_id = app.app_id
        with pytest.raises(InvalidError, match="runs already"), app.run():
            pytest.fail("it must not start twice")

    assert app.app_id is None
    assert server.stopped == [app_id]
    assert [record.state for record in server.apps.values()] == [EPHEMERAL]


def test_an_app_can_be_run_again(server: ServerDouble) -> None:
    app = squall.App("x", include_source=False)
    function = app.function()(identity)

    for number in range(2):
        with app.run():
            assert function.remote(number) == number

    assert len(server.stopped) == 2


def test_an_app_without_functions_can_be_run(server: ServerDouble) -> None:
    with squall.App("empty").run():
        assert len(server.apps) == 1


def test_a_failing_program_stops_its_app_and_keeps_its_exception(server: ServerDouble) -> None:
    app = squall.App("x", include_source=False)

    with pytest.raises(ZeroDivisionError) as caught, app.run():
        _ = 1 // 0

    assert len(server.stopped) == 1
    frames = caught.traceback
    assert frames[0].name == "test_a_failing_program_stops_its_app_and_keeps_its_exception"


def test_a_detached_app_is_stopped_when_its_program_ends_but_not_when_it_is_interrupted(server: ServerDouble) -> None:
    app = squall.App("x", include_source=False)

    with pytest.raises(KeyboardInterrupt), app.run(detach=True):
        raise KeyboardInterrupt

    assert server.stopped == []
    assert [record.state for record in server.apps.values()] == [DETACHED]


def test_a_detached_app_whose_program_ends_goes_on_if_the_server_says_so(
    server: ServerDouble, capsys: pytest.CaptureFixture[str]
) -> None:
    server.is_sparing = True

    with squall.enable_output(), squall.App("x", include_source=False).run(detach=True):
        pass
    said_of_detached = capsys.readouterr().err
    with squall.enable_output(), squall.App("x", include_source=False).run():
        pass

    assert "goes on" in said_of_detached
    assert "App completed." not in said_of_detached
    assert len(server.stopped) == 1
    assert capsys.readouterr().err.endswith("App completed.\n")


def test_an_app_that_somebody_stopped_is_not_called_completed(
    server: ServerDouble, capsys: pytest.CaptureFixture[str]
) -> None:
    app = squall.App("x", include_source=False)

    with squall.enable_output(), app.run():
        app.stop()

    assert capsys.readouterr().err.endswith("App stopped.\n")


def test_stop_ends_a_running_app(server: ServerDouble) -> None:
    app = squall.App("x", include_source=False)

    with pytest.raises(InvalidError, match="does not run"):
        app.stop()
    with app.run():
        app.stop()
        assert server.stopped == [app.app_id]


def test_options_reach_the_server(server: ServerDouble) -> None:
    app = squall.App("x", include_source=False)
    app.function(
        cpu=(0.5, 2),
        memory=(128, 256),
        timeout=7,
        retries=Retries(max_retries=3, initial_delay=0),
        env={"A": "1", "B": None},
        max_containers=4,
        block_network=True,
        cloud="aws",
        region="eu",
    )(identity)

    with app.run():
        (spec,) = server.functions.values()

    assert (spec.resources.cpu_milli, spec.resources.cpu_limit_milli) == (500, 2000)
    assert (spec.resources.memory_mib, spec.resources.memory_limit_mib) == (128, 256)
    assert (spec.timeout_s, spec.startup_timeout_s) == (7, 7)
    assert (spec.retries.max_retries, spec.retries.backoff_coefficient) == (3, 2.0)
    assert spec.env == {"A": "1"}
    assert spec.scaling.max_containers == 4
    assert spec.is_network_blocked


SCRIPT = """
import squall
app = squall.App("shipped")
@app.function()
def f(x):
    return x
if __name__ == "__main__":
    with app.run():
        pass
"""


def run_python(*arguments: str, cwd: Path) -> None:
    env = {**os.environ, "PYTHONPATH": str(Path(squall.__file__).parent.parent)}
    subprocess.run([sys.executable, *arguments], check=True, timeout=30, cwd=cwd, env=env)


def test_a_function_of_a_package_ships_the_whole_package(server: ServerDouble, data_dir: Path) -> None:
    package = data_dir / "pkg"
    (package / "deep").mkdir(parents=True)
    (package / ".git").mkdir()
    for name in ("__init__.py", "deep/__init__.py", "data.json", ".hidden", ".git/config", "old.pyc"):
        (package / name).write_text("")
    (package / "deep" / "module.py").write_text(SCRIPT)
    (package / "tool.sh").touch(mode=0o700)
    (package / "loop").symlink_to(package)

    run_python("-m", "pkg.deep.module", cwd=data_dir)

    (spec,) = server.functions.values()
    files = server.mounts[spec.mounts[0].mount_id].files
    assert (spec.definition.kind, spec.definition.module) == (BY_PACKAGE, "pkg.deep.module")
    assert spec.mounts[0].target == "/root"
    assert [file.path for file in files] == [
        "pkg/__init__.py",
        "pkg/data.json",
        "pkg/deep/__init__.py",
        "pkg/deep/module.py",
        "pkg/tool.sh",
    ]
    assert [file.mode for file in files] == [0o644] * 4 + [0o755]
    assert all(file.sha256 in server.blobs for file in files)


def test_a_function_of_a_script_ships_that_file_only(server: ServerDouble, data_dir: Path) -> None:
    (data_dir / "alone.py").write_text(SCRIPT)
    (data_dir / "sibling.py").write_text("")

    run_python("alone.py", cwd=data_dir)

    (spec,) = server.functions.values()
    assert (spec.definition.kind, spec.definition.module, spec.definition.qualname) == (BY_FILE, "alone", "f")
    assert [file.path for file in server.mounts[spec.mounts[0].mount_id].files] == ["alone.py"]


def test_a_function_of_code_without_a_file_is_serialized(server: ServerDouble, data_dir: Path) -> None:
    # As a notebook's kernel does it that is itself a script.
    (data_dir / "kernel.py").write_text(
        f"cell = {SCRIPT!r}\nexec(compile(cell, '<ipython-input-1>', 'exec'), {{'__name__': '__main__'}})\n"
    )

    run_python("kernel.py", cwd=data_dir)

    (spec,) = server.functions.values()
    assert spec.definition.kind == SERIALIZED
    assert not spec.mounts


@pytest.mark.parametrize("kind", [StopIteration, StopAsyncIteration, ValueError])
def test_what_a_run_is_left_with_is_raised_as_it_is(server: ServerDouble, kind: type[Exception]) -> None:
    program = squall.App("left", include_source=False)
    error = kind("mine")

    async def main() -> None:
        async with program.run():
            raise error

    with pytest.raises(kind, match="mine") as caught, program.run():
        raise error
    assert caught.value is error
    assert error.__context__ is None
    # A coroutine, unlike a block, cannot raise StopIteration.
    with pytest.raises(RuntimeError if kind is StopIteration else kind) as caught_async:
        asyncio.run(main())
    assert error in (caught_async.value, caught_async.value.__cause__)
    assert len(server.stopped) == 2


def test_what_comes_in_a_later_version_is_called_so() -> None:
    with pytest.raises(AttributeError, match=r"App\.sandboxes is not in this version of Squall yet"):
        _ = squall.App("x").sandboxes  # type: ignore[attr-defined]
    with pytest.raises(AttributeError, match=r"Function\.metrics is not in this version of Squall yet"):
        _ = squall.Function.from_name("x", "y").metrics  # type: ignore[attr-defined]
    with pytest.raises(AttributeError, match=r"FunctionCall\.get_dashboard_url is not in this version of Squall yet"):
        _ = squall.FunctionCall.from_id("fc-1").get_dashboard_url  # type: ignore[attr-defined]
    with pytest.raises(AttributeError, match="'FunctionCall' object has no attribute 'nonsense'"):
        _ = squall.FunctionCall.from_id("fc-1").nonsense  # type: ignore[attr-defined]
    with pytest.raises(AttributeError, match=r"squall\.Probe is not in this version of Squall yet"):
        _ = squall.Probe
    with pytest.raises(ImportError, match=r"^squall\.Probe is not in this version of Squall yet$"):
        from squall import Probe  # noqa: F401
    with pytest.raises(ImportError, match="cannot import name 'nonsense'"):
        from squall import nonsense  # noqa: F401
    assert not hasattr(squall, "Probe")
    assert not hasattr(squall.App("x"), "nonsense")


def test_what_took_the_place_of_a_name_is_told() -> None:
    with pytest.raises(AttributeError, match=r"no squall\.gpu: GPUs are named by a string, as in gpu=\"A100:2\""):
        _ = squall.gpu
    with pytest.raises(
        ImportError, match=r"^there is no squall\.web_endpoint: squall\.fastapi_endpoint takes its place"
    ):
        from squall import web_endpoint  # noqa: F401
    with pytest.raises(AttributeError, match=r"settings are variables of the environment"):
        _ = squall.config
    with pytest.raises(AttributeError, match=r"what get_call_graph\(\) returns is in squall\.types"):
        _ = squall.call_graph
    assert not [name for name in _later.INSTEAD if hasattr(squall, name)]
    assert not _later.INSTEAD.keys() & _later.OF_PACKAGE


def test_no_name_that_comes_later_is_there_already() -> None:
    assert not [name for name in _later.OF_PACKAGE if hasattr(squall, name)]
    assert not [name for name in _later.OF_APP if hasattr(squall.App("x"), name)]
    assert not [name for name in _later.OF_FUNCTION if hasattr(squall.Function.from_name("x", "y"), name)]
    assert not [name for name in _later.OF_FUNCTION_CALL if hasattr(squall.FunctionCall.from_id("fc-1"), name)]


def test_serialized_functions_take_their_globals_along(server: ServerDouble) -> None:
    app = squall.App("x")
    offset = 5

    def nested(x: int) -> int:
        return x + offset

    def calls_nested(x: int) -> int:
        return shifted.remote(x) * 2

    shifted = app.function(serialized=True)(nested)
    twice = app.function(serialized=True)(calls_nested)

    with app.run():
        assert shifted.remote(1) == 6
        assert twice.remote(1) == 12
        kinds = {spec.definition.kind for spec in server.functions.values()}
        assert kinds == {SERIALIZED}
        assert not any(spec.mounts for spec in server.functions.values())


def test_large_serialized_functions_warn_and_larger_ones_are_refused(server: ServerDouble) -> None:
    for count, expected in ((300_000, "KiB when serialized"), (17_000_000, "at most 16 MiB")):
        app = squall.App("x")
        ballast = os.urandom(count)

        def nested(ballast: bytes = ballast) -> int:
            return len(ballast)

        app.function(serialized=True)(nested)
        if count < 2**20:
            with pytest.warns(UserWarning, match=expected), app.run():
                continue
        with pytest.raises(InvalidError, match=expected), app.run():
            pytest.fail("it must not start")


def test_unpicklable_globals_of_a_serialized_function_are_named(server: ServerDouble) -> None:
    app = squall.App("x")
    lock = threading.Lock()

    def nested() -> bool:
        return lock.locked()

    app.function(serialized=True)(nested)

    with pytest.raises(InvalidError, match="cannot serialize function nested"), app.run():
        pytest.fail("it must not start")


def test_an_app_whose_image_cannot_be_built_is_not_called_completed(
    server: ServerDouble, capsys: pytest.CaptureFixture[str]
) -> None:
    app = squall.App("x", include_source=False)
    app.function(image=squall.Image.debian_slim("3.11").run_commands("false"))(identity)
    server.build_error = PlatformError("invalid", "step 2 failed: false exited with 1")

    with squall.enable_output(), pytest.raises(ImageBuildError), app.run():
        pytest.fail("it must not start")

    assert len(server.stopped) == 1
    assert "App x" in (said := capsys.readouterr().err)
    assert "completed" not in said


def test_a_failed_step_without_a_line_has_no_last_lines(server: ServerDouble) -> None:
    app = squall.App("x", include_source=False)
    app.function(image=squall.Image.debian_slim("3.11").run_commands("true", "false"))(identity)
    server.build_events = [
        BuildEvent("step", 2, 3, "run_commands true"),
        BuildEvent("line", 2, 3, "it went well"),
        BuildEvent("done", 2, 3),
        BuildEvent("step", 3, 3, "pip_install six"),
    ]
    server.build_error = PlatformError("unavailable", "step 3 failed: no network")

    with pytest.raises(ImageBuildError) as caught, app.run():
        pytest.fail("it must not start")

    assert str(caught.value) == "step 3 failed: no network"


def test_a_failed_build_shows_its_last_lines_and_stops_the_app(server: ServerDouble) -> None:
    app = squall.App("x", include_source=False)
    app.function(image=squall.Image.debian_slim("3.11").run_commands("false"))(identity)
    server.build_events = [BuildEvent("step", 2, 2, "run_commands false"), BuildEvent("line", 2, 2, "no such thing")]
    server.build_error = PlatformError("invalid", "step 2 failed: false exited with 1")

    with pytest.raises(ImageBuildError, match="step 2 failed") as caught, app.run():
        pytest.fail("it must not start")

    assert str(caught.value).count("no such thing") == 1
    assert len(server.stopped) == 1


def test_last_lines_of_a_failed_build_are_said_once(server: ServerDouble) -> None:
    app = squall.App("x", include_source=False)
    app.function(image=squall.Image.debian_slim("3.11").run_commands("false"))(identity)
    server.build_events = [BuildEvent("step", 2, 2, "run_commands false"), BuildEvent("line", 2, 2, "no such thing\n")]
    server.build_error = PlatformError("invalid", "step 2 failed; its last lines:\nno such thing")

    with pytest.raises(ImageBuildError, match="step 2 failed") as caught, app.run():
        pytest.fail("it must not start")

    assert str(caught.value).count("no such thing") == 1
    assert str(caught.value).count("last lines") == 1


def test_equal_images_are_built_once(server: ServerDouble) -> None:
    app = squall.App("x", include_source=False)
    app.function(name="a")(identity)
    app.function(name="b", image=squall.Image.debian_slim())(identity)

    with app.run():
        assert len(server.images) == 1
        assert len({spec.image_id for spec in server.functions.values()}) == 1


LEFT = """
import os, sys
import squall
outer, inner = squall.App("outer"), squall.App("inner")
outer.run().__enter__()
kept = inner.run()
kept.__enter__()
if sys.argv[1] == "fork" and (child := os.fork()):
    os.waitpid(child, 0)
    print("the child has ended")
    sys.stdout.flush()
    os._exit(0)
"""


LEFT_BY_CHILD = """
import os
import squall
with squall.App("outer").run():
    child = os.fork()
    if child:
        os.waitpid(child, 0)
        print("the child has ended", flush=True)
        os._exit(0)
"""


def test_runs_that_are_never_left_end_with_the_program(server: ServerDouble) -> None:
    ended = subprocess.run([sys.executable, "-c", LEFT, "-"], capture_output=True, text=True, timeout=30, check=False)

    assert (ended.returncode, ended.stdout, ended.stderr) == (0, "", "")
    assert [server.apps[app_id].name for app_id in server.stopped] == ["inner", "outer"]


@pytest.mark.parametrize("program", [LEFT, LEFT_BY_CHILD])
def test_a_forked_child_ends_no_run_of_its_parent(server: ServerDouble, program: str) -> None:
    argv = [sys.executable, "-c", program, "fork"]

    ended = subprocess.run(argv, capture_output=True, text=True, timeout=30, check=False)

    assert (ended.returncode, ended.stdout, ended.stderr) == (0, "the child has ended\n", "")
    assert not server.stopped


def test_a_run_is_entered_once(server: ServerDouble) -> None:
    app = squall.App("once")
    run = app.run()

    with run, pytest.raises(RuntimeError, match=r"\.run\(\) .* once only"), run:
        pytest.fail("it was entered twice")
    with pytest.raises(RuntimeError, match=r"\.run\(\) .* once only"):
        run.__enter__()

    assert len(server.stopped) == len(server.apps) == 1


def test_the_async_form_of_run(server: ServerDouble) -> None:
    app = squall.App("x", include_source=False)
    function = app.function()(identity)

    async def main() -> None:
        async with app.run() as running:
            assert await function.remote.aio(1) == 1
            assert running is app
        async with app.run.aio():
            assert await function.remote.aio(2) == 2

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        asyncio.run(main())

    assert len(server.stopped) == 2


here = squall.App("here", include_source=False)
elsewhere = squall.App("elsewhere", include_source=False)


@here.function(name="served")
def served() -> None:
    """What the container below serves."""


@pytest.mark.parametrize(
    ("definition", "known"),
    [
        (Definition(BY_FILE, __name__, "served"), {here}),
        (Definition(BY_FILE, "not_imported_yet", "served"), set()),
        (Definition(SERIALIZED, "", "served"), {here}),
    ],
)
def test_app_has_its_id_in_its_own_containers(definition: Definition, known: set[squall.App]) -> None:
    assert here.app_id is None
    _container.enter(Boot("ct-1", "ap-7", "here", "fu-1", "served", definition, {"served": "fu-1"}), "", "")
    try:
        assert {one for one in (here, elsewhere, squall.App()) if one.app_id is not None} == known
        assert all(one.app_id == "ap-7" for one in known)
    finally:
        _container.leave()


def test_app_that_could_not_be_made_is_not_said_to_be_left(
    server: ServerDouble, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def refuse(double: Connection, request: Any) -> Any:
        raise PlatformError("not_found", "there is no environment 'nope'")

    monkeypatch.setattr(Connection, "_answer_AppCreate", refuse)
    monkeypatch.setattr(Connection, "_answer_AppStop", refuse)

    with squall.enable_output(), pytest.raises(NotFoundError, match="no environment 'nope'"):
        with squall.App("shop").run():
            pass

    assert "was not stopped" not in capsys.readouterr().err
