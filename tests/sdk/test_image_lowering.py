"""What the longer methods of images become: packages, shell lines and files, and what they refuse."""

from __future__ import annotations

import shlex
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

import squall
from squall.exception import InvalidError
from squall.sdk._image_steps import Step, flat

BASE = squall.Image.debian_slim("3.11")
TOKEN = squall.Secret.from_dict({"GITHUB_TOKEN": "gh-very-secret", "GITLAB_TOKEN": "gl-very-secret"})


@pytest.fixture(autouse=True)
def _in_a_folder_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def write(**texts: str) -> None:
    """Files by their names, in which two underscores stand for a slash and one for a dot."""
    for name, text in texts.items():
        path = Path(name.replace("__", "/").replace("_", "."))
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


def added(image: squall.Image) -> list[Step]:
    """The steps behind the base."""
    return list(flat(image.steps)[1:])


def only(image: squall.Image) -> Step:
    """The one step behind the base."""
    (step,) = added(image)
    return step


def files_of(step: Step) -> list[str]:
    """The files a step sees, by their names there."""
    assert step.files is not None
    return sorted(file.path for file in step.files().manifest.files)


def refusal(image: squall.Image) -> str:
    """Why it cannot be used."""
    with pytest.raises(InvalidError) as caught:
        flat(image.steps)
    return str(caught.value)


def line_of(step: Step) -> str:
    """Its one shell line."""
    (line,) = step.arguments["commands"]
    return str(line)


# Requirement files


def requirements(path: str = "req.txt", **options: Any) -> Step:
    return only(BASE.pip_install_from_requirements(path, **options))


def test_plain_requirements_become_packages() -> None:
    write(
        req_txt="""
        # a comment
        numpy==2.0.0   # one behind a package
        requests[security,socks] >= 2, < 3
        tomli; python_version < "3.11"

        six
        """
    )

    step = requirements(pre=True)

    assert step.name == "pip_install"
    assert step.files is None
    assert step.arguments["pre"] is True
    assert step.arguments["title"] == "pip_install_from_requirements req.txt"
    assert step.arguments["packages"] == (
        "numpy==2.0.0",
        "requests[security,socks] >= 2, < 3",
        'tomli; python_version < "3.11"',
        "six",
    )


@pytest.mark.parametrize("include", ["-r more/inner.txt", "--requirement=more/inner.txt", "-rmore/inner.txt"])
def test_included_files_are_read_once_and_from_where_they_are(include: str) -> None:
    write(req_txt=f"{include}\nsix\n", more__inner_txt="numpy\n-r ../req.txt\n-r last.txt\n", more__last_txt="attrs\n")

    assert requirements().arguments["packages"] == ("numpy", "attrs", "six")


def test_files_that_are_more_than_packages_travel_as_they_are() -> None:
    write(req_txt="-r more/inner.txt\n-c limits.txt\nsix\n", more__inner_txt="numpy\n", limits_txt="six<2\n")

    step = requirements()

    assert step.arguments["packages"] == ()
    assert step.arguments["requirements"] == ("req.txt",)
    assert files_of(step) == ["limits.txt", "more/inner.txt", "req.txt"]


@pytest.mark.parametrize(
    "line",
    [
        "six==1.16.0 --hash=sha256:8abb2f1d86890a2dfb989f9a77cfcfd3e47c2a354b01111771326f8aa26e0254",
        'six==1.16.0 ; python_version >= "3.8" \\\n    --hash=sha256:8abb2f1d86890a2dfb989f9a77cfcfd3e47c2a354b',
        "--index-url https://packages.example/simple\nsix",
        "-f https://packages.example/wheels\nsix",
        "six @ https://packages.example/six-1.16.0-py2.py3-none-any.whl",
        "git+https://git.example/owner/six.git@main",
    ],
)
def test_what_no_package_by_name_can_say_is_left_to_the_installer(line: str) -> None:
    write(req_txt=f"{line}\n")

    step = requirements()

    assert step.arguments["requirements"] == ("req.txt",)
    assert files_of(step) == ["req.txt"]


