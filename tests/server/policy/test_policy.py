"""Each policy by itself: an event in, a verdict out."""

from __future__ import annotations

import pytest

from squall.protocol.call import Failure
from squall.protocol.function import RetryPolicy
from squall.server.policy import credit, default_policies, timeouts
from squall.server.policy.crash import crash_delay_s
from squall.server.policy.events import AttemptFailed, AttemptLost, Fail, Retry, StartFailed, Verdict
from squall.server.policy.retries import backoff_s


def ask_lost(**fields: object) -> Verdict | None:
    values: dict[str, object] = {
        "retries": RetryPolicy(), "retries_used": 0, "losses": 0, "has_crashed": False, "is_oom": False,
        "is_only_input": True, "is_repeatable": True, "ending": "exit code 1", "container_id": "ct-1",
    }  # fmt: skip
    event = AttemptLost(**(values | fields))  # type: ignore[arg-type]
    verdicts = [policy.attempt_lost(event) for policy in default_policies()]
    return next((verdict for verdict in verdicts if verdict is not None), None)


def ask_failed(kind: str, used: int, retries: RetryPolicy) -> Verdict | None:
    verdicts = [policy.attempt_failed(AttemptFailed(retries, used, kind)) for policy in default_policies()]
    return next((verdict for verdict in verdicts if verdict is not None), None)


def ask_start(
    failures: int, *, is_final: bool = False, ready: int = 0, kind: str = "crashed", is_patient: bool = False
) -> Fail | None:
    event = StartFailed(Failure(kind, "it ended"), is_final, failures, ready, is_patient)
    verdicts = [policy.start_failed(event) for policy in default_policies()]
    return next((verdict for verdict in verdicts if verdict is not None), None)


@pytest.mark.parametrize(
    ("kind", "used", "verdict"),
    [
        ("user", 0, Retry(1.0, is_counted=True)),
        ("user", 1, Retry(2.0, is_counted=True)),
        ("timed_out", 0, Retry(1.0, is_counted=True)),
        ("user", 2, Fail()),
        ("import", 0, Fail()),
        ("unserializable", 0, Fail()),
    ],
)
def test_failures_of_user_code_are_retried_as_often_as_the_policy_says(kind: str, used: int, verdict: Verdict) -> None:
    assert ask_failed(kind, used, RetryPolicy(2, backoff_coefficient=2.0)) == verdict


def test_backoff_honours_its_maximum_however_large_it_would_be() -> None:
    retries = RetryPolicy(100, backoff_coefficient=10.0, initial_delay_s=1.0, max_delay_s=60.0)

    assert backoff_s(retries, 1) == 10.0
    assert backoff_s(retries, 5) == 60.0
    assert backoff_s(retries, 100_000) == 60.0


def test_crash_of_the_only_input_is_tried_in_three_containers_apart_from_the_users_retries() -> None:
    first, second, third = (ask_lost(has_crashed=True, crashes=crashes, index=5) for crashes in range(3))

    assert first == Retry(0.0, is_counted=False, is_suspect=True)
    assert second == Retry(0.5, is_counted=False, is_suspect=True)
    assert isinstance(third, Fail)
    assert third.failure is not None
    assert third.failure.kind == "crashed"
    assert "(exit code 1, input 5 of its call); so did 2 others before it" in third.failure.message
    assert "SIGTERM sent by its own code: with exit code 0" in third.failure.message


@pytest.mark.parametrize(
    ("alone", "shared", "said"),
    [
        (2, 1, "(exit code 1); so did 3 others before it, 1 of which held more inputs; os._exit"),
        (2, 0, "(exit code 1); so did 2 others before it; os._exit"),
        (0, 1, "(exit code 1); so did 1 other before it, which held more inputs; os._exit"),
        (0, 0, "(exit code 1); os._exit"),
    ],
)
def test_crash_says_how_many_containers_ended_before_alone_or_not(alone: int, shared: int, said: str) -> None:
    verdict = ask_lost(has_crashed=True, crashes=alone, shared_crashes=shared, is_repeatable=False)

    assert isinstance(verdict, Fail)
    assert verdict.failure is not None
    assert said in verdict.failure.message


def test_function_with_more_retries_may_lose_as_many_containers() -> None:
    retries = RetryPolicy(4)

    assert isinstance(ask_lost(has_crashed=True, crashes=3, retries=retries), Retry)
    assert isinstance(ask_lost(has_crashed=True, crashes=4, retries=retries), Fail)


def test_delay_between_crashes_has_a_limit() -> None:
    delays = [crash_delay_s(crashes) for crashes in (0, 1, 2, 3, 6, 7, 10_000)]

    assert delays == [0.0, 0.5, 1.0, 2.0, 16.0, 30.0, 30.0]


