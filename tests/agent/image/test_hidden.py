"""Values of secrets are in no line, however they are written and wherever the line is cut."""

from __future__ import annotations

import json
import random
from urllib.parse import quote

import pytest

from squall.agent.image.hidden import Hidden
from squall.agent.image.lines import Lines

TOKEN = "tok-0123456789abcdef"


def said(hidden: Hidden, *chunks: bytes, chars_max: int = 40) -> list[str]:
    found: list[str] = []
    lines = Lines(found.append, chars_max, hidden)
    for chunk in chunks:
        lines.feed(chunk)
    lines.end()
    return found


@pytest.mark.parametrize("before", range(20, 45))
def test_a_line_is_cut_within_a_value_and_shows_nothing_of_it(before: int) -> None:
    (line,) = said(Hidden([TOKEN]), b"x" * before + TOKEN.encode() + b"y" * 100)

    assert line.rstrip("*y") == "x" * min(before, 40)


@pytest.mark.parametrize("at", range(1, 30))
def test_value_comes_in_two_reads(at: int) -> None:
    text = f"is {TOKEN}\n".encode()

    assert said(Hidden([TOKEN]), text[:at], text[at:]) == ["is ***"]
    assert said(Hidden([TOKEN]), b"50%\r" + text[:at], text[at:]) == ["is ***"]


def test_many_values_before_the_cut_do_not_bring_a_part_of_one_before_it() -> None:
    long = "s" + "0123456789" * 50

    assert said(Hidden([long]), (long * 30).encode(), b"\n") == ["***"]


def test_no_part_of_a_value_is_shown_wherever_reads_and_cuts_fall() -> None:
    chance = random.Random(7)
    for _ in range(300):
        text = "".join(chance.choice([TOKEN, "z", " ", "\r", "zz" * 9]) for _ in range(20)).encode()
        ends = sorted(chance.sample(range(1, len(text)), 3))
        chunks = [text[first:last] for first, last in zip([0, *ends], [*ends, len(text)], strict=True)]
        for line in said(Hidden([TOKEN]), *chunks, chars_max=chance.randrange(1, 60)):
            assert set(line) <= set("z *"), (line, chunks)


def test_values_that_overlap_leave_nothing_of_either() -> None:
    assert Hidden(["abcdef", "defghi"]).hide("-abcdefghi-") == "-***-"
    assert Hidden(["abab"]).hide("-ababab-") == "-***-"


@pytest.mark.parametrize(
    "value",
    [
        "https://bob:pass/word@h/simple",
        "https://bob:p@ss:word@h/simple",
        "https://bob:p%40ss%2fword@h/simple",
        "https://other/simple https://bob:p%40ss@h/simple",
        "index-url = https://bob:p@ss@h/simple\n",
    ],
)
def test_user_and_password_of_a_url_are_hidden_without_it(value: str) -> None:
    userinfo = value.rpartition("://")[2].rpartition("@")[0]
    password = userinfo.partition(":")[2]

    shown = Hidden([value]).hide(f"{userinfo}@h/x {password} {quote(password)} bob is a name")

    assert shown == "***@h/x *** *** bob is a name"


def test_password_is_hidden_however_it_is_written() -> None:
    plain = 'p@ss/"wörd+ '
    encoded = quote(plain, safe="")
    for value in (plain, f"https://bob:{encoded}@h/"):
        hidden = Hidden([value])
        for form in (plain.strip(), encoded.removesuffix("%20"), encoded.lower().removesuffix("%20")):
            assert hidden.hide(f"-{form}-") == "-***-", (value, form)
        assert hidden.hide(json.dumps(plain.strip())) == '"***"'


def test_token_in_the_place_of_a_user_is_hidden() -> None:
    for value in (f"https://{TOKEN}@h/", f"https://{TOKEN}:@h/", f"https://{TOKEN}:x-oauth-basic@h/"):
        assert Hidden([value]).hide(f"-{TOKEN}-") == "-***-"


def test_short_values_are_words_of_everyday() -> None:
    assert Hidden(["abc", "", "\n"]).hide("abc and so on") == "abc and so on"
