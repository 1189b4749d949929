"""A module of a user's that draws from everything that must not be the same in two copies of its process."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

from squall.guest.thread_counts import loaded_libraries

CODE = """
import ctypes, glob, multiprocessing.process, multiprocessing.synchronize, os, random, secrets, ssl, tempfile, uuid
import numpy, numpy.random
from squall.protocol.ids import new_id

from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

# As a package's wheel brings it along.
found = glob.glob(__file__[: -len("user_code.py")] + "libcrypto-*")
own = ctypes.CDLL(found[0]) if found else None

try:
    import torch
except ImportError:
    torch = None

def drawn_by(library):
    if library is None:
        return str(uuid.uuid4())
    drawn = ctypes.create_string_buffer(8)
    assert library.RAND_bytes(drawn, 8) == 1
    return drawn.raw.hex()

def values():
    names = multiprocessing.synchronize.SemLock._rand
    return {
        "pid": os.getpid(),
        "random": random.random(),
        "numpy": numpy.random.random(),
        "torch": torch.default_generator.drawn() if torch else str(uuid.uuid4()),
        "ssl": ssl.RAND_bytes(8).hex(),
        "an OpenSSL of its own": drawn_by(own),
        "cryptography": X25519PrivateKey.generate().private_bytes_raw().hex(),
        "uuid1": [uuid.uuid1().clock_seq, uuid.getnode()],
        "uuid4": str(uuid.uuid4()),
        "tempfile": next(tempfile._get_candidate_names()),
        "multiprocessing": multiprocessing.process.current_process().authkey.hex(),
        "semaphores": next(names),
        "secrets": secrets.token_hex(8),
        "ids": new_id("fc"),
    }

values()
"""
TORCH = """
import os, random

class Generator:
    # What torch promises of its own: the numbers follow from the seed, and `seed()` sets one that nobody can tell.
    def __init__(self):
        self._numbers = random.Random(67280421310721)

    def seed(self):
        self._numbers.seed(os.urandom(8))

    def drawn(self):
        return self._numbers.random()

default_generator = Generator()

def manual_seed(seed):
    default_generator._numbers.seed(seed)
"""
"""The real one is loaded in tests/e2e/test_numerical_libraries.py, for it takes minutes to install."""


def put_modules(directory: Path) -> None:
    """The modules above, and a library for them."""
    (directory / "user_code.py").write_text(CODE)
    (directory / "torch.py").write_text(TORCH)
    shutil.copy(openssl_of_the_machine(), directory / "libcrypto-0a1b2c.so.3")


def openssl_of_the_machine() -> str:
    """The library that Python's `ssl` uses."""
    import _ssl  # noqa: F401 - loads it

    return next(path for path in loaded_libraries() if "libcrypto" in path)


def same(first: dict[str, Any], second: dict[str, Any]) -> set[str]:
    """What is not different."""
    return {name for name, value in first.items() if value == second[name]}
