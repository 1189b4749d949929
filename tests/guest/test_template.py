"""Templates as processes of their own, by every Python that is found: what they get ready, and what their forks are.

That a fork serves as a plain start does is in the other files here, which start guests in each way.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import pickle
import signal
import socket
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cloudpickle
import pytest

from squall.protocol.app import AppCreate
from squall.protocol.call import InputBatch
from squall.protocol.function import BY_FILE, SERIALIZED, Definition, FunctionSpec
from squall.protocol.guest import (
    ENV_CONTAINER_ID,
    ENV_TOKEN,
    TEMPLATE_FUNCTION,
    TEMPLATE_GUEST,
    GuestHello,
    GuestWaiting,
    Ready,
)
from tests.guest.spawner_double import TEMPLATE, TEMPLATE_TOKEN, TIMEOUT_S
from tests.guest.started_guest import interpreters
from tests.guest.started_template import CALL, Start
from tests.sdk.double import ServerDouble

pytestmark = pytest.mark.long

CODE = """
import ctypes, os, sys
import squall

app = squall.App("templates")
print("imported")
hooks = []
os.register_at_fork(before=lambda: hooks.append("before"), after_in_child=lambda: hooks.append("child"))
os.environ["OF_THE_MODULE"] = "its own"
os.environ["CHANGED"] = "by the module"
del os.environ["REMOVED"]
words = open(__file__, "rb", buffering=0)
words.read(10)

def environment(names):
    libc = ctypes.CDLL(None)
    libc.getenv.restype = ctypes.c_char_p
    in_c = {name: libc.getenv(name.encode()) for name in names}
    return {name: os.environ.get(name) for name in names}, {n: v and v.decode() for n, v in in_c.items()}

def about():
    return {"pid": os.getpid(), "hooks": hooks, "session": os.getsid(0), "local": squall.is_local(),
            "at": words.tell(), "next": words.read(5).decode()}

def status():
    return open("/proc/self/status").read(), os.getcwd(), os.readlink("/proc/self/fd/0")

def leaves(code):
    os._exit(code)

def forks():
    child = os.fork()
    if not child:
        sys.exit(3)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])

def calls(name):
    return eval(name)

def shown():
    return open("/proc/self/environ").read().split(chr(0))

@app.cls(enable_memory_snapshot=True)
class Model:
    @squall.enter()
    def late(self):
        self.steps.append("late " + os.environ["SQUALL_CONTAINER_ID"])
        print("late")
    @squall.enter(snap=True)
    def first(self):
        self.steps = ["first"]
        print("first")
    @squall.enter(snap=True)
    def second(self):
        self.steps.append("second")
    @squall.method()
    def said(self):
        return self.steps
    @squall.exit()
    def bye(self):
        print("bye")

@app.cls(enable_memory_snapshot=True)
class Later:
    @squall.enter(snap=True)
    async def first(self):
        import asyncio
        await asyncio.sleep(0.01)
        await asyncio.to_thread(int)
        self.loop = asyncio.get_running_loop()
        self.left = asyncio.ensure_future(asyncio.sleep(60))
    @squall.enter(snap=True)
    def second(self):
        self.steps = ["second"]
    @squall.enter()
    async def late(self):
        self.steps.append("late")
    @squall.method()
    async def said(self):
        import asyncio
        return self.steps, self.loop.is_closed(), self.left.cancelled(), self.loop is asyncio.get_running_loop()
