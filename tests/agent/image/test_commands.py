"""Command lines of build steps: executed where a plain shell can."""

from __future__ import annotations

import subprocess

from squall.agent.image import commands
from squall.protocol import image_steps
from squall.protocol.image import ImageConfig, ImageStep, step_title


def test_commands_run_each_in_its_own_shell_until_one_fails() -> None:
    step = image_steps.run_commands(("cd /; X=1", 'echo "X=$X in $(pwd)"', "exit 7", "echo never"))

    done = subprocess.run(
        commands.command(step, ImageConfig()), capture_output=True, text=True, cwd="/usr", check=False
    )

    assert done.returncode == 7
    assert "X= in /usr\n" in done.stdout
    assert "never" not in done.stdout


def test_pip_options_become_those_of_uv() -> None:
    step = image_steps.pip_install(
        ("six==1.16", "a b; python_version > '3'"),
        index_url="https://i",
        pre=True,
        extra_options="--no-deps --reinstall",
    )

    argv = commands.command(step, ImageConfig())

    options = argv[argv.index("sh", 3) + 1 :]
    assert options == (
        *("--default-index", "https://i", "--prerelease", "allow", "--no-deps", "--reinstall"),
        *("--", "six==1.16", "a b; python_version > '3'"),
    )


def test_package_names_are_no_shell_text() -> None:
    step = image_steps.apt_install(("git", "tree"))

    argv = commands.command(step, ImageConfig())

    assert argv[-2:] == ("git", "tree")
    assert "git" not in argv[2]


def test_title_is_one_short_line() -> None:
    step = image_steps.run_commands(("echo a\necho b", "x" * 500))

    text = step_title(step)

    assert text.startswith("run_commands echo a echo b && xxx")
    assert len(text) <= 120
    assert step_title(image_steps.env({"A": "secret"})) == "env A"


def test_what_a_step_runs_is_shown_as_it_can_be_typed() -> None:
    config = ImageConfig(python_path="/usr/bin/python3")

    def shown(step: ImageStep) -> tuple[str, ...]:
        return commands.shown(step, config)

    assert shown(image_steps.run_commands(("make it", "make 'that'"))) == ("make it", "make 'that'")
    assert shown(image_steps.run_commands(arguments=("make", "a b"))) == ("make 'a b'",)
    assert shown(image_steps.apt_install(("tree", "jq"))) == ("apt-get update", "apt-get install tree jq")
    (install,) = shown(image_steps.pip_install(("six", "b>1"), pre=True))
    assert install.startswith("/.squall-build/uv pip install --python ")
    assert install.endswith(" --prerelease allow -- six 'b>1'")
    (other,) = shown(image_steps.pip_install(("six",), uv_version="0.5.1"))
    assert other.startswith("/.squall-build/uv tool run --from uv==0.5.1 uv pip install ")
    (function,) = shown(image_steps.run_function("md-1", "digest"))
    assert function == "/usr/bin/python3 -u -B -m squall.guest.build_function /root/.squall-call"
    assert shown(image_steps.env({"A": "b"})) == shown(image_steps.cmd(("a", "b"))) == ()
