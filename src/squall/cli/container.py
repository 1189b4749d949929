"""`squall container`: list, show, logs, stop, exec."""

from __future__ import annotations

import json
import sys

import click

from squall.cli import tables
from squall.cli.confirmation import confirm
from squall.cli.environment import environment_option
from squall.cli.log import log_options, show_logs
from squall.cli.server_calls import ask, ask_pages, is_list_empty, is_terminal, open_stream, require_server
from squall.cli.terminal import carry, size
from squall.protocol.container import ContainerExec, ContainerList, ContainerListing, ContainerStop
from squall.protocol.empty import Empty
from squall.protocol.flight import ContainerFlight, ContainerShow
from squall.protocol.log import LogRead
from squall.protocol.records import to_wire
from squall.sdk._environment import environment_of


@click.group("container", epilog="Example: squall container list")
def container_group() -> None:
    """Containers: what runs now."""


@container_group.command("list", epilog="Example: squall container list --app-id ap-… --json")
@environment_option
@click.option("--app-id", default="", help="Only this app's.")
@click.option("--all", "include_stopped", is_flag=True, help="Those that have ended, too.")
@click.option("--json", "is_json", is_flag=True, help="As JSON.")
def list_containers(app_id: str, include_stopped: bool, is_json: bool) -> None:
    """List containers, newest first."""
    wanted = ContainerList(
        app=app_id, include_stopped=include_stopped, limit=tables.LIST_MAX, environment=environment_of(None)
    )
    pages = () if is_list_empty() else ask_pages("ContainerList", wanted, ContainerListing)
    rows = [
        (
            container.container_id,
            container.app_id,
            container.app_name or None,
            container.function_name,
            container.state,
            container.path or None,
            tables.local_time(container.created_at),
            *((container.exit_reason or None,) if include_stopped else ()),
        )
        for page in pages
        for container in page.containers
    ]
    why = ("Ended because",) if include_stopped else ()
    headings = ("Container ID", "App ID", "App Name", "Function", "State", "Path", "Start Time", *why)
    tables.show(headings, rows, is_json=is_json, spare=("App ID", "Path", "Start Time", "App Name"), is_of_all=True)


@container_group.command("show", epilog="Example: squall container show ct-…")
@click.argument("container_id")
@click.option("--json", "is_json", is_flag=True, help="As JSON.")
def show(container_id: str, is_json: bool) -> None:
    """Show how a container started, what it served and how it ended."""
    require_server()
    flight = ask("ContainerShow", ContainerShow(container_id), ContainerFlight)
    if is_json:
        click.echo(json.dumps(to_wire(flight), indent=2))
        return
    from squall.cli.container_view import lines_of  # cold start: for people only

    for line in lines_of(flight):
        click.echo(line)


@container_group.command("logs", epilog="Example: squall container logs ct-… --timestamps")
@click.argument("container_id")
@log_options
def logs(container_id: str, query: LogRead, is_timestamped: bool) -> None:
    """Show what a container printed."""
    require_server()
    show_logs(query, is_timestamped, container_id=container_id)


@container_group.command("stop", epilog="Example: squall container stop ct-… --graceful")
@click.argument("container_id")
@click.option("--graceful", "is_graceful", is_flag=True, help="Let it finish the inputs it runs.")
@click.option("-y", "--yes", is_flag=True, help="Do not ask.")
def stop(container_id: str, is_graceful: bool, yes: bool) -> None:
    """End a container; its inputs go back to the queue."""
    require_server()
    # One that does not run is not worth a question: the server says what is wrong.
    if not yes and _is_running(container_id):
        confirm(f"End container {container_id}?")
    ask("ContainerStop", ContainerStop(container_id, is_graceful), Empty)


def _is_running(container_id: str) -> bool:
    pages = ask_pages("ContainerList", ContainerList(limit=tables.LIST_MAX), ContainerListing)
    return any(container.container_id == container_id for page in pages for container in page.containers)


@container_group.command(
    "exec",
    context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False},
    epilog="Example: squall container exec ct-… -- python3 -V",
)
@click.option("--pty/--no-pty", "has_pty", default=None, help="With a terminal (default: if there is one here).")
@click.argument("container_id")
@click.argument("command", nargs=-1, required=True, type=click.UNPROCESSED)
def execute(has_pty: bool | None, container_id: str, command: tuple[str, ...]) -> None:
    """Run COMMAND in a container; its exit code becomes ours."""
    require_server()
    if command[0] == "--":
        command = command[1:]
    with_pty = is_terminal() if has_pty is None else has_pty
    rows, columns = size()
    request = ContainerExec(container_id, command, with_pty, rows, columns)
    sys.exit(carry(open_stream("ContainerExec", request), is_raw=with_pty and sys.stdin.isatty()))
