"""Where web functions are found."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from squall.protocol.records import replace
from squall.protocol.web import WebAddress, WebAddressList, WebAddressListing

if TYPE_CHECKING:
    from squall.protocol.function import FunctionSpec
    from squall.sdk._client import Client
    from squall.sdk._output import Output


async def addresses(client: Client, asked: WebAddressList) -> list[WebAddress]:
    """All there are of an app or function, by label."""
    found: list[WebAddress] = []
    while True:
        listing = await client.request("WebAddressList", asked, WebAddressListing)
        found += listing.addresses
        if not listing.is_cut or not listing.addresses:
            return found
        asked = replace(asked, after=listing.addresses[-1].label)


async def url_of(client: Client, function_id: str, method: str) -> str | None:
    """The address of a function, or of a method of its class; None where it answers no requests."""
    for one in await addresses(client, WebAddressList(function_id=function_id)):
        if one.method == method:
            return for_programs(one)
    return None


def for_programs(address: WebAddress) -> str:
    """The one that any program can use: names below `localhost` are known to browsers, and not to the C library."""
    host = urlsplit(address.url).hostname or ""
    return address.path_url if host.endswith(".localhost") else address.url


async def announce(client: Client, app_id: str, specs: Iterable[FunctionSpec], output: Output) -> None:
    """Tell where the web functions among these are found, as browsers have it."""
    if any(spec.web is not None or any(one.web for one in spec.definition.methods) for spec in specs):
        for one in await addresses(client, WebAddressList(app_id)):
            name = f"{one.function_name}.{one.method}" if one.method else one.function_name
            output.web_function_created(name, one.url)
