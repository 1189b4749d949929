"""`squall run`: load a file, choose what in it to run, run it with the app around it.

Options of `squall run` come before the reference; what follows it belongs to the entrypoint.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from types import CoroutineType
from typing import Any

import click

from squall.cli import reference, result_file, result_view
from squall.cli.app_name import name_option
from squall.cli.class_method import ClassMethod
from squall.cli.environment import environment_option
from squall.cli.signature import SignatureInvalid, bind
from squall.cli.target import Target, choose
from squall.exception import Error
from squall.sdk import _output
from squall.sdk._entrypoint import LocalEntrypoint
from squall.sdk.function import Function


@click.command(
    "run",
    context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False},
    epilog="Example: squall run examples/hello.py --n 5",
)
@click.option(
    "-q",
    "--quiet",
    "is_quiet",
    is_flag=True,
    help="Show only what a local entrypoint prints: no logs, no result.",
)
@click.option(
    "-d",
    "--detach",
    "is_detached",
    is_flag=True,
    help="Let the app go on if this command is interrupted, and until what it spawned is done.",
)
@click.option("-i", "--interactive", "is_interactive", is_flag=True, help="breakpoint() in a container works here.")
@environment_option
@click.option("-m", "is_module", is_flag=True, help="REF is a dotted module name.")
@name_option("What lists call the app.")
@click.option(
    "-w",
    "--write-result",
    "result_path",
    type=click.Path(path_type=Path),
    help="Write the result, str or bytes, there.",
)
@click.option("--timestamps", "has_timestamps", is_flag=True, help="Begin each log line with its time.")
# A path for the shell's completion only: what it may be is said by `reference`.
@click.argument("ref", type=click.Path(allow_dash=True))
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
def run(
    is_quiet: bool,
    is_detached: bool,
    is_interactive: bool,
    is_module: bool,
    app_name: str | None,
    result_path: Path | None,
    has_timestamps: bool,
    ref: str,
    arguments: tuple[str, ...],
) -> None:
    """Run a function or local entrypoint: REF is path.py, path.py::name, or with -m a module.

    ARGUMENTS become the parameters of what is run: --param-name VALUE.
    """
    if ref.startswith("-") and ref != "-":
        options = [name for option in run.params if isinstance(option, click.Option) for name in option.opts]
        import difflib  # cold start: only for what is wrong

        raise click.NoSuchOption(ref, possibilities=difflib.get_close_matches(ref, options))
    parsed = reference.parse(ref, is_module=is_module)
    module = reference.load(parsed)
    app, target = choose(module, parsed.name, parsed.source)
    raw: Callable[..., Any] = _local_callable(target) if isinstance(target, Function) else target.raw_f
    try:
        bound = bind(
            target.pooled() if isinstance(target, ClassMethod) else raw,
            target.name,
            arguments,
            typed=f"squall run {'-m ' if is_module else ''}{ref}",
        )
    except SignatureInvalid as error:
        raise click.UsageError(str(error)) from error
    except click.NoSuchOption as error:
        raise _misplaced(error, ref) from error
    if result_path is not None:
        result_file.check(result_path, raw, target.name, is_generator=_is_generator(target))
    output = None if is_quiet else _output.PlainOutput(has_timestamps=has_timestamps)
    with _output.use(output), reported():
        with app.run(name=app_name, detach=is_detached, interactive=is_interactive):
            terminal: AbstractContextManager[None] = nullcontext()
            if is_interactive:
                assert app.app_id is not None
                from squall.cli.interactive import lend_terminal  # cold start: with `-i` only

                terminal = lend_terminal(app.app_id)
            with terminal:
                result = _call(target, bound.args, bound.kwargs, is_quiet, is_detached)
            is_shown = result_path is None and not is_quiet and not isinstance(target, LocalEntrypoint)
            if is_shown and result is not None:
                # As items of a generator: after what the function printed, before the end of the app is told.
                result_view.show(result)
    if result_path is not None:
        result_file.write(result_path, result)


def _misplaced(error: click.NoSuchOption, ref: str) -> click.UsageError:
    """What is wrong with an option after REF: perhaps that it is there."""
    if any(error.option_name in (*option.opts, *option.secondary_opts) for option in run.params):
        hint = f"options of `squall run` come before what is run: squall run {error.option_name} … {ref}"
        return click.UsageError(f"no option {error.option_name} of {ref}; {hint}", error.ctx)
    return error


def _is_generator(target: Target) -> bool:
    return not isinstance(target, LocalEntrypoint) and target.is_generator


def _call(target: Target, args: tuple[Any, ...], kwargs: dict[str, Any], is_quiet: bool, is_detached: bool) -> Any:
    if isinstance(target, ClassMethod):
        target, kwargs = target.with_parameters(kwargs)
    if isinstance(target, LocalEntrypoint):
        returned = target.raw_f(*args, **kwargs)
        if isinstance(returned, CoroutineType):
            import asyncio  # cold start: as long as all the rest together

            return asyncio.run(returned)
        return returned
    if target.is_generator:
        for item in target.remote_gen(*args, **kwargs):
            # As the result of any other function: not shown when quiet. It runs to its end all the same.
            if not is_quiet:
                result_view.show(item)
        return None
    if is_detached:
        return target.spawn(*args, **kwargs).get()
    return target.remote(*args, **kwargs)


class reported:  # noqa: N801 - a context manager used like a function
    """What user code raises is shown as its own traceback, exit code 1; our errors stay one message.

    sys.exit() here ends the command as it says; in a function it is a failure, whatever it says.
    """

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        if error is None or isinstance(error, click.ClickException):
            return
        from squall.sdk._traceback import has_user_frames, is_remote  # cold start: when something failed

        if isinstance(error, SystemExit) and is_remote(error):
            reference.show_user_traceback(error)
            click.echo(f"A function called sys.exit({error.code!r}) in its container: its input failed.", err=True)
            code = error.code & 0xFF if isinstance(error.code, int) else 1
            raise click.exceptions.Exit(code or 1) from error
        # A KeyboardInterrupt that a function raised is no Ctrl-C.
        if not isinstance(error, Exception) and not is_remote(error):
            return
        if isinstance(error, Error) and not _is_raised_by_user(error):
            return
        if isinstance(error, OSError) and not has_user_frames(error):
            return  # of showing the result
        reference.show_user_traceback(error)
        raise click.exceptions.Exit(1) from error


def _is_raised_by_user(error: Error) -> bool:
    """Whether frames of user code are in the traceback: then where it happened is worth showing."""
    ours = str(Path(__file__).resolve().parent.parent)
    trace = error.__traceback__
    while trace is not None:
        if not trace.tb_frame.f_code.co_filename.startswith((ours, "<frozen")) and "click" not in str(
            trace.tb_frame.f_globals.get("__name__")
        ):
            return True
        trace = trace.tb_next
    return False


def _local_callable(function: Function[..., Any]) -> Callable[..., Any]:
    raw_f = getattr(function, "raw_f", None)
    if raw_f is None:
        raise click.UsageError(f"function {function.name} is not defined in this file; call it from an entrypoint")
    found: Callable[..., Any] = raw_f
    return found
