"""Describing images: the steps they become, what cannot follow what, and files from here."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

import squall
from squall.exception import InvalidError, ModuleNotMountable, NotFoundError
from squall.protocol import image_steps
from squall.protocol.function import Definition
from squall.protocol.guest import SOCKET_PATH as AGENT_SOCKET
from squall.protocol.guest import Boot
from squall.protocol.image import ImageSpec, image_id, step_keys
from squall.sdk import _container
from tests.sdk.double import ServerDouble


def identity(x: int) -> int:
    return x


FORCED: dict[str, Callable[[squall.Image, Path], squall.Image]] = {
    "debian_slim": lambda image, path: squall.Image.debian_slim("3.11", force_build=True),
    "from_registry": lambda image, path: squall.Image.from_registry("x", force_build=True),
    "from_scratch": lambda image, path: squall.Image.from_scratch(force_build=True).env({"A": "b"}),
    "micromamba": lambda image, path: squall.Image.micromamba("3.11", force_build=True),
    "apt_install": lambda image, path: image.apt_install("x", force_build=True),
    "pip_install": lambda image, path: image.pip_install("x", force_build=True),
    "uv_pip_install": lambda image, path: image.uv_pip_install("x", force_build=True),
    "requirements": lambda image, path: image.pip_install_from_requirements(f"{path}/req.txt", force_build=True),
    "pyproject": lambda image, path: image.pip_install_from_pyproject(f"{path}/pyproject.toml", force_build=True),
    "private": lambda image, path: image.pip_install_private_repos(
        "github.com/a/b", git_user="x", secrets=[squall.Secret.from_dict({"GITHUB_TOKEN": "x"})], force_build=True
    ),
    "uv_sync": lambda image, path: image.uv_sync(str(path), force_build=True),
    "poetry": lambda image, path: image.poetry_install_from_file(f"{path}/pyproject.toml", force_build=True),
    "micromamba_install": lambda image, path: image.micromamba_install("x", force_build=True),
    "run_commands": lambda image, path: image.run_commands("true", force_build=True),
    "run_function": lambda image, path: image.run_function(identity, args=(1,), force_build=True),
}


def run_with(server: ServerDouble, image: squall.Image) -> tuple[list[str], list[tuple[str, list[str]]]]:
    """The kinds of steps, and the mounts as (target, paths), of an app that uses the image."""
    app = squall.App("x", include_source=False)
    app.function(image=image)(identity)
    with app.run():
        (spec,) = server.functions.values()
    mounts = [(ref.target, [file.path for file in server.mounts[ref.mount_id].files]) for ref in spec.mounts]
    return [step.kind for step in server.images[-1].steps], mounts


def test_each_method_adds_a_step_to_a_new_image(server: ServerDouble) -> None:
    base = squall.Image.debian_slim("3.11")
    image = (
        base.apt_install("git", ["curl"])
        .pip_install("numpy", extra_index_url="/somewhere")
        .run_commands("echo 1", ["echo 2"])
        .env({"A": "1"})
        .workdir("/data")
    )

    kinds, _ = run_with(server, image)

    assert kinds == ["debian_slim", "apt_install", "pip_install", "run_commands", "env", "workdir"]
    assert server.images[-1].steps[1].packages == ("git", "curl")
    assert server.images[-1].steps[3].commands == ("echo 1", "echo 2")
    assert len(base.steps) == 1


def test_the_default_is_the_python_that_runs_this(server: ServerDouble) -> None:
    run_with(server, squall.Image.debian_slim())

    assert server.images[-1].steps[0].python_version == f"{sys.version_info[0]}.{sys.version_info[1]}"


@pytest.mark.parametrize("version", ["3", "2.7", "three", "3.x", "3.11.2.1"])
def test_impossible_python_versions_are_refused(version: str) -> None:
    with pytest.raises(InvalidError, match="write a version such as"):
        squall.Image.debian_slim(version)


@pytest.mark.parametrize("version", ["3.9", "3.16", "3.20", "3.20.1"])
def test_pythons_that_no_base_has_are_refused(version: str) -> None:
    with pytest.raises(
        InvalidError, match=rf"debian_slim\(python_version='{version}'\): there are bases of 3.10 to 3.15"
    ):
        squall.Image.debian_slim(version)
    assert len(squall.Image.from_registry("x", add_python=version).steps) == 2


def test_what_is_wrong_is_refused_at_once() -> None:
    image = squall.Image.debian_slim("3.11")

    with pytest.raises(InvalidError, match="extra_options"):
        image.pip_install("--no-deps")
    with pytest.raises(InvalidError, match="give strings"):
        image.apt_install(7)  # type: ignore[arg-type]
    with pytest.raises(InvalidError, match="absolute path"):
        image.add_local_file("x", "y")
    with pytest.raises(InvalidError, match="give objects"):
        image.run_commands("x", secrets=[object()])  # type: ignore[list-item]
    with pytest.raises(InvalidError, match="gpu= is not in this version"):
        image.run_commands("x", gpu="any")
    with pytest.raises(InvalidError, match="debian_slim"):
        squall.Image()
    with pytest.raises(InvalidError, match="dictionary of strings"):
        image.env({"A": 1})  # type: ignore[dict-item]


@pytest.mark.parametrize(
    "method",
    [
        "pip_install",
        "uv_pip_install",
        "pip_install_from_requirements",
        "pip_install_from_pyproject",
        "pip_install_private_repos",
        "uv_sync",
    ],
)
def test_options_that_no_shell_could_read_are_refused_where_they_are_written(method: str) -> None:
    add = getattr(squall.Image.debian_slim("3.11"), method)
    more = {"git_user": "x"} if method == "pip_install_private_repos" else {}

    with pytest.raises(InvalidError) as error:
        add("x", extra_options='--config "a', **more)
    assert str(error.value) == (
        f"Image.{method}(extra_options='--config \"a'): a quote in it is not closed; write it as on a command line"
    )
    with pytest.raises(InvalidError, match=rf"Image\.{method}\(extra_options='a .*'\): it ends in a backslash"):
        add("x", extra_options="a \\", **more)
    with pytest.raises(InvalidError, match="give one string"):
        add("x", extra_options=["--pre"], **more)


def test_a_step_after_files_that_are_attached_explains_copy(tmp_path: Path) -> None:
    image = squall.Image.debian_slim("3.11").add_local_file(tmp_path / "x", "/x")

    with pytest.raises(InvalidError, match="copy=True"):
        image.pip_install("numpy")
    with pytest.raises(InvalidError, match="copy=True"):
        image.add_local_dir(tmp_path, "/y", copy=True)
    assert len(image.add_local_dir(tmp_path, "/y").adds) == 2


def test_files_are_attached_or_copied(server: ServerDouble, tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("a")
    (tmp_path / "tree" / "below").mkdir(parents=True)
    (tmp_path / "tree" / "below" / "b.txt").write_text("b")
    (tmp_path / "tree" / "c.log").write_text("c")
    image = (
        squall.Image.debian_slim("3.11")
        .add_local_file(tmp_path / "a.txt", "/copied/", copy=True)
        .add_local_file(tmp_path / "a.txt", "/data/renamed.txt")
        .add_local_dir(tmp_path / "tree", "/data/tree", ignore=["*.log"])
    )

    kinds, mounts = run_with(server, image)

    assert kinds == ["debian_slim", "copy"]
    copy = server.images[-1].steps[1]
    assert copy.path == "/copied"
    assert [file.path for file in server.mounts[copy.mount_id].files] == ["a.txt"]
    assert mounts == [("/data", ["renamed.txt"]), ("/data/tree", ["below/b.txt"])]


def test_python_source_takes_only_code(server: ServerDouble, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = tmp_path / "shipped_package"
    (package / "__pycache__").mkdir(parents=True)
    for name in ("__init__.py", "part.py", "data.json", ".hidden.py", "__pycache__/part.pyc"):
        (package / name).write_text("")
    (tmp_path / "shipped_module.py").write_text("")
    monkeypatch.syspath_prepend(str(tmp_path))

    _, mounts = run_with(
        server, squall.Image.debian_slim("3.11").add_local_python_source("shipped_package", "shipped_module")
    )

    assert mounts == [
        ("/root", ["shipped_package/__init__.py", "shipped_package/part.py"]),
        ("/root", ["shipped_module.py"]),
    ]


def test_modules_that_cannot_be_shipped_are_named(server: ServerDouble) -> None:
    with pytest.raises(ModuleNotMountable, match="no_such_module"):
        run_with(server, squall.Image.debian_slim("3.11").add_local_python_source("no_such_module"))
    with pytest.raises(ModuleNotMountable, match="built in"):
        run_with(server, squall.Image.debian_slim("3.11").add_local_python_source("sys"))


def test_missing_files_are_named(server: ServerDouble) -> None:
    with pytest.raises(InvalidError, match="/no/such/file"):
        run_with(server, squall.Image.debian_slim("3.11").add_local_file("/no/such/file", "/x"))
    with pytest.raises(InvalidError, match="no such directory"):
        run_with(server, squall.Image.debian_slim("3.11").add_local_dir("/no/such/dir", "/x"))


def test_file_and_directory_are_told_apart(server: ServerDouble, tmp_path: Path) -> None:
    image = squall.Image.debian_slim("3.11")
    (tmp_path / "file").write_text("")
    os.mkfifo(tmp_path / "pipe")

    with pytest.raises(InvalidError, match=r"is a directory; use add_local_dir"):
        run_with(server, image.add_local_file(tmp_path, "/x/"))
    with pytest.raises(InvalidError, match=r"is a file; use add_local_file"):
        run_with(server, image.add_local_dir(tmp_path / "file", "/x", copy=True))
    with pytest.raises(InvalidError, match="no regular file"):
        run_with(server, image.add_local_file(tmp_path / "pipe", "/x"))


@pytest.mark.parametrize("target", ["/proc/x", "/sys/", "/dev", "//dev/shm/x", "/x/../proc/1", "/run/squall/lib/x"])
def test_files_cannot_be_added_where_containers_see_none(target: str) -> None:
    image = squall.Image.debian_slim("3.11")

    with pytest.raises(InvalidError, match="hide"):
        image.add_local_file("x", target)
    with pytest.raises(InvalidError, match="hide"):
        image.add_local_dir("x", target, copy=True)


@pytest.mark.parametrize("target", ["/device", "/proceedings", "/srv/dev", "/run/x", "/"])
def test_files_can_be_added_beside_those_places(target: str) -> None:
    image = squall.Image.debian_slim("3.11")

    assert image.add_local_file("x", target).adds
    assert image.add_local_dir("x", target).adds


def test_pipe_applies_a_recipe() -> None:
    def with_git(image: squall.Image, version: str) -> squall.Image:
        return image.apt_install(f"git={version}")

    assert squall.Image.debian_slim("3.11").pipe(with_git, version="2").steps[1].arguments["packages"] == ("git=2",)


def test_imports_may_fail_here_and_must_not_in_the_images_own_containers() -> None:
    own, others = squall.Image.debian_slim("3.11"), squall.Image.debian_slim("3.11").pip_install("x")
    app = squall.App("x")
    function = app.function(image=own, name="own")(identity)
    other = app.function(image=others, name="other")(identity)
    with own.imports():
        import no_such_package_here  # type: ignore[import-not-found] # noqa: F401

    boot = Boot("ct-1", "ap-1", "x", "fu-1", "own", Definition("file", "x", "identity"))
    _container.enter(boot, AGENT_SOCKET, "token")
    try:
        with own.imports():
            import no_such_package_there  # type: ignore[import-not-found] # noqa: F401

        with pytest.raises(ModuleNotFoundError, match="no_such_package_there"):
            _container.unwrap(function)
        assert _container.unwrap(other) is identity
    finally:
        _container.leave()


def test_only_an_image_with_an_id_can_be_published() -> None:
    image = squall.Image.debian_slim("3.11")

    with pytest.raises(InvalidError, match=r"this image has no id yet; build it with image\.build\(\) first"):
        image.publish("name")
    with pytest.raises(InvalidError, match=r"described by steps; build it with image\.build\(\)"):
        image.hydrate()
    with pytest.raises(AttributeError, match=r"no object_id yet: build it with image\.build\(\)"):
        _ = image.object_id
    assert squall.Image.from_id("im-0123456789abcdef").object_id == "im-0123456789abcdef"
    with pytest.raises(InvalidError, match="begins with im-"):
        squall.Image.from_id("ap-0123456789abcdef")


def test_other_errors_in_imports_warn() -> None:
    with pytest.warns(UserWarning, match="division"), squall.Image.debian_slim("3.11").imports():
        _ = 1 // 0


@pytest.mark.parametrize("name", ["from_aws_ecr", "from_gcp_artifact_registry"])
def test_registries_of_clouds_have_older_names(server: ServerDouble, name: str) -> None:
    login = squall.Secret.from_dict({"AWS_REGION": "us-east-1"})

    older = getattr(squall.Image, name)("r.test/one:1", login, setup_dockerfile_commands=["RUN true"])
    kinds, _ = run_with(server, older)

    assert kinds == ["from_registry", "run_commands"]
    assert (server.images[-1].steps[0].tag, server.images[-1].steps[0].secrets) == ("r.test/one:1", ("0",))


def test_an_image_is_built_for_no_app_and_has_its_id_then(server: ServerDouble) -> None:
    image = squall.Image.debian_slim("3.11").run_commands("true")
    with pytest.raises(AttributeError, match="no object_id yet"):
        _ = image.object_id

    assert image.build() is image

    assert image.object_id == image_id(server.images[-1])


def test_an_image_is_built_for_an_app_that_runs(server: ServerDouble) -> None:
    image = squall.Image.debian_slim("3.11").run_commands("true")
    app = squall.App("x", include_source=False)
    app.function(image=image)(identity)
    with pytest.raises(InvalidError, match=r"does not run; use it inside `with app.run\(\):`"):
        image.build(app)

    with app.run():
        image.build(app)

    assert len(server.images) == 1, "the run has built it"


def test_builds_of_one_run_say_so_and_each_build_by_itself_is_a_run(server: ServerDouble) -> None:
    first, second = squall.Image.debian_slim("3.11").env({"A": "b"}), squall.Image.debian_slim("3.11").env({"A": "c"})
    app = squall.App("images")

    with app.run():
        first.build(app)
        second.build(app)
    first.build()
    first.build()

    in_app, *alone = dict.fromkeys(server.run_ids)
    assert server.run_ids == [in_app, in_app, *alone]
    assert len(alone) == 2
    assert "" not in server.run_ids


def test_two_apps_use_one_image(server: ServerDouble) -> None:
    image = squall.Image.debian_slim("3.11").run_commands("true")
    for name in ("one", "two"):
        app = squall.App(name, include_source=False)
        app.function(image=image)(identity)
        with app.run():
            pass

    assert server.images[0] == server.images[1]
    assert {spec.image_id for spec in server.functions.values()} == {image_id(server.images[0])}


def test_an_image_by_its_id_must_be_there(server: ServerDouble) -> None:
    built = squall.Image.debian_slim("3.11").run_commands("true").build()

    again = squall.Image.from_id(built.object_id)

    assert again.object_id == built.object_id
    assert again.build().object_id == built.object_id
    with pytest.raises(NotFoundError, match="was built here"):
        squall.Image.from_id("im-" + "0" * 32).build()
    with pytest.raises(InvalidError, match="begins with im-"):
        squall.Image.from_id("ct-1")


def built(server: ServerDouble, *images: squall.Image) -> list[ImageSpec]:
    for image in images:
        image.build()
    return server.images[-len(images) :]


@pytest.mark.parametrize("name", ["SQUALL_FORCE_BUILD", "MODAL_FORCE_BUILD"])
def test_a_setting_takes_nothing_from_the_cache_and_replaces_it(
    name: str, server: ServerDouble, monkeypatch: pytest.MonkeyPatch
) -> None:
    image = squall.Image.debian_slim("3.11").env({"A": "b"}).run_commands("true")
    (plain,) = built(server, image)
    monkeypatch.setenv(name, "1")
    monkeypatch.setenv("SQUALL_IGNORE_CACHE", "1")

    (forced,) = built(server, image)
    on_another = squall.Image.from_id(image.object_id).run_commands("true")
    (on_top,) = built(server, on_another)

    assert [step.force_build for step in forced.steps] == [True, False, False]
    assert image_id(forced) == image_id(plain)
    assert [step.force_build for step in on_top.steps] == [False, True]
    assert squall.Image.from_id(image.object_id).build().object_id == image_id(plain)


@pytest.mark.parametrize("value", ["", "0", "false", "No", "off"])
def test_a_setting_can_be_off(value: str, server: ServerDouble, monkeypatch: pytest.MonkeyPatch) -> None:
    image = squall.Image.debian_slim("3.11").run_commands("true")
    (plain,) = built(server, image)
    monkeypatch.setenv("SQUALL_FORCE_BUILD", value)
    monkeypatch.setenv("SQUALL_IGNORE_CACHE", value)

    assert built(server, image) == [plain]


@pytest.mark.parametrize("name", ["SQUALL_IGNORE_CACHE", "MODAL_IGNORE_CACHE"])
def test_a_setting_leaves_the_cache_to_the_others(
    name: str, server: ServerDouble, monkeypatch: pytest.MonkeyPatch
) -> None:
    images = [
        squall.Image.debian_slim("3.11").env({"A": "b"}).run_commands("true"),
        squall.Image.debian_slim("3.11").env({"A": "b"}).run_commands("true").workdir("/srv"),
        squall.Image.from_registry("x").workdir("/srv"),
    ]
    plain = built(server, *images)
    monkeypatch.setenv(name, "1")

    apart = built(server, *images)

    shared = [len(set(step_keys(one)) & set(step_keys(other))) for one, other in zip(plain, apart, strict=True)]
    assert shared == [0, 0, 0]
    assert step_keys(apart[0]) == step_keys(apart[1])[:3], "what is equal is built once"
    assert built(server, *images) == apart, "the program finds what it built"
    assert built(server, squall.Image.debian_slim("3.11"))[0].steps == apart[0].steps[:1]
    assert built(server, squall.Image.from_scratch())[0].steps == (image_steps.from_scratch(),)


@pytest.mark.parametrize("name", sorted(FORCED))
def test_any_step_can_be_forced(name: str, server: ServerDouble, tmp_path: Path) -> None:
    for file in ("pyproject.toml", "uv.lock", "poetry.lock"):
        (tmp_path / file).write_text("[project]\nname = 'x'\ndependencies = ['six']\n" if "py" in file else "")
    (tmp_path / "req.txt").write_text("six\n")

    FORCED[name](squall.Image.debian_slim("3.11"), tmp_path).build()

    assert any(step.force_build for step in server.images[-1].steps)


@pytest.mark.parametrize("method", ["entrypoint", "cmd", "shell"])
def test_commands_are_lists_of_words(method: str) -> None:
    with pytest.raises(InvalidError, match=rf"Image.{method}.*give a list of words, such as \['python3', '-u'\]"):
        getattr(squall.Image.debian_slim(), method)("python3 -u")
