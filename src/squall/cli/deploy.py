"""`squall deploy`: load a file and make its app one that stays."""

from __future__ import annotations

import time

import click

from squall.cli import reference
from squall.cli.app_name import name_option
from squall.cli.environment import environment_option
from squall.cli.log import show_logs
from squall.cli.target import choose_app
from squall.protocol.deployment import STRATEGIES
from squall.protocol.environment import DEFAULT
from squall.protocol.log import LogRead
from squall.sdk import _deploy, _output
from squall.sdk._environment import environment_of
from squall.sdk._pending import run
from squall.sdk.app import App

strategy_option = click.option(
    "--strategy",
    type=click.Choice(STRATEGIES),
    default=STRATEGIES[0],
    show_default=True,
    help="Containers of the version before finish what they run, or are ended and run it again.",
)


@click.command("deploy", epilog="Example: squall deploy examples/calls/deployed.py --tag first")
@name_option("Deploy under this name instead of the app's.")
@environment_option
@click.option("-m", "is_module", is_flag=True, help="REF is a dotted module name.")
@click.option("--tag", default="", help="A word for the history of versions.")
@strategy_option
@click.option("--stream-logs", "is_following", is_flag=True, help="Then show what the app prints, until Ctrl-C.")
@click.option("--timestamps", "has_timestamps", is_flag=True, help="Begin each log line with its time.")
@click.argument("ref", type=click.Path(allow_dash=True))
def deploy(
    app_name: str | None,
    is_module: bool,
    tag: str,
    strategy: str,
    is_following: bool,
    has_timestamps: bool,
    ref: str,
) -> None:
    """Deploy an app: REF is path.py, path.py::variable, or with -m a module.

    It stays until `squall app stop`, and is deployed again as a new version.
    """
    parsed = reference.parse(ref, is_module=is_module, command="deploy")
    module = reference.load(parsed)
    app = choose_app(module, parsed.name, parsed.source)
    name = app_name or app.name
    if name is None:
        raise click.UsageError("the app has no name: write squall.App('name'), or give --name")
    began_at = time.monotonic()
    with _output.use(_output.PlainOutput(has_timestamps=has_timestamps)):
        published = run(_deploy.deploy(app, name=app_name, tag=tag, strategy=strategy))
    if published.is_unchanged:
        click.echo(f"Deployment skipped: no changes detected (version {published.version} stays).", err=True)
    else:
        seconds = time.monotonic() - began_at
        where = f": {published.url}" if published.url else "."
        click.echo(f"App deployed in {seconds:.1f}s! It is version {published.version} of {name}{where}", err=True)
        if published.version == 1:
            _say_how_to_call(app, name)
    say_what_is_left(published.left_container_count)
    if is_following:
        show_logs(LogRead(is_following=True, tail=0), has_timestamps, app=published.app_id)


def _say_how_to_call(app: App, name: str) -> None:
    """From other programs: by name, for which nothing of the program that was deployed is needed."""
    functions = [name for name, one in app.registered_functions.items() if not one.is_web]
    kind, names = ("Function", functions) if functions else ("Cls", _called(app))
    environment = environment_of(None)
    where = f", environment_name={environment!r}" if environment not in ("", DEFAULT) else ""
    for first in names[:1]:
        how = f"squall.{kind}.from_name({name!r}, {first!r}{where})"
        click.echo(f"Other programs call it by name: {how}", err=True)


def _called(app: App) -> list[str]:
    """Its classes with methods that are called."""
    found = {name: one.user_class for name, one in app.registered_classes.items()}
    return [name for name, one in found.items() if one is not None and len(one.web_methods) < len(one.methods)]


def say_what_is_left(count: int) -> None:
    """Containers that should be gone by now."""
    if count:
        what = "A container of the version before has" if count == 1 else f"{count} containers of versions before have"
        click.echo(f"{what} not ended yet; `squall container list` shows what runs.", err=True)
