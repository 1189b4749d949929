"""A guest as a process of its own, by any Python and also as a fork, and the agent it talks to."""

from __future__ import annotations

import contextlib
import os
import pickle
import queue
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import IO, Any, NamedTuple, Protocol

import pytest

from squall.protocol.call import InputBatch, OutputBatch
from squall.protocol.function import BY_FILE, Definition
from squall.protocol.guest import TEMPLATE_FUNCTION, TEMPLATE_GUEST, Boot, GuestHello
from tests.guest.agent_double import AgentDouble
from tests.guest.spawner_double import SOURCE, ForkedGuest, ForkedProcess, add_cloudpickle

CALL = "fc-0123456789ABCDEFGHabcd"
CONTAINER = "ct-0123456789ABCDEFGHabcd"


def interpreters() -> list[Any]:
    """Pythons from 3.10 on, one for each version: this one, and those on the path or behind shims on it (which have a
    suite of their own)."""
    found = {f"{sys.version_info[0]}.{sys.version_info[1]}": sys.executable}
    for directory in map(Path, os.get_exec_path()):
        tops = [directory]
        if directory.name == "shims":
            tops += sorted((directory.parent / "versions").glob("*/bin"))
        for path in [path for top in tops for path in sorted(top.glob("python3.[0-9][0-9]"))]:
            version = path.name[len("python") :]
            # A shim runs what its user has switched on, which may be nothing.
            if version not in found and path.parent.name != "shims" and int(version[2:]) >= 10:
                found[version] = str(path)
    return [
        pytest.param(
            found[version],
            id=Path(found[version]).name,
            marks=[] if found[version] == sys.executable else pytest.mark.interpreters,
        )
        for version in sorted(found)
    ]


class Way(NamedTuple):
    """How a guest is started: by which Python, and of a fork how far its template goes."""

    python: str
    stage: str = ""


def ways() -> list[Any]:
    """A plain start by every Python that is found; forks of both kinds of template by this one."""
    plain = [pytest.param(Way(*one.values), id=one.id, marks=one.marks) for one in interpreters()]
    forks = [
        pytest.param(Way(sys.executable, stage), id=f"fork-{stage}") for stage in (TEMPLATE_GUEST, TEMPLATE_FUNCTION)
    ]
    return [*plain, *forks]


class Launched(Protocol):
    """A guest that runs: what of `subprocess.Popen` is asked of it."""

    @property
    def returncode(self) -> int | None: ...
    @property
    def stdout(self) -> IO[bytes] | None: ...
    def communicate(self, *, timeout: float | None = None) -> tuple[bytes, bytes]: ...
    def send_signal(self, sig: int) -> None: ...
    def kill(self) -> None: ...


def start_process(directory: Path, way: Way) -> Launched:
    """The guest, with this checkout's library and the code in the directory, at its socket."""
    if way.stage:
        return ForkedProcess(directory, way.python, way.stage, CONTAINER, start_plainly)
    return start_plainly(directory, way.python)


def start_plainly(directory: Path, python: str) -> Launched:
    """The guest by this Python, as it is started where it is not forked."""
    add_cloudpickle(directory / "code")
    socket_path = str(directory / "agent/agent.sock")
    program = f"import os; from squall.guest.main import main; os._exit(main({socket_path!r}))"
    return subprocess.Popen(
        [python, "-u", "-B", "-c", program],
        env={
            "PYTHONPATH": f"{directory / 'code'}:{SOURCE}",
            "SQUALL_CONTAINER_ID": CONTAINER,
            "SQUALL_CONTAINER_TOKEN": "secret",
        },
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )


class Process:
    """A guest and the agent it talks to.

    Args:
        start: starts the guest, which is to import from `code` in this directory and to connect to `agent/agent.sock`.
        modules: those of the user, by their file names.
    """

    def __init__(self, directory: Path, start: Callable[[Path], Launched], modules: Mapping[str, str]) -> None:
        for folder in ("code", "agent"):
            (directory / folder).mkdir()
        for name, text in modules.items():
            (directory / "code" / name).write_text(text)
        self.agent = AgentDouble(directory / "agent/agent.sock")
        self._is_batched = False
        self._process = start(directory)

    def boot(
        self,
        qualname: str,
        *,
        module: str = "user_code",
        is_generator: bool = False,
        is_async: bool = False,
        max_inputs: int = 1,
        is_batched: bool = False,
        can_be_forked: bool = True,
    ) -> None:
        """Make it the container of a function of these; see `introduce`."""
        self._is_batched = is_batched
        definition = Definition(BY_FILE, module, qualname, is_generator=is_generator, is_async=is_async)
        boot = Boot(
            CONTAINER, "ap-1", "app", "fu-1", qualname, definition, max_inputs=max_inputs, is_batched=is_batched
        )
        self.introduce(boot, can_be_forked=can_be_forked)

    def introduce(self, boot: Boot, *, can_be_forked: bool = True) -> None:
        """Tell it what to load, when it has greeted.

        Args:
            can_be_forked: a process that has loaded it. Where that cannot be, what is to be a fork is started plainly.
        """
        if isinstance(self._process, ForkedGuest):
            self._process.boot(self.agent, boot)
            is_to_be_fork = can_be_forked or not self._process.has_function
            assert self._process.is_fork == is_to_be_fork, self._process.why_plain or "it is a fork"
            return
        self.agent.expect("GuestHello", GuestHello)
        self.agent.say("Boot", boot)

    @property
    def is_loaded_before(self) -> bool:
        """Whether it is a fork of a process that has loaded the function."""
        return isinstance(self._process, ForkedGuest) and self._process.has_function

    def give(self, index: int, *args: object, attempt: int = 0) -> None:
        """One input."""
        value = pickle.dumps((args, {}), 4)
        # A batched function gets each as a batch of one.
        batch, batch_size = (attempt + 1, 1) if self._is_batched else (0, 0)
        batch_of_one = InputBatch(CALL, (index,), (len(value),), (attempt,), batch=batch, batch_size=batch_size)
        self.agent.say("Inputs", batch_of_one, value)

    def let_it_begin(self) -> None:
        """What was given runs now: it neither ends nor says anything."""
        with contextlib.suppress(queue.Empty):
            self.agent.expect("Outputs", OutputBatch, timeout_s=0.3)

    def output(self) -> tuple[int, bytes]:
        """Status and value of the next output."""
        outputs, body = self.agent.expect("Outputs", OutputBatch)
        assert len(outputs.indexes) == 1
        return outputs.statuses[0], body

    def end(self) -> tuple[int, str]:
        """Exit code and what was printed."""
        out, err = self._process.communicate(timeout=20)
        code = self._process.returncode
        assert code is not None
        return code, (out + err).decode()

    def wait_for_line(self, text: str) -> None:
        """Until it has printed that."""
        assert self._process.stdout is not None
        assert any(text.encode() in line for line in self._process.stdout)

    def terminate(self) -> None:
        """As the agent does it."""
        self._process.send_signal(signal.SIGTERM)

    def close(self) -> None:
        """Leave nothing."""
        with contextlib.suppress(ProcessLookupError):
            self._process.kill()
        self._process.communicate()
        self.agent.close()
