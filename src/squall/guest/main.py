"""Compose the guest: connection, boot, function, runner; and how it ends.

Exit codes: 0 asked to end; 1 the function could not be loaded; 2 no server came back.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from squall.exception import InputCancellation
from squall.guest.cancellation import Interrupter
from squall.guest.inbox import Inbox, Stopping
from squall.guest.link import Link, LinkLost
from squall.guest.loading import LoadFailed, load, load_instance
from squall.guest.outbox import Outbox
from squall.guest.runner import InputListener, Runner, RunnerParts
from squall.guest.signals import install_signals
from squall.guest.stdio import MarkedStream
from squall.guest.values import Values
from squall.protocol.guest import (
    ENV_CONTAINER_ID,
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
    from squall.guest.thread_runner import ThreadRunner

EXIT_STOPPED = 0
EXIT_NOT_LOADED = 1
EXIT_NO_SERVER = 2

CREDIT_MAX = 1_000


def main(socket_path: str = SOCKET_PATH) -> int:
    """Run the guest until it is told to end; returns the exit code."""
    started = time.monotonic()
    interrupter = Interrupter()
    streams = _take_over_streams()
    install_signals(interrupter)
    try:
        code = _live(socket_path, interrupter, streams, started)
        interrupter.is_closed = True
    except (Stopping, InputCancellation, KeyboardInterrupt):
        code = EXIT_STOPPED  # told to end when it was ending already
    finally:
        interrupter.is_closed = True
        _run_exit_hooks()
        for stream in streams:
            stream.end()
    return code


def _live(socket_path: str, interrupter: Interrupter, streams: tuple[MarkedStream, ...], started: float) -> int:
    # Out of the environment: child processes of user code have no business with it.
    token = os.environ.pop(ENV_TOKEN, "")
    container_id = os.environ.get(ENV_CONTAINER_ID, "")
    link = Link(socket_path, token, container_id)
    try:
        link.connect()
        boot = _receive_boot(link)
        _container.enter(boot, socket_path, token)
        values = Values(_container.get_blob, _container.put_blob)
        try:
            function, instance = _load(boot)
        except LoadFailed as error:
            return _not_loaded(link, streams, error)
        import_ms = (time.monotonic() - started) * 1000
        outbox = Outbox(link)
        inbox = Inbox(link, outbox, interrupter.cancel)
        listeners = (*streams, *_lend_debugger(boot, link, inbox))
        is_generator = boot.definition.is_generator
        parts = _parts_of(boot)(function, is_generator, inbox, outbox, link, values, interrupter, listeners, instance)
        try:
            _serve(parts, boot, import_ms)
        except LoadFailed as error:
            return _not_loaded(link, streams, error)
    except LinkLost as error:
        sys.stderr.write(f"container {container_id} ends: {error}\n")
        return EXIT_NO_SERVER
    except (Stopping, InputCancellation, KeyboardInterrupt):
        return EXIT_STOPPED
    return EXIT_STOPPED


def _load(boot: Boot) -> tuple[Callable[..., Any], Instance | None]:
    """What is served: a function, or a method of the instance of a class, where it has others, any of them."""
    if not boot.definition.is_class:
        return load(boot, _container.get_blob), None
    instance = load_instance(boot, _container.get_blob)
    # From here on its hooks may call functions.
    _container.loaded()
    return next(iter(instance.methods.values())).function, instance


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


def _parts_of(boot: Boot) -> type[RunnerParts]:
    if not boot.is_batched:
        return RunnerParts
    from squall.guest.batch import BatchParts  # cold start: batched functions only

    return BatchParts


def _serve(parts: RunnerParts, boot: Boot, import_ms: float) -> None:
    """Run inputs until there are no more to come; of a class between its enter and its exit hooks.

    Raises:
        LoadFailed: an enter hook has raised.
    """
    began = time.monotonic()

    def start() -> None:
        enter_ms = (time.monotonic() - began) * 1000 if parts.instance is not None else 0.0
        version = ".".join(str(part) for part in sys.version_info[:3])
        parts.inbox.start(Ready(CREDIT_MAX, import_ms, version, enter_ms))

    runner: Runner | ThreadRunner | AsyncRunner
    if boot.definition.is_async:
        from squall.guest.async_runner import AsyncRunner  # cold start: asyncio is a third of all there is to load

        runner = AsyncRunner(parts, boot.max_inputs, start)
        parts.inbox.on_cancel = runner.cancel
    elif boot.max_inputs > 1:
        from squall.guest.thread_runner import ThreadRunner  # cold start: most functions run one input at a time

        runner = ThreadRunner(parts, boot.max_inputs)
        parts.inbox.on_cancel = runner.cancel
    else:
        runner = Runner(parts)
    if boot.is_batched:
        from squall.guest.batch import BatchCancellation  # cold start: batched functions only

        parts.inbox.on_cancel = BatchCancellation(parts, parts.inbox.on_cancel).cancel
    if boot.definition.is_async:
        runner.run()  # the hooks, too, on its event loop
    elif parts.instance is None:
        start()
        runner.run()
    else:
        _run_entered(parts, parts.instance, start, runner)


def _run_entered(
    parts: RunnerParts, instance: Instance, start: Callable[[], None], runner: Runner | ThreadRunner | AsyncRunner
) -> None:
    instance.enter()
    try:
        start()
        runner.run()
    finally:
        # The hooks are not to be stopped by a second request to end.
        parts.interrupter.is_closed = True
        instance.leave()


def _receive_boot(link: Link) -> Boot:
    while True:
        messages = link.receive()
        if messages is None:
            # The server went away between our greeting and its answer; the next one will answer.
            link.connect()
            continue
        for number, (envelope, _) in enumerate(messages):
            if envelope.method == "Boot":
                # What came along with it, as a request to stop, is for whoever reads when the function is loaded.
                link.put_back(messages[number + 1 :])
                return link.codec.record(Boot, envelope.params)


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
