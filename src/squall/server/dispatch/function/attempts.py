"""Attempts that did not simply succeed: failures, retries, cancellation, time limits, lost containers.

Each carries out what the policies say (`policy/events.py`); the way of a plain success does not come by here.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from squall.protocol import call as wire
from squall.protocol.call import Failure, InputRefs, OutputBatch, cut
from squall.protocol.function import RetryPolicy
from squall.protocol.records import replace
from squall.protocol.web import WEB
from squall.server.autoscaler import backoff_s
from squall.server.dispatch.fleet.container import Container
from squall.server.dispatch.flight.recorder import failure_of
from squall.server.dispatch.function.input import Call, Input
from squall.server.dispatch.function.retry_lines import RetryLines
from squall.server.dispatch.function.wait_notices import WaitNotices
from squall.server.model.variant import is_measured
from squall.server.policy import default_policies, timeouts
from squall.server.policy.crash import LOSSES_MAX
from squall.server.policy.events import AttemptFailed, AttemptLost, Fail, Retry, StartFailed, Verdict

if TYPE_CHECKING:
    from squall.server.dispatch.function.dispatcher import Dispatcher

_NO_RETRIES = RetryPolicy()
REASON_CHARS_MAX = 1_000
"""Of a container's last words in the app's log."""


class Attempts:
    """The unhappy half of a dispatcher."""

    def __init__(self, dispatcher: Dispatcher) -> None:
        self._dispatcher = dispatcher
        self._policies = default_policies()
        self.suspects: set[Input] = set()
        """One of these has ended a container: they are run alone (`quarantine.py`)."""
        self.cut_short: dict[Input, Container] = {}
        """Inputs that a guest was asked to stop, and where they run."""
        self._lines = RetryLines(dispatcher)
        self._notices = WaitNotices(dispatcher)

    # Outputs

    def settle(self, container: Container | None, call: Call, record: OutputBatch, body: bytes) -> None:
        """Take a batch apart: accept, retry or ignore each output."""
        accepted: list[tuple[int, int, int, bytes, int, int]] = []
        recorder, queued_at = self._dispatcher.calls.recorder, 0.0
        attempts = record.attempts or (0,) * len(record.indexes)
        run_us = record.run_us or (0,) * len(record.indexes)
        columns = zip(
            record.indexes, record.statuses, record.sizes, cut(body, record.sizes), attempts, run_us, strict=True
        )
        for index, status, size, value, attempt, ran_us in columns:
            one = call.inputs.get(index)
            if one is None or not self._may_answer(container, one, attempt):
                continue
            if one.attempt != attempt:
                self.believe(one, attempt)
            if one.trouble is not None and one.trouble.cut_short_by and status != wire.SUCCEEDED:
                self.end_cut_short(one)
                continue
            if status == wire.SUCCEEDED and call.kind == wire.GENERATOR and not _is_count(value, call.items_passed):
                self._end_without_items(one, container)
                continue
            if status != wire.SUCCEEDED:
                if ran_us:
                    # What it was handed ahead has begun at a time that only the guest knows.
                    one.began_at = max(one.queued_at, self._dispatcher.clock.monotonic() - ran_us / 1e6)
                if self._is_retried(one, status, value):
                    continue
                recorder.failed_output(call, one, container, status, value)
            queued_at = one.queued_at
            if container is not None and status == wire.SUCCEEDED and one.trouble is not None:
                self._dispatcher.quarantine.succeeded(one, container)
            self.detach(one)
            del call.inputs[index]
            accepted.append((index, status, size, value, attempt, ran_us))
        if succeeded := [one for one in accepted if one[1] == wire.SUCCEEDED]:
            indexes, _, _, _, tries, times = zip(*succeeded, strict=True)
            recorder.outputs(call, container, indexes, tries, times, queued_at, self._dispatcher.clock.monotonic())
        if accepted and not call.is_closed:
            indexes, statuses, sizes, values, tries, times = zip(*accepted, strict=True)
            blobs = {str(index): record.blobs[str(index)] for index in indexes if str(index) in record.blobs}
            batch = OutputBatch(call.call_id, indexes, statuses, sizes, tries, times, blobs)
            call.sink.put_outputs(call, batch, b"".join(values))
        self._dispatcher.calls.end_if_over(call)

    def _may_answer(self, container: Container | None, one: Input, attempt: int) -> bool:
        """From whom holds it; or, after a restart, from a container that got it from the server before this one."""
        if one.container is not None:
            return one.container is container and one.attempt == attempt
        if container is not None and not container.is_adopted:
            return False
        # Of a generator items may have been lost with the connection.
        return attempt >= one.attempt and one.call.kind != wire.GENERATOR

    def believe(self, one: Input, attempt: int) -> None:
        """The server before this one had come to that attempt. What the others ended with is not known: they count."""
        one.attempt = attempt
        if attempt and self._dispatcher.spec.retries.max_retries:
            trouble = one.with_trouble()
            trouble.retries_used = max(trouble.retries_used, attempt)

    def _end_without_items(self, one: Input, container: Container | None) -> None:
        """A generator came to its end, and not all of its items have come here: a connection took them with it."""
        trouble = one.with_trouble()
        trouble.losses += 1
        if one.call.items_passed or trouble.losses > LOSSES_MAX:
            self._dispatcher.fail([one], self.items_lost(one, container))
        else:
            self._carry_out(one, Retry(0.0, is_counted=False), wire.LOST, self.items_lost(one, container))

    def items_lost(self, one: Input, container: Container | None) -> Failure:
        """What the caller is told of a generator with a gap."""
        container_id = container.container_id if container is not None else ""
        message = f"items of the generator were lost with a connection of {container_id}; call it again"
        return self._named(Failure("lost", message, container_id=container_id), one.call)

    def _is_retried(self, one: Input, status: int, value: bytes) -> bool:
        retries = self._retries_of(one)
        if retries.max_retries <= 0 or status == wire.CANCELLED or one.call.is_closed:
            return False
        failure = failure_of(value)
        kind = "timed_out" if status == wire.TIMED_OUT else failure.kind
        used = one.trouble.retries_used if one.trouble is not None else 0
        return self._carry_out(one, self._ask_failed(AttemptFailed(retries, used, kind)), status, failure)

    def _retries_of(self, one: Input) -> RetryPolicy:
        """A generator's items cannot be called back, nor what is seen of a response: they are not retried."""
        return _NO_RETRIES if one.call.kind in (wire.GENERATOR, WEB) else self._dispatcher.spec.retries

    def _ask_failed(self, event: AttemptFailed) -> Verdict:
        for policy in self._policies:
            verdict = policy.attempt_failed(event)
            if verdict is not None:
                return verdict
        return Fail()

    def _carry_out(self, one: Input, verdict: Verdict, status: int, failure: Failure) -> bool:
        """Queue a new attempt, if that is the verdict; says whether it was."""
        if isinstance(verdict, Fail):
            return False
        trouble = one.with_trouble()
        if verdict.is_counted:
            trouble.retries_used += 1
        container_id = one.container.container_id if one.container is not None else failure.container_id
        self._dispatcher.calls.recorder.retried(one, container_id, status, failure, verdict.delay_s)
        self._lines.say(one, failure, verdict)
        self.detach(one)
        one.attempt += 1
        self._dispatcher.calls.waiting_bytes += len(one.value)
        if verdict.delay_s > 0:
            self._dispatcher.delayed += 1
            due = verdict
            trouble.timer = self._dispatcher.clock.call_later(verdict.delay_s, lambda: self._due(one, due))
        else:
            self._requeue(one, verdict)
        return True

    def _due(self, one: Input, verdict: Retry) -> None:
        one.with_trouble().timer = None
        self._dispatcher.delayed -= 1
        self._requeue(one, verdict)
        self._dispatcher.schedule()
        self._dispatcher.fleet.changed(self._dispatcher)

    def _requeue(self, one: Input, verdict: Retry) -> None:
        if verdict.is_suspect:
            # Not before it can be handed out: it would only slow the others.
            one.with_trouble().is_suspect = True
            self.suspects.add(one)
        one.began_at = 0.0
        one.queued_at = self._dispatcher.clock.monotonic()
        # Inputs that failed together are retried together, where they run in batches.
        self._dispatcher.put_back(one, has_waited=not verdict.is_counted)

    # Bookkeeping

    def detach(self, one: Input) -> None:
        """The input is in no queue and no container any more."""
        dispatcher = self._dispatcher
        dispatcher.calls.waiting_bytes -= len(one.value)
        if one.is_queued:
            dispatcher.unqueue(one)
        container = one.container
        if container is not None:
            container.held.pop(one, None)
            one.container = None
            if one.batch:
                container.left_batch(one)
        if one.trouble is not None:
            self.forget(one)

    def forget(self, one: Input) -> None:
        """Drop what is remembered of its troubles here."""
        trouble = one.trouble
        if trouble is None:
            return
        if trouble.timer is not None:
            trouble.timer.cancel()
            trouble.timer = None
            self._dispatcher.delayed -= 1
        trouble.cut_short_by = ""
        trouble.asked_at = None
        container = self.cut_short.pop(one, None)
        if container is not None:
            container.cut_short -= 1
        if trouble.is_suspect:
            trouble.is_suspect = False
            self.suspects.discard(one)
            self._dispatcher.quarantine.ended(one)
            self._dispatcher.schedule()

    # Cancelling and time limits

    def cancel(self, inputs: list[Input], *, is_killing: bool = False) -> None:
        """Stop inputs: at once where they wait, by asking the guest where they run."""
        waiting = [one for one in inputs if one.container is None]
        # One failure for all that wait for the same: a call may have a million of them.
        by_attempt: dict[int, list[Input]] = {}
        for one in waiting:
            by_attempt.setdefault(one.attempt, []).append(one)
        for attempt, alike in by_attempt.items():
            when = f"while it waited for its attempt {attempt + 1}" if attempt else "before it began"
            self._dispatcher.fail(alike, Failure("cancelled", f"the input was cancelled {when}"))
        held = [one for one in inputs if one.container is not None]
        if is_killing:
            containers = [one.container for one in held if one.container is not None]
            for one, container in zip(held, containers, strict=True):
                self._cut(one, container, "cancelled")
            for container in dict.fromkeys(containers):
                container.is_sacrificed = True
                self._dispatcher.fleet.kill(container, "one of its inputs was cancelled with terminate_containers")
        else:
            self._ask_to_stop(held, "cancelled")

    def _cut(self, one: Input, container: Container, reason: str) -> None:
        trouble = one.with_trouble()
        if reason == "cancelled" or not trouble.cut_short_by:
            trouble.cut_short_by = reason  # one that is over its time may have retries; cancelled, it has none
        trouble.asked_at = self._dispatcher.clock.monotonic() if trouble.asked_at is None else trouble.asked_at
        if one not in self.cut_short:
            self.cut_short[one] = container
            container.cut_short += 1

    def _ask_to_stop(self, inputs: list[Input], reason: str) -> None:
        asked: dict[tuple[Container, str], list[int]] = {}
        for one in inputs:
            if one.container is not None:
                self._cut(one, one.container, reason)
                asked.setdefault((one.container, one.call.call_id), []).append(one.index)
        for (container, call_id), indexes in asked.items():
            call = self._dispatcher.calls.get(call_id)
            if call is not None and call.proxy is not None:
                call.proxy.stop([call.inputs[index] for index in indexes])
            else:
                container.tell("CancelInputs", InputRefs(call_id, tuple(indexes)))
            self._dispatcher.refresh(container)

    def is_ending(self, container: Container) -> bool:
        """Whether something in it was told to stop that only stops by itself, or with its container."""
        return self._dispatcher.runs_in_threads and container.cut_short > 0

    def end_cut_short(self, one: Input) -> None:
        """An input that was being stopped has stopped."""
        trouble = one.with_trouble()
        reason, container = trouble.cut_short_by, one.container
        container_id = container.container_id if container is not None else ""
        if reason == "timed_out":
            event = AttemptFailed(self._retries_of(one), trouble.retries_used, reason)
            message = timeouts.timeout_message(self._dispatcher.spec.timeout_s)
            failure = self._named(Failure(reason, message, container_id=container_id), one.call)
            if not one.call.is_closed and self._carry_out(one, self._ask_failed(event), wire.TIMED_OUT, failure):
                return
            self._dispatcher.fail([one], failure)
        else:
            self._dispatcher.fail([one], Failure("cancelled", "the input was cancelled", container_id=container_id))

    def sweep(self, now: float) -> None:
        """Look at what runs: stop what is over its time, end containers that do not stop it."""
        dispatcher = self._dispatcher
        timeout_s, grace_s = dispatcher.spec.timeout_s, dispatcher.config.cancel_grace_s
        overdue: list[Input] = []
        stuck: set[Container] = set()
        for container in dispatcher.containers.values():
            for position, one in enumerate(container.held):
                if position >= dispatcher.max_inputs:
                    break
                if one.began_at == 0.0:
                    one.began_at = now
                asked_at = one.trouble.asked_at if one.trouble is not None else None
                verdict = timeouts.check(now, one.began_at, timeout_s, asked_at, grace_s)
                if verdict.is_cancelled:
                    overdue.append(one)
        for one in self.cut_short:
            asked_at = one.with_trouble().asked_at
            if one.container is not None and timeouts.check(now, 0.0, timeout_s, asked_at, grace_s).is_killed:
                stuck.add(one.container)
        self._ask_to_stop(overdue, "timed_out")
        for container in stuck:
            container.is_sacrificed = True
            # Where inputs run in threads, the guest itself is not stuck: its hooks are run.
            hooks_s = grace_s if dispatcher.runs_in_threads else 0.0
            dispatcher.fleet.kill(container, "an input did not stop when it was told to", hooks_s)

    # Containers that end

    def container_ended(self, container: Container, *, has_crashed: bool) -> None:
        """Deal with what a container held when it ended."""
        dispatcher = self._dispatcher
        held = list(container.held)
        is_only = len(held) == 1
        ending = container.ending_in_words()
        is_oom = container.exit is not None and container.exit.is_oom
        over_disk = container.exit.over_disk if container.exit is not None else ""
        lost: list[tuple[Input, Fail]] = []
        back: list[Input] = []
        again: list[Input] = []
        # From the last to the first, since each becomes the first of its call.
        for position in range(len(held) - 1, -1, -1):
            one = held[position]
            trouble = one.with_trouble()
            if trouble.cut_short_by:
                self.end_cut_short(one)
                continue
            if one.call.is_closed:
                dispatcher.fail([one], Failure("cancelled", "nobody waits for it"))
                continue
            if not has_crashed and position >= dispatcher.max_inputs:
                back.append(one)
                continue
            verdict = self._ask_lost(
                AttemptLost(
                    retries=self._retries_of(one),
                    retries_used=trouble.retries_used,
                    losses=trouble.losses,
                    has_crashed=has_crashed,
                    is_oom=is_oom,
                    is_only_input=is_only,
                    is_repeatable=one.call.items_passed == 0 and one.call.kind != WEB,
                    is_request=one.call.kind == WEB,
                    ending=ending,
                    container_id=container.container_id,
                    crashes=trouble.crashes,
                    shared_crashes=trouble.shared_crashes,
                    index=one.index if one.call.kind != wire.REMOTE and one.call.input_count > 1 else None,
                    over_disk=over_disk,
                )
            )
            if has_crashed:
                trouble.needs_proven = container.is_unproven_fork and not (is_oom or over_disk)
            trouble.losses += not container.is_sacrificed
            trouble.crashes += has_crashed and is_only
            trouble.shared_crashes += has_crashed and not is_only
            if isinstance(verdict, Retry):
                why = Failure("crashed" if has_crashed else "lost", ending, container_id=container.container_id)
                self._carry_out(one, verdict, wire.LOST, why)
                again.append(one)
            else:
                lost.append((one, verdict))
        if again:
            self._lines.say_lost(again, container, "" if has_crashed else ending)
        dispatcher.returns.to_queue(back[::-1])
        for one, failed in lost:
            failure = failed.failure or Failure("lost", ending, container_id=container.container_id)
            dispatcher.fail([one], self._named(failure, one.call))
        dispatcher.schedule()

    def _named(self, failure: Failure, call: Call) -> Failure:
        """The failure with the name of what was called: callers may be some calls away."""
        return replace(failure, message=f"{self._dispatcher.in_words(call.method)}: {failure.message}")

    def _ask_lost(self, event: AttemptLost) -> Verdict:
        for policy in self._policies:
            verdict = policy.attempt_lost(event)
            if verdict is not None:
                return verdict
        return Fail()

    def start_failed(self, container: Container, failure: Failure, *, is_final: bool, pickled: bytes = b"") -> None:
        """A container did not become ready: perhaps nobody should wait for another."""
        dispatcher = self._dispatcher
        # Containers that were asked for together fail together: that is one failure.
        if container.asked_at > dispatcher.last_failure_at:
            dispatcher.failures_in_a_row += 1
            if dispatcher.failures_in_a_row == 1:
                self._notices.begin()
        dispatcher.last_failure_at = dispatcher.clock.monotonic()
        ready = sum(1 for one in dispatcher.containers.values() if one.is_ready and not one.ending)
        is_patient = dispatcher.is_deployed and not is_measured(dispatcher.spec)
        event = StartFailed(failure, is_final, dispatcher.failures_in_a_row, ready, is_patient)
        for policy in self._policies:
            verdict = policy.start_failed(event)
            if verdict is not None:
                dispatcher.fail_queued(verdict.failure or failure, pickled)
                break
        else:
            if dispatcher.queued and not ready:
                self._log_wait(container, failure)
        dispatcher.fleet.changed(dispatcher)

    def _log_wait(self, container: Container, failure: Failure) -> None:
        """Say why callers go on waiting: they cannot see it, and in a deployed app nobody is told."""
        dispatcher = self._dispatcher
        count, wait_s = dispatcher.queued, backoff_s(dispatcher.failures_in_a_row)
        waits = "1 input waits" if count == 1 else f"{count} inputs wait"
        why = failure.message[:REASON_CHARS_MAX]
        dispatcher.fleet.log(container, f"{why}; {waits}, and another container is started in {wait_s:g} s")
        if dispatcher.is_deployed:
            of_type = f"{failure.type_name}: " if failure.type_name else ""
            self._notices.tell((of_type + why).split("\n", 1)[0])


def _is_count(value: bytes, count: int) -> bool:
    """Whether a generator's output says that it has yielded so many items."""
    return value == str(count).encode()