def test_lines_go_on_behind_a_backslash_but_comments_do_not() -> None:
    write(req_txt="six \\\n  >=1.16\n# to be \\\nnumpy\n")

    assert requirements().arguments["packages"] == ("six    >=1.16", "numpy")


@pytest.mark.parametrize(
    "line",
    [
        "-e .",
        "--editable ./project",
        "./wheels/six.whl",
        "../project",
        "/opt/six",
        "~/six",
        "wheels/six.whl",
        "six-1.16.0-py2.py3-none-any.whl",
        "six @ file:///opt/six.whl",
        "-f wheels",
        "--find-links=./wheels",
    ],
)
def test_what_is_on_this_machine_alone_is_refused_with_its_place(line: str) -> None:
    write(req_txt="numpy \\\n  >=2\n\n-r more.txt\n", more_txt=f"# first\n{line}\n")

    message = refusal(BASE.pip_install_from_requirements("req.txt"))

    assert f"{Path('more.txt').absolute()} line 2: {line!r} is of this machine" in message
    assert "add_local_dir(..., copy=True)" in message


def test_the_line_of_a_missing_include_is_its_own() -> None:
    write(req_txt="numpy \\\n  >=2\n-r absent.txt\n")

    message = refusal(BASE.pip_install_from_requirements("req.txt"))

    assert "req.txt line 3: " in message
    assert "absent.txt does not exist" in message


def test_a_missing_file_is_named_when_the_image_is_used() -> None:
    image = BASE.pip_install_from_requirements("absent.txt")

    assert "absent.txt does not exist" in refusal(image)


def test_a_file_that_is_no_text_is_refused() -> None:
    Path("req.txt").write_bytes(b"\xff\xfe six")

    assert "cannot read" in refusal(BASE.pip_install_from_requirements("req.txt"))


def test_no_requirement_is_no_step() -> None:
    write(req_txt="# nothing yet\n")

    assert added(BASE.pip_install_from_requirements("req.txt")) == []


def test_a_file_in_the_home_directory_is_found(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    write(req_txt="six --no-binary\n")

    assert requirements("~/req.txt").arguments["requirements"] == ("req.txt",)


def test_uv_takes_packages_files_and_its_own_version() -> None:
    write(a_txt="six\n", b_txt="numpy\n")

    step = only(BASE.uv_pip_install("attrs", requirements=["a.txt", "b.txt"], uv_version="0.9.0"))

    assert step.arguments["packages"] == ("attrs", "six", "numpy")
    assert step.arguments["uv_version"] == "0.9.0"


# Projects


PROJECT = """
[project]
name = "My.Project"
version = "1"
dependencies = ["numpy>=2"]

[project.optional-dependencies]
fast-io = ["orjson"]
web = ["starlette", "httpx"]
all = ["my-project[web, fast_io]", "my_project[all]", "six"]
"""


def test_a_projects_dependencies_are_installed_with_those_of_its_extras() -> None:
    write(pyproject_toml=PROJECT)

    plain = only(BASE.pip_install_from_pyproject("pyproject.toml"))
    some = only(BASE.pip_install_from_pyproject("pyproject.toml", ["Fast_IO"]))

    assert plain.arguments["packages"] == ("numpy>=2",)
    assert some.arguments["packages"] == ("numpy>=2", "orjson")


def test_an_extra_of_extras_stands_for_their_packages() -> None:
    write(pyproject_toml=PROJECT)

    step = only(BASE.pip_install_from_pyproject("pyproject.toml", ["all"]))

    assert set(step.arguments["packages"]) == {"numpy>=2", "starlette", "httpx", "orjson", "six"}


def test_an_extra_that_is_not_there_is_refused_with_those_that_are() -> None:
    write(pyproject_toml=PROJECT)

    message = refusal(BASE.pip_install_from_pyproject("pyproject.toml", ["gui"]))

    assert "no optional dependencies 'gui'; it has fast-io, web, all" in message


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("[tool.x]\n", "no [project] with dependencies"),
        ("[project]\nname = 'x'\ndynamic = ['dependencies']\n", "no [project] with dependencies"),
        ("[project\n", "is no TOML"),
        ("[project]\ndependencies = ['x @ file:///opt/x']\n", "is of this machine"),
    ],
)
def test_a_project_that_cannot_be_read_is_refused(text: str, reason: str) -> None:
    write(pyproject_toml=text)

    assert reason in refusal(BASE.pip_install_from_pyproject("pyproject.toml"))