"""


@pytest.mark.parametrize("python", interpreters())
def test_function_is_loaded_once_and_served_by_each_fork(start: Start, python: str) -> None:
    one = start(CODE, python=python)
    report = one.ready("about")

    seen = []
    for number in (1, 2):
        fork = one.fork(f"ct-{number}")
        ready, _ = one.agent.expect("Ready", Ready)
        seen.append((one.call(), one.stop(fork), ready))

    assert report["memory_bytes"] > 1_000_000
    assert report["import_ms"] > 0
    for about, (code, printed), _ in seen:
        assert code == 0
        assert "imported" not in printed
        # Hooks of user code run once, though there are two forks; the position in a file is the fork's own.
        assert about["hooks"] == ["before", "child"]
        assert (about["at"], about["next"]) == (10, CODE[10:15])
        assert about["session"] == about["pid"]
        assert about["local"] is False
    assert seen[0][0]["pid"] != seen[1][0]["pid"]
    assert one.template.leave() == 0
    assert one.template.printed().count("imported") == 1


def test_what_a_fork_has_cost_is_counted_from_its_own_beginning(start: Start) -> None:
    one = start("import time\ntime.sleep(1)\ndef answers():\n    return 42\n")
    report = one.ready("answers")
    one.fork()

    ready, _ = one.agent.expect("Ready", Ready)

    assert report["import_ms"] > 1_000
    assert ready.import_ms < 500
    assert ready.enter_ms == 0.0


@pytest.mark.parametrize("python", interpreters())
def test_hooks_before_the_snapshot_run_once_and_the_others_in_each_fork(start: Start, python: str) -> None:
    one = start(CODE, python=python)
    report = one.ready("Model", is_class=True)

    said = []
    for number in (1, 2):
        fork = one.fork(f"ct-{number}")
        said.append((one.call(), one.stop(fork)[1].split()))

    assert report["enter_ms"] > 0
    assert [steps for steps, _ in said] == [["first", "second", f"late ct-{number}"] for number in (1, 2)]
    assert [printed for _, printed in said] == [["late", "bye"]] * 2
    one.template.leave()
    assert "bye" not in one.template.printed()


@pytest.mark.parametrize("python", interpreters())
def test_async_hooks_run_on_a_loop_that_is_closed_before_the_fork(start: Start, python: str) -> None:
    one = start(CODE, python=python)
    one.ready("Later", is_class=True, is_async=True)

    fork = one.fork()

    assert one.call() == (["second", "late"], True, True, False)
    assert one.stop(fork)[0] == 0


@pytest.mark.parametrize("python", interpreters())
def test_template_of_a_guest_loads_nothing_of_the_users(start: Start, python: str) -> None:
    one = start(CODE, python=python, stage=TEMPLATE_GUEST)
    report = one.template.report()["ready"]
    one.definition = Definition(BY_FILE, "user_code", "about")

    fork = one.fork(REMOVED="1", CHANGED="1")
    ready, _ = one.agent.expect("Ready", Ready)
    one.call()
    code, printed = one.stop(fork)

    assert report["import_ms"] > ready.import_ms > 0
    assert (code, "imported" in printed) == (0, True)
    one.template.leave()
    assert one.template.printed() == ""


IMPORTING = """
import os, sys

class Finder:
    @staticmethod
    def find_spec(name, path=None, target=None):
        imported.append(name)

imported = []
sys.meta_path.insert(0, Finder)
os.register_at_fork(before=imported.clear)

def run():
    return imported

async def later():
    return imported
