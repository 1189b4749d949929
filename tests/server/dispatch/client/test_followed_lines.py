"""Results go after the lines that came before them, and go all the same when a client does not read its lines."""

from __future__ import annotations

from squall.server.dispatch.client.followed_lines import HOLD_S, FollowedLines
from squall.server.dispatch.clock import ManualClock
from squall.server.model.logs import Progress


def make_followed(came: int = 0, taken: int = 0) -> tuple[FollowedLines, Progress, ManualClock]:
    clock = ManualClock()
    followed = FollowedLines(clock)
    read = Progress()
    read.came, read.taken = came, taken
    followed.reads.add(read)
    return followed, read, clock


def test_results_go_at_once_when_every_line_has_left() -> None:
    followed, _, _ = make_followed(came=5, taken=5)

    assert followed.may_go(3) == 3


def test_results_wait_for_the_lines_before_them_only() -> None:
    followed, read, _ = make_followed(came=1)

    held = followed.may_go(2)
    read.came = 2  # a line, and one result more after it
    still_held = followed.may_go(3)
    read.taken = 1
    first = followed.may_go(3)
    read.taken = 2

    assert (held, still_held, first) == (0, 0, 2)
    assert followed.may_go(1) == 1


def test_a_client_that_does_not_read_waits_once() -> None:
    followed, read, clock = make_followed(came=1)
    followed.may_go(1)
    clock.advance(HOLD_S)

    given_up = followed.may_go(1)
    read.came = 2
    later = followed.may_go(1)
    read.taken = 2
    followed.may_go(1)
    read.came = 3

    assert (given_up, later) == (1, 1)
    assert followed.may_go(1) == 0, "it has caught up: lines count again"


def test_a_read_that_is_given_up_holds_nothing() -> None:
    followed, read, _ = make_followed(came=1)
    followed.may_go(1)

    followed.reads.discard(read)

    assert followed.may_go(1) == 1
