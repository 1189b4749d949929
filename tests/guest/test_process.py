"""The guest as a process of its own, by every Python that is found: what it loads, runs, answers, and how it ends.

tests/kernel/test_guest.py runs all this again in containers, which is why it is one thing.
"""

from __future__ import annotations

import contextlib
import functools
import pickle
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from squall.protocol.call import (
    CANCELLED,
    FAILED,
    GENERATOR_WINDOW,
    SUCCEEDED,
    InputRefs,
    ItemBatch,
    OutputBatch,
    decode_failure,
)
from squall.protocol.guest import (
    GuestStop,
    Ready,
    StartupFailed,
)
from squall.sdk._failure import to_exception
from tests.guest.spawner_double import SOURCE
from tests.guest.started_guest import CALL, Process, start_process, ways

pytestmark = pytest.mark.long

USER_CODE = """
import asyncio, signal, sys, time

def add(x, y=1):
    print("adding", x)
    return x + y

def fail(x):
    raise LookupError(x)

def asks(prompt):
    import os
    os.dup2(1, 2)  # in one pipe, so that the order is seen
    return input(prompt)

async def asks_later(prompt):
    return asks(prompt)

def needs_package(x):
    import no_such_package.part

def returns_locks(x):
    import threading
    return [threading.Lock()]

class Stubborn:
    def __reduce__(self):
        raise ValueError("stays here")

def returns_stubborn(x):
    return Stubborn()

def sleep(x):
    try:
        time.sleep(x)
    finally:
        print("woken")

def interrupts(x):
    if x:
        raise x("enough")
    return "alive"

async def interrupts_later(x):
    return interrupts(x)

async def ends_in_subtask(how):
    async def leave():
        await asyncio.sleep(0)
        raise KeyboardInterrupt if how == "interrupts" else SystemExit("enough")
    if how == "callback":
        asyncio.get_running_loop().call_soon(sys.exit, "enough")
    else:
        leaving = asyncio.ensure_future(leave())
    if how == "caught":
        return [type(one).__name__ for one in await asyncio.gather(leaving, return_exceptions=True)]
    await asyncio.sleep(0.05)
    return "alive" if how == "callback" else await leaving

def items(n):
    yield from range(n)

async def later(x):
    await asyncio.sleep(0.01)
    return x * 2

async def hold(x):
    await asyncio.sleep(0.1)
    try:
        time.sleep(x)
    except Exception as error:
        print("swallowed", error)
    await asyncio.sleep(x)

async def many(n):
    for number in range(n):
        yield number
"""
SLOW_CODE = """
import time

print("importing", flush=True)
try:
    time.sleep(60)
except Exception:
    print("swallowed")
"""

STUBBORN_CODE = """
import asyncio, time

def returns(x):
    try:
        print("begun", flush=True)
        time.sleep(x)
    except BaseException:
        return "late"
    return "whole"

def returns_at_last(x):
    try:
        print("begun", flush=True)
        time.sleep(x)
    finally:
        return "late"

def raises(x):
    try:
        print("begun", flush=True)
        time.sleep(x)
    except BaseException:
        raise LookupError("mine")

def yields(x):
    yield "first"
    try:
        print("begun", flush=True)
        time.sleep(x)
    except BaseException:
        pass
    for _ in range(50):
        yield "late"
    print("went on to its end")

def returns_all(xs):
    try:
        print("begun", flush=True)
        time.sleep(xs[0])
    except BaseException:
        pass
    return ["late" for _ in xs]

async def ended_as_it_answers(x):
    import atexit, os, signal
    from squall.guest.link import Link

    send_bytes = Link.send_bytes

    def send_slowly(self, data):
        os.kill(os.getpid(), signal.SIGTERM)
        for _ in range(1000):
            pass
        return send_bytes(self, data)

    atexit.register(print, "left")
    Link.send_bytes = send_slowly
    return "whole"

async def ended_while_it_prints(x):
    # Stands for a signal that comes in a call of the guest's own.
    ours = {"__name__": "squall.guest.stdio"}
    exec("def line(): import os, signal; os.kill(os.getpid(), signal.SIGTERM); [0 for _ in range(1000)]", ours)
    ours["line"]()
    print("printed")
    try:
        time.sleep(60)
    finally:
        time.sleep(0.5)
        print("cleaned up")

async def awaits(x):
    try:
        print("begun", flush=True)
        await asyncio.sleep(x)
    except BaseException:
        return "late"
    return "whole"

async def yields_later(x):
    yield "first"
    try:
        print("begun", flush=True)
        await asyncio.sleep(x)
    except BaseException:
        pass
    for _ in range(50):
        yield "late"
    print("went on to its end")
"""

