"""Whole files: stages and what they are made from, real ones, and any text at all."""

from __future__ import annotations

import contextlib
import time
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from squall.sdk.dockerfile import DockerfileError, parse, parse_lines, read_text
from squall.sdk.dockerfile.records import Copy, Env, Run, Workdir
from squall.sdk.dockerfile.stage import KEYWORDS
from tests.sdk.dockerfile.reading import lines_refusal, read, refusal


@pytest.mark.parametrize(
    ("content", "build_args", "base"),
    [
        ("FROM debian", {}, "debian"),
        ("from debian:12-slim as Build", {}, "debian:12-slim"),
        ("FROM host.example:5000/a/b@sha256:12", {}, "host.example:5000/a/b@sha256:12"),
        ("FROM scratch", {}, "scratch"),
        ("ARG v=3.11\nFROM python:$v", {}, "python:3.11"),
        ("ARG v=3.11\nFROM python:$v", {"v": "3.12"}, "python:3.12"),
        ("ARG v\nFROM python:${v:-3.11}", {}, "python:3.11"),
        ("ARG v=1.2 m=${v%.*}\nFROM python:$m", {}, "python:1"),
        ("FROM python:${v:-3.11}-slim", {}, "python:3.11-slim"),
        ("ARG v\nFROM python:3.11$v", {}, "python:3.11"),
        ("FROM --platform=$BUILDPLATFORM x-$TARGETARCH", {}, "x-amd64"),
    ],
)
def test_bases(content: str, build_args: dict[str, str], base: str) -> None:
    assert read(content, **build_args).image.base == base


def test_platform_is_as_asked_for() -> None:
    assert read("FROM --platform=linux/arm64 x").image.platform == "linux/arm64"
    assert read("FROM --platform=$TARGETPLATFORM x").image.platform == "linux/amd64"
    assert read("FROM x").image.platform == ""
    assert parse("FROM x-$TARGETARCH$TARGETVARIANT", name="f", platform="linux/arm/v7").image.base == "x-armv7"


def test_stages_build_on_one_another() -> None:
    found = read(
        """
        FROM debian AS First
        ENV a=1
        ARG b=2
        WORKDIR /srv
        SHELL ["bash", "-c"]
        FROM first AS second
        WORKDIR $a
        RUN x
        FROM debian
        COPY --from=second /y /
        WORKDIR $a
        """
    )

    first, second, last = found.stages
    assert [one.name for one in found.stages] == ["first", "second", ""]
    assert (first.base, first.base_stage) == ("debian", None)
    assert (second.base, second.base_stage) == ("", 0)
    inner, command = second.instructions
    assert isinstance(inner, Workdir)
    assert isinstance(command, Run)
    assert inner.path.plain == "1"
    assert (command.args, command.shell, command.workdir) == ({"b": "2"}, ("bash", "-c"), "/srv/1")
    assert isinstance(last.instructions[1], Workdir)
    assert not last.instructions[1].path.is_plain
    assert found.image is last


def test_global_arguments_need_an_arg_in_the_stage() -> None:
    with_arg, without, other = read(
        "ARG v=1\nFROM x\nARG v\nENV a=${v:-none}\nFROM x\nENV a=${v:-none}\nFROM x\nARG v=2\nENV a=$v\n"
    ).stages

    def value(stage: object) -> str:
        (found,) = [one for one in stage.instructions if isinstance(one, Env)]  # type: ignore[attr-defined]
        return found.variables["a"].template

    assert value(with_arg) == "1"
    assert value(without) == "${v:-none}"
    assert value(other) == "2"


def test_nothing_is_unknown_on_scratch_but_the_path() -> None:
    found = read("FROM scratch\nENV a=x$HOME PATH=/b:$PATH\nCOPY x y").image

    env, copy = found.instructions
    assert isinstance(env, Env)
    assert isinstance(copy, Copy)
    assert found.is_scratch
    assert {name: value.template for name, value in env.variables.items()} == {"a": "x", "PATH": "/b:${PATH}"}
    assert copy.workdir == "/"


