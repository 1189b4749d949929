"""Environments: apps are deployed, and images published, under their names in one of them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from squall.exception import InvalidError
from squall.protocol.environment import DEFAULT
from squall.sdk import _container
from squall.sdk._environment import check_environment, environment_of
from squall.sdk._facade import blocking, blocking_static

if TYPE_CHECKING:
    from squall.sdk._client import Client
    from squall.sdk.app import App


class EnvironmentObjects:
    """All environments."""

    @blocking_static
    async def create(
        name: str,  # noqa: N805 - static
        *,
        restricted: bool = False,
        default_role: str | None = None,
        experimental_options: dict[str, Any] | None = None,
        client: Client | None = None,
    ) -> None:
        """Make one.

        Raises:
            AlreadyExistsError: there is one of that name.
            InvalidError: none can be called that.
        """
        if restricted or default_role is not None:
            raise InvalidError("Environment.objects.create: there are no users and roles in this version of Squall")
        from squall.protocol.environment import EnvironmentCreate, EnvironmentInfo  # cold start: as above

        record = EnvironmentCreate(check_environment(name, "Environment.objects.create"))
        await _client_of(client).request("EnvironmentCreate", record, EnvironmentInfo)

    @blocking_static
    async def list(*, client: Client | None = None) -> list[Environment]:
        """All there are, the default first."""
        from squall.protocol.environment import EnvironmentList, EnvironmentListing  # cold start: as above

        listing = await _client_of(client).request("EnvironmentList", EnvironmentList(), EnvironmentListing)
        return [Environment._make(one.name, client, one.environment_id) for one in listing.environments]

    @blocking_static
    async def delete(name: str, *, client: Client | None = None) -> None:  # noqa: N805 - static
        """Delete one and everything in it: its apps are stopped, for good.

        Raises:
            NotFoundError: there is none of that name.
        """
        from squall.protocol.environment import EnvironmentDelete, EnvironmentDeleted  # cold start: as above

        record = EnvironmentDelete(check_environment(name, "Environment.objects.delete"))
        await _client_of(client).request("EnvironmentDelete", record, EnvironmentDeleted)


class Environment:
    """A handle to an environment. Nothing is asked before its first use."""

    def __init__(self, *args: object, **kwargs: object) -> None:
        raise InvalidError("Environment() cannot be made directly; use Environment.from_name(…)")

    objects = EnvironmentObjects()
    """Makes, lists and deletes environments."""

    _name: str
    _is_created: bool
    _client: Client | None
    _environment_id: str

    @classmethod
    def _make(
        cls, name: str, client: Client | None, environment_id: str = "", *, is_created: bool = False
    ) -> Environment:
        environment = object.__new__(cls)
        environment._environment_id = environment_id
        environment._name = name
        environment._is_created = is_created
        environment._client = client
        return environment

    @staticmethod
    def from_name(name: str, *, create_if_missing: bool = False, client: Client | None = None) -> Environment:
        """The environment of that name; with `create_if_missing` its first use makes it, if there is none."""
        return Environment._make(check_environment(name, "Environment.from_name"), client, is_created=create_if_missing)

    @staticmethod
    def from_context(*, client: Client | None = None) -> Environment:
        """The one that everything here means that names none; in a container, that of its app."""
        state = _container.current()
        here = DEFAULT if state is None else state.boot.environment
        return Environment._make(environment_of(None) or here, client)

    @blocking
    async def hydrate(self, client: Client | None = None) -> Environment:
        """See that it is there; returns itself.

        Raises:
            NotFoundError: it is not.
        """
        if client is not None:
            self._client = client
        await self._resolve()
        return self

    async def _resolve(self) -> str:
        from squall.exception import AlreadyExistsError  # cold start: handles are often only passed on
        from squall.protocol.environment import (  # cold start: as above
            EnvironmentCreate,
            EnvironmentGet,
            EnvironmentInfo,
        )

        client = _client_of(self._client)
        if self._is_created:
            try:
                await client.request("EnvironmentCreate", EnvironmentCreate(self._name), EnvironmentInfo)
            except AlreadyExistsError:
                pass  # it is there
            self._is_created = False
        info = await client.request("EnvironmentGet", EnvironmentGet(self._name), EnvironmentInfo)
        self._name, self._environment_id = info.name, info.environment_id
        return info.name

    @property
    def name(self) -> str | None:
        """Its name."""
        return self._name or None

    @property
    def object_id(self) -> str:
        """Its id: another one of the same name, made when this one was deleted, has another.

        Raises:
            AttributeError: it has not been looked up.
        """
        if not self._environment_id:
            raise AttributeError(f"{self!r} has no id yet: it has not been looked up; .hydrate() does that")
        return self._environment_id

    @property
    def apps(self) -> EnvironmentApps:
        """What lives in it."""
        return EnvironmentApps(self)

    if not TYPE_CHECKING:

        def __getattr__(self, name: str) -> object:
            from squall.sdk import _later  # cold start: only where there is no such name

            return _later.absent(self, _later.OF_ENVIRONMENT, name)

    def __repr__(self) -> str:
        return f"<Environment {self._name or 'of the context'}>"

    def __reduce__(self) -> tuple[Any, ...]:
        return _from_name, (self._name,)


def _from_name(name: str) -> Environment:
    return Environment._make(name, None)


class EnvironmentApps:
    """The apps of one environment."""

    def __init__(self, environment: Environment) -> None:
        self._environment = environment

    @blocking
    async def list(self) -> list[App]:
        """Those that live, newest first."""
        from squall.protocol.app import AppList, AppListing  # cold start: as above
        from squall.sdk._pages import ask_pages  # cold start: as above
        from squall.sdk.app import App  # cold start: as above

        name = await self._environment._resolve()
        query = AppList(limit=10_000, include_stopped=False, environment=name)
        pages = await ask_pages(_client_of(self._environment._client), "AppList", query, AppListing)
        return [App._found(info) for page in pages for info in page.apps]


def _client_of(given: Client | None) -> Client:
    from squall.sdk import _client  # cold start: as above

    return given or _client.current()