BROKEN_CODE = """
import atexit, os, signal

atexit.register(os.kill, os.getpid(), signal.SIGTERM)
raise LookupError("broken")
"""
MODULES = {
    "user_code.py": USER_CODE,
    "slow_code.py": SLOW_CODE,
    "broken_code.py": BROKEN_CODE,
    "stubborn_code.py": STUBBORN_CODE,
    "verbose_code.py": "raise ValueError('x' * 10_000_000)\n",
    "asking_code.py": "import os\nos.dup2(1, 2)\ninput('Your name? ')\n",
}


@pytest.fixture(params=ways())
def guest(request: pytest.FixtureRequest, data_dir: Path) -> Iterator[Process]:
    """A guest that waits for its Boot."""
    process = Process(data_dir, functools.partial(start_process, way=request.param), MODULES)
    yield process
    process.close()


def test_function_runs_and_the_guest_ends_when_told(guest: Process) -> None:
    guest.boot("add")
    guest.agent.expect("Ready", Ready)
    guest.give(0, 3)
    status, value = guest.output()
    assert (status, pickle.loads(value)) == (SUCCEEDED, 4)

    guest.agent.say("GuestStop", GuestStop(5.0))

    code, printed = guest.end()
    assert code == 0
    assert "adding 3" in printed


def test_failure_names_the_users_frames(guest: Process) -> None:
    guest.boot("fail")
    guest.give(0, "nothing there")

    status, value = guest.output()

    failure, pickled = decode_failure(value)
    assert (status, failure.type_name, failure.message) == (FAILED, "LookupError", "nothing there")
    assert [frame.name for frame in failure.frames] == ["fail"]
    assert pickled


def test_log_of_a_failure_begins_at_the_users_frame(guest: Process) -> None:
    guest.boot("fail")
    guest.give(0, "nothing there")
    guest.output()
    guest.agent.say("GuestStop", GuestStop(5.0))

    _, printed = guest.end()

    assert "raise LookupError(x)\n" in printed
    assert "LookupError: nothing there" in printed
    assert "squall/guest" not in printed


@pytest.mark.parametrize("qualname", ["asks", "asks_later"])
def test_question_that_nobody_answers_comes_before_its_failure(guest: Process, qualname: str) -> None:
    guest.boot(qualname, is_async=qualname == "asks_later")
    guest.give(0, "Your name? ")
    guest.output()
    guest.agent.say("GuestStop", GuestStop(5.0))

    _, printed = guest.end()

    assert printed.index("Your name? ") < printed.index("Traceback")
    assert printed.endswith("EOFError: EOF when reading a line\n")


def test_question_while_the_module_is_imported_comes_before_its_failure(guest: Process) -> None:
    guest.boot("x", module="asking_code", can_be_forked=False)
    guest.agent.expect("StartupFailed", StartupFailed)

    _, printed = guest.end()

    assert printed.index("Your name? ") < printed.index("Traceback")


def test_import_that_fails_with_more_text_than_can_be_sent_is_told(guest: Process) -> None:
    guest.boot("x", module="verbose_code", can_be_forked=False)

    code, printed = guest.end()  # first: a pipe that nobody reads holds less than it prints

    failed, _ = guest.agent.expect("StartupFailed", StartupFailed)
    assert failed.failure.type_name == "ValueError"
    assert "characters left out" in failed.failure.message
    assert "characters left out" in printed
    assert code == 1


