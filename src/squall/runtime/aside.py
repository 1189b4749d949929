"""What may block, beside the spawner's one loop."""

from __future__ import annotations

import os
from collections.abc import Callable

from squall.runtime.container import Outcome, Reply, receive
from squall.runtime.errors import RuntimeFailure
from squall.runtime.launch import fork_aside
from squall.runtime.poll import Poller
from squall.runtime.wire import failure_from_json


def run_aside(poller: Poller, action: Callable[[], None], answer: Outcome) -> None:
    """Do it in a process of its own; the answer comes when it is done."""
    forked = fork_aside(action, poller.private)
    failures: list[RuntimeFailure] = []

    def on_message(_: int) -> None:
        message = receive(forked.channel)
        if message is not None:
            failures.append(failure_from_json({"kind": message["kind"], "message": message["error"]}))
            return
        poller.unwatch(forked.channel.fileno())
        forked.channel.close()
        _, status = os.waitpid(forked.pid, 0)
        os.close(forked.pidfd)
        if status and not failures:
            failures.append(RuntimeFailure("what was to be done aside was killed"))
        answer(failures[0] if failures else Reply())

    poller.watch(forked.channel.fileno(), on_message)