def test_only_needed_stages_are_in_order() -> None:
    found = read(
        """
        FROM debian AS a
        FROM debian AS unused
        FROM a AS b
        FROM debian AS c
        RUN --mount=from=d,target=/d x
        FROM debian AS d
        FROM b
        COPY --from=c / /
        """
    )

    assert [stage.name for stage in found.order()] == ["a", "b", "d", "c", ""]


def test_a_name_means_the_stage_above() -> None:
    found = read("FROM debian AS debian\nFROM debian AS debian\nRUN x\nFROM debian")

    assert [one.base_stage for one in found.stages] == [None, 0, 1]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "Dockerfile: there is no FROM in it"),
        ("ARG a=1", "there is no FROM in it"),
        ("RUN x", "line 1: RUN before the first FROM, where only ARG may be"),
        ("FORM x", "line 1: FORM before the first FROM, where only ARG may be; did you mean FROM?"),
        ("FROM", "FROM takes an image"),
        ("FROM a b", "FROM takes an image"),
        ("FROM a AS", "FROM takes an image"),
        ("FROM a IS b", "FROM takes an image"),
        ("FROM a AS 1b", "'1b' is no name of a stage"),
        ("FROM --platfrom=x a", "FROM has no flag --platfrom; did you mean --platform?"),
        ("ARG v\nFROM python:$v", "line 2: v has no value: give it in build_args=, or a default: ARG v=…"),
        ("FROM python:$v", "v is not set: put ARG v before the first FROM"),
        ("FROM x\nARG v=1\nFROM python:$v", "put ARG v before the first FROM; one inside a stage does not count"),
        ("FROM UPPER name", "FROM takes an image"),
        ("FROM a:", "'a:' is no name of an image"),
        ("FROM ../x", "'../x' is no name of an image"),
        ("ARG a='x\nFROM y", "line 1: a ' is not closed"),
        ("FROM b AS a\nCOPY --from=b x y\nFROM a AS b", "stage"),
        ("FROM x AS a\nCOPY --from=b x y\nFROM x AS b\nCOPY --from=a x y", "line 2: stage a is made from b, which"),
        ("FROM x AS a\nONBUILD RUN y\nFROM a", "line 3: the ONBUILD in line 2 would run here"),
    ],
)
def test_files_that_are_wrong_say_what_to_do(content: str, message: str) -> None:
    assert message in refusal(content)


@pytest.mark.parametrize("value", ["a\0b", "\udcff", 3])
def test_arguments_are_texts(value: str) -> None:
    with pytest.raises(DockerfileError, match="build_args"):
        parse("FROM x", name="Dockerfile", build_args={"a": value})


# Lines alone


def test_lines_stand_on_the_image_so_far() -> None:
    found = parse_lines(
        ["RUN a \\", "  b", "# comment", "ARG v=1\nENV w=$v x=$y", "COPY a /b/"],
        name="dockerfile_commands",
        build_args={"v": "2"},
    )

    (stage,) = found.stages
    run, _, env, copy = stage.instructions
    assert (stage.base, stage.base_stage) == ("", None)
    assert isinstance(run, Run)
    assert isinstance(env, Env)
    assert isinstance(copy, Copy)
    assert run.command == "a   b"
    assert {name: value.template for name, value in env.variables.items()} == {"w": "2", "x": "${y}"}
    assert copy.line.number == 6


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (("RUN a", "FROM x"), "dockerfile_commands, line 2: FROM has no place here"),
        ((), "there is no instruction in it"),
        (("# comment",), "there is no instruction in it"),
        (("RNU a",), "line 1: there is no instruction RNU; did you mean RUN?"),
        (("COPY --from=0 a b",), "there are no stages here, so from= takes the name of an image"),
    ],
)
def test_lines_that_are_wrong_say_what_to_do(lines: tuple[str, ...], message: str) -> None:
    assert message in lines_refusal(*lines)


