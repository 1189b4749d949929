"""Instructions of one stage, and the variables they see."""

from __future__ import annotations

import pytest

from squall.sdk.dockerfile.records import Arg, Cmd, Entrypoint, Env, NoEffect, Run, Shell, User, Workdir
from squall.sdk.dockerfile.text import Text
from tests.sdk.dockerfile.reading import only, read, refusal, stage


def templates(variables: dict[str, Text]) -> dict[str, str]:
    return {name: value.template for name, value in variables.items()}


@pytest.mark.parametrize(
    ("content", "variables"),
    [
        ("ENV a=b", {"a": "b"}),
        ("env a=b c='d e' f=\"g h\" i=j\\ k", {"a": "b", "c": "d e", "f": "g h", "i": "j k"}),
        ("ENV a b c", {"a": "b c"}),
        ("ENV a   b=c", {"a": "b=c"}),
        ("ENV a=", {"a": ""}),
        ("ENV a=b=c", {"a": "b=c"}),
        ("ENV a=1 \\\n    # why\n    b=2", {"a": "1", "b": "2"}),
        ("ENV PATH=/x:$PATH", {"PATH": "/x:${PATH}"}),
        ("ENV a=${HOME:-/root} b='$HOME'", {"a": "${HOME:-/root}", "b": "$$HOME"}),
        ("ENV L=/cuda${L:+:${L}}", {"L": "/cuda${L:+:${L}}"}),
    ],
)
def test_variables_are_set(content: str, variables: dict[str, str]) -> None:
    assert templates(only(Env, content).variables) == variables


def test_a_variable_changes_after_its_instruction() -> None:
    first, second, third = [
        one for one in stage("ENV abc=hello\nENV abc=bye def=$abc\nENV ghi=$abc").instructions if isinstance(one, Env)
    ]

    assert templates(first.variables) == {"abc": "hello"}
    assert templates(second.variables) == {"abc": "bye", "def": "hello"}
    assert templates(third.variables) == {"ghi": "bye"}


def test_what_depends_on_the_image_is_asked_of_it_by_its_own_name() -> None:
    """`$old` is what PATH was then, not what it is by now."""
    found = stage("ENV old=$PATH\nENV PATH=/x:$PATH\nWORKDIR $old").instructions[-1]

    assert isinstance(found, Workdir)
    assert found.path.template == "${old}"


@pytest.mark.parametrize(
    ("content", "build_args", "value"),
    [
        ("ARG a", {}, None),
        ("ARG a=1", {}, "1"),
        ("ARG a=1", {"a": "2"}, "2"),
        ("ARG a", {"a": "2"}, "2"),
        ("ARG a=", {}, ""),
        ("ARG a='x y'", {}, "x y"),
        ("ARG a=${a:-1}", {}, "1"),
        ("ARG a=x${NONE:+y}", {}, "x"),
        ("ENV b=1\nARG a=$b", {}, "1"),
    ],
)
def test_arguments_are_given_or_have_a_default(content: str, build_args: dict[str, str], value: str | None) -> None:
    assert only(Arg, content, **build_args).value == value


def test_arguments_are_variables_of_commands_below_those_of_env() -> None:
    commands = [
        one
        for one in stage(
            """
            RUN first
            ARG a=1 b=2 c
            RUN second
            ENV b=3
            RUN third
            """,
            http_proxy="proxy:1",
            unused="x",
        ).instructions
        if isinstance(one, Run)
    ]

    assert [one.args for one in commands] == [
        {"http_proxy": "proxy:1"},
        {"http_proxy": "proxy:1", "a": "1", "b": "2"},
        {"http_proxy": "proxy:1", "a": "1"},
    ]


def test_env_is_above_arg_in_texts() -> None:
    assert only(Workdir, "ENV a=/env\nARG a=/arg\nWORKDIR $a", a="/given").path.plain == "/env"


def test_platform_is_an_argument_once_it_is_asked_for() -> None:
    found = only(Run, "ARG TARGETARCH TARGETPLATFORM\nARG TARGETOS=mine\nRUN x")

    assert found.args == {"TARGETARCH": "amd64", "TARGETPLATFORM": "linux/amd64", "TARGETOS": "mine"}


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ('CMD ["a", "$b"]', ("a", "$b")),
        ("CMD a $b 'c d'", ("/bin/sh", "-c", "a $b 'c d'")),
        ("CMD []", ()),
        ('SHELL ["bash", "-ec"]\nCMD a', ("bash", "-ec", "a")),
        ("CMD ['a']", ("/bin/sh", "-c", "['a']")),
    ],
)
def test_what_containers_run(content: str, words: tuple[str, ...]) -> None:
    assert only(Cmd, content).words == words
    assert only(Entrypoint, content.replace("CMD", "ENTRYPOINT")).words == words


