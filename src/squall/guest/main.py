"""Compose the guest: connection, boot, function, runner; and how it ends. A fork of a template goes on here, too.

Exit codes: 0 asked to end; 1 the function could not be loaded; 2 no server came back.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple, Union

from squall.exception import InputCancellation
from squall.guest.cancellation import Interrupter
from squall.guest.inbox import Inbox, Stopping
from squall.guest.link import Link, LinkLost, receive_boot
from squall.guest.loading import LoadFailed, Served, load_served
from squall.guest.outbox import Outbox
from squall.guest.runner import InputListener, Runner, RunnerParts
from squall.guest.signals import install_signals
from squall.guest.stdio import MarkedStream
from squall.guest.values import Values
from squall.protocol.guest import (
    ENV_CONTAINER_ID,
    ENV_TEMPLATE,
    ENV_TEMPLATE_DIR,
    ENV_TOKEN,
    SOCKET_PATH,
    Boot,
    Ready,
    StartupFailed,
)
from squall.sdk import _container

if TYPE_CHECKING:
    from squall.guest.async_runner import AsyncRunner
    from squall.guest.instance import Instance
    from squall.guest.template import Begun
    from squall.guest.thread_runner import ThreadRunner

EXIT_STOPPED = 0
EXIT_NOT_LOADED = 1
EXIT_NO_SERVER = 2

CREDIT_MAX = 1_000


class Guest(NamedTuple):
    """What the process has taken over, and keeps when it is forked."""

    socket_path: str
    interrupter: Interrupter
    streams: tuple[MarkedStream, ...]


def main(socket_path: str = SOCKET_PATH) -> int:
    """Run the guest until it is told to end; returns the exit code."""
    started = time.monotonic()
    guest = Guest(socket_path, Interrupter(), _take_over_streams())
    install_signals(guest.interrupter)
    if ENV_TEMPLATE not in os.environ:
        return _run(guest, None, started)
    clone = _be_template(guest, started)
    if clone is None:
        return EXIT_STOPPED  # without exit hooks: they are for what has served
    code = EXIT_NOT_LOADED
    try:
        code = _run(guest, clone, clone.started)
    finally:
        clone.end(code)
    return code


def _be_template(guest: Guest, started: float) -> Begun | None:
    if ENV_TEMPLATE_DIR in os.environ:
        from squall.guest.snapshot import SavedTemplate  # cold start: templates only

        return SavedTemplate(guest, started).live()
    from squall.guest.template import Template  # cold start: templates only

    return Template(guest, started).live()


def _run(guest: Guest, begun: Begun | None, started: float) -> int:
    """Be a container, from its identity in the environment on; of a fork with what its template has loaded."""
    interrupter = guest.interrupter
    try:
        code = _live(guest, begun, started)
        interrupter.is_closed = True
    except (Stopping, InputCancellation, KeyboardInterrupt):
        code = EXIT_STOPPED  # told to end when it was ending already
    finally:
        interrupter.is_closed = True
        _run_exit_hooks()
        for stream in guest.streams:
            stream.end()
    return code


def _live(guest: Guest, begun: Begun | None, started: float) -> int:
    # Out of the environment: child processes of user code have no business with it.
    token = os.environ.pop(ENV_TOKEN, "")
    container_id = os.environ.get(ENV_CONTAINER_ID, "")
    link = Link(guest.socket_path, token, container_id)
    try:
        if begun is None:
            link.connect()
        else:
            link.begin(begun.waiting, begun.ready)
        boot = receive_boot(link)
        _container.enter(boot, guest.socket_path, token)
        try:
            if begun is None or begun.served is None:
                served = load_served(boot, started)
            else:
                served = begun.served.taken_over(started)
            _serve(parts_of(boot, served, link, guest), boot, served)
        except LoadFailed as error:
            return _not_loaded(link, guest.streams, error)
    except LinkLost as error:
        sys.stderr.write(f"container {container_id} ends: {error}\n")
        return EXIT_NO_SERVER
    except (Stopping, InputCancellation, KeyboardInterrupt):
        return EXIT_STOPPED
    return EXIT_STOPPED


def parts_of(boot: Boot, served: Served, link: Link, guest: Guest) -> RunnerParts:
    """What the inputs of this function are run with."""
    outbox = Outbox(link)
    inbox = Inbox(link, outbox, guest.interrupter.cancel)
    kind = RunnerParts
    if boot.is_batched:
        from squall.guest.batch import BatchParts  # cold start: batched functions only

        kind = BatchParts
    return kind(
        served.function,
        boot.definition.is_generator,
        inbox,
        outbox,
        link,
        Values(_container.get_blob, _container.put_blob),
        guest.interrupter,
        (*guest.streams, *_lend_debugger(boot, link, inbox)),
        served.instance,
    )


def _not_loaded(link: Link, streams: tuple[MarkedStream, ...], error: LoadFailed) -> int:
    """Say why nothing can be served here."""
    for stream in streams:
        stream.end()
    sys.stderr.write(error.failure.traceback or error.failure.message + "\n")
    link.send("StartupFailed", StartupFailed(error.failure), getattr(error, "pickled", b""))
    return EXIT_NOT_LOADED


def _lend_debugger(boot: Boot, link: Link, inbox: Inbox) -> tuple[InputListener, ...]:
    """Make `breakpoint()` ask for the client's terminal, where it lends one."""
    if not boot.is_interactive:
        sys.breakpointhook = _refuse_breakpoint
        return ()
    from squall.guest.terminal import Terminal  # cold start: with the debugger; `squall run -i` only

    terminal = Terminal(link, inbox)
    terminal.install()
    return (terminal,)


