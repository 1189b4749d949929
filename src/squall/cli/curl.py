"""`squall curl`: curl, with a proxy token of its own."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from urllib.parse import urlsplit

import click

from squall.cli import tables
from squall.cli.server_calls import ask_pages, require_server
from squall.protocol.app import AppList, AppListing
from squall.protocol.web import WebAddress, WebAddressList, WebAddressListing
from squall.sdk.types import TokenData
from squall.sdk.workspace import Workspace

TOKEN_NAME = "squall curl"
"""As `squall workspace proxy-tokens list` shows one whose command was killed."""


@click.command(
    "curl",
    epilog="Example: squall curl -d '{}' http://shop-site.localhost:7855/",
    context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False},
)
@click.argument("curl_args", nargs=-1, required=True, type=click.UNPROCESSED)
def curl(curl_args: Sequence[str]) -> None:
    """Run curl with a proxy token, for web functions that ask for one; the arguments are curl's.

    The token is made for this command, opens the environments of the functions that are asked, and is gone when curl
    has ended. So each URL, written with http:// or https://, must be one of a web function of the server. With -L it is
    told to whom a function redirects to, too.
    """
    program = shutil.which("curl")
    if program is None:
        raise click.ClickException("there is no curl on this machine: install it (Debian's package is curl)")
    require_server()
    environments = _environments(curl_args)
    with _token(environments) as token, _config(token) as config:
        arguments = [program, "--config", f"/dev/fd/{config}", *curl_args]
        ended = subprocess.run(arguments, pass_fds=(config,), check=False)
    sys.exit(ended.returncode if ended.returncode >= 0 else 128 - ended.returncode)


def _environments(arguments: Sequence[str]) -> set[str]:
    """Those of the web functions whose addresses are among the arguments.

    Raises:
        ClickException: there is none, or one of another server, which would be told the token.
    """
    urls = [one for one in arguments if urlsplit(one).scheme.lower() in ("http", "https")]
    if not urls:
        raise click.UsageError("name the address of a web function, with http:// or https:// before it")
    left, found = set(urls), set()
    for page in ask_pages("AppList", AppList(tables.LIST_MAX, include_stopped=False), AppListing):
        for app in page.apps:
            for listing in ask_pages("WebAddressList", WebAddressList(app.app_id), WebAddressListing):
                own = {url for url in urls if any(is_of(url, one) for one in listing.addresses)}
                left -= own
                found |= {app.environment} if own else set()
    if left:
        raise click.ClickException(
            f"{min(left)} is no web function of this server, and is told no token: `squall app info APP` has addresses"
        )
    return found


def is_of(url: str, address: WebAddress) -> bool:
    """Whether this is asked of the function that has that address."""
    asked = urlsplit(url)
    if asked.username is not None or "\\" in url:
        return False  # programs read these differently
    if (asked.hostname or "") in address.custom_domains:
        return True
    by_name, by_path = urlsplit(address.url), urlsplit(address.path_url)
    if asked.netloc.lower() == by_name.netloc.lower():
        return asked.scheme == by_name.scheme
    is_there = (asked.scheme, asked.netloc.lower()) == (by_path.scheme, by_path.netloc.lower())
    return is_there and f"{asked.path}/".startswith(f"{by_path.path}/")


@contextmanager
def _token(environments: set[str]) -> Iterator[TokenData]:
    tokens = Workspace.from_context().proxy_tokens
    made = tokens.create(TOKEN_NAME)
    try:
        for environment in sorted(environments):
            tokens.allow(made.token_id, environment)
        yield made
    finally:
        tokens.delete(made.token_id)


@contextmanager
def _config(token: TokenData) -> Iterator[int]:
    """What curl reads it from: arguments can be seen by everybody on the machine."""
    reading, writing = os.pipe()
    try:
        with open(writing, "w") as out:
            out.write(f'header = "Modal-Key: {token.token_id}"\nheader = "Modal-Secret: {token.token_secret}"\n')
        yield reading
    finally:
        os.close(reading)
