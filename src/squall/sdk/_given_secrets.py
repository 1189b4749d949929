"""The secrets that functions are given, as these name them."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from squall.sdk._client import Client
    from squall.sdk.secret import Secret


async def ids_of(secrets: tuple[Secret, ...], client: Client, *, app_id: str = "", function_id: str = "") -> list[str]:
    """How a function names them, in order; those with nothing in them are left out. See `Secret.id_for`."""
    found = [await one.id_for(client, app_id=app_id, function_id=function_id) for one in secrets]
    return [secret_id for secret_id in found if secret_id]