def ready_of(served: Served, late_ms: float = 0.0) -> Ready:
    """What a guest says that serves this, after hooks that are run in each container have taken so long."""
    version = ".".join(str(part) for part in sys.version_info[:3])
    # A request that waits here behind another one could be answered elsewhere.
    credit_max = 1 if served.is_web else CREDIT_MAX
    return Ready(credit_max, served.import_ms, version, served.enter_ms + late_ms)


def _serve(parts: RunnerParts, boot: Boot, served: Served) -> None:
    """Run inputs until there are no more to come; of a class between its enter and its exit hooks.

    Raises:
        LoadFailed: an enter hook has raised.
    """
    began = time.monotonic()

    def start() -> None:
        has_late = served.is_web or served.instance is not None
        parts.inbox.start(ready_of(served, (time.monotonic() - began) * 1000 if has_late else 0.0))

    runner, is_started_by_runner = _runner(parts, boot, served, start)
    begin = _nothing if is_started_by_runner else start
    if parts.instance is None or boot.definition.is_async:
        begin()
        runner.run()  # the hooks, too, on its event loop
    else:
        _run_entered(parts, parts.instance, begin, runner)


AnyRunner = Union["Runner", "ThreadRunner", "AsyncRunner"]


def _runner(parts: RunnerParts, boot: Boot, served: Served, start: Callable[[], None]) -> tuple[AnyRunner, bool]:
    """What runs the inputs; and whether it says itself when they may come."""
    runner: AnyRunner = Runner(parts)
    if served.is_web:
        from squall.guest.web.runner import WebRunner  # cold start: web functions only

        runner = WebRunner(parts, boot, start)
    elif boot.definition.is_async:
        from squall.guest.async_runner import AsyncRunner  # cold start: asyncio is a third of all there is to load

        runner = AsyncRunner(parts, boot.max_inputs, start)
    elif boot.max_inputs > 1:
        from squall.guest.thread_runner import ThreadRunner  # cold start: most functions run one input at a time

        runner = ThreadRunner(parts, boot.max_inputs)
    if not isinstance(runner, Runner):
        parts.inbox.on_cancel = runner.cancel
    if boot.is_batched:
        from squall.guest.batch import BatchCancellation  # cold start: batched functions only

        parts.inbox.on_cancel = BatchCancellation(parts, parts.inbox.on_cancel).cancel
    return runner, served.is_web or boot.definition.is_async


def _nothing() -> None:
    """What is to be done is done elsewhere."""


def _run_entered(parts: RunnerParts, instance: Instance, start: Callable[[], None], runner: AnyRunner) -> None:
    instance.enter()
    try:
        start()
        runner.run()
    finally:
        # The hooks are not to be stopped by a second request to end.
        parts.interrupter.is_closed = True
        instance.leave()


def _take_over_streams() -> tuple[MarkedStream, ...]:
    out = MarkedStream(1, "<stdout>", _container.running_input_id)
    err = MarkedStream(2, "<stderr>", _container.running_input_id)
    sys.stdout, sys.stderr = out, err
    for stream in (out, err):
        os.register_at_fork(after_in_child=stream.forked)
    return out, err


def _refuse_breakpoint(*args: Any, **kwargs: Any) -> None:
    from squall.guest.terminal import refuse_breakpoint  # cold start: debugging only

    refuse_breakpoint(*args, **kwargs)


def _run_exit_hooks() -> None:
    import atexit  # cold start: only needed at the end

    atexit._run_exitfuncs()
