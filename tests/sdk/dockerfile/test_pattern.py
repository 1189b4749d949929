"""Patterns: what they match, and that none takes long."""

from __future__ import annotations

import time

import pytest

from squall.sdk.dockerfile.pattern import has_wildcard, name_pattern, shell_pattern


@pytest.mark.parametrize(
    ("pattern", "matching", "others"),
    [
        ("*.py", ["a.py", ".py", ".hidden.py"], ["a.pyc", "a"]),
        ("a?c", ["abc", "a*c"], ["ac", "abbc"]),
        ("[a-c]x", ["ax", "cx"], ["dx", "x", "-x"]),
        ("[^a-c]x", ["dx"], ["ax"]),
        (r"\*", ["*"], ["a"]),
        (r"[\]]", ["]"], ["a"]),
        ("file[1]", ["file1"], ["file[1]"]),
        ("a**b", ["ab", "axxb"], ["a"]),
        ("", [""], ["a"]),
    ],
)
def test_names_match_as_with_docker(pattern: str, matching: list[str], others: list[str]) -> None:
    made = name_pattern(pattern)

    assert [name for name in matching if not made.matches(name)] == []
    assert [name for name in others if made.matches(name)] == []


@pytest.mark.parametrize("pattern", ["[", "[a", "[]", "[-a]", "[a-]", "a\\", "[a-", "[^"])
def test_half_a_pattern_is_none(pattern: str) -> None:
    with pytest.raises(ValueError):
        name_pattern(pattern)


def test_prefixes_are_the_shortest_or_the_longest() -> None:
    pattern = shell_pattern("f*b")

    assert pattern.prefix("foobarbaz", is_longest=False) == 4
    assert pattern.prefix("foobarbaz") == 7
    assert pattern.prefix("xfoobar") == -1
    assert pattern.prefix("xfoobar", 1) == 5


def test_no_pattern_takes_long() -> None:
    pattern = name_pattern("*a" * 50 + "b")
    begun = time.monotonic()

    assert not pattern.matches("a" * 5000)
    assert time.monotonic() - begun < 5


def test_a_backslash_makes_a_pattern() -> None:
    assert has_wildcard(r"a\*")
    assert not has_wildcard("a]b{c}")
