"""What must not be the same in two forks of a process: randomness, and what is made of it.

Only of modules that are loaded. The kernel's own (`os.urandom`, `secrets`) needs nothing. Python sees to `random` in
each fork, but not under gVisor, and after hooks that were registered before it was imported. Many libraries look
whether they were forked by asking for the number of their process, as OpenSSL, `tempfile` and `uuid` do. That tells
them nothing here: in its own namespace a fork often has the number that the template has in its, and what is restored
under gVisor always has. Out of reach are generators that user code made before the fork, such as
`numpy.random.default_rng()`, what Python derives from PYTHONHASHSEED, and copies of OpenSSL in libraries that do not
let their functions be found.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import sys
from collections.abc import Callable, Collection, Container, Iterable, Iterator
from typing import Any

from squall.guest.thread_counts import loaded_libraries

_SEED_BYTES = 32
_OPENSSL = "_ssl"
_PYTHONS_OPENSSL = ("libcrypto.so.3", "libcrypto.so.1.1")
"""By these names alone is it known which one the system's is."""


class Renewals:
    """What is to be made anew in each fork of a template."""

    def __init__(self) -> None:
        """Before the user's module is imported: hooks in a fork run in the order in which they were registered, so only
        those of what runs with the interpreter (a `.pth`, `sitecustomize`) come ahead."""
        self._found: tuple[Callable[[], None], ...] = ()
        self._is_due = False
        self._failure: BaseException | None = None
        os.register_at_fork(after_in_child=self._begin_child)

    def find(self, untouched: Collection[str] = (), *, has_user_code: bool = True) -> None:
        """Of the modules that are loaded now; nothing has been drawn from `untouched` ones."""
        if has_user_code and _OPENSSL in untouched:
            # A library of the user's may have, from below: most have the OpenSSL that Python's is. It is made here, as
            # it takes a millisecond the first time.
            _ssl(sys.modules[_OPENSSL])
            untouched = [name for name in untouched if name != _OPENSSL]
        self._found = renewals(untouched)

    def run(self) -> None:
        """Here and now."""
        for renew in self._found:
            renew()

    def run_in_child(self) -> None:
        """In the next fork, before hooks of the user's module that run there."""
        self._is_due = True

    def check(self) -> None:
        """In that fork.

        Raises:
            BaseException: what one of them has raised. What a hook raises is only printed.
        """
        if self._failure is not None:
            raise self._failure

    def _begin_child(self) -> None:
        if self._is_due:
            self._is_due = False
            try:
                self.run()
            except BaseException as error:  # noqa: BLE001 - nobody is to go on with what is the same elsewhere
                self._failure = error


def renewals(untouched: Container[str] = ()) -> tuple[Callable[[], None], ...]:
    """For each module that is loaded what is to be called in a fork; nothing has been drawn from `untouched` ones."""
    found: list[Callable[[], None]] = []
    # It draws its seed when it is imported, whoever draws from it.
    if hasattr(sys.modules.get("random"), "seed"):
        found.append(sys.modules["random"].seed)
    for name, renew in _OF_MODULE.items():
        module = sys.modules.get(name)
        if module is not None and name not in untouched:
            found.append(_bound(renew, module))
    return (*found, *_other_openssls())


def _bound(renew: Callable[[Any], None], module: Any) -> Callable[[], None]:
    return lambda: renew(module)


def _ssl(module: Any) -> None:
    # Reaches all generators of OpenSSL: those of the threads are seeded again when the first one is.
    module.RAND_add(os.urandom(_SEED_BYTES), float(_SEED_BYTES))


def _cryptography(module: Any) -> None:
    # Its wheels have an OpenSSL of their own in them.
    module._openssl.lib.RAND_add(os.urandom(_SEED_BYTES), _SEED_BYTES, float(_SEED_BYTES))


def _other_openssls() -> Iterator[Callable[[], None]]:
    """Libraries that packages bring along, as psycopg2-binary does, beside that of Python's `ssl`."""
    handles = {library._handle for library in _loaded(_PYTHONS_OPENSSL)} if _OPENSSL in sys.modules else set()
    for library in _loaded([path for path in loaded_libraries() if "libcrypto" in os.path.basename(path)]):
        if library._handle not in handles and hasattr(library, "RAND_add"):
            handles.add(library._handle)
            yield _adding(library)


def _loaded(names: Iterable[str]) -> Iterator[ctypes.CDLL]:
    for name in names:
        with contextlib.suppress(OSError):
            yield ctypes.CDLL(name, mode=os.RTLD_NOW | os.RTLD_NOLOAD)


def _adding(library: ctypes.CDLL) -> Callable[[], None]:
    add = library.RAND_add
    add.argtypes, add.restype = [ctypes.c_char_p, ctypes.c_int, ctypes.c_double], None
    return lambda: add(os.urandom(_SEED_BYTES), _SEED_BYTES, float(_SEED_BYTES))


def _numpy(module: Any) -> None:
    module.seed()


def _torch(module: Any) -> None:
    # What only stands in for it can do neither, and has drawn nothing.
    if hasattr(module, "manual_seed"):
        module.default_generator.seed()


def _uuid(module: Any) -> None:
    # Not by the system's library, which has an address and a counter of its own: random ones, as the RFC allows.
    module._generate_time_safe = None
    module._node = int.from_bytes(os.urandom(6), "big") | 1 << 40
    for name in ("_last_timestamp", "_last_timestamp_v6", "_last_timestamp_v7"):
        if hasattr(module, name):
            setattr(module, name, None)


def _tempfile(module: Any) -> None:
    module._name_sequence = None


def _multiprocessing(module: Any) -> None:
    config = module.current_process()._config
    config["authkey"] = module.AuthenticationString(os.urandom(_SEED_BYTES))
    # In a file system that is not ours.
    config.pop("tempdir", None)


def _semaphores(module: Any) -> None:
    module.SemLock._rand = type(module.SemLock._rand)()


_OF_MODULE: dict[str, Callable[[Any], None]] = {
    _OPENSSL: _ssl,
    "cryptography.hazmat.bindings._rust": _cryptography,
    "numpy.random.mtrand": _numpy,
    "torch": _torch,
    "uuid": _uuid,
    "tempfile": _tempfile,
    "multiprocessing.process": _multiprocessing,
    "multiprocessing.synchronize": _semaphores,
}
