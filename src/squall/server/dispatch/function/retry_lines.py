"""What the app's log says of attempts that are made again: without it, a reader sees one failure many times."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from squall.protocol import call as wire
from squall.protocol.ids import input_id

if TYPE_CHECKING:
    from squall.protocol.call import Failure
    from squall.server.dispatch.fleet.container import Container
    from squall.server.dispatch.function.dispatcher import Dispatcher
    from squall.server.dispatch.function.input import Input
    from squall.server.model.clock import Timer
    from squall.server.policy.events import Retry

LINES_MAX = 10
"""In one `EVERY_S`, of one function; of the others their number is told."""
EVERY_S = 1.0
REASON_CHARS_MAX = 200


class RetryLines:
    """Of one function."""

    def __init__(self, dispatcher: Dispatcher) -> None:
        self._dispatcher = dispatcher
        self._said = 0
        self._unsaid = 0
        self._last: Container | None = None
        """Where the last of those was that were not told."""
        self._timer: Timer | None = None

    def say(self, one: Input, failure: Failure, verdict: Retry) -> None:
        """An attempt has failed, and another one follows. Before the input is taken from its container."""
        container = one.container
        if not verdict.is_counted:
            return  # told with its container's end
        if container is None:
            return  # that of a server before this one: whose log it would be is not known
        if self._timer is None:
            self._timer = self._dispatcher.clock.call_later(EVERY_S, self._tell_others)
        if self._said >= LINES_MAX:
            self._unsaid += 1
            self._last = container
            return
        self._said += 1
        text = in_words(one, failure, verdict, self._dispatcher.spec.retries.max_retries)
        self._dispatcher.fleet.log(container, text, input_id(one.call.call_id, one.index))

    def say_lost(self, inputs: Sequence[Input], container: Container, ending: str) -> None:
        """A container is gone, and these inputs are run again; apart from the user's retries.

        `ending`: how it ended, if the log does not say so already.
        """
        text = f"the {len(inputs)} inputs it held are run again"
        if len(inputs) == 1:
            (one,) = inputs
            text = f"{_name(one) or 'the input'} that it held is run again, as attempt {one.attempt + 1}"
        self._dispatcher.fleet.log(container, f"{ending}; {text}" if ending else text)

    def _tell_others(self) -> None:
        self._timer = None
        count, self._unsaid, self._said = self._unsaid, 0, 0
        last, self._last = self._last, None
        if last is not None:
            attempts = "1 more attempt" if count == 1 else f"{count} more attempts"
            self._dispatcher.fleet.log(last, f"{attempts} of {self._dispatcher.spec.name} failed, too; others follow")


def in_words(one: Input, failure: Failure, verdict: Retry, retries_max: int) -> str:
    """Which attempt failed, why, and when the next one begins."""
    which = f"{name}: " if (name := _name(one)) else ""
    why = (failure.message.splitlines() or [failure.kind])[0][:REASON_CHARS_MAX]
    if failure.type_name:
        why = f"{failure.type_name}: {why}" if failure.message else failure.type_name
    # By the user's retries: what ended with its container does not count.
    number = one.with_trouble().retries_used
    when = f"in {verdict.delay_s:g} s" if verdict.delay_s > 0 else "at once"
    return f"{which}attempt {number} of {retries_max + 1} failed: {why}; the next one follows {when}"


def _name(one: Input) -> str:
    """Which of its call; empty where there is one only."""
    return f"input {one.index}" if one.call.kind != wire.REMOTE and one.call.input_count > 1 else ""
