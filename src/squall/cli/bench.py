"""`squall bench`: start."""

from __future__ import annotations

import json
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import click

from squall.cli import result_file
from squall.cli.callable_name import find_callable
from squall.cli.cold_start import (
    TEMPLATE_S,
    ColdStart,
    Subject,
    gone_of_others,
    leave,
    measure,
    prepare,
    ready_of_others,
    wait_for_template,
)
from squall.cli.environment import environment_option
from squall.cli.run import reported
from squall.cli.server_calls import require_server
from squall.cli.target import listed
from squall.cli.timeline import shown
from squall.exception import Error
from squall.protocol.ids import is_id
from squall.protocol.node import PATHS
from squall.protocol.records import to_wire
from squall.sdk import _output
from squall.sdk.cls import encode_parameters

STARTS_MAX = 10_000


@click.group("bench", epilog="Example: squall bench start greeter.hello")
def bench_group() -> None:
    """Measure functions."""


@bench_group.command("start", epilog='Example: squall bench start greeter.hello -n 50 --args \'{"name": "Ada"}\'')
@environment_option
@click.option(
    "-n", "--count", type=click.IntRange(1, STARTS_MAX), metavar="N", default=20, show_default=True,
    help="So many cold starts.",
)  # fmt: skip
@click.option("--args", "args_text", metavar="JSON", default="[]", help="Arguments: a list, or an object of names.")
@click.option(
    "--parameters", "parameters_text", metavar="JSON", default="{}", help="Of a class: what makes its object."
)
@click.option(
    "--path", "paths", type=click.Choice(PATHS), multiple=True,
    help="Fail if a start takes another path; may be repeated: a parked clone is a fork made ahead.",
)  # fmt: skip
@click.option("--svg", "svg_path", type=click.Path(path_type=Path, dir_okay=False), help="Draw the distribution there.")
@click.option("--json", "is_json", is_flag=True, help="As JSON.")
@click.argument("function", metavar="APP.FUNCTION|APP.CLASS.METHOD")
def start(
    count: int,
    args_text: str,
    parameters_text: str,
    paths: tuple[str, ...],
    svg_path: Path | None,
    is_json: bool,
    function: str,
) -> None:
    """Measure how long a call takes that finds no container, and say where the time goes.

    The function runs N + 1 times, in containers of its own: those that serve others go on.
    """
    args, kwargs = _arguments(args_text)
    parameters = _object("--parameters", parameters_text)
    reason = result_file.obstacle(svg_path) if svg_path is not None else ""
    if reason:
        raise click.UsageError(f"--svg: cannot write {svg_path}: {reason}")
    require_server()
    spec, method = find_callable(function)
    subject = prepare(spec, method, encode_parameters(spec.name, parameters) if parameters else "", args, kwargs)
    with _output.use(_Notices()), _left(subject):
        first = _first(subject)
        starts = list(_measured(subject, count))
    name = subject.name if is_id(function, "fu") else function
    from squall.cli.start_report import distribution, lines_of  # cold start: after the first of them

    if is_json:
        found = {
            "function": name,
            **to_wire(distribution([one.total_ms for one in starts])),
            "first": to_wire(first),
            "starts": [to_wire(one) for one in starts],
        }
        click.echo(json.dumps(found, indent=2))
    else:
        for line in lines_of(spec, name, first, starts):
            click.echo(line)
    if svg_path is not None:
        from squall.cli import start_chart  # cold start: when it is asked for

        title = f"{name}: {count} cold starts"
        series = start_chart.Series(", ".join(sorted({one.path for one in starts})), tuple(s.total_ms for s in starts))
        _write(svg_path, start_chart.svg(title, "from the call to its result; p50 · p99", [series]))
    others = [one for one in starts if paths and one.path not in paths]
    if others:
        raise click.ClickException(f"of {count} starts {_told(others)}; asked for was {' or '.join(paths)}")


def _told(others: Sequence[ColdStart]) -> str:
    """How many took which path, each with the first cause there is."""
    causes: dict[str, str] = {}
    for one in others:
        causes[one.path] = causes.get(one.path) or one.cause
    counts = Counter(one.path for one in others)
    return "; ".join(
        f"{counts[path]} took the path {path}{f', as {cause}' if cause else ''}" for path, cause in causes.items()
    )


def _write(path: Path, text: str) -> None:
    try:
        path.write_text(text)
    except OSError as error:
        raise click.ClickException(f"cannot write {path}: {error.strerror}") from error


def _arguments(text: str) -> tuple[tuple[Any, ...], dict[str, Any]]:
    given = _parsed("--args", text)
    if isinstance(given, list):
        return tuple(given), {}
    if isinstance(given, dict):
        return (), given
    raise click.UsageError(f"--args must be a JSON list or object, as in '[1, \"two\"]' or '{{\"n\": 1}}', not {text}")


def _object(option: str, text: str) -> dict[str, Any]:
    given = _parsed(option, text)
    if not isinstance(given, dict):
        raise click.UsageError(f"{option} must be a JSON object, as in '{{\"size\": 3}}', not {text}")
    return given


def _parsed(option: str, text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError as error:
        raise click.UsageError(f"{option} is no JSON: {error}") from None


class _Notices(_output.Output):
    """What the function prints is for nobody here; what a call waits for is, as it is measured."""

    def notice(self, text: str) -> None:
        """See `Output`."""
        _clear_progress()
        click.echo(text, err=True)


@contextmanager
def _left(subject: Subject) -> Iterator[None]:
    """However it ends, nothing is left of it; what cannot be reached now ends by itself. What it has cost others is
    told: its own template may have taken the place of theirs."""
    before = ready_of_others(subject)
    try:
        yield
    finally:
        _clear_progress()
        with suppress(Error):
            leave(subject)
            gone = gone_of_others(subject, before)
            if gone:
                what = "Templates of others have gone meanwhile, perhaps as memory for templates has run short: "
                hint = "their next starts are slower. See SQUALL_TEMPLATE_MEMORY_MIB in docs/cold-starts.md"
                click.echo(f"{what}{listed(gone)}; {hint}.", err=True)


def _first(subject: Subject) -> ColdStart:
    """One that is not counted: it may make what the others start from."""
    try:
        found = _one(subject)
    except click.exceptions.Exit:
        click.echo("It failed, so that nothing was measured. Its arguments are given by --args.", err=True)
        raise
    _show_progress(f"first: {shown(found.total_ms)}, {found.path}; its node may make a template now")
    if not wait_for_template(subject):
        _clear_progress()
        what = f"Its template is not there after {TEMPLATE_S:g} s, and goes on being made"
        click.echo(f"{what}: the first of the starts that count may do without it.", err=True)
    return found


def _measured(subject: Subject, count: int) -> Iterator[ColdStart]:
    for number in range(count):
        one = _one(subject)
        _show_progress(f"{number + 1} of {count}: {shown(one.total_ms)}, {one.path}")
        yield one


def _one(subject: Subject) -> ColdStart:
    with reported():
        try:
            return measure(subject)
        except BaseException:
            _clear_progress()
            raise


def _show_progress(text: str) -> None:
    """In place of what was shown before, where a person looks."""
    if sys.stderr.isatty():
        click.echo(f"\r{text}\x1b[K", err=True, nl=False)


def _clear_progress() -> None:
    """What is told next has a line of its own."""
    _show_progress("")
