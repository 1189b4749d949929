"""`squall queue`: create, list, peek, len, clear, delete. Items are unpickled here: they are the user's own."""

from __future__ import annotations

import click

from squall.cli import asset, result_view
from squall.cli.confirmation import confirm
from squall.cli.environment import environment_option
from squall.cli.server_calls import ask
from squall.exception import DeserializationError
from squall.protocol.asset import QUEUE
from squall.protocol.queue import TOTALS_MAX, QueueCount, QueueTotals, QueueTotalsGet, unpack
from squall.sdk._pending import run
from squall.sdk.queue import READ_ITEMS, Queue, _key_of

_SAMPLE = """\
jobs = squall.Queue.from_name({name!r})
jobs.put("item")
item = jobs.get()"""

_partition_option = click.option("-p", "--partition", metavar="KEY", help="The partition of that key.")


@click.group("queue", epilog="Example: squall queue peek jobs 5")
def queue_group() -> None:
    """Queues: items that programs hand to each other in order."""


@queue_group.command("create", epilog="Example: squall queue create jobs")
@environment_option
@click.argument("name")
def create(name: str) -> None:
    """Make a queue."""
    asset.create(QUEUE, name, _SAMPLE)


@queue_group.command("list", epilog="Example: squall queue list --json")
@environment_option
@click.option("--json", "is_json", is_flag=True, help="As JSON.")
def list_queues(is_json: bool) -> None:
    """List queues, newest first, with how many items they have in all partitions."""
    found = list(asset.all_of(QUEUE))
    counts: list[QueueCount] = []
    while len(counts) < len(found):
        some = found[len(counts) : len(counts) + TOTALS_MAX]
        asked = QueueTotalsGet(tuple(one.asset_id for one in some))
        counts += ask("QueueTotalsGet", asked, QueueTotals).counts
    more = [(one.partition_count, one.item_count) for one in counts]
    asset.show_list(found, ("Partitions", "Total size"), more, is_json=is_json)


@queue_group.command("peek", epilog="Example: squall queue peek jobs 5 --partition eu")
@environment_option
@click.argument("name")
@click.argument("n", default=1, type=click.IntRange(min=1))
@_partition_option
def peek(name: str, n: int, partition: str | None) -> None:
    """Print the first N items, which stay in the queue. What cannot be read here is shown as that."""
    found = _find(name)
    key = _key_of(partition, "--partition")
    after = -1
    while n > 0:
        page, body = run(found._read(key, after, min(n, READ_ITEMS), 0.0))
        if not page.sizes:
            return
        for item in unpack(page.sizes, body):
            try:
                result_view.show(found._decode(item, partition))
            except DeserializationError as error:
                click.echo(f"<{error}>")
        n -= len(page.sizes)
        after = page.after


@queue_group.command("len", epilog="Example: squall queue len jobs --total")
@environment_option
@click.argument("name")
@_partition_option
@click.option("-t", "--total", "is_total", is_flag=True, help="Of all partitions together.")
def length(name: str, partition: str | None, is_total: bool) -> None:
    """Print how many items a queue has."""
    if is_total and partition is not None:
        raise click.UsageError("--total counts all partitions; leave --partition out")
    click.echo(_find(name).len(partition=partition, total=is_total))


@queue_group.command("clear", epilog="Example: squall queue clear jobs --all --yes")
@environment_option
@click.argument("name")
@_partition_option
@click.option("-a", "--all", "is_all", is_flag=True, help="All of them.")
@click.option("-y", "--yes", is_flag=True, help="Do not ask.")
def clear(name: str, partition: str | None, is_all: bool, yes: bool) -> None:
    """Remove the items of a partition, or of all."""
    if is_all and partition is not None:
        raise click.UsageError("--all clears all partitions; leave --partition out")
    found = _find(name)
    if not yes:
        what = "all partitions" if is_all else "the partition without a key"
        confirm(f"Remove the items of {what if partition is None else f'partition {partition}'} of queue {name}?")
    found.clear(partition=partition, all=is_all)
    click.echo(f"Cleared queue {name}.", err=True)


@queue_group.command("delete", epilog="Example: squall queue delete jobs --yes")
@environment_option
@click.argument("name")
@click.option("--allow-missing", is_flag=True, help="It is no failure if there is none.")
@click.option("-y", "--yes", is_flag=True, help="Do not ask.")
def delete(name: str, allow_missing: bool, yes: bool) -> None:
    """Delete a queue with everything in it."""
    asset.delete(QUEUE, name, allow_missing, yes)


def _find(name: str) -> Queue:
    return Queue._of_info(asset.find(QUEUE, name), None)
