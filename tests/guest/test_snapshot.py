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


class Saved:
    """A template with its agent, and the directory that both it and the runtime see."""

    def __init__(self, directory: Path, code: str) -> None:
        self.shared = directory / "shared"
        for folder in ("code", "agent", "shared"):
            (directory / folder).mkdir()
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
        main = f"import os; from squall.guest.main import main; os._exit(main({str(directory / 'agent/agent.sock')!r}))"
        self.process = subprocess.Popen([sys.executable, "-u", "-B", "-c", main], env={**self.env, **identity})

    def boot(self, role: str, container_id: str) -> None:
        """Answer its greeting."""
        hello, _ = self.agent.expect("GuestHello", GuestHello)
        assert (hello.role, hello.container_id) == (role, container_id)
        definition = Definition(BY_FILE, "user_code", "about")
        self.agent.say("Boot", Boot(container_id, "ap-1", "saved", "fu-1", "about", definition, {}))

    def report(self) -> dict[str, Any]:
        """What it says of itself."""
        path = self.shared / TEMPLATE_REPORT
        deadline = time.monotonic() + TIMEOUT_S
        while not path.exists():
            assert time.monotonic() < deadline
            assert self.process.poll() is None
            time.sleep(0.005)
        said: dict[str, Any] = json.loads(path.read_text())
        return said

    def tell(self, env: Mapping[str, str], *, is_check: bool = False) -> None:
        """Who it is."""
        path = self.shared / "new"
        path.write_text(json.dumps({"env": dict(env), "is_check": is_check}))
        path.rename(self.shared / TEMPLATE_IDENTITY)

    def close(self) -> None:
        """Leave nothing."""
        self.process.kill()
        self.process.wait(TIMEOUT_S)
        self.agent.close()


@pytest.fixture
def save(data_dir: Path) -> Iterator[Callable[[str], Saved]]:
    """Starts a template."""
    started: list[Saved] = []

    def start(code: str) -> Saved:
        started.append(Saved(data_dir, code))
        return started[-1]

    yield start
    for one in started:
        one.close()


def test_it_waits_with_its_function_and_goes_on_as_who_it_is_told(save: Callable[[str], Saved]) -> None:
    saved = save(CODE)
    saved.boot(ROLE_TEMPLATE, TEMPLATE)
    report = saved.report()["ready"]

    saved.tell({**saved.env, "NAME": "of the container", ENV_CONTAINER_ID: "ct-1", ENV_TOKEN: "secret"})
    saved.boot(ROLE_GUEST, "ct-1")
    saved.agent.expect("Ready", Ready)
    value = pickle.dumps(((), {}), 4)
    saved.agent.say("Inputs", InputBatch(CALL, (0,), (len(value),), (0,)), value)
    outputs, body = saved.agent.expect("Outputs", OutputBatch)
    assert outputs.statuses == (SUCCEEDED,), decode_failure(body)[0]
    about = pickle.loads(body)
    saved.agent.say("GuestStop", GuestStop(5.0))

    assert report["import_ms"] > 0
    assert (about["id"], about["name"], about["left"]) == ("ct-1", "of the container", [])
    assert about["pid"] == saved.process.pid
    assert about["threads"] > 1
    assert about["random"] != pytest.approx(0.32383276483316237), "random numbers are its own"
    assert about["seeded"] == ["of the template"], "before all else: its threads go on meanwhile"
    assert saved.process.wait(TIMEOUT_S) == 0
    assert os.listdir(saved.shared) == [TEMPLATE_REPORT]


def test_one_that_is_only_checked_ends_when_it_has_come_to_itself(save: Callable[[str], Saved]) -> None:
    saved = save(CODE)
    saved.boot(ROLE_TEMPLATE, TEMPLATE)
    saved.report()

    saved.tell(saved.env, is_check=True)

    assert saved.process.wait(TIMEOUT_S) == 0
    assert os.listdir(saved.shared) == [TEMPLATE_REPORT]


def test_code_that_cannot_be_loaded_says_why(save: Callable[[str], Saved]) -> None:
    saved = save(FAILING)
    saved.boot(ROLE_TEMPLATE, TEMPLATE)

    assert saved.process.wait(TIMEOUT_S) == 0
    assert "not to be had" in json.loads((saved.shared / TEMPLATE_REPORT).read_text())["failed"]
