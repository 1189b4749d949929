"""The command's entry: groups are loaded when named, errors end in one message.

Exit codes: 0 done, 1 failed, 2 wrong usage, 128 + n ended by signal n (130 by Ctrl-C).
"""

from __future__ import annotations

import atexit
import errno
import gc
import importlib
import os
import signal
import sys
from collections.abc import Sequence
from threading import Timer
from types import FrameType
from typing import Any, NoReturn

import click

from squall.exception import Error
from squall.protocol.version import VERSION
from squall.sdk._fork_guard import AGAIN_S, ForkGuard

# Loaded when used: `squall run` must not pay for what it does not need.
_COMMANDS = {
    "run": ("squall.cli.run", "run", "Run a function or entrypoint of a file."),
    "deploy": ("squall.cli.deploy", "deploy", "Make an app one that stays, or its next version."),
    "serve": ("squall.cli.serve", "serve", "Run an app, and again with each change of its files."),
    "shell": ("squall.cli.shell", "shell", "Open a shell in an image, or before a step that fails."),
    "curl": ("squall.cli.curl", "curl", "Run curl with a proxy token, for web functions that ask for one."),
    "app": ("squall.cli.app", "app_group", "Apps: what runs, what ran, what it printed."),
    "schedule": ("squall.cli.schedule", "schedule_group", "Schedules: what deployed apps run by themselves."),
    "function": ("squall.cli.function", "function_group", "Functions: what they run with, what they did."),
    "call": ("squall.cli.call", "call_group", "Calls: what ran, why it was slow, why it failed."),
    "container": ("squall.cli.container", "container_group", "Containers: what runs now."),
    "template": ("squall.cli.template", "template_group", "Templates: what quick starts are forked from."),
    "environment": ("squall.cli.environment", "environment_group", "Environments: names apart from those of others."),
    "workspace": ("squall.cli.workspace", "workspace_group", "The workspace: tokens for web functions."),
    "secret": ("squall.cli.secret", "secret_group", "Secrets: variables that only containers see."),
    "image": ("squall.cli.image", "image_group", "Images: what containers start from."),
    "dict": ("squall.cli.dict", "dict_group", "Dicts: keys and values that programs share."),
    "queue": ("squall.cli.queue", "queue_group", "Queues: items that programs hand to each other."),
    "volume": ("squall.cli.volume", "volume_group", "Volumes: files that outlive containers."),
    "bench": ("squall.cli.bench", "bench_group", "Measure functions."),
    "server": ("squall.cli.server", "server_group", "The server of this machine."),
    "doctor": ("squall.cli.doctor", "doctor", "What this machine has and lacks."),
    "completion": ("squall.cli.completion", "completion", "Completion for your shell."),
}


