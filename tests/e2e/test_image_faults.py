"""Images that cannot do what they are used for, as users see it, and users other than root."""

from __future__ import annotations

from textwrap import dedent

import pytest

from tests.e2e import flows
from tests.e2e.installation import Installation

START = """
import os, squall
from squall.sdk._image_steps import Step
slim = squall.Image.debian_slim()
def run(image, raw_f):
    app = squall.App("faults")
    function = app.function(image=image, serialized=True, name="f")(raw_f)
    try:
        with app.run():
            print(function.remote())
    except Exception as error:
        print(type(error).__name__, error)
"""


def printed(installation: Installation, source: str) -> str:
    return flows.program(installation, START + dedent(source), timeout_s=120)


@pytest.mark.timeout(180)
def test_user_of_an_image_runs_functions_at_build_time_and_later(session_installation: Installation) -> None:
    source = """
        def make():
            with open("/srv/bob/made", "w") as file:
                file.write(f"{os.getuid()} {os.environ['HOME']}")
        def look():
            import os
            return open("/srv/bob/made").read(), os.getuid(), os.getcwd()
        image = slim.run_commands("useradd --uid 1234 -m --home-dir /srv/bob bob")._and(Step("user", {"name": "bob"}))
        run(image.run_function(make), look)
    """

    assert printed(session_installation, source) == "('1234 /srv/bob', 1234, '/')\n"


@pytest.mark.timeout(180)
def test_entrypoint_that_does_not_run_its_arguments_is_named(session_installation: Installation) -> None:
    said = printed(session_installation, 'run(slim.entrypoint(["/bin/echo", "only this"]), lambda: 1)')

    assert "exit code 0" in said
    assert "an entrypoint of its image must end in executing its arguments" in said


def test_entrypoint_that_is_missing_is_named(session_installation: Installation) -> None:
    said = printed(session_installation, 'run(slim.entrypoint(["/no/such/entry"]), lambda: 1)')

    assert "cannot execute /no/such/entry" in said
    assert "that its entrypoint is there" in said


def test_image_without_python_is_told_when_a_function_starts(session_installation: Installation) -> None:
    said = printed(session_installation, 'run(squall.Image.from_scratch().env({"A": "b"}), lambda: 1)')

    assert "has no Python on its PATH; begin with Image.debian_slim(), or give add_python=" in said


def test_image_that_nobody_built_is_told(session_installation: Installation) -> None:
    said = printed(session_installation, 'run(squall.Image.from_id("im-" + "0" * 32), lambda: 1)')

    assert said.startswith("NotFoundError")
    assert "im-" + "0" * 32 in said


def test_functions_with_other_surroundings_make_other_layers(session_installation: Installation) -> None:
    source = """
        def making(word):
            def write():
                with open("/srv/word", "w") as file:
                    file.write(word)
            return write
        for word in ("one", "two"):
            run(slim.run_function(making(word)), lambda: open("/srv/word").read())
    """

    assert printed(session_installation, source) == "one\ntwo\n"


def test_secret_is_hidden_in_the_error_of_a_step(session_installation: Installation) -> None:
    source = r"""
        key = "-----BEGIN-----\nc2VjcmV0a2V5\n-----END-----"
        secret = squall.Secret.from_dict({"KEY": key})
        run(slim.run_commands('echo "$KEY"; exit 3', secrets=[secret]), lambda: 1)
    """

    said = printed(session_installation, source)

    assert "exit status 3" in said
    assert "***" in said
    assert "c2VjcmV0a2V5" not in said
