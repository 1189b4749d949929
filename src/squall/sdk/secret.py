"""Secrets: variables with values that nobody else is to see, for functions, image builds and registries."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from squall.exception import InvalidError, NotFoundError
from squall.protocol.asset import SECRET, AssetInfo
from squall.protocol.ids import new_id
from squall.protocol.secret import SecretCreate, SecretGet, SecretInfo, SecretUpdate
from squall.sdk import _container
from squall.sdk._asset import Asset, check_name, client_of, time_of
from squall.sdk._asset_objects import AssetObjects
from squall.sdk._environment import environment_of
from squall.sdk._facade import blocking
from squall.sdk._value_text import value_text

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from squall.sdk import types
    from squall.sdk._client import Client

_SHOWN_MAX = 1_000_000


class SecretObjects(AssetObjects["Secret"]):
    """All secrets that have a name."""

    @blocking
    async def create(
        self,
        name: str,
        env_dict: dict[str, str],
        *,
        allow_existing: bool = False,
        environment_name: str | None = None,
        client: Client | None = None,
    ) -> None:
        """Make one of these values. One that is there already is left as it is, where that is allowed.

        Raises:
            AlreadyExistsError: there is one of that name, and `allow_existing` is not given.
            InvalidError: none can be called that, or a name or value is no string.
        """
        await put_named(name, env_dict, environment_name, client, allow_existing=allow_existing)

    async def _listed(
        self, environment: str, limit: int, before_at: float | None, client: Client | None
    ) -> Sequence[Secret]:
        from squall.sdk._secret_list import list_secrets  # cold start: lists are seldom asked for in containers

        return [Secret._of_shown(one, client) for one in await list_secrets(environment, limit, before_at, client)]


class Secret(Asset):
    """Variables with values that only containers see. Nobody reads them back: no method has them, and no answer."""

    _kind = SECRET

    _read: Callable[[], dict[str, str]] | None = None
    """Of one without a name."""
    _required: tuple[str, ...] = ()
    _shown: SecretInfo | None = None

    objects = SecretObjects()
    """Makes, lists and deletes secrets."""

    def __init__(self, *args: object, **kwargs: object) -> None:
        raise InvalidError("Secret() cannot be made directly; use Secret.from_name(…) or Secret.from_dict(…)")

    @classmethod
    def _of_values(cls, read: Callable[[], dict[str, str]]) -> Secret:
        secret = cls._make()
        secret._read = read
        return secret

    @classmethod
    def _of_shown(cls, shown: SecretInfo, client: Client | None) -> Secret:
        secret = cls._make(shown.name, shown.environment, asset_id=shown.asset_id, client=client)
        secret._shown = shown
        return secret

    @staticmethod
    def from_name(
        name: str,
        *,
        environment_name: str | None = None,
        required_keys: Sequence[str] = (),
        client: Client | None = None,
    ) -> Secret:
        """The secret of that name. Its values are those that it has when a container starts.

        Args:
            required_keys: variables it must have: else what names it, a function or an image, cannot be made.

        Raises:
            InvalidError: none can be called that.
        """
        keys: object = required_keys
        if isinstance(keys, str) or not all(isinstance(one, str) for one in required_keys):
            raise InvalidError(f"Secret.from_name({name!r}): required_keys={value_text(keys)} must be a list of names")
        secret = Secret._named(name, environment_name, client)
        secret._required = tuple(required_keys)
        return secret

    @staticmethod
    def from_dict(env_dict: dict[str, str | None] | None = None) -> Secret:
        """Of these values; names whose value is None are left out.

        Raises:
            InvalidError: a name or value is no string.
        """
        known = _checked({} if env_dict is None else env_dict, "Secret.from_dict(...)")
        return Secret._of_values(lambda: dict(known))

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
            return Secret._of_values(dict)
        missing = [name for name in env_keys if name not in os.environ]
        if missing:
            raise InvalidError(f"Secret.from_local_environ(...): {', '.join(missing)} not set here")
        known = {name: os.environ[name] for name in env_keys}
        return Secret._of_values(lambda: dict(known))

    @staticmethod
    def from_dotenv(path: str | Path | None = None, *, filename: str = ".env", client: Client | None = None) -> Secret:
        """Of a file with lines such as `NAME=value`, searched for from a file or directory upwards.

        Args:
            path: where the search begins; the working directory when it is None.
        """
        return Secret._of_values(lambda: _read_dotenv(path, filename))

    def values(self) -> dict[str, str]:
        """The variables of one without a name.

        Raises:
            NotFoundError: they are in a file that is not there.
            InvalidError: it has a name: only containers see what is in it.
        """
        if self._read is None:
            raise InvalidError(f"{self!r}: only containers and builds that name it see what is in it")
        return self._read()

    # On the server

    async def _ask(self) -> AssetInfo:
        if self._read is not None:
            raise InvalidError("a secret without a name is on no server before a function names it; give it a name")
        asked = SecretGet(self._asset_id or self._name, self._environment, self._required)
        self._keep(await client_of(self._client).request("SecretGet", asked, SecretInfo))
        assert self._info is not None, "kept"
        return self._info

    def _keep(self, shown: SecretInfo) -> None:
        self._shown, self._asset_id, self._name = shown, shown.asset_id, shown.name
        self._info = AssetInfo(
            shown.asset_id, SECRET, shown.name, shown.environment, shown.created_at, shown.created_by
        )

    @blocking
    async def info(self, *, refresh: bool = False) -> types.SecretInfo:
        """What is known of it.

        Args:
            refresh: ask again, as when it was used last changes.

        Raises:
            NotFoundError: there is none of that name, or it was deleted.
        """
        from squall.sdk.types import SecretInfo as Info  # cold start: only where somebody wants to know

        if refresh or self._shown is None:
            await self._ask()
        shown = self._shown
        assert shown is not None, "kept"
        used = None if shown.last_used_at is None else time_of(shown.last_used_at)
        environment = shown.environment
        return Info(shown.name or None, environment, time_of(shown.created_at), shown.created_by or None, used)

    @blocking
    async def update(self, env_dict: dict[str, str]) -> None:
        """Give variables other values, or add some. Containers that run keep what they have; new ones get these.

        Raises:
            InvalidError: a name or value is no string, or it has no name itself.
            NotFoundError: there is none of that name, or it was deleted.
        """
        values = _checked(env_dict, "Secret.update(...)")
        if self._read is not None:
            raise InvalidError("Secret.update(...): a secret without a name is what it was made of; make another one")
        asked = SecretUpdate(self._asset_id or self._name, values, self._environment)
        self._keep(await client_of(self._client).request("SecretUpdate", asked, SecretInfo))

    async def id_for(self, client: Client, *, app_id: str = "", function_id: str = "") -> str:
        """The id by which a function of an app names it. Of one without a name what is in it is sent; empty where that
        is nothing.

        Args:
            function_id: in place of the app, one of its functions.

        Raises:
            Error: there is none of that name, it lacks a variable, or its values are not here.
        """
        if self._read is None:
            # Anew each time: one of its name may be another one by now.
            named = SecretGet(self._name or self._asset_id, self._environment, self._required)
            return (await client.request("SecretGet", named, SecretInfo)).asset_id
        values = self._read()
        if not values:
            return ""
        made = SecretCreate(new_id("st"), values, app_id=app_id, function_id=function_id)
        return (await client.request("SecretCreate", made, SecretInfo)).asset_id

    @property
    def has_name(self) -> bool:
        """Whether it is on a server, and not of values that are here."""
        return self._read is None

    def __repr__(self) -> str:
        return "<Secret>" if self._read is not None else super().__repr__()

    def __reduce__(self) -> tuple[Any, ...]:
        if self._read is not None:
            return _left_behind, ()  # what is pickled lies in stores and files
        return _handle, (self._name, self._environment, self._asset_id, self._required)


def _handle(name: str, environment: str, asset_id: str, required: tuple[str, ...]) -> Secret:
    secret = Secret._make(name, environment, asset_id=asset_id)
    secret._required = required
    return secret


def _left_behind() -> Secret:
    def read() -> dict[str, str]:
        raise InvalidError(
            "the values of a secret without a name stay in the program that made it; give it a name, as in "
            "`squall secret create NAME`, or make it where it is used"
        )

    return Secret._of_values(read)


async def put_named(
    name: str,
    values: object,
    environment_name: str | None,
    client: Client | None,
    *,
    allow_existing: bool = False,
    is_replacing: bool = False,
) -> None:
    """Make a secret that has a name, or replace what is in it.

    Raises:
        AlreadyExistsError: there is one, and neither is allowed.
        InvalidError: none can be called that, or a name or value is no string.
    """
    from squall.sdk._user import user_name  # cold start: only where something is made

    what = "Secret.objects.create"
    checked, known = check_name(name, what), _checked(values, what)
    record = SecretCreate(
        new_id("st"), known, checked, environment_of(environment_name), user_name(), allow_existing, is_replacing
    )
    await client_of(client).request("SecretCreate", record, SecretInfo)


def check_secrets(given: object, what: str) -> tuple[Secret, ...]:
    """Those that a function or an app is given.

    Raises:
        InvalidError: it is no list of secrets.
    """
    if given is None:
        return ()
    found = tuple(given) if isinstance(given, (list, tuple, set, frozenset)) else (None,)
    if not all(isinstance(one, Secret) for one in found):
        # By their types: values are nobody's to read.
        shown = type(given).__name__
        if isinstance(given, (list, tuple)):
            shown = f"[{', '.join(type(one).__name__ for one in given)}]"
        raise InvalidError(f"{what}: secrets= must be a list of squall.Secret objects, not {shown}")
    return found


def _checked(given: object, what: str) -> dict[str, str]:
    if not isinstance(given, dict):
        raise InvalidError(f"{what} takes a dictionary of strings, not {type(given).__name__}")
    for name, value in given.items():
        if not isinstance(name, str) or not isinstance(value, str | None):
            raise InvalidError(f"{what}: the name and the value of {name!r} must be strings")
    return {name: value for name, value in given.items() if value is not None}


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