class _Commands(click.Group):
    """The top group; imports a command's module only when that command is asked for."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        found = _COMMANDS.get(cmd_name)
        if found is None:
            return None
        command: click.Command = getattr(importlib.import_module(found[0]), found[1])
        # What is loaded stays: it need not be looked through again and again while the command runs.
        gc.freeze()
        gc.enable()
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        name = args[0] if args else ""
        if name and not name.startswith("-") and name not in _COMMANDS:
            import difflib  # cold start: only for what is wrong

            close = difflib.get_close_matches(name, _COMMANDS, n=1)
            hint = f"; did you mean {close[0]!r}?" if close else ""
            ctx.fail(f"no command {name!r}{hint}")
        return super().resolve_command(ctx, args)

    def make_context(
        self, info_name: str | None, args: list[str], parent: click.Context | None = None, **extra: Any
    ) -> click.Context:
        try:
            # Writes, too: help and version.
            return super().make_context(info_name, args, parent, **extra)
        except OSError as error:
            raise click.exceptions.Exit(_drop_output(error)) from error

    def invoke(self, ctx: click.Context) -> object:
        try:
            returned: object = super().invoke(ctx)
            sys.stdout.flush()
        except OSError as error:
            return _drop_output(error)
        return returned

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, found[2]) for name, found in _COMMANDS.items()])


_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO)


def _drop_output(error: OSError) -> int:
    """End of a command whose output nobody takes: its exit code.

    Raises:
        click.ClickException: the place of the output is full.
        OSError: the error, if it is of another kind.
    """
    is_full = error.errno in _FULL and error.filename is None
    if not isinstance(error, BrokenPipeError) and not is_full:
        raise error
    # Python writes what is left when it ends, and would fail again.
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    if is_full:
        raise click.ClickException(f"cannot write the output: {error.strerror}") from error
    # Whoever read it has enough: `squall app logs … | head`. Click would end with 1.
    return 0


@click.group(
    cls=_Commands,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="Example: squall run examples/hello.py --n 5",
)
@click.version_option(VERSION, message="squall %(version)s")
def squall() -> None:
    """Serverless Python on your own machines."""


_TERMINATING = (signal.SIGTERM, signal.SIGHUP)
_SIGNALS = (signal.SIGINT, *_TERMINATING)


class _Terminated(KeyboardInterrupt):
    """SIGTERM or a closed terminal: everything is taken down as after Ctrl-C, so that no container outlives us."""

    def __init__(self, number: int) -> None:
        super().__init__()
        self.number = number


def _code_of(interrupt: BaseException | None) -> int:
    return 128 + (interrupt.number if isinstance(interrupt, _Terminated) else signal.SIGINT)


def _terminate(number: int, frame: FrameType | None) -> None:
    raise _Terminated(number)


def _take_signals() -> None:
    """End at these, but not in children that code of the user's forks. What whoever started us wants to be ignored
    (nohup) stays ignored."""
    forks = ForkGuard()
    for number in _TERMINATING:
        if signal.getsignal(number) is signal.SIG_DFL:
            forks.take(number, _terminate, signal.SIG_DFL)
    forks.install()
    sys.unraisablehook = _send_again


def _send_again(unraisable: sys.UnraisableHookArgs) -> None:
    """A signal that came in a finalizer, which cannot raise, comes again a moment later. Python would print it only."""
    interrupt = unraisable.exc_value
    if not isinstance(interrupt, KeyboardInterrupt):
        sys.__unraisablehook__(unraisable)
        return
    Timer(AGAIN_S, os.kill, (os.getpid(), _code_of(interrupt) - 128)).start()


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Run the command and exit."""
    _open_missing_streams()
    # What is registered first runs last: from there on Python is taken down and would give signals their default back.
    atexit.register(_ignore_signals)
    _take_signals()
    try:
        code = _run(arguments)
        _leave_at_signals(code)
    except KeyboardInterrupt as interrupt:
        # A further Ctrl-C, while the end of the first was told.
        code = _code_of(interrupt)
        _leave_at_signals(code)
    sys.exit(code)


def _open_missing_streams() -> None:
    """Python has None for what was closed by whoever started us (`>&-`)."""
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, mode))  # noqa: SIM115 - until the end, as the others


def _run(arguments: Sequence[str] | None) -> int:
    """Run the command, say how it failed where it did, and return the exit code."""
    try:
        given = None if arguments is None else list(arguments)
        returned = squall.main(args=given, prog_name="squall", standalone_mode=False)
        # Without standalone_mode click turns `Exit` into a returned code.
        return returned if isinstance(returned, int) else 0
    except click.Abort as abort:
        # What click makes of "no" to a question, and of a KeyboardInterrupt, whose end `run` has told already.
        if not isinstance(abort.__cause__, KeyboardInterrupt):
            click.echo("Aborted.", err=True)
        return _code_of(abort.__cause__)
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except Error as error:
        if os.environ.get("SQUALL_TRACEBACK"):
            raise
        click.echo(f"{click.style('Error:', fg='red', bold=True)} {error}", err=True)
        return 1


def _leave_at_signals(code: int) -> None:
    """The end is decided: a signal cuts short only what Python waits for on its way out (a program's threads)."""
    for number in _SIGNALS:
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, lambda number, frame: os._exit(code))


def _ignore_signals() -> None:
    for number in _SIGNALS:
        signal.signal(number, signal.SIG_IGN)
