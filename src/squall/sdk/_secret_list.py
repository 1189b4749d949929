"""Lists of secrets: never what is in them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from squall.protocol.secret import SecretInfo, SecretList, SecretListing
from squall.sdk._asset import client_of
from squall.sdk._pages import ask_pages

if TYPE_CHECKING:
    from squall.sdk._client import Client


async def list_secrets(
    environment: str, limit: int, before_at: float | None, client: Client | None
) -> list[SecretInfo]:
    """Those that have a name, newest first."""
    asked = SecretList(environment, limit, before_at)
    pages = await ask_pages(client_of(client), "SecretList", asked, SecretListing)
    return [one for page in pages for one in page.secrets]