def test_what_an_input_writes_is_written_again_only_for_who_asks_for_retries() -> None:
    over = "it had 20 MiB, its limit is 10 MiB"

    assert isinstance(ask_lost(has_crashed=True, over_disk=over), Fail)
    assert isinstance(ask_lost(has_crashed=True, over_disk=over, retries=RetryPolicy(1)), Retry)
    assert isinstance(ask_lost(has_crashed=True, over_disk=over, is_only_input=False), Retry)


def test_generator_whose_items_were_seen_is_not_begun_again_after_a_crash() -> None:
    assert isinstance(ask_lost(has_crashed=True, is_repeatable=False), Fail)
    assert isinstance(ask_lost(has_crashed=True, is_repeatable=False, is_only_input=False), Fail)


def test_crash_among_several_makes_suspects_and_costs_no_retry() -> None:
    assert ask_lost(has_crashed=True, is_only_input=False) == Retry(0.0, is_counted=False, is_suspect=True)


def test_lost_container_is_free_up_to_eight_times() -> None:
    assert ask_lost(losses=7) == Retry(0.0, is_counted=False)
    verdict = ask_lost(losses=8)
    assert isinstance(verdict, Fail)
    assert verdict.failure is not None
    assert verdict.failure.kind == "lost"


@pytest.mark.parametrize("has_crashed", [True, False])
@pytest.mark.parametrize("is_only_input", [True, False])
@pytest.mark.parametrize("losses", [0, 8, 100])
def test_every_loss_gets_a_verdict(has_crashed: bool, is_only_input: bool, losses: int) -> None:
    verdict = ask_lost(has_crashed=has_crashed, is_only_input=is_only_input, losses=losses, crashes=losses)

    assert isinstance(verdict, Retry | Fail)
    if losses >= 8:
        assert isinstance(verdict, Fail)


def test_start_failures_are_told_when_they_would_repeat() -> None:
    assert ask_start(1) is None
    assert ask_start(3) is not None
    assert ask_start(1, is_final=True) is not None
    assert ask_start(9, is_final=True, ready=1) is None


@pytest.mark.parametrize("kind", ["crashed", "oom", "disk", "import", "startup_timed_out"])
def test_deployed_function_is_started_for_ever_whatever_its_code_does(kind: str) -> None:
    assert ask_start(10_000, is_final=True, kind=kind, is_patient=True) is None


@pytest.mark.parametrize("kind", ["image", "invalid", "lost"])
def test_deployed_function_that_only_a_deploy_can_mend_fails_its_callers(kind: str) -> None:
    assert ask_start(1, is_final=True, kind=kind, is_patient=True) is not None


@pytest.mark.parametrize(
    ("current", "run_us", "window"),
    [(1, 20.0, 2), (2, 20.0, 4), (256, 20.0, 500), (400, 5_000.0, 2), (400, 6_000.0, 1), (1, 0.0, 2), (500, 1e9, 1)],
)
def test_window_of_one_input_at_a_time(current: int, run_us: float, window: int) -> None:
    assert credit.window(current, 1, 500, run_us) == window


def test_window_is_never_below_what_runs_at_once() -> None:
    assert credit.window(8, 8, 500, 1e6) == 8
    assert credit.window(8, 8, 4, 10.0) == 8


def test_long_inputs_are_believed_at_once() -> None:
    assert credit.smoothed_us(20.0, 50_000.0) == 50_000.0
    assert credit.smoothed_us(50_000.0, 20.0) > 30_000.0


def test_time_limit_asks_first_and_ends_the_container_then() -> None:
    assert timeouts.check(10.9, 1.0, 10.0, None, 5.0) == timeouts.Overdue(False, False)
    assert timeouts.check(11.0, 1.0, 10.0, None, 5.0) == timeouts.Overdue(True, False)
    assert timeouts.check(16.9, 1.0, 10.0, 12.0, 5.0) == timeouts.Overdue(False, False)
    assert timeouts.check(17.0, 1.0, 10.0, 12.0, 5.0) == timeouts.Overdue(False, True)


@pytest.mark.parametrize(
    ("run_us", "mean_us"),
    [
        ([3], 3.0),
        ([2, 3, 2, 3, 2, 3, 4_000], 573.571),
        ([2] * 99 + [8_000], 2.0),
        ([2] * 99 + [500_000], 5_001.98),
        ([2] * 50 + [8_000] * 50, 3_960.606),
        ([100] * 100, 100.0),
    ],
    ids=["one", "few", "interrupted", "one is long", "half are long", "alike"],
)
def test_what_an_interruption_adds_to_one_of_many_inputs_does_not_count(run_us: list[int], mean_us: float) -> None:
    assert credit.mean_us(run_us) == pytest.approx(mean_us, abs=0.001)