"""


@pytest.mark.parametrize("name", ["run", "later"])
@pytest.mark.parametrize("stage", [TEMPLATE_FUNCTION, TEMPLATE_GUEST])
def test_fork_imports_nothing_but_the_users_module(start: Start, name: str, stage: str) -> None:
    one = start(IMPORTING, stage=stage)
    is_async = name == "later"
    if stage == TEMPLATE_FUNCTION:
        one.ready(name, is_async=is_async)
    else:
        one.template.report()
        one.definition = Definition(BY_FILE, "user_code", name, is_async=is_async)

    one.fork()

    assert one.call() == []


def test_environment_of_a_fork_is_its_own_with_what_the_module_has_changed(start: Start) -> None:
    one = start(CODE)
    one.ready("environment")
    names = ["ONE", "OF_THE_MODULE", "CHANGED", "REMOVED", "TWO", "SQUALL_TEMPLATE", "SQUALL_CONTAINER_TOKEN"]

    one.fork(ONE="of the fork", TWO="2")
    in_python, in_c = one.call([*names, "SQUALL_CONTAINER_ID"])

    assert in_python == {
        "ONE": "of the fork",
        "TWO": "2",
        "OF_THE_MODULE": "its own",
        "CHANGED": "by the module",
        "REMOVED": None,
        "SQUALL_TEMPLATE": None,
        "SQUALL_CONTAINER_TOKEN": None,
        "SQUALL_CONTAINER_ID": "ct-fork",
    }
    assert in_c == in_python


def test_kernel_shows_no_token_of_the_template_in_a_fork(start: Start) -> None:
    one = start(CODE)
    one.ready("shown")
    one.fork()

    shown = one.call()

    assert f"{ENV_CONTAINER_ID}={TEMPLATE}" in shown, "the rest is as it was"
    assert f"{ENV_TOKEN}={TEMPLATE_TOKEN}" not in shown


HOLDERS = """
import gc

def attributes(one):
    try:
        return list(vars(one).values())
    except Exception:
        return []

def holders(token):
    gc.unfreeze()
    found = [(one, value) for one in gc.get_objects() for value in attributes(one) if type(value) is str]
    return [type(one).__name__ for one, value in found if value == token]
"""


def test_nobody_holds_the_token_of_the_template_in_a_fork(start: Start) -> None:
    one = start(HOLDERS)
    one.ready("holders")
    one.fork()

    assert "Link" in one.call("secret"), "its own is found"
    one_more = one.call(TEMPLATE_TOKEN)

    assert one_more == []


def test_what_is_registered_for_the_end_runs_in_each_fork_and_not_in_the_template(start: Start) -> None:
    code = "import atexit, os\natexit.register(lambda: print('left', os.getpid()))\n"
    one = start(f"{code}def pid():\n    return os.getpid()\n")
    one.ready("pid")
    for number in (1, 2):
        fork = one.fork(f"ct-{number}")
        pid = one.call()

        assert one.stop(fork) == (0, f"left {pid}\n")

    one.template.leave()
    assert one.template.printed() == ""


@pytest.mark.parametrize(("code", "expected"), [("", "/usr"), ("import os\nos.chdir('/etc')\n", "/etc")])
def test_fork_is_where_user_code_has_gone_to(start: Start, code: str, expected: str) -> None:
    one = start(f"{code}import os\ndef where():\n    return os.getcwd()\n")
    one.ready("where")

    one.fork(joining={"cwd": "/usr"})

    assert one.call() == expected


def test_fork_says_what_it_ends_with_and_its_children_do_not(start: Start) -> None:
    one = start(CODE)
    one.ready("forks")
    fork = one.fork()

    child = one.call()
    code, _ = one.stop(fork)

    assert (child, code) == (3, 0)


def test_fork_ends_when_it_is_told_to(start: Start) -> None:
    one = start(CODE)
    one.ready("about")
    fork = one.fork()
    one.agent.expect("Ready", Ready)

    fork.send_signal(signal.SIGTERM)

    out, err = fork.communicate()
    assert (fork.returncode, out, err) == (0, b"", b"")


def test_fork_that_user_code_ends_says_nothing(start: Start) -> None:
    one = start(CODE)
    one.ready("leaves")
    fork = one.fork()
    value = pickle.dumps(((5,), {}), 4)

    one.agent.say("Inputs", InputBatch(CALL, (0,), (len(value),), (0,)), value)

    fork.communicate()
    assert fork.returncode == -signal.SIGKILL  # what the double makes of it


def test_parked_fork_connects_before_it_is_told_who_it_is(start: Start) -> None:
    one = start(CODE)
    one.ready("about")
    fork = one.template.fork().joined().let_wait()
    one.forks.append(fork)
    waiting, _ = one.agent.expect("GuestWaiting", GuestWaiting)
    assert waiting.ready is not None
    assert (waiting.ready.credit_max, waiting.ready.import_ms) == (1_000, 0.0)

    fork.begin("ct-parked")
    hello, _ = one.agent.expect("GuestHello", GuestHello)
    assert (hello.container_id, hello.token) == ("ct-parked", "secret")
    one.say_boot("ct-parked")

    value = pickle.dumps(((), {}), 4)
    one.agent.say("Inputs", InputBatch(CALL, (0,), (len(value),), (0,)), value)
    envelope, body = one.agent.events.get(timeout=TIMEOUT_S)
    assert envelope.method == "Outputs", "it has said again that it is ready"
    assert pickle.loads(body)["pid"] == fork.pid


@pytest.mark.parametrize("is_async", [False, True], ids=["sync", "async"])
@pytest.mark.parametrize("is_parked", [False, True], ids=["forked", "parked"])
def test_fork_finds_all_that_is_made_at_its_first_use(start: Start, is_parked: bool, is_async: bool) -> None:
    one = start(
        """
