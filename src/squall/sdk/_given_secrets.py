"""The secrets that `.with_options(secrets=…)` gives to a function."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from squall.sdk._client import Client
    from squall.sdk.secret import Secret


async def ids_of(secrets: tuple[Secret, ...], client: Client, *, app_id: str = "", function_id: str = "") -> list[str]:
    """How a function names them, in order; those with nothing in them are left out. See `Secret.id_for`."""
    found = [await one.id_for(client, app_id=app_id, function_id=function_id) for one in secrets]
    return [secret_id for secret_id in found if secret_id]


class GivenSecrets:
    """Those of one variant. Each function that it is made of names them once, however often it is called."""

    __slots__ = ("_ids", "_secrets")

    def __init__(self, secrets: tuple[Secret, ...]) -> None:
        self._secrets = secrets
        self._ids: dict[str, tuple[str, ...]] = {}

    def known(self, base_id: str) -> tuple[str, ...] | None:
        """Their ids, as far as they are known."""
        return self._ids.get(base_id)

    async def resolve(self, base_id: str, client: Client) -> tuple[str, ...]:
        """Their ids.

        Raises:
            Error: as `Secret.id_for`.
        """
        found = self._ids.get(base_id)
        if found is None:
            found = self._ids[base_id] = tuple(await ids_of(self._secrets, client, function_id=base_id))
        return found