def test_package_missing_inside_a_function_is_noted(guest: Process) -> None:
    guest.boot("needs_package")
    guest.give(0, 1)

    _, value = guest.output()
    guest.agent.say("GuestStop", GuestStop(5.0))
    _, printed = guest.end()

    hint = "The image has no package 'no_such_package': add it with image.pip_install('no_such_package')"
    assert hint in printed
    error = to_exception(value)
    assert isinstance(error, ModuleNotFoundError)
    assert hint in error.__notes__[0]


def test_result_that_cannot_be_pickled_is_one_line(guest: Process) -> None:
    guest.boot("returns_locks")
    guest.give(0, 1)

    _, value = guest.output()
    guest.agent.say("GuestStop", GuestStop(5.0))
    _, printed = guest.end()

    message = "function returns_locks: a result of type list cannot be pickled: cannot pickle '_thread.lock'"
    assert message in decode_failure(value)[0].message
    assert message in printed
    assert printed.count("\n") == 1


def test_result_whose_own_code_refuses_shows_that_code(guest: Process) -> None:
    guest.boot("returns_stubborn")
    guest.give(0, 1)
    guest.output()
    guest.agent.say("GuestStop", GuestStop(5.0))

    _, printed = guest.end()

    assert 'raise ValueError("stays here")' in printed
    assert "a result of type Stubborn cannot be pickled: stays here" in printed
    assert "pickle.py" not in printed


def test_coroutine_is_awaited(guest: Process) -> None:
    guest.boot("later", is_async=True)
    guest.give(0, 21)

    status, value = guest.output()

    assert (status, pickle.loads(value)) == (SUCCEEDED, 42)


def test_exit_in_a_subtask_is_the_failure_of_its_input_only(guest: Process) -> None:
    guest.boot("ends_in_subtask", is_async=True)
    guest.give(0, "exits")
    status, value = guest.output()
    exited = decode_failure(value)[0]
    guest.give(1, "interrupts")
    interrupted = decode_failure(guest.output()[1])[0]
    guest.give(2, "caught")
    caught = guest.output()
    guest.give(3, "callback")
    called = guest.output()
    guest.agent.say("GuestStop", GuestStop(5.0))

    code, printed = guest.end()

    assert (status, exited.type_name, exited.message) == (FAILED, "SystemExit", "enough")
    assert (interrupted.type_name, interrupted.message) == ("KeyboardInterrupt", "")
    assert (caught[0], pickle.loads(caught[1])) == (SUCCEEDED, ["SystemExit"])
    assert (called[0], pickle.loads(called[1])) == (SUCCEEDED, "alive")
    assert code == 0
    # Of the callback, whose exception nobody else hears of, too.
    assert printed.count("SystemExit: enough") == 2


def test_generator_sends_items_and_their_number(guest: Process) -> None:
    guest.boot("items", is_generator=True)
    guest.give(0, 3)

    items, _ = guest.agent.expect("Items", ItemBatch)
    status, value = guest.output()

    assert items.first == 0
    assert (status, value) == (SUCCEEDED, b"3")


def test_cancellation_interrupts_the_main_thread(guest: Process) -> None:
    guest.boot("sleep")
    guest.agent.expect("Ready", Ready)
    guest.give(0, 60)
    with contextlib.suppress(Exception):
        guest.agent.expect("Outputs", OutputBatch, timeout_s=0.3)

    guest.agent.say("CancelInputs", InputRefs(CALL, (0,)))

    assert guest.output()[0] == CANCELLED


def test_answer_is_sent_whole_when_the_end_comes_as_it_is_sent(guest: Process) -> None:
    guest.boot("ended_as_it_answers", module="stubborn_code", is_async=True)
    guest.give(0, 0)

    code, printed = guest.end()

    answers = [body for envelope, body in guest.agent.all_events() if envelope.method == "Outputs"]
    assert [pickle.loads(answer) for answer in answers] == ["whole"]
    assert code == 0
    assert printed == "left\n"