import os, sys
seen = []
sys.addaudithook(lambda event, _: seen.append(event) if event in ("compile", "exec", "import") else None)
os.register_at_fork(after_in_child=seen.clear)
calls = []
{}def about():
    made = list(seen)
    calls.append(1)
    return made, len(calls), os.listdir("/proc/self/task")
""".format("async " if is_async else "")
    )
    one.ready("about", is_async=is_async)
    fork = one.template.fork().joined()
    one.forks.append(fork.let_wait() if is_parked else fork)
    fork.begin("ct-1")
    one.agent.expect("GuestHello", GuestHello)
    one.say_boot("ct-1")

    made, calls, threads = one.call()

    # The records of its messages are compiled in the template, by an input that the function has not seen.
    assert made == []
    assert calls == 1
    assert len(threads) == 2 + is_async, "beside the main thread there is the one that watches, and one that reads"


def test_parked_fork_has_computed_with_its_libraries(start: Start) -> None:
    one = start(
        """
import numpy, os, resource
def about():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    (numpy.ones((8, 8)) @ numpy.ones((8, 8))).sum().item()
    copied = resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
    return copied, len(os.listdir("/proc/self/task"))
"""
    )
    one.ready("about")
    copied = {}
    for is_parked in (False, True):
        fork = one.template.fork().joined()
        one.forks.append(fork.let_wait() if is_parked else fork)
        fork.begin(f"ct-{is_parked}")
        one.agent.expect("GuestHello", GuestHello)
        one.say_boot(f"ct-{is_parked}")
        copied[is_parked], threads = one.call()
        one.stop(fork)
        assert threads == 2

    assert copied[True] < copied[False] / 2


def test_fork_that_cannot_rehearse_serves(start: Start) -> None:
    one = start("import socket\nsocket.socketpair = None\ndef about():\n    return 'served'\n")
    one.ready("about")
    fork = one.template.fork().joined()
    one.forks.append(fork.let_wait())
    fork.begin("ct-1")
    one.agent.expect("GuestHello", GuestHello)
    one.say_boot("ct-1")

    assert one.call() == "served"


def test_fork_with_hooks_to_come_is_ready_when_they_have_run(start: Start) -> None:
    one = start(CODE)
    one.ready("Model", is_class=True)
    fork = one.template.fork().joined().let_wait()
    one.forks.append(fork)
    waiting, _ = one.agent.expect("GuestWaiting", GuestWaiting)
    assert waiting.ready is None

    fork.begin("ct-parked")
    one.agent.expect("GuestHello", GuestHello)
    one.say_boot("ct-parked")

    ready, _ = one.agent.expect("Ready", Ready)
    assert ready.enter_ms > 0
    assert one.call() == ["first", "second", "late ct-parked"]


def test_fork_of_a_guest_is_ready_when_it_has_loaded_the_function(start: Start) -> None:
    one = start(CODE, stage=TEMPLATE_GUEST)
    one.template.report()
    fork = one.template.fork().joined().let_wait()
    one.forks.append(fork)
    waiting, _ = one.agent.expect("GuestWaiting", GuestWaiting)
    assert waiting.ready is None
    one.definition = Definition(BY_FILE, "user_code", "about")

    fork.begin("ct-parked")
    one.agent.expect("GuestHello", GuestHello)
    one.say_boot("ct-parked")

    ready, _ = one.agent.expect("Ready", Ready)
    assert ready.import_ms > 0


def test_parked_fork_whose_agent_was_restarted_connects_again_and_says_all(start: Start) -> None:
    one = start(CODE)
    one.ready("about")
    fork = one.template.fork().joined().let_wait()
    one.forks.append(fork)
    one.agent.expect("GuestWaiting", GuestWaiting)
    one.agent.drop()
    one.agent.come_back()

    fork.begin("ct-parked")
    one.agent.expect("GuestHello", GuestHello)
    one.say_boot("ct-parked")

    one.agent.expect("Ready", Ready)
    assert one.call()["pid"] == fork.pid


def test_parked_fork_that_cannot_reach_its_agent_connects_when_it_is_somebody(start: Start) -> None:
    one = start(CODE)
    one.ready("about")
    one.agent.drop()
    fork = one.template.fork().joined().let_wait()
    one.forks.append(fork)
    fork.begin("ct-parked")
    one.agent.come_back()

    one.agent.expect("GuestHello", GuestHello)
    one.say_boot("ct-parked")

    one.agent.expect("Ready", Ready)
    assert one.call()["pid"] == fork.pid


def test_parked_fork_ends_when_it_is_told_to(start: Start) -> None:
    one = start(CODE)
    one.ready("about")
    fork = one.template.fork().joined()

    fork.send_signal(signal.SIGTERM)

    assert fork.said() == {}
    fork.close()


def test_template_goes_on_whatever_becomes_of_its_forks(start: Start) -> None:
    one = start(CODE)
    one.ready("about")
    one.template.ask(b"no JSON")
    one.template.ask(b'{"fork": 1}')
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with ours, theirs:
        one.template.ask(b'{"fork": 1}', (theirs.fileno(), theirs.fileno()))
        one.template.ask(b'{"fork": 1}', (theirs.fileno(),) * 100)
        # Forked, and killed while it waits to hear how to join.
        one.template.ask(b'{"fork": 1}', (theirs.fileno(),))
        child = wait_for(lambda: children_of(one.template.process.pid))[0]
        os.kill(child, signal.SIGKILL)
        wait_for(lambda: not children_of(one.template.process.pid))

    refused = one.template.fork({"cwd": "/no/such/directory"})
    assert refused.said() == {"error": "cannot change to the directory /no/such/directory: No such file or directory"}
    refused.close()
    unknown = one.template.fork({"namespaces": 7})
    assert unknown.said() == {"error": "cannot join: 0 descriptors came for 7 namespaces"}
    unknown.close()

    one.fork()
    assert one.call()["local"] is False


def test_copy_that_is_to_be_saved_holds_no_socket_and_the_template_goes_on(start: Start) -> None:
    one = start(CODE)
    one.ready("about")
    one.template.ask(b'{"save": 1}')
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with ours:
        with theirs:
            one.template.ask(b'{"save": 1}', (theirs.fileno(),))
        ours.settimeout(TIMEOUT_S)
        assert json.loads(ours.recv(1_000)) == {"copied": 1}
        assert ours.recv(1) == b""

    (copy,) = children_of(one.template.process.pid)
    held = [os.readlink(f"/proc/{copy}/fd/{name}") for name in os.listdir(f"/proc/{copy}/fd")]
    assert [link for link in held if link.startswith("socket:")] == []
    assert held.count("/dev/full") == 1
    assert os.getsid(copy) == copy
    one.fork()
    assert one.call()["local"] is False
    os.kill(copy, signal.SIGKILL)
    wait_for(lambda: copy not in children_of(one.template.process.pid))


def test_copy_that_nobody_waits_for_any_more_ends(start: Start) -> None:
    one = start(CODE)
    one.ready("about")
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    os.kill(one.template.process.pid, signal.SIGSTOP)
    with theirs:
        one.template.ask(b'{"save": 1}', (theirs.fileno(),))
    ours.close()
    # Answered after the copy is made.
    fork = one.template.fork()

    os.kill(one.template.process.pid, signal.SIGCONT)

    fork.joined().close()
    wait_for(lambda: not children_of(one.template.process.pid))
    one.fork()
    assert one.call()["local"] is False


def test_template_reaps_its_children(start: Start) -> None:
    one = start(CODE)
    one.ready("about")

    for _ in range(5):
        one.template.fork().joined().close()

    wait_for(lambda: not children_of(one.template.process.pid))


def test_template_ends_when_nobody_is_left_to_fork_it(start: Start) -> None:
    one = start(CODE)
    one.ready("about")

    assert one.template.leave() == 0


@pytest.mark.parametrize("is_ready", [False, True])
def test_template_ends_when_it_is_told_to_and_leaves_its_forks(start: Start, is_ready: bool) -> None:
    slow = "import time; print('loading', flush=True); time.sleep(60)\n"
    one = start(CODE if is_ready else slow)
    one.boot("about")
    fork = None
    if is_ready:
        assert "ready" in one.template.report()
        fork = one.fork()
    else:
        assert one.template.process.stdout is not None
        assert one.template.process.stdout.readline() == b"loading\n"

    one.template.process.send_signal(signal.SIGTERM)

    assert one.template.process.wait(TIMEOUT_S) == 0
    if fork is not None:
        assert one.call()["local"] is False


def test_identity_that_cannot_be_read_ends_the_fork(start: Start) -> None:
    one = start(CODE)
    one.ready("about")
    fork = one.template.fork().joined()

    fork.channel.send(json.dumps({"env": {}}).encode())

    assert "error" in fork.said()
    assert fork.said() == {}
    fork.close()


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root: it gives up what only root has")
def test_fork_confines_itself(start: Start) -> None:
    one = start(CODE)
    one.ready("status")
    last = int(Path("/proc/sys/kernel/cap_last_cap").read_text())
    # chown and kill are left; and a filter that refuses getcwd, which nothing needs until it is asked for.
    fork = one.template.fork(
        {"uid": 0, "gid": 0, "kept": [0, 5], "last_capability": last, "cwd": "/usr"}, program=allow_all()
    ).joined()
    one.forks.append(fork)
    fork.begin("ct-fork")
    one.agent.expect("GuestHello", GuestHello)
    one.say_boot("ct-fork")

    status, directory, stdin = one.call()

    fields = dict(line.split(":\t", 1) for line in status.splitlines() if ":\t" in line)
    kept = f"{1 << 0 | 1 << 5:016x}"
    assert [fields[name] for name in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb")] == [
        "0" * 16, kept, kept, kept, "0" * 16,
    ]  # fmt: skip
    assert (fields["NoNewPrivs"], fields["Seccomp"]) == ("1", "2")
    assert fields["Groups"].strip() == ""
    assert (directory, stdin) == ("/usr", "/dev/null")


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root: it gives up what only root has")
def test_fork_of_another_user_keeps_nothing(start: Start) -> None:
    one = start(CODE)
    one.ready("status")
    last = int(Path("/proc/sys/kernel/cap_last_cap").read_text())
    (Path(one.agent.path)).chmod(0o666)
    Path(one.agent.path).parent.parent.chmod(0o755)

    fork = one.template.fork({"uid": 1234, "gid": 1235, "kept": [0, 5], "last_capability": last}).joined()
    one.forks.append(fork)
    fork.begin("ct-fork")
    one.agent.expect("GuestHello", GuestHello)
    one.say_boot("ct-fork")
    status, _, _ = one.call()

    fields = dict(line.split(":\t", 1) for line in status.splitlines() if ":\t" in line)
    assert fields["Uid"].split() == ["1234"] * 4
    assert fields["Gid"].split() == ["1235"] * 4
    assert [fields[name] for name in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb")] == ["0" * 16] * 5


CALLING = """
import squall

