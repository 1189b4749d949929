"""Short ways to read Dockerfiles in tests."""

from __future__ import annotations

import textwrap
from typing import TypeVar

import pytest

from squall.sdk.dockerfile import DockerfileError, parse, parse_lines
from squall.sdk.dockerfile.records import Dockerfile, Instruction, Stage

One = TypeVar("One", bound=Instruction)


def read(content: str, **build_args: str) -> Dockerfile:
    """The record of a Dockerfile, written with the indentation of the test."""
    return parse(textwrap.dedent(content).lstrip("\n"), name="Dockerfile", build_args=build_args)


def stage(content: str, **build_args: str) -> Stage:
    """The stage that some instructions make, on a base with variables of its own."""
    return read("FROM debian\n" + textwrap.dedent(content).lstrip("\n"), **build_args).image


def only(kind: type[One], content: str, **build_args: str) -> One:
    """The only instruction of a kind in a stage."""
    (found,) = [one for one in stage(content, **build_args).instructions if isinstance(one, kind)]
    return found


def refusal(content: str, **build_args: str) -> str:
    """What a Dockerfile is refused with."""
    with pytest.raises(DockerfileError) as caught:
        read(content, **build_args)
    return str(caught.value)


def lines_refusal(*lines: str) -> str:
    """What lines without a FROM are refused with."""
    with pytest.raises(DockerfileError) as caught:
        parse_lines(lines, name="dockerfile_commands")
    return str(caught.value)
