"""RUN: forms, here-documents and flags."""

from __future__ import annotations

import pytest

from squall.sdk.dockerfile.records import Run, RunMount
from squall.sdk.dockerfile.text import Text, text
from tests.sdk.dockerfile.reading import only, refusal


@pytest.mark.parametrize(
    ("content", "command"),
    [
        ("RUN a $HOME 'b  c' # d", "a $HOME 'b  c' # d"),
        ("RUN a && \\\n    # why\n    b", "a &&     b"),
        ("RUN [ -f x ] || exit 1", "[ -f x ] || exit 1"),
        ("RUN <<EOF\nset -e\necho $HOME\nEOF", "set -e\necho $HOME\n"),
        ("RUN <<-EOF\n\ta\n\tEOF", "a\n"),
        ("RUN cat <<EOF > /x\n$a\nEOF", "cat <<EOF > /x\n$a\nEOF"),
        ("RUN python3 - <<'PY'\nprint('$a')\nPY", "python3 - <<'PY'\nprint('$a')\nPY"),
        ("RUN <<A cat && <<B cat\n1\nA\n2\nB", "<<A cat && <<B cat\n1\nA\n2\nB"),
    ],
)
def test_lines_are_for_the_shell(content: str, command: str) -> None:
    found = only(Run, content)

    assert (found.command, found.arguments, found.script) == (command, (), "")


def test_lists_are_for_no_shell() -> None:
    found = only(Run, 'RUN ["a", "$b c"]')

    assert (found.command, found.arguments, found.script) == ("", ("a", "$b c"), "")


def test_a_document_may_say_what_runs_it() -> None:
    found = only(Run, "RUN <<EOF\n#!/usr/bin/env python3\nprint(1)\nEOF")

    assert (found.command, found.arguments, found.script) == ("", (), "#!/usr/bin/env python3\nprint(1)\n")


def test_the_shell_is_that_of_the_stage() -> None:
    assert only(Run, 'SHELL ["bash", "-o", "pipefail", "-c"]\nRUN a').shell == ("bash", "-o", "pipefail", "-c")
    assert only(Run, "RUN a").shell == ()


@pytest.mark.parametrize(
    ("flag", "mount"),
    [
        ("type=cache,target=/root/.cache", RunMount("cache", text("/root/.cache"), is_writable=True)),
        ("type=cache,id=apt,dst=/c,sharing=locked", RunMount("cache", text("/c"), id="apt", is_writable=True)),
        ("type=cache,target=/c,ro", RunMount("cache", text("/c"))),
        ("type=tmpfs,target=/t", RunMount("tmpfs", text("/t"), is_writable=True)),
        ("type=bind,source=uv.lock,target=uv.lock", RunMount("bind", text("uv.lock"), "uv.lock")),
        ("target=/x,rw", RunMount("bind", text("/x"), is_writable=True)),
        ("from=tools,src=/bin,target=/t", RunMount("bind", text("/t"), "/bin", from_image="tools")),
        ("type=secret,id=token", RunMount("secret", Text(), id="token", is_writable=True)),
        (
            "type=secret,id=token,env=TOKEN,required=true",
            RunMount("secret", Text(), id="token", env="TOKEN", is_required=True, is_writable=True),
        ),
        ("type=secret,target=/run/netrc", RunMount("secret", text("/run/netrc"), id="netrc", is_writable=True)),
    ],
)
def test_mounts_are_data(flag: str, mount: RunMount) -> None:
    assert only(Run, f"RUN --mount={flag} x").mounts == (mount,)


def test_targets_of_mounts_may_name_variables() -> None:
    (mount,) = only(Run, "ARG d=/cache\nRUN --mount=type=cache,target=$d/$HOME x").mounts

    assert mount.target.template == "/cache/${HOME}"


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ("--mount=type=ssh", "--mount=type=ssh cannot be had"),
        ("--mount=type=cahe,target=/x", "there is no --mount=type=cahe; did you mean cache?"),
        ("--mount=type=cache", "needs target="),
        ("--mount=type=cache,targt=/x", "has no option 'targt'; did you mean target?"),
        ("--mount=type=cache,target=/x,target=/y", "has 'target' twice"),
        ("--mount=type=secret", "needs id="),
        ("--mount=from=7,target=/x", "there is no stage number 7"),
        ("--mount=from=$a,target=/x", "may have no variable"),
        ("--mount=target=/x,rw=maybe", "rw of --mount is true or false, not 'maybe'"),
        ("--mount", "--mount needs a value"),
        ("--network=none", "--network=none cannot be had"),
        ("--security=insecure", "--security=insecure cannot be had"),
        ("--device=nvidia.com/gpu=all", "--device cannot be had"),
        ("--mont=x", "RUN has no flag --mont; did you mean --mount?"),
    ],
)
def test_flags_that_cannot_be_heeded_are_refused(flags: str, message: str) -> None:
    assert message in refusal(f"FROM x\nRUN {flags} true")


def test_flags_that_change_nothing_are_accepted() -> None:
    assert only(Run, "RUN --network=default --security=sandbox x").command == "x"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("RUN", "RUN says nothing; write RUN command"),
        ("RUN --network=default", "RUN has flags, and no command"),
        ("RUN []", "RUN [] names no program"),
        ("RUN <<EOF\n\nEOF", "the here-document is empty"),
    ],
)
def test_nothing_to_run_is_said(content: str, message: str) -> None:
    assert message in refusal(f"FROM x\n{content}")