def uv_sync(directory: str = ".", **options: Any) -> tuple[Step, Step]:
    sync, env = added(BASE.uv_sync(directory, **options))
    return sync, env


def test_uv_sync_takes_the_lock_as_it_is() -> None:
    write(p__pyproject_toml="[project]\nname = 'x'\n", p__uv_lock="version = 1\n")

    sync, env = uv_sync("p", groups=["test", "docs"], extras=["fast"], extra_options="--no-group 'a b'")

    words = shlex.split(line_of(sync))
    assert words[-1] == "a b"
    assert " --frozen " in line_of(sync)
    assert "--group test --group docs --extra fast" in line_of(sync)
    assert "UV_PROJECT_ENVIRONMENT=/.venv" in words
    assert files_of(sync) == ["pyproject.toml", "uv.lock"]
    assert sync.arguments["title"] == "uv_sync p"
    assert env.arguments["variables"] == {"VIRTUAL_ENV": "/.venv", "PATH": "/.venv/bin:${PATH}"}


def test_uv_sync_wants_a_lock_unless_it_may_make_one() -> None:
    write(pyproject_toml="[project]\nname = 'x'\n")

    assert "there is no uv.lock; make one with `uv lock`, or say frozen=False" in refusal(BASE.uv_sync("."))
    sync, _ = uv_sync(frozen=False, uv_version="0.9.0")
    assert "--frozen" not in line_of(sync)
    assert "tool run --from uv==0.9.0 uv sync" in line_of(sync)
    assert files_of(sync) == ["pyproject.toml"]


def test_uv_sync_takes_the_projects_of_a_workspace() -> None:
    write(
        pyproject_toml="[project]\nname = 'x'\n[tool.uv.workspace]\nmembers = ['parts/*']\nexclude = ['parts/old']\n",
        uv_lock="",
        parts__a__pyproject_toml="[project]\nname = 'a'\n",
        parts__b__pyproject_toml="[project]\nname = 'b'\n",
        parts__old__pyproject_toml="[project]\nname = 'old'\n",
        parts__readme_md="",
    )

    sync, _ = uv_sync()

    assert "--no-install-workspace" in line_of(sync)
    assert files_of(sync) == ["parts/a/pyproject.toml", "parts/b/pyproject.toml", "pyproject.toml", "uv.lock"]


def test_uv_sync_names_the_project_that_is_missing() -> None:
    assert "pyproject.toml does not exist" in refusal(BASE.uv_sync("absent"))


def poetry(**options: Any) -> Step:
    return only(BASE.poetry_install_from_file("pyproject.toml", **options))


def test_poetry_exports_what_the_lock_has() -> None:
    write(pyproject_toml="[tool.poetry]\nname = 'x'\n", poetry_lock="")

    step = poetry(with_=["test", "docs"], without=["old"], poetry_version="2.1.0")

    assert "poetry export" in line_of(step)
    assert "--with test,docs --without old" in line_of(step)
    assert "--from poetry==2.1.0" in line_of(step)
    assert "poetry lock" not in line_of(step)
    assert files_of(step) == ["poetry.lock", "pyproject.toml"]


def test_poetrys_lock_may_be_elsewhere_or_ignored() -> None:
    write(pyproject_toml="[tool.poetry]\nname = 'x'\n", locks__mine_lock="")

    missing = refusal(BASE.poetry_install_from_file("pyproject.toml"))

    assert "poetry.lock; make it with `poetry lock`, or say ignore_lockfile=True" in missing
    assert files_of(poetry(poetry_lockfile="locks/mine.lock")) == ["poetry.lock", "pyproject.toml"]
    ignoring = poetry(ignore_lockfile=True, only=["main"])
    assert files_of(ignoring) == ["pyproject.toml"]
    assert "poetry lock" in line_of(ignoring)
    assert "--only main" in line_of(ignoring)


def test_poetry_of_the_image_itself_is_used_when_no_version_is_named() -> None:
    write(pyproject_toml="[tool.poetry]\nname = 'x'\n", poetry_lock="")

    assert "tool run" not in line_of(poetry(poetry_version=None))


