"""Command lines of build steps: executed where a plain shell can."""

from __future__ import annotations

import subprocess

from squall.agent.image import commands
from squall.protocol import image_steps
from squall.protocol.image import ImageConfig, step_title


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
