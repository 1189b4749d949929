"""Ids say what they name, sort by birth, and never collide in practice."""

from __future__ import annotations

import os
import subprocess
import sys
import time

import pytest

from squall.protocol.ids import (
    KINDS,
    born_at,
    derived_id,
    function_id,
    hashed_id,
    input_id,
    is_id,
    new_id,
    parse_input_id,
)


@pytest.mark.parametrize("kind", KINDS)
def test_id_has_its_kind_and_a_fixed_length(kind: str) -> None:
    made = new_id(kind)

    assert made.startswith(kind + "-")
    assert len(made) == 25
    assert is_id(made)
    assert is_id(made, kind)


def test_ids_of_a_later_millisecond_sort_later() -> None:
    earlier = new_id("fc")
    time.sleep(0.003)

    assert earlier < new_id("fc")


def test_id_says_when_it_was_made() -> None:
    before = time.time()

    assert before - 0.001 <= born_at(new_id("fc")) <= time.time()
    assert born_at("fc-00000010" + "0" * 14) == 0.062


@pytest.mark.parametrize("text", ["", "fc-", "fc-0000:00000", "0000000000000", "fc-ÄÄÄÄÄÄÄÄ"])
def test_what_is_no_id_was_never_made(text: str) -> None:
    with pytest.raises(ValueError, match="not an id"):
        born_at(text)


def test_ids_do_not_collide() -> None:
    assert len({new_id("ct") for _ in range(20_000)}) == 20_000


@pytest.mark.parametrize(
    "text",
    [
        "",
        "ap-",
        "ap",
        "xx-0123456789",
        "ap-../../etc/passwd",
        "ap-01234567\n",
        "ap-0123 567",
        "ap-" + "0" * 81,
        "AP-01234567",
    ],
)
def test_what_has_not_the_shape_is_no_id(text: str) -> None:
    assert not is_id(text)


def test_kinds_are_told_apart() -> None:
    assert not is_id(new_id("ap"), "fu")


def test_input_id_is_made_of_its_call_and_index() -> None:
    call_id = new_id("fc")

    assert parse_input_id(input_id(call_id, 12)) == (call_id, 12)
    assert is_id(input_id(call_id, 12), "in")


@pytest.mark.parametrize("text", ["", "in-1", "fc-1:0", "in-1:x", "in-1:-1", "in-1:"])
def test_what_is_no_input_id_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="not an input id"):
        parse_input_id(text)


def test_id_that_follows_from_what_it_is_for_never_changes() -> None:
    assert function_id("ap-0000000000000000000000", "square") == "fu-7X5BGmNAUfdsYiQpbFJjst"
    assert is_id(hashed_id("fu", "anything"), "fu")
    assert hashed_id("fu", "one") != hashed_id("fu", "two")
    assert derived_id("fc", 1000.0, "fu-1 1000.0") == "fc-00004C921d5VIezYcXnBAd"
    assert born_at(derived_id("fc", 1000.0, "fu-1 1000.0")) == 1000.0


def test_ids_are_derived_without_openssl() -> None:
    """`squall run` derives one for each function; loading OpenSSL takes as long as a tenth of all its imports."""
    code = (
        "import sys; from squall.protocol.ids import function_id\n"
        "function_id('ap-1', 'f'); assert 'hashlib' not in sys.modules"
    )

    subprocess.run([sys.executable, "-S", "-c", code], check=True, env={"PYTHONPATH": os.pathsep.join(sys.path)})