# Private repositories


def private(*repositories: str, secrets: Sequence[squall.Secret] = (TOKEN,), **options: Any) -> list[Step]:
    return added(BASE.pip_install_private_repos(*repositories, git_user="Ann 'o", secrets=secrets, **options))


def test_a_token_is_in_no_argument_and_in_no_url() -> None:
    git, step = private("github.com/owner/one@main", "gitlab.com/group/deep/two@v1.0", "github.com/owner/three")

    assert git.arguments["packages"] == ("git", "ca-certificates")
    assert step.arguments["packages"] == (
        "git+https://github.com/owner/one@main",
        "git+https://gitlab.com/group/deep/two@v1.0",
        "git+https://github.com/owner/three",
    )
    assert "very-secret" not in repr(step.arguments)
    assert "very-secret" not in repr(step)
    assert step.secrets == (TOKEN,)
    assert step.arguments["env"]["GIT_CONFIG_COUNT"] == "2"
    assert step.arguments["env"]["GIT_TERMINAL_PROMPT"] == "0"


def test_git_is_told_user_and_token_by_the_shell_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    _, step = private("github.com/owner/one")
    helper = step.arguments["env"]["GIT_CONFIG_VALUE_0"]
    assert helper.startswith("!")

    # As git runs it.
    said = subprocess.run(
        ["/bin/sh", "-c", f"{helper[1:]} get"],
        env={"GITHUB_TOKEN": "gh-very-secret $(id)"},
        capture_output=True,
        text=True,
        check=True,
    ).stdout

    assert step.arguments["env"]["GIT_CONFIG_KEY_0"] == "credential.https://github.com.helper"
    assert said == "username=Ann 'o\npassword=gh-very-secret $(id)\n"


def test_repositories_are_refused_that_no_token_is_for() -> None:
    with pytest.raises(InvalidError, match="write it as github"):
        private("example.org/owner/one")
    with pytest.raises(InvalidError, match="write it as github"):
        private("https://ann:pw@github.com/owner/one")
    with pytest.raises(InvalidError, match="write it as github"):
        private("github.com.evil.example/owner/one")
    with pytest.raises(InvalidError, match="name a repository"):
        private()
    with pytest.raises(InvalidError, match="give the token in secrets="):
        private("github.com/owner/one", secrets=())


# Bases, and conda


def test_micromamba_installs_by_name_and_from_a_file() -> None:
    write(spec_yml="dependencies: [numpy]\n")
    image = squall.Image.micromamba("3.11")

    *before, step = flat(image.micromamba_install("numpy", "a b", channels=["conda-forge"]).steps)
    from_file = flat(image.micromamba_install(spec_file="spec.yml").steps)[-1]

    assert before[0].name == "from_registry"
    assert line_of(step) == "micromamba install --yes --name base --channel conda-forge numpy 'a b'"
    assert line_of(from_file).endswith('--file "$SQUALL_BUILD_FILES"/spec.yml')
    assert files_of(from_file) == ["spec.yml"]
    assert "spec_file absent.yml does not exist" in refusal(image.micromamba_install(spec_file="absent.yml"))


def test_a_registrys_image_is_named_as_it_is_pulled() -> None:
    image = squall.Image.from_registry("docker://registry.example/app:1", TOKEN, add_python="3.12")
    base, python = flat(image.steps)

    assert base.arguments["tag"] == "registry.example/app:1"
    assert base.secrets == (TOKEN,)
    assert python.arguments["python_version"] == "3.12"


def test_a_registrys_image_cannot_be_nameless() -> None:
    for tag in ("", "two words", 7):
        with pytest.raises(InvalidError, match="give the name of an image"):
            squall.Image.from_registry(tag)  # type: ignore[arg-type]
    with pytest.raises(InvalidError, match=r"must be a squall\.Secret"):
        squall.Image.from_registry("x", {"REGISTRY_PASSWORD": "x"})  # type: ignore[arg-type]
    with pytest.raises(InvalidError, match="no parameter 'platform'"):
        squall.Image.from_registry("x", platform="linux/arm64")
