"""`squall function`: what a function runs with, what it did, its calls and variants."""

from __future__ import annotations

import click

from squall.cli import tables
from squall.cli.autoscaler import autoscaler_group
from squall.cli.call import show_calls
from squall.cli.environment import environment_option
from squall.cli.function_name import find_function, find_name
from squall.cli.line_ids import id_options
from squall.cli.log import inputs_of, log_options, show_logs
from squall.cli.server_calls import ask, ask_pages, require_server
from squall.cli.window_options import show_json, show_window, window_options
from squall.protocol.flight import CallList, CallListing
from squall.protocol.function import NAMESPACES, FunctionSpec
from squall.protocol.function_window import FunctionWindow, FunctionWindowGet, VariantList, VariantListing
from squall.protocol.ids import is_id
from squall.protocol.log import LogRead
from squall.protocol.records import replace
from squall.protocol.web import SERVER, WebAddress, WebAddressList, WebAddressListing
from squall.sdk._environment import environment_of


@click.group("function", epilog="Example: squall function stats greeter/hello --since 2h")
def function_group() -> None:
    """Functions: what they run with, what they did."""


function_group.add_command(autoscaler_group)


@function_group.command("info", epilog="Example: squall function info greeter/hello")
@environment_option
@click.argument("fn", metavar="FN")
@click.option("--json", "is_json", is_flag=True, help="As JSON.")
def info(fn: str, is_json: bool) -> None:
    """Show what a function runs with; FN is app/function, app.function, or its id."""
    require_server()
    spec = find_function(fn)
    addresses = _addresses(spec)
    if is_json:
        show_json(spec, addresses=addresses)
        return
    click.echo(f"{spec.function_id}  {spec.name}")
    lines = [(f"web {one.method}".strip(), f"{one.url} ({one.kind})") for one in addresses]
    for name, text in (*info_lines(spec), *lines):
        click.echo(f"  {name:<11} {text}")


def _addresses(spec: FunctionSpec) -> list[WebAddress]:
    """Where it answers requests, and its methods."""
    if spec.web is None and all(one.web is None for one in spec.definition.methods):
        return []
    pages = ask_pages("WebAddressList", WebAddressList(function_id=spec.function_id), WebAddressListing)
    return [one for page in pages for one in page.addresses]


def info_lines(spec: FunctionSpec) -> list[tuple[str, object]]:
    """What there is to say of a function, each with its heading."""
    from squall.sdk._stats import info_of  # cold start: for people only

    found = info_of(spec, None)
    limit, start_s = f"{found.timeout} s", spec.startup_timeout_s
    if spec.web is not None and spec.web.kind == SERVER:
        limit, start_s = "none of requests", spec.web.port_timeout_s
    lines = (
        ("version", f"v{spec.version}" if spec.version else None),
        ("variant of", spec.variant_of or None),
        ("image", spec.image_id),
        ("cpu", found.cpu),
        ("memory", f"{found.memory_mib} MiB" if found.memory_mib is not None else None),
        ("disk", f"{found.ephemeral_disk_mib} MiB" if found.ephemeral_disk_mib else None),
        ("timeout", f"{limit}; of a start {start_s:g} s"),
        ("retries", found.max_retries),
        ("containers", _scaling(spec)),
        ("inputs", f"up to {found.concurrency_info.max_inputs} at once" if found.concurrency_info else None),
        ("batches", f"up to {found.batching_info.max_batch_size}" if found.batching_info else None),
        ("schedule", found.schedule),
        ("cloud", found.cloud),
        ("regions", ", ".join(found.regions) if found.regions else None),
        ("network", "blocked" if found.block_network else None),
        ("isolation", spec.isolation if spec.isolation != NAMESPACES else None),
        ("snapshot", "of its memory: containers begin as copies" if spec.is_snapshot_enabled else None),
        ("methods", ", ".join(found.method_names) if found.method_names else None),
    )
    return [(name, text) for name, text in lines if text is not None]


def _scaling(spec: FunctionSpec) -> str:
    scaling = spec.scaling
    limit = f"at most {scaling.max_containers}" if scaling.max_containers is not None else "as many as fit"
    least = f"at least {scaling.min_containers}, " if scaling.min_containers else ""
    spare = f", {scaling.buffer_containers} spare" if scaling.buffer_containers else ""
    once = ", each for one input" if scaling.is_single_use else ""
    return f"{least}{limit}{spare}; idle ones end after {scaling.scaledown_window_s:g} s{once}"


