"""`squall app info` and `squall app stats`."""

from __future__ import annotations

from functools import reduce

import click

from squall.cli import tables
from squall.cli.environment import environment_option
from squall.cli.server_calls import ask, ask_pages, require_server
from squall.cli.window_options import show_json, window_options
from squall.protocol.app import AppGet, AppInfo
from squall.protocol.function_window import AppWindow, AppWindowGet
from squall.protocol.web import WebAddressList, WebAddressListing
from squall.sdk._environment import environment_of
from squall.sdk._web_address import shown_name


@click.command("info", epilog="Example: squall app info greeter")
@environment_option
@click.argument("app")
@tables.no_color_option
@click.option("--json", "is_json", is_flag=True, help="As JSON.")
def info(app: str, is_json: bool) -> None:
    """Show how an app is, and its functions; APP is its name or id."""
    require_server()
    found = ask("AppGet", AppGet(app, environment_of(None)), AppInfo)
    pages = ask_pages("WebAddressList", WebAddressList(found.app_id), WebAddressListing) if found.functions else ()
    addresses = [one for page in pages for one in page.addresses]
    if is_json:
        show_json(found, addresses=addresses)
        return
    click.echo(f"{found.app_id}  {found.name or '-'}  {found.state}")
    lines = [
        ("version", f"v{found.version}" if found.version else None),
        ("environment", found.environment or None),
        ("made", f"{tables.local_time(found.created_at)}{f' by {found.created_by}' if found.created_by else ''}"),
        ("stopped", tables.local_time(found.stopped_at)),
        ("parent", found.parent_app_id or None),
        ("tags", ", ".join(f"{key}={value}" for key, value in sorted(found.tags.items())) or None),
        ("containers", str(found.container_count)),
    ]
    for name, text in lines:
        if text is not None:
            click.echo(f"  {name:<11} {text}")
    if found.functions:
        click.echo("")
        tables.show(("Function", "Function ID"), sorted(found.functions.items()), is_json=False)
    if addresses:
        click.echo("")
        tables.show(("Answers requests", "URL"), [(shown_name(one), one.url) for one in addresses], is_json=False)


@click.command("stats", epilog="Example: squall app stats greeter --since 2h")
@environment_option
@click.argument("app")
@tables.no_color_option
@window_options
def stats(app: str, since: float | None, until: float | None, is_json: bool) -> None:
    """Show what an app's functions did; APP is its name or id."""
    require_server()
    app_id = ask("AppGet", AppGet(app, environment_of(None), has_functions=False), AppInfo).app_id
    pages = ask_pages("AppWindow", AppWindowGet(app_id, since, until), AppWindow)
    found = reduce(AppWindow.with_page, pages)
    if is_json:
        show_json(found)
        return
    rows = [
        (
            name,
            one.succeeded_inputs,
            one.failed_inputs + one.timed_out_inputs,
            one.cancelled_inputs,
            one.running_inputs,
            one.container_count,
            one.failed_containers,
        )
        for name, one in sorted(found.functions.items())
    ]
    headings = ("Function", "Succeeded", "Failed", "Cancelled", "Running", "Containers", "Container errors")
    tables.show(headings, rows, is_json=False)
    if found.is_cut:
        click.echo(
            "There is more than is counted at once, and the earliest is left out: ask for a shorter time.", err=True
        )
