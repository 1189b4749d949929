"""A template that is saved and restored, without being either: its identity may as well come while it waits."""

from __future__ import annotations

import json
import os
import pickle
import subprocess
import sys
import sysconfig
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from squall.protocol.call import SUCCEEDED, InputBatch, OutputBatch, decode_failure
from squall.protocol.function import BY_FILE, Definition
from squall.protocol.guest import (
    ENV_CONTAINER_ID,
    ENV_TEMPLATE,
    ENV_TEMPLATE_DIR,
    ENV_TOKEN,
    ROLE_GUEST,
    ROLE_TEMPLATE,
    TEMPLATE_FUNCTION,
    TEMPLATE_IDENTITY,
    TEMPLATE_REPORT,
    Boot,
    GuestHello,
    GuestStop,
    Ready,
)
from tests.guest.agent_double import AgentDouble
from tests.guest.drawn_values import CODE as VALUES
from tests.guest.drawn_values import put_modules, same
from tests.guest.spawner_double import SOURCE, TEMPLATE, TEMPLATE_TOKEN, TIMEOUT_S, add_cloudpickle

pytestmark = pytest.mark.long

CALL = "fc-0123456789ABCDEFGHabcd"
CODE = """
import os, random, threading, time
import squall

app = squall.App("saved")
threading.Thread(target=time.sleep, args=(1_000,), daemon=True).start()
random.seed(7)
seed, seeded = random.seed, []
def note(*args):
    seeded.append(os.environ["NAME"])
    seed(*args)
random.seed = note

@app.function(enable_memory_snapshot=True)
def about():
    return {"id": os.environ["SQUALL_CONTAINER_ID"], "name": os.environ["NAME"], "random": random.random(),
            "threads": threading.active_count(), "pid": os.getpid(), "seeded": seeded,
            "left": sorted(name for name in os.environ if name.startswith("SQUALL_TEMPLATE"))}
"""
FAILING = "raise LookupError('not to be had')"
MAIN = "import os, sys; from squall.guest.main import main; os._exit(main(sys.argv[1]))"
RESTORED_TWICE = """
import ctypes, os, sys, time, types
from squall.guest import libc, snapshot
from squall.guest.main import main

MOUNTS, USERS, PROCESSES, RECURSIVE, SLAVE = 0x20000, 0x10000000, 0x20000000, 0x4000, 0x80000
c = ctypes.PyDLL(None, use_errno=True)

def check(result):
    if result:
        os._exit(77)

def go_on_as_number_one():
    check(c.unshare(PROCESSES))
    if child := libc.fork():
        os._exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))

def be_restored_twice(seconds):
    snapshot.time = time
    open(waits, "w").close()
    for _ in range(2):
        pid = libc.fork()
        if not pid:
            return go_on_as_number_one()
        if code := os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]):
            os._exit(code)
    os._exit(0)

waits = os.environ["SQUALL_TEMPLATE_DIR"] + "/waits"
# As under gVisor, of the same number in a /proc of its own. Nothing runs Python's hooks of forks.
check(c.unshare(MOUNTS | (USERS if os.geteuid() else 0)))
check(c.mount(b"none", b"/", None, RECURSIVE | SLAVE, None))
go_on_as_number_one()
check(c.mount(b"proc", b"/proc", b"proc", 0, None))
snapshot.time = types.SimpleNamespace(sleep=be_restored_twice, monotonic=time.monotonic)
os._exit(main(sys.argv[1]))
"""
"""What waits for its identity goes on in two copies, one after the other."""
NO_NAMESPACES = 77


