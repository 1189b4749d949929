"""Hashes are the same by whichever way they are made."""

from __future__ import annotations

import hashlib
import subprocess
import sys

import pytest

from squall.protocol import hashing
from squall.protocol.hashing import new_sha256, sha256_hex

SIZES = [0, 1, 55, 56, 64, 1000, 2**18 - 1, 2**18, 2**18 + 1, 2**20]


@pytest.mark.parametrize("size_bytes", SIZES)
def test_both_ways_give_the_hash(size_bytes: int, monkeypatch: pytest.MonkeyPatch) -> None:
    data = bytes(range(256)) * (size_bytes // 256 + 1)
    data = data[:size_bytes]

    found = []
    for hashed_bytes in (0, 2**30):
        monkeypatch.setattr(hashing, "_hashed_bytes", hashed_bytes)
        found.append(sha256_hex(data))
        pieces = new_sha256(size_bytes)
        pieces.update(data[:7])
        pieces.update(memoryview(data)[7:])
        found.append(pieces.hexdigest())

    assert set(found) == {hashlib.sha256(data).hexdigest()}


def test_without_a_hash_of_its_own_python_takes_that_of_openssl(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hashing, "_own", lambda: None)

    assert sha256_hex(b"x") == hashlib.sha256(b"x").hexdigest()


def test_openssl_is_loaded_for_what_is_large_alone() -> None:
    program = (
        "import sys; from squall.protocol.hashing import sha256_hex\n"
        "loaded = []\n"
        "for data in (b'x' * 1000, b'x' * 2**18):\n"
        "    sha256_hex(data); loaded.append('hashlib' in sys.modules)\n"
        "print(loaded)"
    )

    printed = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=30)

    assert printed.stdout == "[False, True]\n"