def test_directories_and_users() -> None:
    found = stage('WORKDIR /a\nUSER app:$GROUP\nWORKDIR "b c"\nSHELL ["bash", "-c"]').instructions

    assert [one.path.template for one in found if isinstance(one, Workdir)] == ["/a", "b c"]
    assert [one.name.template for one in found if isinstance(one, User)] == ["app:${GROUP}"]
    assert [one.words for one in found if isinstance(one, Shell)] == [("bash", "-c")]


@pytest.mark.parametrize(
    "content",
    [
        "LABEL a=b c='d e'",
        "LABEL a b c",
        "EXPOSE 80 443/tcp",
        "VOLUME /data /more",
        'VOLUME ["/data"]',
        "STOPSIGNAL SIGINT",
        "HEALTHCHECK NONE",
        "HEALTHCHECK --interval=5s --retries=3 CMD curl -f localhost || exit 1",
        "ONBUILD RUN make",
        "ONBUILD COPY . /app",
        "MAINTAINER Some One <one@example.org>",
    ],
)
def test_what_has_no_effect_is_accepted(content: str) -> None:
    found = only(NoEffect, content)

    assert found.keyword == content.split()[0]
    assert content.endswith(found.written)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("RNU apt-get update", "there is no instruction RNU; did you mean RUN?"),
        ("copi a b", "there is no instruction COPI; did you mean COPY?"),
        ("apt-get install x", "there is no instruction APT-GET; there are ADD, ARG, CMD"),
        ("ENV", "ENV says nothing; write ENV name=value"),
        ("ENV a", "ENV a has no value; write ENV name=value"),
        ("ENV a=b c", "'c' has no '='"),
        ("ENV a-b=c", "'a-b' is no name of a variable"),
        ("ENV =c", "there is '=' without a name"),
        ('ENV a="b', 'a " is not closed'),
        ("ENV --x=1 a=b", "ENV has no flag --x; it has none"),
        ("ARG 1=2", "'1' is no name of a variable"),
        ("ARG a=$TARGETARCH", "no ARG or ENV above sets TARGETARCH"),
        ("ARG a=$HOME", "no ARG or ENV above sets HOME, and one of the base image cannot be had here"),
        ("WORKDIR", "WORKDIR says nothing; write WORKDIR path"),
        ("ENV e=\nWORKDIR $e", "WORKDIR has an empty path; is a variable in it not set?"),
        ("USER a b", "USER takes one name or number"),
        ("SHELL bash -c", "SHELL takes a list"),
        ("SHELL []", "SHELL takes a list"),
        ("CMD", 'CMD says nothing; write CMD ["program", "argument"]'),
        ("CMD --help", "CMD has no flag --help"),
        ("LABEL a", "LABEL a has no value"),
        ("LABEL a='b", "a ' is not closed"),
        ("EXPOSE ${", "must be followed by the name of a variable"),
        ("HEALTHCHECK", "write HEALTHCHECK CMD command"),
        ("HEALTHCHECK curl x", "write HEALTHCHECK CMD command"),
        ("HEALTHCHECK --intervall=1s NONE", "HEALTHCHECK has no flag --intervall; did you mean --interval?"),
        ("ONBUILD", "ONBUILD says nothing"),
        ("ONBUILD FROM x", "ONBUILD takes no FROM"),
        ("ONBUILD RNU x", "there is no instruction RNU; did you mean RUN?"),
        ('ENV a="${b:?give a version}"', "no ARG or ENV sets b: give a version"),
    ],
)
def test_wrong_instructions_say_what_to_do(content: str, message: str) -> None:
    written = content.splitlines()[-1].strip()

    found = refusal(f"FROM x\n{content}")

    assert message in found
    assert found.startswith(f"Dockerfile, line {len(content.splitlines()) + 1}: ")
    assert found.endswith(f"\n    {written}")


def test_variables_cannot_grow_without_end() -> None:
    doubling = "ENV a=xxxxxxxxxx\n" + "ENV a=$a$a\n" * 60

    assert "more than 1048576 characters" in refusal(f"FROM x\n{doubling}")
    many = "ARG a=" + "x" * 1000 + "\n" + "".join(f"ENV b{number}=$a$a$a$a$a$a$a\nRUN x\n" for number in range(2400))
    assert "the variables of the file grow too large" in refusal(f"FROM x\n{many}")


def test_arguments_nobody_asks_for_are_named() -> None:
    found = read(
        "ARG top\nFROM x\nARG inner\n",
        top="1",
        inner="2",
        typo="3",
        HTTPS_PROXY="4",
        BUILDKIT_INLINE_CACHE="1",
    )

    assert found.unused_args == ("typo",)