def test_code_that_keeps_the_loop_from_its_turn_is_interrupted_once_when_the_end_came_before(guest: Process) -> None:
    guest.boot("ended_while_it_prints", module="stubborn_code", is_async=True)
    guest.give(0, 0)

    code, printed = guest.end()

    assert code == 0
    assert (printed.count("printed"), printed.count("cleaned up"), printed.count("\n")) == (1, 1, 2)


STUBBORN = [
    pytest.param("returns", {}, id="returns"),
    pytest.param("returns_at_last", {}, id="returns-in-finally"),
    pytest.param("raises", {}, id="raises"),
    pytest.param("yields", {"is_generator": True}, id="yields"),
    pytest.param("returns_all", {"is_batched": True}, id="batch"),
    pytest.param("awaits", {"is_async": True}, id="async"),
    pytest.param("yields_later", {"is_async": True, "is_generator": True}, id="async-yields"),
]
"""Functions that catch what interrupts them, and go on."""


@pytest.mark.parametrize(("qualname", "kind"), STUBBORN)
def test_what_was_cancelled_has_no_output_whatever_user_code_makes_of_it(
    guest: Process, qualname: str, kind: dict[str, bool]
) -> None:
    guest.boot(qualname, module="stubborn_code", **kind)
    guest.give(0, 60)
    guest.wait_for_line("begun")

    guest.agent.say("CancelInputs", InputRefs(CALL, (0,)))
    status, _ = guest.output()

    guest.give(0, 0, attempt=1)
    again, _ = guest.output()
    guest.agent.say("GuestStop", GuestStop(5.0))
    _, printed = guest.end()
    assert status == CANCELLED
    # The mark goes with its answer; and the first attempt's items ended where it was cancelled.
    assert again == SUCCEEDED
    assert printed.count("went on to its end") == (1 if kind.get("is_generator") else 0)


@pytest.mark.parametrize(("qualname", "kind"), STUBBORN)
def test_what_the_end_has_interrupted_has_no_output_whatever_user_code_makes_of_it(
    guest: Process, qualname: str, kind: dict[str, bool]
) -> None:
    guest.boot(qualname, module="stubborn_code", **kind)
    guest.give(0, 60)
    guest.wait_for_line("begun")

    guest.terminate()

    code, printed = guest.end()
    assert code == 0
    assert "went on to its end" not in printed
    assert all(envelope.method != "Outputs" for envelope, _ in guest.agent.all_events())


def test_retry_of_a_cancelled_input_runs_in_the_same_container(guest: Process) -> None:
    guest.boot("sleep")
    guest.give(0, 60)
    guest.let_it_begin()
    guest.agent.say("CancelInputs", InputRefs(CALL, (0,)))
    assert guest.output()[0] == CANCELLED

    guest.give(0, 0, attempt=1)

    assert guest.output()[0] == SUCCEEDED


def test_running_input_is_interrupted_when_others_are_cancelled_with_it(guest: Process) -> None:
    guest.boot("sleep")
    guest.give(0, 60)
    guest.give(1, 60)
    guest.give(2, 60)
    guest.let_it_begin()

    guest.agent.say("CancelInputs", InputRefs(CALL, (0, 1, 2)))

    assert guest.output()[0] == CANCELLED


def test_coroutine_cancelled_before_its_first_step_frees_its_place(guest: Process) -> None:
    guest.boot("hold", is_async=True, max_inputs=2)
    guest.give(0, 1)
    guest.let_it_begin()
    guest.give(1, 0)
    guest.let_it_begin()
    guest.agent.say("CancelInputs", InputRefs(CALL, (1,)))

    answered: set[int] = set()
    while len(answered) < 2:
        answered.update(guest.agent.expect("Outputs", OutputBatch)[0].indexes)


def test_end_while_a_coroutine_blocks_its_loop_sends_no_output(guest: Process) -> None:
    guest.boot("hold", is_async=True)
    guest.give(0, 5)
    guest.let_it_begin()

    guest.terminate()

    code, printed = guest.end()
    assert code == 0
    assert "swallowed" not in printed
    assert all(envelope.method != "Outputs" for envelope, _ in guest.agent.all_events())


