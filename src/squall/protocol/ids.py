"""Ids: a two-letter kind, a dash, 22 characters that sort by time of birth.

The kind is part of the id, so that an id in a log line says what it names. The first 8 characters count milliseconds
since 1970, the other 14 are random (83 bits): no two processes need to agree on anything to make one.
"""

from __future__ import annotations

import os
import re
import time

_ALPHABET = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
_TIME_CHARS = 8
_RANDOM_CHARS = 14

KINDS = {
    "ap": "app",
    "fu": "function",
    "fc": "call",
    "en": "environment",
    "in": "input",
    "ct": "container",
    "tp": "template",
    "ce": "cell",
    "im": "image",
    "ly": "layer",
    "mo": "mount",
    "bl": "blob",
    "nd": "node",
    "sv": "server",
    "cl": "client",
    "vo": "volume",
    "di": "dict",
    "qu": "queue",
    "st": "secret",
    "ex": "exec",
    "rq": "request",
    "wk": "proxy token",
    "tu": "tunnel",
}

_ID = r"^(?:" + "|".join(KINDS) + r")-[0-9A-Za-z:]{8,80}\Z"


def _base62(number: int, width: int) -> str:
    digits = []
    for _ in range(width):
        number, digit = divmod(number, 62)
        digits.append(_ALPHABET[digit])
    return "".join(reversed(digits))


# One character per random byte. 256 is no multiple of 62, so 8 characters come up 5 times in 256 and the others 4:
# 14 of them still carry 83 bits, and a call's id costs one table look-up instead of 14 divisions.
_RANDOM_TABLE = (_ALPHABET * 5)[:256].encode()
_last_millis: tuple[int, str] = (0, "0" * _TIME_CHARS)


def new_id(kind: str) -> str:
    """Make an id of one of `KINDS`."""
    global _last_millis
    assert kind in KINDS, f"no such kind of id: {kind}"
    # Wall clock on purpose: ids sort by birth across processes; nothing depends on it beyond display order and which of
    # two errors an unknown one is (`born_at`).
    millis = time.time_ns() // 1_000_000  # tidy: wall clock, see above
    known, text = _last_millis
    if known != millis:
        text = _base62(millis, _TIME_CHARS)
        _last_millis = (millis, text)
    return f"{kind}-{text}{os.urandom(_RANDOM_CHARS).translate(_RANDOM_TABLE).decode()}"


def derived_id(kind: str, at: float, seed: str) -> str:
    """An id that follows from what it is for: made again, it is the same. Born `at`, in seconds since 1970."""
    return f"{kind}-{_base62(int(at * 1000), _TIME_CHARS)}{hashed_id(kind, seed)[-_RANDOM_CHARS:]}"


def hashed_id(kind: str, seed: str) -> str:
    """An id that follows from what it is for alone, whenever it is made."""
    assert kind in KINDS, f"no such kind of id: {kind}"
    from squall.protocol.hashing import sha256_hex  # cold start: no container needs it

    return f"{kind}-{_base62(int(sha256_hex(seed.encode()), 16), _TIME_CHARS + _RANDOM_CHARS)[::-1]}"


def born_at(text: str) -> float:
    """When the id was made, in seconds since 1970, by the clock of who made it.

    Raises:
        ValueError: no id says a time like that.
    """
    digits = text[3 : 3 + _TIME_CHARS]
    if not is_id(text) or not digits.isalnum():
        raise ValueError(f"not an id: {text!r}")
    millis = 0
    for digit in digits:
        millis = millis * 62 + _ALPHABET.index(digit)
    return millis / 1000


def is_id(text: str, kind: str | None = None) -> bool:
    """Whether `text` has the shape of an id (of `kind`)."""
    return bool(re.match(_ID, text)) and (kind is None or text.startswith(kind + "-"))


def function_id(app_id: str, name: str) -> str:
    """The id of a function of an app. Derived: it is the same in every version of a deployed app that has it, and no
    container can choose that of another app's."""
    return hashed_id("fu", f"{app_id}:{name}")


def input_id(call_id: str, index: int) -> str:
    """The id of one input of a call. Derived, not stored: a map of a million inputs makes no million ids."""
    return f"in-{call_id[3:]}:{index}"


def parse_input_id(text: str) -> tuple[str, int]:
    """The call id and the index an input id was made from.

    Raises:
        ValueError: not an input id.
    """
    head, separator, index = text.partition(":")
    if not head.startswith("in-") or not separator or not index.isdigit():
        raise ValueError(f"not an input id: {text!r}")
    return "fc-" + head[3:], int(index)
