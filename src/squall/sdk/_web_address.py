"""Where web functions are found."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from squall.protocol.web import SERVER, WebAddress, WebAddressList, WebAddressListing
from squall.sdk._pages import ask_pages

if TYPE_CHECKING:
    from squall.protocol.function import FunctionSpec
    from squall.sdk._client import Client
    from squall.sdk._output import Output

SHOWN_MAX = 50
"""Of an app that begins to run."""


async def addresses(client: Client, asked: WebAddressList) -> list[WebAddress]:
    """All there are of an app or function, by label."""
    pages = await ask_pages(client, "WebAddressList", asked, WebAddressListing)
    return [one for page in pages for one in page.addresses]


async def url_of(client: Client, function_id: str, method: str) -> str | None:
    """The address of a function, or of a method of its class; None where it answers no requests.

    Of a class, where no method is named, that of the only one that has one.
    """
    found = await addresses(client, WebAddressList(function_id=function_id))
    meant = [one for one in found if one.method == method] or (found if not method else [])
    return for_programs(meant[0]) if len(meant) == 1 else None


def for_programs(address: WebAddress) -> str:
    """The one that any program can use: names below `localhost` are known to browsers, and not to the C library."""
    host = urlsplit(address.url).hostname or ""
    return address.path_url if f".{host}".endswith(".localhost") else address.url


def shown_name(address: WebAddress) -> str:
    """What it is of, as people call it."""
    return f"{address.function_name}.{address.method}" if address.method else address.function_name


async def announce(client: Client, app_id: str, specs: Iterable[FunctionSpec], output: Output) -> None:
    """Tell where the web functions among these are found, as browsers have it; the first ones, of many."""
    if any(spec.web is not None or any(one.web for one in spec.definition.methods) for spec in specs):
        listing = await client.request("WebAddressList", WebAddressList(app_id), WebAddressListing)
        for one in listing.addresses[:SHOWN_MAX]:
            what = "Server" if one.kind == SERVER else "Web function"
            output.web_created(what, shown_name(one), one.url)
        if listing.is_cut or len(listing.addresses) > SHOWN_MAX:
            output.web_left(app_id)
