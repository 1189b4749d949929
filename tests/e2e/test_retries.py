"""Time limits, crashes and cancellations in every kind of call, as caller and function see them."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.e2e.installation import Installation, wait_until

BROKEN = """
import squall

app = squall.App("comes-later")

@app.cls()
class Greeter:
    @squall.enter()
    def load(self):
        raise ConnectionError("the database is away")

    @squall.method()
    def greet(self, name):
        return "hello " + name
"""
CALLER = """
import squall

app = squall.App()

@app.local_entrypoint()
def main():
    print(squall.Cls.from_name("comes-later", "Greeter")().greet.remote("you"))
"""


def test_time_limits_end_every_kind_of_call(squall: Installation) -> None:
    ended = squall.run("retrying.py::timeouts", timeout_s=90)

    assert ended.code == 0, ended
    # Each attempt of the first one, then the others: one attempt each.
    assert ended.out.count("in the function: InputCancellation") == 2, ended
    assert ended.out.count("in the function: CancelledError") == 3, ended
    assert len(re.findall(r"^caught: function (blocking|on_a_loop): .*timeout of 1 s", ended.out, re.MULTILINE)) == 2, (
        ended
    )
    assert "map: ['float', 'FunctionTimeoutError', 'float']" in ended.out, ended
    assert "spawned: timed out" in ended.out, ended
    assert re.findall(r"^items: \[0, 1(, 2)?\]$", ended.out, re.MULTILINE) != [], ended
    assert ended.out.count("items: [0, 1") == 2, ended


def test_poison_input_is_named_and_costs_its_map_nothing_else(squall: Installation) -> None:
    ended = squall.run("retrying.py::poisoned", timeout_s=90)

    assert ended.code == 0, ended
    results = re.findall(r"^result: (.*)$", ended.out, re.MULTILINE)
    assert results[:3] + results[4:] == ["0", "10", "20", "40", "50"], ended
    assert "exit code 9, input 3 of its call" in results[3], ended
    # Once more when it ran beside others, and it was not known yet whose fault that was.
    drinks = ended.out.count("drinks\n")
    assert 3 <= drinks <= 4, ended
    assert f"so did {drinks - 1} others before it" in results[3], ended


def test_result_larger_than_the_memory_of_its_container_is_named(squall: Installation) -> None:
    ended = squall.run("retrying.py::too_large", timeout_s=90)

    assert ended.code == 0, ended
    assert ended.out.count("little: 4194304") == 2, ended
    assert "caught: function large: the container ran out of memory while it ran this input" in ended.out, ended
    assert "memory=" in ended.out, ended


def test_cancelled_call_is_seen_on_both_sides_and_the_next_one_runs(squall: Installation) -> None:
    ended = squall.run("retrying.py::cancels", timeout_s=90)

    assert ended.code == 0, ended
    assert "in the function: InputCancellation" in ended.out, ended
    assert "in the function: CancelledError" in ended.out, ended
    assert len(re.findall(r"^caught: .*cancelled", ended.out, re.MULTILINE)) == 2, ended
    assert ended.out.count("other: 0.01") == 2, ended


def test_container_that_never_gets_ready_fails_who_waits_with_its_limit(squall: Installation) -> None:
    ended = squall.run("retrying.py::wait_for_it", timeout_s=60)

    assert ended.code == 0, ended
    assert "caught: function sleepy: the container was not ready within its startup timeout of 2 s" in ended.out, ended
    found = re.search(r"^seconds: ([\d.]+)$", ended.out, re.MULTILINE)
    assert found, ended
    assert 2 < float(found[1]) < 15, ended


@pytest.mark.timeout(240)
def test_caller_of_a_deployed_class_whose_hook_raises_waits_and_the_log_says_for_what(
    squall: Installation, tmp_path: Path
) -> None:
    program, caller = tmp_path / "comes_later.py", tmp_path / "calls_it.py"
    program.write_text(BROKEN)
    caller.write_text(CALLER)
    deployed = squall.command("deploy", str(program), timeout_s=120)
    assert deployed.code == 0, deployed
    try:
        running = squall.start("run", str(caller))

        def said() -> str:
            shown = squall.command("app", "logs", "comes-later")
            return shown.out + shown.err

        wait_until(lambda: "1 input waits, and another container is started in 1 s" in said(), "the log says it", 60)
        listed = squall.command("container", "list", "--all", "--json").out
        program.write_text(BROKEN.replace('raise ConnectionError("the database is away")', "pass"))
        mended = squall.command("deploy", str(program), timeout_s=120)
        ended = running.wait(60)
    finally:
        stopped = squall.command("app", "stop", "comes-later", "--yes")

    assert "the database is away" in listed
    assert mended.code == 0, mended
    assert ended.code == 0, ended
    assert ended.out == "hello you\n", ended
    told = re.findall(r"its containers do not start: ConnectionError: the database is away; the call waits", ended.err)
    assert len(told) == 1, ended
    assert stopped.code == 0, stopped