class Saved:
    """A template with its agent, and the directory that both it and the runtime see."""

    def __init__(self, directory: Path, code: str, program: str) -> None:
        self.shared = directory / "shared"
        for folder in ("code", "agent", "shared"):
            (directory / folder).mkdir()
        put_modules(directory / "code")
        (directory / "code/user_code.py").write_text(code)
        add_cloudpickle(directory / "code")
        self.agent = AgentDouble(directory / "agent/agent.sock")
        paths = (str(directory / "code"), str(SOURCE), sysconfig.get_path("purelib"))
        self.env = {"PYTHONPATH": ":".join(paths), "NAME": "of the template"}
        identity = {
            ENV_CONTAINER_ID: TEMPLATE,
            ENV_TOKEN: TEMPLATE_TOKEN,
            ENV_TEMPLATE: TEMPLATE_FUNCTION,
            ENV_TEMPLATE_DIR: str(self.shared),
        }
        argv = [sys.executable, "-u", "-B", "-c", program, str(directory / "agent/agent.sock")]
        self.process = subprocess.Popen(argv, env={**self.env, **identity})

    def boot(self, role: str, container_id: str, function: str = "about") -> None:
        """Answer its greeting."""
        hello, _ = self.agent.expect("GuestHello", GuestHello)
        assert (hello.role, hello.container_id) == (role, container_id)
        definition = Definition(BY_FILE, "user_code", function)
        self.agent.say("Boot", Boot(container_id, "ap-1", "saved", "fu-1", function, definition, {}))

    def report(self) -> dict[str, Any]:
        """What it says of itself."""
        said: dict[str, Any] = json.loads(self.written(TEMPLATE_REPORT))
        return said

    def written(self, name: str) -> str:
        """Wait for a file of its."""
        path = self.shared / name
        deadline = time.monotonic() + TIMEOUT_S
        while not path.exists():
            assert time.monotonic() < deadline
            if self.process.poll() == NO_NAMESPACES:
                pytest.skip("no namespaces of processes can be made here")
            assert self.process.returncode is None
            time.sleep(0.005)
        return path.read_text()

    def tell(self, env: Mapping[str, str], *, is_check: bool = False) -> None:
        """Who it is."""
        path = self.shared / "new"
        path.write_text(json.dumps({"env": dict(env), "is_check": is_check}))
        path.rename(self.shared / TEMPLATE_IDENTITY)

    def call(self) -> Any:
        """What it returns, once it is somebody; it is told to end after that."""
        self.agent.expect("Ready", Ready)
        value = pickle.dumps(((), {}), 4)
        self.agent.say("Inputs", InputBatch(CALL, (0,), (len(value),), (0,)), value)
        outputs, body = self.agent.expect("Outputs", OutputBatch)
        assert outputs.statuses == (SUCCEEDED,), decode_failure(body)[0]
        self.agent.say("GuestStop", GuestStop(5.0))
        return pickle.loads(body)

    def close(self) -> None:
        """Leave nothing."""
        self.process.kill()
        self.process.wait(TIMEOUT_S)
        self.agent.close()


@pytest.fixture
def save(data_dir: Path) -> Iterator[Callable[..., Saved]]:
    """Starts a template."""
    started: list[Saved] = []

    def start(code: str, program: str = MAIN) -> Saved:
        started.append(Saved(data_dir, code, program))
        return started[-1]

    yield start
    for one in started:
        one.close()


def test_it_waits_with_its_function_and_goes_on_as_who_it_is_told(save: Callable[..., Saved]) -> None:
    saved = save(CODE)
    saved.boot(ROLE_TEMPLATE, TEMPLATE)
    report = saved.report()["ready"]

    saved.tell({**saved.env, "NAME": "of the container", ENV_CONTAINER_ID: "ct-1", ENV_TOKEN: "secret"})
    saved.boot(ROLE_GUEST, "ct-1")
    about = saved.call()

    assert report["import_ms"] > 0
    assert (about["id"], about["name"], about["left"]) == ("ct-1", "of the container", [])
    assert about["pid"] == saved.process.pid
    assert about["threads"] > 1
    assert about["random"] != pytest.approx(0.32383276483316237), "random numbers are its own"
    assert about["seeded"] == ["of the template"], "before all else: its threads go on meanwhile"
    assert saved.process.wait(TIMEOUT_S) == 0
    assert os.listdir(saved.shared) == [TEMPLATE_REPORT]


def test_what_it_draws_is_its_own(save: Callable[..., Saved]) -> None:
    saved = save(VALUES, RESTORED_TWICE)
    saved.boot(ROLE_TEMPLATE, TEMPLATE, "values")
    saved.written("waits")
    drawn = []

    for container_id in ("ct-1", "ct-2"):
        saved.tell({**saved.env, ENV_CONTAINER_ID: container_id, ENV_TOKEN: "secret"})
        saved.boot(ROLE_GUEST, container_id, "values")
        drawn.append(saved.call())

    assert saved.process.wait(TIMEOUT_S) == 0
    assert [one["pid"] for one in drawn] == [1, 1]
    assert same(*drawn) == {"pid"}


def test_one_that_is_only_checked_ends_when_it_has_come_to_itself(save: Callable[..., Saved]) -> None:
    saved = save(CODE)
    saved.boot(ROLE_TEMPLATE, TEMPLATE)
    saved.report()

    saved.tell(saved.env, is_check=True)

    assert saved.process.wait(TIMEOUT_S) == 0
    assert os.listdir(saved.shared) == [TEMPLATE_REPORT]


def test_code_that_cannot_be_loaded_says_why(save: Callable[..., Saved]) -> None:
    saved = save(FAILING)
    saved.boot(ROLE_TEMPLATE, TEMPLATE)

    assert saved.process.wait(TIMEOUT_S) == 0
    assert "not to be had" in json.loads((saved.shared / TEMPLATE_REPORT).read_text())["failed"]
