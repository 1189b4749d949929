"""One container as the server sees it.

pending ──▶ starting ──▶ idle ⇄ busy ──▶ draining ──▶ stopped
   ▲            │ refused       (any state may go to stopped at once)
   └────────────┘
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from squall.protocol import container as wire
from squall.protocol.container import ContainerInfo
from squall.protocol.function import EXIT_GRACE_S
from squall.protocol.node import PATH_PLAIN, PATHS, ContainerExited
from squall.server.dispatch.fleet.signal_name import signal_in_words

SIGTERM = 15
_COPIES = frozenset(PATHS) - {PATH_PLAIN}
FROM_BEFORE = -1
"""The number of what it had begun before this server did, in however many batches."""

if TYPE_CHECKING:
    from squall.protocol.peer import Peer
    from squall.server.dispatch.fleet.node import Node
    from squall.server.dispatch.function.dispatcher import Dispatcher
    from squall.server.dispatch.function.holdings import Held
    from squall.server.dispatch.function.input import Input
    from squall.server.model.clock import Timer


class Container:
    """State and counters; what happens to it is decided by its dispatcher and by the fleet."""

    def __init__(self, container_id: str, dispatcher: Dispatcher, created_at: float, asked_at: float) -> None:
        self.container_id = container_id
        self.dispatcher = dispatcher
        self.spec = dispatcher.spec
        """What it was started for; its function may have been deployed anew since."""
        self.claims_cpu = bool(self.spec.resources.cpu_milli)
        self.created_at = created_at
        """Seconds since 1970."""
        self.asked_at = asked_at
        """The same moment on the monotonic clock; phases count from it."""
        self.stopped_at: float | None = None
        self.node: Node | None = None
        self.peer: Peer | None = None
        """The guest's connection, while there is one."""
        self.phase_ms: dict[str, float] = {}
        self.path = ""
        self.path_cause = ""
        self.is_plain = False
        """It was asked for as no fork: one has ended under its first input."""
        self.is_adopted = False
        """It was running when this server started: it may hold inputs that nobody here has handed out."""
        self.has_guest = True
        """Its guest is there, or was; and not only announced by its node."""
        self.is_ready = False
        self.is_draining = False
        self.is_stopped = False
        self.drain_reason = ""
        self.is_booted = False
        """The guest was told what to load."""
        self.is_sacrificed = False
        """It is ended for the sake of a new version or of one input: that it held an input is no fault of the input."""
        self.ending = ""
        """Why we end it; empty while we do not."""
        self.exit: ContainerExited | None = None
        self.exit_reason = ""
        self.start_failure = False
        """The guest said that the function cannot be loaded."""
        self.refusals = 0
        self.timers: list[Timer] = []
        self.start_limit: Timer | None = None
        """Of these, what ends it unless its guest serves by then; there is none before its node has answered."""
        self.on_stopped: list[Callable[[], None]] = []
        self.has_clients = False
        """The SDK in it has connected."""

        self.held: dict[Input, None] = {}
        """Inputs handed out, in order."""
        self.batches: dict[int, int] = {}
        """Of a function that takes batches: how many inputs of each it holds (`batches.py`)."""
        self.unknown: dict[tuple[str, int], Held] = {}
        """What its guest says it runs, and nobody here has handed out (`holdings.py`)."""
        self.cut_short = 0
        """Of those, how many its guest was asked to stop (`attempts.py` counts)."""
        self.credit = 0
        self.credit_max = 0
        self.run_us = 0.0
        self.idle_since = 0.0
        self.last_heard_at = 0.0
        self.last_output_at = 0.0
        self.handed_out_at = 0.0
        self.take_back_at = float("-inf")
        self.has_served = False
        self.succeeded_inputs = 0
        self.failed_inputs = 0
        """As its guest said; also attempts that were followed by another one."""

    @property
    def state(self) -> str:
        """One of the states above."""
        if self.is_stopped:
            return wire.STOPPED
        if self.is_draining or self.ending:
            return wire.DRAINING
        if self.node is None:
            return wire.PENDING
        if not self.is_ready:
            return wire.STARTING
        return wire.BUSY if self.is_busy else wire.IDLE

    @property
    def is_serving(self) -> bool:
        """Its guest is ready, and there: what it is given reaches it."""
        return self.is_ready and self.has_guest

    @property
    def is_busy(self) -> bool:
        """Whether it has anything to run."""
        return bool(self.held or self.unknown)

    @property
    def is_open(self) -> bool:
        """Whether it may be handed inputs."""
        return self.is_ready and not self.is_draining and not self.ending and self.peer is not None

    @property
    def has_crashed(self) -> bool:
        """Its process ended in a way that its inputs can have caused. A polite request to end (SIGTERM) comes from
        outside: a node that is shut down, say."""
        exited = self.exit
        if exited is None or exited.is_lost:
            return False
        return exited.signal != SIGTERM and exited.exit_code != 128 + SIGTERM

    @property
    def is_unproven_fork(self) -> bool:
        """It began as a copy of another one, of which nothing has come yet: what was loaded may not work in it."""
        return self.path in _COPIES and not self.is_plain and not self._has_answered

    @property
    def is_proven(self) -> bool:
        """What ends it is no fault of how it began."""
        return self._has_answered or self.is_plain or self.path == PATH_PLAIN

    @property
    def _has_answered(self) -> bool:
        return bool(self.succeeded_inputs or self.failed_inputs)

    @property
    def is_spare(self) -> bool:
        """It runs nothing, and its function may do with one fewer."""
        return self.is_open and not self.is_busy and self.dispatcher.may_lose_one

    @property
    def is_waiting(self) -> bool:
        """All it runs waits for calls of its own: it needs no cpu now."""
        running = list(self.held)[: self.dispatcher.max_inputs]
        waiting = [one for one in running if one.trouble is not None and one.trouble.children > 0]
        if not self.batches:
            return bool(running) and len(waiting) == len(running)
        # Who calls in a batch is its first input, and all of them wait. What is of before the restart is in doubt.
        return self.batches.keys() <= {one.batch for one in waiting if one.batch != FROM_BEFORE}

    def took_of_batch(self, one: Input, number: int) -> None:
        """It holds an input of that batch."""
        one.batch = number
        self.batches[number] = self.batches.get(number, 0) + 1

    def left_batch(self, one: Input) -> None:
        """An input that was run with others is not held any more."""
        left = self.batches.pop(one.batch, 1) - 1
        if left:
            self.batches[one.batch] = left
        one.batch = 0

    def quiet_s(self, now: float) -> float:
        """For how long it has brought no output of what it runs; it runs something."""
        return now - max(self.last_output_at, next(iter(self.held)).began_at)

    @property
    def finish_s(self) -> float:
        """For how long it may go on with what it was given when it is to end."""
        return self.spec.web.exit_grace_s if self.spec.web is not None else 0.0

    def grace_s(self, otherwise_s: float) -> float:
        """How long it gets to end when it is asked to: enough for exit hooks, if it has any to run."""
        has_hooks = self.is_ready and self.spec.definition.has_exit_hooks
        return max(otherwise_s, EXIT_GRACE_S) if has_hooks and otherwise_s > 0 else otherwise_s

    def tell(self, method: str, record: Any, body: bytes = b"") -> None:
        """An event for the guest; without a connection it is dropped, and made good when the guest comes back."""
        if self.peer is not None:
            self.peer.event(method, record, body)

    def tell_now(self, method: str, record: Any, body: bytes) -> None:
        """As `tell`, but sent before this returns."""
        if self.peer is not None:
            self.peer.event_now(method, record, body)

    def mark(self, phase: str, at: float) -> None:
        """The first time a phase is reached is kept."""
        self.phase_ms.setdefault(phase, round((at - self.asked_at) * 1000, 3))

    def cancel_timers(self) -> None:
        """No alarm of it rings any more."""
        for timer in self.timers:
            timer.cancel()
        self.timers.clear()

    def ending_in_words(self) -> str:
        """How it ended."""
        exited = self.exit
        if self.exit_reason:
            return self.exit_reason
        if exited is None:
            return self.ending or "its node was lost"
        if exited.is_lost:
            return "the process that held it has died"
        if exited.over_disk:
            return exited.over_disk
        if exited.is_oom:
            limit_mib = exited.memory_limit_mib or self.spec.resources.memory_limit_mib
            return "it went over its memory limit" + (f" of {limit_mib:,} MiB" if limit_mib else "")
        if exited.signal is not None:
            return signal_in_words(exited.signal)
        return f"exit code {exited.exit_code}"

    def info(self) -> ContainerInfo:
        """The container as listed."""
        spec = self.spec
        return ContainerInfo(
            self.container_id,
            spec.app_id,
            self.dispatcher.app_name,
            spec.function_id,
            spec.name,
            self.node.node_id if self.node is not None else "",
            self.state,
            self.created_at,
            self.stopped_at,
            self.ending_in_words() if self.is_stopped else "",
            min(len(self.held) + len(self.unknown), self.dispatcher.max_inputs),
            dict(self.phase_ms),
            self.path,
            self.path_cause,
        )
