"""`squall server`: the server of this machine."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import click

from squall.cli import tables
from squall.cli.server_calls import ask, ask_pages, data_dir, is_server_running
from squall.cli.target import listed
from squall.protocol.app import AppInfo, AppList, AppListing
from squall.protocol.server import ServerStatus, ServerStatusRequest

APPS_SHOWN = 5


@click.group("server", epilog="Example: squall server status")
def server_group() -> None:
    """The server of this machine: `squall run` starts it when it is needed."""


@server_group.command("start", epilog="Example: sudo env SQUALL_MEMORY_MIB=8192 .venv/bin/squall server start")
def start() -> None:
    """Start the server in the background."""
    sys.exit(_control("start"))


@server_group.command("stop", epilog="Example: squall server stop --force")
@click.option("--force", "is_forced", is_flag=True, help="Also while apps run or it does not answer: end what runs.")
def stop(is_forced: bool) -> None:
    """Stop the server, unless something runs: the refusal names it.

    Deployed apps stay deployed, whether forced or not: the next server takes them up, with the calls that are on disk
    (`.spawn`). With --force apps that run or are served are stopped for good, other calls of deployed apps fail, and
    every container ends.
    """
    sys.exit(_control("stop", *(["--force"] if is_forced else [])))


@server_group.command("status", epilog="Example: squall server status --json")
@click.option("--json", "is_json", is_flag=True, help="As JSON.")
def status(is_json: bool) -> None:
    """How the server is. Exit code 3 when it does not run."""
    data_dir()  # of a server elsewhere there is nothing to say
    if not is_server_running():
        click.echo(json.dumps({"state": "stopped"}) if is_json else "The server does not run.")
        sys.exit(3)
    found = ask("ServerStatus", ServerStatusRequest(), ServerStatus)
    pages = ask_pages("AppList", AppList(tables.LIST_MAX, include_stopped=False), AppListing)
    apps = [app for page in pages for app in page.apps]
    if is_json:
        named = [{"app_id": app.app_id, "name": app.name, "state": app.state} for app in apps]
        click.echo(json.dumps({"state": "running", **asdict(found), "apps": named}, indent=2))
        return
    lines = (
        ("Server", f"{found.server_id} (version {found.version}, process {found.pid})"),
        ("Address", found.url or "-"),
        ("Data", found.data_dir),
        ("Running for", f"{found.uptime_s:.0f} s"),
        ("Apps", _named(apps)),
        ("Containers", found.container_count),
        ("Clients", found.client_count),
        ("Memory", f"{found.memory_bytes / 2**20:.0f} MiB"),
    )
    for name, value in lines:
        click.echo(f"{click.style(name + ':', bold=True):<24} {value}")
    if found.settings:
        settings = ", ".join(f"{name}={value}" for name, value in sorted(found.settings.items()))
        click.echo(f"{click.style('Set:', bold=True):<24} {settings}")
    if found.template_memory_mib:
        held = f"{found.template_memory_mib:,} MiB; containers get what none of them shares when they need it"
        click.echo(f"{click.style('Templates:', bold=True):<24} {held}")
    if found.dropped_calls:
        lost = f"what became of {found.dropped_calls:,} calls that failed: the database took nothing for too long"
        click.echo(f"{click.style('Not kept:', bold=True):<24} {lost}")
    if found.dropped_inputs:
        lost = f"arguments of {found.dropped_inputs:,} inputs that failed: too large, or too many at once"
        click.echo(f"{click.style('Not kept:', bold=True):<24} {lost}")


def _named(apps: Sequence[AppInfo]) -> str:
    """How many there are, and the names of the newest."""
    names = [f"{app.name or 'without a name'} ({app.app_id}, {app.state})" for app in apps]
    return f"{len(apps)}: {listed(names, APPS_SHOWN)}" if apps else "0"


@server_group.command("logs", epilog="Example: squall server logs -n 50")
@click.option(
    "-n",
    "--tail",
    type=click.IntRange(min=0),
    metavar="N",
    default=100,
    show_default=True,
    help="Start with the last N lines.",
)
@click.option("-f", "--follow", "is_following", is_flag=True, help="Go on until Ctrl-C.")
def logs(tail: int, is_following: bool) -> None:
    """Show the server's own log."""
    path = Path(data_dir(), "server.log")
    try:
        path.open("rb").close()
    except FileNotFoundError:
        raise click.ClickException(f"no log at {path}: the server has not been started yet") from None
    except PermissionError as error:
        advice = "use sudo, or join the group 'squall' (which is as good as root)"
        raise click.ClickException(f"may not read {path}: {error.strerror}; {advice}") from None
    arguments = ["tail", "-n", str(tail), *(["-F"] if is_following else []), str(path)]
    sys.exit(subprocess.run(arguments, check=False).returncode)


def _control(verb: str, *options: str) -> int:
    # The command line may not import the server: it starts and stops it as a program.
    command = [sys.executable, "-m", "squall.main.dev", verb, "--data-dir", data_dir(), *options]
    return subprocess.run(command, check=False).returncode
