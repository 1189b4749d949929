"""Lists of secrets: never what is in them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from squall.protocol.secret import SecretInfo, SecretList, SecretListing
from squall.sdk._asset import LIST_MAX, check_listing, client_of
from squall.sdk._environment import environment_of
from squall.sdk._pages import ask_pages

if TYPE_CHECKING:
    from datetime import datetime

    from squall.sdk._client import Client


async def list_secrets(
    max_objects: int | None,
    created_before: datetime | str | None,
    environment_name: str | None,
    client: Client | None,
) -> list[SecretInfo]:
    """Those that have a name, newest first.

    Raises:
        InvalidError: `max_objects` is no count, or `created_before` no time.
    """
    limit, before_at = check_listing(max_objects, created_before, "Secret.objects.list", LIST_MAX)
    asked = SecretList(environment_of(environment_name), limit, before_at)
    pages = await ask_pages(client_of(client), "SecretList", asked, SecretListing)
    return [one for page in pages for one in page.secrets]