app = squall.App("templates")
other = squall.Function.from_name("elsewhere", "triple")

@app.function()
def double(x):
    raise AssertionError("this runs elsewhere")

@app.cls(enable_memory_snapshot=True)
class Model:
    @squall.enter(snap=True)
    def load(self):
        self.said = [double.remote(4), list(double.map([1, 2])), other.remote(1)]
        self.spawned = double.spawn(5)
    @squall.method()
    def said(self):
        return self.said, double.remote(10), other.remote(2), self.spawned.get()
"""


def test_handles_that_hooks_have_used_go_on_in_each_fork(start: Start, make_data_dir: Callable[[], Path]) -> None:
    server_path = str(make_data_dir() / "server.sock")
    with ServerDouble(server_path) as server:
        server.apps["ap-1"] = AppCreate("ap-1", "elsewhere")
        for number, name in enumerate(("double", "triple")):
            definition = Definition(BY_FILE, "elsewhere", name)
            server.functions[f"fu-{name}"] = FunctionSpec(f"fu-{name}", "ap-1", name, definition, "im-1")
            server.callables[name] = [lambda x: x * 2, lambda x: x * 3][number]
        one = start(CALLING)
        one.agent.server_path = server_path
        one.boot("Model", is_class=True, functions={"double": "fu-double", "Model": "fu-1"})
        assert "ready" in one.template.report()
        drawn = []
        for number in (1, 2):
            fork = one.fork(f"ct-{number}")
            drawn.append(one.call())
            one.stop(fork)

    assert drawn == [([8, [2, 4], 3], 20, 6, 10)] * 2
    greeted = [(hello.container_id, hello.token) for hello in server.guest_hellos]
    assert greeted == [(TEMPLATE, "of the template"), ("ct-1", "secret"), ("ct-2", "secret")]
    assert len({hello.client_id for hello in server.hellos}) == 3


def test_function_that_was_pickled_is_fetched_once(start: Start, make_data_dir: Callable[[], Path]) -> None:
    server_path = str(make_data_dir() / "server.sock")
    pickled = cloudpickle.dumps(lambda x: x + 1)
    sha256 = hashlib.sha256(pickled).hexdigest()
    python = f"{sys.version_info[0]}.{sys.version_info[1]}"
    with ServerDouble(server_path) as server:
        server.blobs[sha256] = pickled
        one = start("")
        one.agent.server_path = server_path
        one.boot_with(Definition(SERIALIZED, "", "nameless", sha256, python))
        assert "ready" in one.template.report()
        one.fork()

        assert one.call(41) == 42

    assert [hello.container_id for hello in server.guest_hellos] == [TEMPLATE]


def allow_all() -> bytes:
    """A filter that refuses nothing."""
    return (0x06).to_bytes(2, "little") + b"\0\0" + (0x7FFF0000).to_bytes(4, "little")


def children_of(pid: int) -> list[int]:
    """Its children, ended ones that nobody has reaped included."""
    with contextlib.suppress(FileNotFoundError):
        return [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    return []


def wait_for(found: Callable[[], Any]) -> Any:
    """What it gives, once that is something."""
    deadline = time.monotonic() + TIMEOUT_S
    while not (result := found()):
        assert time.monotonic() < deadline
        time.sleep(0.005)
    return result