def test_given_up_async_generators_hold_no_threads(guest: Process) -> None:
    guest.boot("many", is_async=True, is_generator=True)

    for index in range(40):
        guest.give(index, 2_000)
        items = 0
        while items < GENERATOR_WINDOW:
            items += len(guest.agent.expect("Items", ItemBatch)[0].sizes)
        guest.agent.say("CancelInputs", InputRefs(CALL, (index,)))
        assert guest.output()[0] == CANCELLED
    guest.agent.say("GuestStop", GuestStop(5.0))

    assert guest.end()[0] == 0


def test_end_in_mid_input_runs_finally_and_sends_no_output(guest: Process) -> None:
    guest.boot("sleep")
    guest.agent.expect("Ready", Ready)
    guest.give(0, 60)
    with contextlib.suppress(Exception):
        guest.agent.expect("Outputs", OutputBatch, timeout_s=0.3)

    guest.terminate()

    code, printed = guest.end()
    assert code == 0
    assert "woken" in printed
    assert all(envelope.method != "Outputs" for envelope, _ in guest.agent.all_events())


def test_end_while_loading_blames_nobody(guest: Process) -> None:
    if guest.is_loaded_before:
        pytest.skip("what loads is the template here, see test_template")
    guest.boot("add", module="slow_code")
    guest.wait_for_line("importing")

    guest.terminate()

    code, printed = guest.end()
    assert code == 0
    assert "swallowed" not in printed
    assert "Traceback" not in printed
    assert all(envelope.method != "StartupFailed" for envelope, _ in guest.agent.all_events())


def test_end_on_the_way_out_is_silent(guest: Process) -> None:
    guest.boot("add", module="broken_code", can_be_forked=False)

    failed, _ = guest.agent.expect("StartupFailed", StartupFailed)

    code, printed = guest.end()
    assert (code, failed.failure.type_name) == (1, "LookupError")
    assert "broken" in printed
    assert "Stopping" not in printed


@pytest.mark.parametrize("kind", [KeyboardInterrupt, GeneratorExit, StopIteration, SystemExit])
@pytest.mark.parametrize("qualname", ["interrupts", "interrupts_later"])
def test_what_ends_a_program_is_its_inputs_failure_only(
    guest: Process, qualname: str, kind: type[BaseException]
) -> None:
    guest.boot(qualname, is_async=qualname == "interrupts_later")
    guest.give(0, kind)

    status, value = guest.output()

    raised = to_exception(value)
    # Python itself lets no coroutine raise StopIteration.
    is_replaced = kind is StopIteration and qualname == "interrupts_later"
    assert (status, type(raised)) == (FAILED, RuntimeError if is_replaced else kind)
    assert str(raised) == ("coroutine raised StopIteration" if is_replaced else "enough")
    if not is_replaced:
        assert [frame.name for frame in decode_failure(value)[0].frames][-1] == "interrupts"
    guest.give(1, None)
    assert pickle.loads(guest.output()[1]) == "alive"


def test_function_that_is_not_there_is_told(guest: Process) -> None:
    guest.boot("missing", can_be_forked=False)

    failed, _ = guest.agent.expect("StartupFailed", StartupFailed)

    assert "missing" in failed.failure.message
    assert guest.end()[0] == 1


def test_guest_loads_nothing_it_does_not_need() -> None:
    program = (
        "import sys; import squall.guest.main; "
        "print([name for name in ('asyncio', 'dataclasses', 'inspect', 'traceback', 'hashlib', 'subprocess',"
        " 'cloudpickle', 'click', 'msgspec', 'squall.sdk._client') if name in sys.modules])"
    )

    printed = subprocess.run(
        [sys.executable, "-S", "-B", "-c", program],
        env={"PYTHONPATH": str(SOURCE)},
        capture_output=True,
        text=True,
        check=True,
        timeout=30,
    ).stdout

    assert printed == "[]\n"