# Files


def test_a_file_is_read(tmp_path: Path) -> None:
    (tmp_path / "Dockerfile").write_bytes(b"\xef\xbb\xbfFROM x # \xc3\xa9\r\n")

    assert read_text(str(tmp_path / "Dockerfile")) == "\ufeffFROM x # é\r\n"


def test_what_is_no_dockerfile_is_said(tmp_path: Path) -> None:
    (tmp_path / "binary").write_bytes(b"FROM x\n\xff\xfe")

    with pytest.raises(DockerfileError, match=r"cannot read the Dockerfile .*missing: No such file"):
        read_text(str(tmp_path / "missing"))
    with pytest.raises(DockerfileError, match="Is a directory"):
        read_text(str(tmp_path))
    with pytest.raises(DockerfileError, match="binary, line 2: it is not UTF-8"):
        read_text(str(tmp_path / "binary"))
    with pytest.raises(DockerfileError, match="cannot read the Dockerfile"):
        read_text("a\0b")


# Any text

_WORDS = st.sampled_from(
    [
        *KEYWORDS,
        *("AS", "a", "b", "$a", "${a:-b}", "${a#b}", "${", "\\", "\\\n", "\n", "\n", "#", "'", '"', "[", '["a"]', "="),
        *("a=b", "a=$a$a", "<<EOF", "\nEOF\n", "<<-'EOF'", "--from=0", "--from=a", "--mount=type=cache", "--mount=a"),
        *("--chmod=7", "scratch", "/", ".", "..", "\t", "\r\n", "# escape=`\n", "`", "\0", "\ud800", "\x85", "é", "*"),
    ]
)
_TEXTS = st.one_of(st.text(max_size=200), st.lists(_WORDS, max_size=60).map(" ".join))


@pytest.mark.long
@settings(max_examples=400)
@given(_TEXTS, st.booleans(), st.dictionaries(st.sampled_from(["a", "b"]), st.text(max_size=10), max_size=2))
def test_any_text_is_read_or_refused_by_the_one_exception(
    content: str, has_from: bool, build_args: dict[str, str]
) -> None:
    with contextlib.suppress(DockerfileError):
        found = parse(f"FROM x AS a\n{content}" if has_from else content, name="Dockerfile", build_args=build_args)
        repr(found).encode()
    with contextlib.suppress(DockerfileError):
        parse_lines([content], name="lines", build_args=build_args)


@pytest.mark.slow
@pytest.mark.parametrize(
    "content",
    [
        "FROM x\nRUN " + "a \\\n" * 200_000,
        "FROM x\nENV a=" + "${b:-" * 200_000,
        "FROM x\nENV " + "a=b " * 200_000,
        "FROM x\nRUN " + "[" * 1_000_000,
        "FROM x\nRUN " + "<<a " * 100_000,
        "FROM x\nRUN " + "--a=b " * 200_000,
        "FROM x\nCOPY " + "a* " * 300_000 + "/",
        "FROM x\nRUN " + "--mount=type=cache,target=/x " * 50_000 + "y",
        "#" * 2_000_000,
        "\n" * 2_000_000,
        "X" * 2_000_000,
        "FROM x\n" + "".join(f"ARG a{number}=b\nRUN x\n" for number in range(2400)),
        "".join(f"FROM s{number - 1} AS s{number}\nARG a{number}=b\n" for number in range(2400)),
        "FROM x\nENV v=" + "a" * 500 + "\n" + "ENV w=${v/*a*a*a*b/c}\n" * 4000,
        "FROM x\nENV v=" + "a" * 100_000 + "\n" + "ENV w=${v#*a*a*a*b}\n" * 4000,
    ],
    ids=range(15),
)
def test_hostile_text_ends_soon(content: str) -> None:
    begun = time.monotonic()

    with contextlib.suppress(DockerfileError):
        parse(content, name="Dockerfile")

    assert time.monotonic() - begun < 20
