"""What is in secrets is read with its key, where it belongs, and nowhere else."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from squall.protocol.errors import PlatformError
from squall.server.dispatch.asset.seal import Seal, Whose
from squall.server.model.secret import SealedSecret
from squall.server.store.aes_gcm import AesGcm

OLD, NEW = b"o" * 32, b"n" * 32
VALUES = {"TOKEN": "pa55word-äöü", "EMPTY": ""}


def sealed(keys: tuple[bytes, ...] = (OLD,), app_id: str = "", **values: str) -> SealedSecret:
    return Seal(keys, AesGcm).close(Whose("st-1", app_id), values or VALUES, revision=3, now=7.0)


def test_what_was_closed_is_opened_again() -> None:
    row = sealed()

    assert Seal((OLD,), AesGcm).open(row) == VALUES
    assert Seal((NEW, OLD), AesGcm).open(row) == VALUES
    assert row.names == ("EMPTY", "TOKEN")
    assert (row.revision, row.kept_at, row.content_mark) == (3, 7.0, "")


def test_no_value_is_in_what_is_stored() -> None:
    row = sealed(app_id="ap-1")

    assert b"pa55word" not in repr(row).encode() + row.ciphertext


def test_the_same_is_never_the_same_twice() -> None:
    first, second = sealed(), sealed()

    assert first.nonce != second.nonce
    assert first.ciphertext != second.ciphertext


def test_another_key_opens_nothing_and_says_what_to_do() -> None:
    with pytest.raises(PlatformError, match=r"start it with that key again \(SQUALL_SECRET_KEY") as caught:
        Seal((NEW,), AesGcm).open(sealed())

    assert caught.value.code == "conflict"


@pytest.mark.parametrize(
    "changes",
    [
        {"secret_id": "st-2"},
        {"app_id": "ap-1"},
        {"names": ("EMPTY", "OTHER")},
        {"nonce": b"x" * 12},
        {"ciphertext": b"x" * 40},
        {"ciphertext": b""},
    ],
)
def test_what_stands_in_another_row_or_was_changed_is_not_opened(changes: dict[str, Any]) -> None:
    with pytest.raises(PlatformError, match="damaged or changed") as caught:
        Seal((OLD,), AesGcm).open(replace(sealed(), **changes))

    assert caught.value.code == "conflict"


def test_a_row_cannot_pass_for_one_of_another_key() -> None:
    keys = (OLD, NEW)
    other_id = sealed((NEW,)).key_id

    with pytest.raises(PlatformError, match="damaged or changed"):
        Seal(keys, AesGcm).open(replace(sealed(), key_id=other_id))


def test_a_mark_is_of_the_values_the_app_and_the_key() -> None:
    marks = [
        sealed(app_id="ap-1", A="1").content_mark,
        sealed(app_id="ap-2", A="1").content_mark,
        sealed(app_id="ap-1", A="2").content_mark,
        sealed((NEW,), app_id="ap-1", A="1").content_mark,
    ]

    assert len(set(marks)) == 4
    assert sealed(app_id="ap-1", A="1").content_mark == marks[0]
    assert (
        sealed((OLD, NEW), app_id="ap-1", B="x", A="1").content_mark == sealed(app_id="ap-1", A="1", B="x").content_mark
    )