@function_group.command("stats", epilog="Example: squall function stats greeter/hello --since 1d")
@environment_option
@click.argument("fn", metavar="FN")
@click.option("--container", "container_id", default="", help="Only of this container, over its whole life.")
@click.option("--all-variants", "has_variants", is_flag=True, help="With its variants.")
@tables.no_color_option
@window_options
def stats(
    fn: str, container_id: str, has_variants: bool, since: float | None, until: float | None, is_json: bool
) -> None:
    """Show what a function did; FN is app/function, app.function, or its id."""
    require_server()
    asked = FunctionWindowGet(find_function(fn).function_id, since, until, container_id, has_variants)
    window = ask("FunctionWindow", asked, FunctionWindow)
    if is_json:
        show_json(window)
    else:
        show_window(window)


@function_group.command("calls", epilog="Example: squall function calls greeter/hello -n 50")
@environment_option
@click.argument("fn", metavar="FN")
@click.option(
    "-n", "--tail", "limit", type=click.IntRange(1, 1_000), metavar="N", default=20, show_default=True,
    help="At most the last N.",
)  # fmt: skip
@click.option("--failed", "is_failed", is_flag=True, help="Only those of which an input failed.")
@click.option("--all-variants", "has_variants", is_flag=True, help="With its variants.")
@click.option(
    "--show-function-call-id",
    is_flag=True,
    expose_value=False,
    help="Begin each line with the id of its call, as it does in any case.",
)
@tables.no_color_option
@window_options
def calls(
    fn: str, limit: int, is_failed: bool, has_variants: bool, since: float | None, until: float | None, is_json: bool
) -> None:
    """List calls of a function, newest first; FN is app/function, app.function, of all runs of that name, or its id."""
    require_server()
    app, name = ("", fn) if is_id(fn, "fu") else find_name(fn)
    asked = CallList(app, name, is_failed, since, until, limit, has_variants, environment_of(None))
    show_calls(ask("CallList", asked, CallListing), is_json=is_json)


@function_group.command("variants", epilog="Example: squall function variants greeter/Model")
@environment_option
@click.argument("fn", metavar="FN")
@click.option(
    "-n", "--limit", type=click.IntRange(1, 1_000), metavar="N", default=20, show_default=True, help="At most N."
)
@click.option("--json", "is_json", is_flag=True, help="As JSON.")
def variants(fn: str, limit: int, is_json: bool) -> None:
    """List variants of a function: with parameters or options of their own, or held to a version."""
    require_server()
    listing = ask("VariantList", VariantList(find_function(fn).function_id, limit), VariantListing)
    rows = [
        (
            one.function_id,
            one.parameters or None,
            one.options or None,
            f"v{one.version}" if one.is_pinned else None,
            one.container_count,
            one.queued_inputs,
        )
        for one in listing.variants
    ]
    headings = ("Function ID", "Parameters", "Options", "Held to", "Containers", "Queued")
    tables.show(headings, rows, is_json=is_json)
    if listing.is_cut:
        click.echo(f"These are the {len(rows):,} that were used last; there are more.", err=True)


@function_group.command("logs", epilog="Example: squall function logs greeter/hello --function-call fc-…")
@environment_option
@click.argument("fn", metavar="FN")
@click.option("--function-call", "call_id", default="", help="Only lines of this call's inputs.")
@click.option("--container", "container_id", default="", help="Only this container's lines.")
@click.option("--all-variants", "has_variants", is_flag=True, help="With its variants.")
@id_options
@log_options
def logs(
    fn: str,
    call_id: str,
    container_id: str,
    has_variants: bool,
    query: LogRead,
    is_timestamped: bool,
    is_shown: tuple[bool, ...],
) -> None:
    """Show what a function printed; FN is app/function, app.function, or its id."""
    require_server()
    spec = find_function(fn)
    show_logs(
        replace(query, has_variants=has_variants),
        is_timestamped,
        app=spec.app_id,
        function=spec.function_id,
        container_id=container_id,
        inputs=inputs_of(call_id),
        is_shown=is_shown,
    )
