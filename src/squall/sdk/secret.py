"""Secrets without a name: variables whose values are never kept, for steps of image builds and for registries."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import TYPE_CHECKING

from squall.exception import InvalidError, NotFoundError
from squall.sdk import _container, _later

if TYPE_CHECKING:
    from pathlib import Path


class _NamesThatComeLater(type):
    """Says of a missing name that it is to come."""

    if not TYPE_CHECKING:

        def __getattr__(cls, name: str) -> object:
            raise _later.missing("Secret", _later.OF_SECRET, name)


class Secret(metaclass=_NamesThatComeLater):
    """Variables with values nobody else is to see. They are read when they are used, not when the secret is made."""

    def __init__(self, *args: object, **kwargs: object) -> None:
        raise InvalidError("Secret() cannot be made directly; use Secret.from_dict(...)")

    _read: Callable[[], dict[str, str]]

    @classmethod
    def _make(cls, read: Callable[[], dict[str, str]]) -> Secret:
        secret = object.__new__(cls)
        secret._read = read
        return secret

    @staticmethod
    def from_dict(env_dict: dict[str, str | None] | None = None) -> Secret:
        """Of these values; names whose value is None are left out.

        Raises:
            InvalidError: a name or value is no string.
        """
        given = {} if env_dict is None else env_dict
        if not isinstance(given, dict):
            raise InvalidError(f"Secret.from_dict(...) takes a dictionary of strings, not {type(given).__name__}")
        for name, value in given.items():
            if not isinstance(name, str) or not isinstance(value, str | None):
                raise InvalidError(f"Secret.from_dict(...): the name and the value of {name!r} must be strings")
        known = {name: value for name, value in given.items() if value is not None}
        return Secret._make(lambda: dict(known))

    @staticmethod
    def from_local_environ(env_keys: list[str]) -> Secret:
        """Of variables of this process; of none in a container.

        Raises:
            InvalidError: one of them is not set.
        """
        names: object = env_keys
        if isinstance(names, str):
            raise InvalidError(f"Secret.from_local_environ({names!r}): give a list of names")
        if _container.current() is not None:
            return Secret._make(dict)
        missing = [name for name in env_keys if name not in os.environ]
        if missing:
            raise InvalidError(f"Secret.from_local_environ(...): {', '.join(missing)} not set here")
        known = {name: os.environ[name] for name in env_keys}
        return Secret._make(lambda: dict(known))

    @staticmethod
    def from_dotenv(path: str | Path | None = None, *, filename: str = ".env", client: object = None) -> Secret:
        """Of a file with lines such as `NAME=value`, searched for from a file or directory upwards.

        Args:
            path: where the search begins; the working directory when it is None.
        """
        return Secret._make(lambda: _read_dotenv(path, filename))

    def values(self) -> dict[str, str]:
        """The variables.

        Raises:
            NotFoundError: they are in a file that is not there.
        """
        return self._read()

    if not TYPE_CHECKING:

        def __getattr__(self, name: str) -> object:
            return _later.absent(self, _later.OF_SECRET, name)

    def __repr__(self) -> str:
        return "<Secret>"


def _read_dotenv(path: str | Path | None, filename: str) -> dict[str, str]:
    if _container.current() is not None:
        return {}
    from dotenv import dotenv_values  # cold start: only where such a file is read, which no container does

    start = os.path.abspath(path or os.curdir)
    directory = start if os.path.isdir(start) else os.path.dirname(start)
    while True:
        place = os.path.join(directory, filename)
        if os.path.isfile(place):
            return {name: value for name, value in dotenv_values(place).items() if value is not None}
        above = os.path.dirname(directory)
        if above == directory:
            raise NotFoundError(f"Secret.from_dotenv(...): no file {filename!r} in {start} or above it")
        directory = above
