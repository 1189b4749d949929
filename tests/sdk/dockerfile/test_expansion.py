"""Variables, quotes and backslashes: what a text comes to, with what only the image has left open."""

from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from squall.agent.image.template import expand
from squall.sdk.dockerfile.expansion import Expansion, ExpansionProblem, Unknown
from squall.sdk.dockerfile.text import Text, text

KNOWN = {"foo": "/bar", "empty": "", "str": "foobarbaz", "file": "a.tar.gz", "q": "a'b\"c"}


def lookup(name: str) -> Text | Unknown | None:
    if name in KNOWN:
        return text(KNOWN[name])
    return Unknown() if name.startswith("IMAGE") else None


def expanded(written: str, *, escape: str = "\\", keeps_quotes: bool = False) -> Text:
    return Expansion(written, lookup, lambda chars: None, escape, keeps_quotes=keeps_quotes).text()


@pytest.mark.parametrize(
    ("written", "value"),
    [
        ("", ""),
        ("plain", "plain"),
        ("$foo/x", "/bar/x"),
        ("${foo}x", "/barx"),
        ("$foox", ""),
        ("$none", ""),
        (r"\$foo \${foo}", "$foo ${foo}"),
        ("'$foo'", "$foo"),
        ('"$foo"', "/bar"),
        ("'a b'\"c d\"e", "a bc de"),
        (r'"a\"b\$c\\d\e"', r'a"b$c\d\e'),
        (r"a\b\\c", r"ab\c"),
        ("a\\", "a"),
        ("$", "$"),
        ("$ a $/", "$ a $/"),
        ("$1 $@ $?", "  "),
        ("$$foo", "foo"),
        ("${none:-x} ${empty:-x} ${foo:-x}", "x x /bar"),
        ("${none-x} ${empty-x}", "x "),
        ("${none:+x}${empty:+x}${foo:+x}", "x"),
        ("${none+x}${empty+x}", "x"),
        ("${none:-${foo}/y}", "/bar/y"),
        ("${none:-$foo}", "/bar"),
        ("${none:-'a}b'}", "a}b"),
        (r"${none:-a\}b}", "a}b"),
        ("${none:-}", ""),
        ("${foo:?must be there}", "/bar"),
        ("${str#f*b}", "arbaz"),
        ("${str##f*b}", "az"),
        ("${str%b*}", "foobar"),
        ("${str%%b*}", "foo"),
        ("${str/ba/fo}", "fooforbaz"),
        ("${str//ba/fo}", "fooforfoz"),
        ("${str//b?/}", "foorz"),
        ("${str/x/y}", "foobarbaz"),
        ("${foo#/}", "bar"),
        (r"${foo/\//_}", "_bar"),
        ("${file%.tar*}", "a"),
        ("${none#x}", ""),
        ("$q", "a'b\"c"),
    ],
)
def test_text_comes_to_what_the_reference_says(written: str, value: str) -> None:
    assert expanded(written).plain == value


@pytest.mark.parametrize(
    ("written", "template"),
    [
        ("/x:$IMAGE", "/x:${IMAGE}"),
        ("${IMAGE}", "${IMAGE}"),
        ("${IMAGE:-a$foo}", "${IMAGE:-a/bar}"),
        ("${IMAGE:+:$IMAGE}", "${IMAGE:+:${IMAGE}}"),
        ("${IMAGE-}", "${IMAGE-}"),
        ("${IMAGE+x}", "${IMAGE+x}"),
        (r"\$IMAGE $foo $IMAGE", "$$IMAGE /bar ${IMAGE}"),
        ("'$IMAGE'\"$IMAGE\"", "$$IMAGE${IMAGE}"),
        ("${none:-$IMAGE}", "${IMAGE}"),
        ("${foo:-$IMAGE}", "/bar"),
    ],
)
def test_variables_of_the_image_stay(written: str, template: str) -> None:
    found = expanded(written)

    assert found.template == template


def test_names_of_the_image_are_known() -> None:
    assert expanded("$IMAGE_A ${IMAGE_B:-$IMAGE_A}").names == ("IMAGE_A", "IMAGE_B")
    assert not expanded("$IMAGE_A").is_plain


@pytest.mark.parametrize(
    ("written", "message"),
    [
        ("'a", "a ' is not closed"),
        ('"a', 'a " is not closed'),
        ('"${foo"', "is no form of a variable"),
        ("${", "must be followed by the name"),
        ("${}", "must be followed by the name"),
        ("${foo", "'}' is missing"),
        ("${foo:-a", "'}' is missing"),
        ("${foo:", "'}' is missing"),
        ("${foo:x}", "is no form of a variable"),
        ("${foo^^}", "is no form of a variable"),
        ("${none:?say a version}", "none is not set: say a version"),
        ("${none?}", "none is not set: give it in build_args="),
        ("${empty:?}", "empty is empty"),
        ("${IMAGE:?why}", "no ARG or ENV sets IMAGE: why"),
        ("${IMAGE#x}", "needs a value that only the image knows"),
        ("${foo#$IMAGE}", "has IMAGE, which only the image knows"),
        (r"${IMAGE:-a\}b}", "may hold no '}'"),
        ("${foo#a\\\\", "'}' is missing"),
        ("${none:-" * 30, "more than 20 variables within one another"),
    ],
)
def test_what_cannot_be_read_is_said(written: str, message: str) -> None:
    with pytest.raises(ExpansionProblem, match=message.replace("?", r"\?").replace("^", r"\^").replace("$", r"\$")):
        expanded(written)


def test_other_escape_character() -> None:
    assert expanded(r"c:\dir`$foo", escape="`").plain == r"c:\dir$foo"


def test_quotes_of_a_document_are_its_own() -> None:
    assert expanded("\"$foo\" 'it' \\$foo \\\\", keeps_quotes=True).plain == "\"/bar\" 'it' $foo \\"


@given(st.text(alphabet="$IMAGE{}:-+'\"\\ ax", max_size=40), st.dictionaries(st.just("IMAGE"), st.text("ab$}")))
def test_a_template_filled_in_is_what_a_known_variable_would_give(written: str, env: dict[str, str]) -> None:
    """Deciding late and deciding early are one."""

    def early(name: str) -> Text | Unknown | None:
        return text(env[name]) if name in env else None

    def late(name: str) -> Text | Unknown | None:
        return Unknown() if name == "IMAGE" else None

    def spend(chars: int) -> None:
        pass

    try:
        found = Expansion(written, late, spend, "\\").text()
    except ExpansionProblem:
        return

    assert expand(found.template, env) == Expansion(written, early, spend, "\\").text().plain


@given(st.text(alphabet="$foIMAGE{}:-+?#%/*'\"\\ ", max_size=60))
def test_any_text_is_read_or_refused(written: str) -> None:
    with contextlib.suppress(ExpansionProblem):
        expanded(written)
