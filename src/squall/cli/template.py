"""`squall template`: list, drop."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence

import click

from squall.cli import tables
from squall.cli.callable_name import method_of
from squall.cli.environment import environment_option
from squall.cli.function_name import find_app, find_function, function_in
from squall.cli.server_calls import ask, ask_pages, is_list_empty, require_server
from squall.protocol.environment import DEFAULT
from squall.protocol.ids import is_id
from squall.protocol.template import (
    FUNCTION,
    SilentNode,
    TemplateDrop,
    TemplateDropped,
    TemplateInfo,
    TemplateList,
    TemplateListing,
)
from squall.sdk._environment import environment_of
from squall.sdk._terminal_text import for_stream, size_text

MIB = 2**20


@click.group("template", epilog="Example: squall template list")
def template_group() -> None:
    """Templates: what quick starts are forked from."""


@template_group.command("list", epilog="Example: squall template list --app greeter --json")
@environment_option
@click.option("--app", default="", metavar="APP", help="Only this app's, by name or id.")
@click.option("--json", "is_json", is_flag=True, help="As JSON.")
def list_templates(app: str, is_json: bool) -> None:
    """List the templates of all nodes, and why what is none cannot be one.

    Of all environments, unless one is named: by -e, SQUALL_ENVIRONMENT or MODAL_ENVIRONMENT.
    """
    wanted = TemplateList(app, environment=_named_environment())
    pages = () if is_list_empty() else list(ask_pages("TemplateList", wanted, TemplateListing))
    found = [one for page in pages for one in page.templates]
    silent = {one.node_id: one for page in pages for one in page.silent_nodes}
    if is_json:
        tables.show(_FOR_PROGRAMS, [_whole(one) for one in found], is_json=True)
    else:
        # Most have one node, and most templates are fit.
        left_out = set() if len({one.node_id for one in found}) > 1 or silent else {"Node"}
        left_out |= set() if any(_cause(one) for one in found) else {"Cause"}
        left_out |= set() if any(one.template.disk_mib for one in found) else {"Disk"}
        # Names are of this one where nothing else is said.
        meant = environment_of(None) or DEFAULT
        left_out |= set() if any(one.environment not in ("", meant) for one in found) else {"Environment"}
        kept = [at for at, name in enumerate(_HEADINGS) if name not in left_out]
        rows = [_row(one) for one in found]
        tables.show(
            [_HEADINGS[at] for at in kept],
            [[row[at] for at in kept] for row in rows],
            is_json=False,
            spare=("Made", "Cells", "Kind", "Parked", "Disk"),
        )
    _tell_silent(silent.values())


def _named_environment() -> str | None:
    """None where none is: nodes have templates of all."""
    return environment_of(None) or None


_HEADINGS = (
    "Template ID", "Node", "Environment", "Function", "Kind", "State", "Memory", "Disk", "Clones", "Parked", "Cells",
    "Made", "Last used", "Cause",
)  # fmt: skip
_FOR_PROGRAMS = (
    "Template ID", "Node ID", "App ID", "App", "Function ID", "Function", "Kind", "State", "Cause", "Memory MiB",
    "Shared MiB", "Clones", "Parked", "Cells", "Made at", "Used at", "Disk MiB", "Disk cause", "Is brought back",
    "Environment",
)  # fmt: skip


def _row(one: TemplateInfo) -> tuple[object, ...]:
    found = one.template
    return (
        found.template_id,
        one.node_id,
        one.environment or None,
        shown_name(one),
        found.kind,
        found.state,
        size_text(found.memory_mib * MIB) if found.memory_mib else None,
        size_text(found.disk_mib * MIB) if found.disk_mib else None,
        found.clone_count,
        found.parked_count,
        found.cell_count,
        tables.ago(found.made_at) if found.made_at else None,
        tables.ago(found.used_at) if found.used_at > found.made_at else None,
        # What user code raised may be in it.
        for_stream(sys.stdout, _cause(one)) or None,
    )


def _whole(one: TemplateInfo) -> tuple[object, ...]:
    found = one.template
    return (
        found.template_id,
        one.node_id,
        found.app_id,
        one.app_name or None,
        found.function_id,
        one.function_name or None,
        found.kind,
        found.state,
        found.cause or None,
        found.memory_mib,
        found.shared_mib,
        found.clone_count,
        found.parked_count,
        found.cell_count,
        tables.local_time(found.made_at or None),
        tables.local_time(found.used_at or None),
        found.disk_mib,
        found.disk_cause or None,
        found.is_brought_back,
        one.environment or None,
    )


def _cause(one: TemplateInfo) -> str:
    found = one.template
    return found.cause or (f"not on the disk: {found.disk_cause}" if found.disk_cause else "")


def shown_name(one: TemplateInfo) -> str:
    """What it is of: one of an image, of all functions of its app."""
    app, function = one.app_name or one.template.app_id, one.function_name or one.template.function_id
    return f"{app}.{function}" if function else app


def _tell_silent(nodes: Iterable[SilentNode]) -> None:
    for one in nodes:
        click.echo(f"Node {one.node_id} did not answer: {one.cause}", err=True)


@template_group.command("drop", epilog="Example: squall template drop greeter.hello")
@environment_option
@click.argument("targets", metavar="[ID | APP | APP.FUNCTION]...", nargs=-1)
@click.option(
    "--all", "is_all", is_flag=True,
    help="Of all apps, on all nodes; of one environment where -e, SQUALL_ENVIRONMENT or MODAL_ENVIRONMENT names it.",
)  # fmt: skip
def drop(targets: tuple[str, ...], is_all: bool) -> None:
    """Let templates go, by id, of an app or of a function (by name or id) with its variants.

    Containers that were forked from them go on. A start after that makes a new one, and what could not be
    forked is tried again.
    """
    if bool(targets) == is_all:
        raise click.UsageError("say what to drop: the id of a template, APP, APP.FUNCTION, or --all alone")
    require_server()
    # All names are looked up before anything is dropped: with a wrong one among them nothing is.
    dropped: list[TemplateInfo] = []
    silent: dict[str, SilentNode] = {}
    for asked in [TemplateDrop(is_all=True, environment=_named_environment())] if is_all else _asked(targets):
        done = ask("TemplateDrop", asked, TemplateDropped)
        dropped += done.templates
        silent.update((one.node_id, one) for one in done.silent_nodes)
    for one in dropped:
        click.echo(_said(one))
    if not dropped and not silent:
        click.echo("There was none to drop.", err=True)
    if silent:
        _tell_silent(silent.values())
        raise click.ClickException("there may be more on nodes that did not answer; try again when they do")


def _asked(targets: Sequence[str]) -> list[TemplateDrop]:
    ids = tuple(one for one in targets if is_id(one, "tp"))
    asked = [TemplateDrop(template_ids=ids)] if ids else []
    for name in (one for one in targets if not is_id(one, "tp")):
        app_id, function = _function_named(name)
        asked.append(TemplateDrop(app=app_id, function=function, environment=_named_environment()))
    return asked


def _function_named(name: str) -> tuple[str, str]:
    """The app and the function of it that are meant; empty for all of them. A method is of its class, which has the
    templates.

    Raises:
        click.ClickException: there is none, with what may have been meant.
    """
    if is_id(name, "fu"):
        return find_function(name).app_id, name
    app, rest = find_app(name, "write APP, APP.FUNCTION, or the id of a template")
    if not rest:
        return app.app_id, ""
    function, method = function_in(app, rest)
    if method:
        method_of(find_function(app.functions[function]), method)
    return app.app_id, function


def _said(one: TemplateInfo) -> str:
    found = one.template
    kind = "function template" if found.kind == FUNCTION else "image template"
    freed = f", {size_text(found.memory_mib * MIB)}" if found.memory_mib else ""
    freed += f", {size_text(found.disk_mib * MIB)} of the disk" if found.disk_mib else ""
    clones = f"; {tables.counted(found.clone_count, 'clone')} of it go on" if found.clone_count > 1 else ""
    clones = "; 1 clone of it goes on" if found.clone_count == 1 else clones
    return f"Dropped {found.template_id}: {kind} of {shown_name(one)} on {one.node_id}{freed}{clones}."
