"""The other end of a template's socket: starts templates, has them forked, and tells the forks who they are.

Nothing is joined here: no namespaces, no filter, no other user. tests/kernel does that, with the real spawner.
"""

from __future__ import annotations

import abc
import contextlib
import functools
import json
import os
import select
import signal
import socket
import struct
import subprocess
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import IO, Any

import cloudpickle

from squall.protocol.guest import (
    ENV_CONTAINER_ID,
    ENV_TEMPLATE,
    ENV_TEMPLATE_FD,
    ENV_TOKEN,
    ROLE_GUEST,
    ROLE_TEMPLATE,
    TEMPLATE_FUNCTION,
    Boot,
    GuestHello,
)
from tests.guest.agent_double import AgentDouble

SOURCE = Path(__file__).resolve().parent.parent.parent / "src"
TEMPLATE, TEMPLATE_TOKEN = "tp-0123456789ABCDEFGHabcd", "of the template"
TIMEOUT_S = 20.0


def add_cloudpickle(code: Path) -> None:
    """Alone: the other packages beside it are compiled for this Python."""
    if not (code / "cloudpickle").exists():
        (code / "cloudpickle").symlink_to(Path(cloudpickle.__file__).parent)


class TemplateProcess:
    """A template, by this Python, with the code in the directory and its agent at `agent/agent.sock` there."""

    def __init__(
        self,
        directory: Path,
        python: str,
        stage: str,
        more: Mapping[str, str] | None = None,
        paths: tuple[str, ...] = (),
    ) -> None:
        code = directory / "code"
        code.mkdir(exist_ok=True)
        add_cloudpickle(code)
        self.env = {"PYTHONPATH": ":".join([str(code), str(SOURCE), *paths]), **(more or {})}
        self._control, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        program = (
            f"import os; from squall.guest.main import main; os._exit(main({str(directory / 'agent/agent.sock')!r}))"
        )
        self.process = subprocess.Popen(
            [python, "-u", "-B", "-c", program],
            env={
                **self.env,
                ENV_CONTAINER_ID: TEMPLATE,
                ENV_TOKEN: TEMPLATE_TOKEN,
                ENV_TEMPLATE: stage,
                ENV_TEMPLATE_FD: str(theirs.fileno()),
            },
            pass_fds=(theirs.fileno(),),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
        theirs.close()

    def report(self) -> dict[str, Any]:
        """What it says of itself: that it is ready, or why it is not fit to be forked."""
        self._control.settimeout(TIMEOUT_S)
        said = self._control.recv(65_536)
        assert said, f"the template ended: {self.printed()}"
        found: dict[str, Any] = json.loads(said)
        return found

    def ask(self, message: bytes, descriptors: tuple[int, ...] = ()) -> None:
        """Anything, as it is."""
        socket.send_fds(self._control, [message], list(descriptors))

    def fork(self, joining: Mapping[str, Any] | None = None, program: bytes = b"") -> Fork:
        """A fork that has been told how to join: to stay where it is, unless something else is said."""
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.ask(b'{"fork": 1}', (theirs.fileno(),))
        theirs.close()
        ours.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
        ours.settimeout(TIMEOUT_S)
        ours.send(json.dumps({"namespaces": 0, "cgroups": 0, **(joining or {})}).encode())
        ours.send(program)
        return Fork(ours, self.env)

    def printed(self) -> str:
        """All it has printed, when it has ended."""
        out, _ = self.process.communicate(timeout=TIMEOUT_S)
        text: str = out.decode()
        return text

    def leave(self) -> int:
        """Close the socket; its exit code."""
        self._control.close()
        return self.process.wait(TIMEOUT_S)

    def close(self) -> None:
        """Leave nothing."""
        self._control.close()
        self.process.kill()
        self.process.wait(TIMEOUT_S)
        assert self.process.stdout is not None
        self.process.stdout.close()


class Fork:
    """A fork of a template: as a process, `tests.guest.started_guest.Launched`."""

    def __init__(self, channel: socket.socket, env: Mapping[str, str]) -> None:
        self.channel = channel
        self._env = env
        self.pid = 0
        self._pidfd = -1
        self.returncode: int | None = None
        self.stdout: IO[bytes] | None = None
        self._stderr: IO[bytes] | None = None
        self.begun_ms = 0.0

    def said(self) -> dict[str, Any]:
        """The next it says; empty when it has ended."""
        data, ancillary, _, _ = self.channel.recvmsg(65_536, socket.CMSG_SPACE(struct.calcsize("3i")))
        for level, kind, content in ancillary:
            if (level, kind) == (socket.SOL_SOCKET, socket.SCM_CREDENTIALS):
                self.pid = struct.unpack("3i", content)[0]
        found: dict[str, Any] = json.loads(data) if data else {}
        return found

    def joined(self) -> Fork:
        """Wait until it has."""
        said = self.said()
        assert said == {"joined": 1}, said
        self._pidfd = os.pidfd_open(self.pid)
        return self

    def let_wait(self) -> Fork:
        """It is parked."""
        self.channel.send(b'{"wait": 1}')
        return self

    def tell(self, env: Mapping[str, str]) -> None:
        """Who it is."""
        (out, their_out), (err, their_err) = os.pipe(), os.pipe()
        self.stdout, self._stderr = os.fdopen(out, "rb"), os.fdopen(err, "rb")
        message = json.dumps({"env": {**self._env, **env}}).encode()
        socket.send_fds(self.channel, [message], [their_out, their_err])
        os.close(their_out)
        os.close(their_err)

    def begin(self, container_id: str, token: str = "secret", **env: str) -> Fork:
        """Tell it, and wait until it has begun."""
        started = time.perf_counter()
        self.tell({ENV_CONTAINER_ID: container_id, ENV_TOKEN: token, **env})
        said = self.said()
        assert said == {"begun": 1}, said
        self.begun_ms = (time.perf_counter() - started) * 1000
        return self

    def communicate(self, *, timeout: float | None = None) -> tuple[bytes, bytes]:
        """What is left of its output, read to the end; it has ended then."""
        assert self.stdout is not None
        assert self._stderr is not None
        if self.stdout.closed:
            return b"", b""
        poll = select.poll()
        poll.register(self._pidfd, select.POLLIN)
        out, err = b"", b""
        deadline = time.monotonic() + (timeout or TIMEOUT_S)
        for stream in (self.stdout, self._stderr):
            os.set_blocking(stream.fileno(), False)
        has_ended = False
        while not has_ended:
            assert time.monotonic() < deadline, f"it has not ended; it printed {out!r} and {err!r}"
            has_ended = bool(poll.poll(10))
            out += self.stdout.read() or b""
            err += self._stderr.read() or b""
        if self.returncode is None:
            self.returncode = self.said().get("exit", -signal.SIGKILL)
        self.close()
        return out, err

    def send_signal(self, sig: int) -> None:
        """To the process itself."""
        os.kill(self.pid, sig)

    def close(self) -> None:
        """Leave nothing."""
        if self._pidfd >= 0:
            self.kill()
            os.close(self._pidfd)
            self._pidfd = -1
        for stream in (self.stdout, self._stderr):
            if stream is not None:
                stream.close()
        self.channel.close()

    def kill(self) -> None:
        """End it."""
        with contextlib.suppress(ProcessLookupError, OSError):
            signal.pidfd_send_signal(self._pidfd, signal.SIGKILL)


class ForkedGuest(abc.ABC):
    """A guest that is a fork; where its template is unfit, one that is started plainly, as an agent does."""

    def __init__(self, has_function: bool, container_id: str) -> None:
        self.has_function = has_function
        """Whether the template has loaded it."""
        self._container_id = container_id
        self._guest: Any = None
        self.is_fork = False
        """Its template was fit to be forked."""
        self.why_plain = ""
        """What its template said where it was not."""

    def boot(self, agent: AgentDouble, boot: Boot) -> None:
        """Say what to load to who asks for it: the template of a function, and then, as any guest, its fork."""
        if self.has_function:
            hello, _ = agent.expect("GuestHello", GuestHello)
            assert (hello.role, hello.container_id, hello.token) == (ROLE_TEMPLATE, TEMPLATE, TEMPLATE_TOKEN)
            agent.say("Boot", boot)
            self._guest = self.fork()
        hello, _ = agent.expect("GuestHello", GuestHello)
        assert (hello.role, hello.container_id, hello.token) == (ROLE_GUEST, self._container_id, "secret")
        agent.say("Boot", boot)

    @abc.abstractmethod
    def fork(self) -> Any:
        """The guest, of the template when that is ready."""

    @abc.abstractmethod
    def end_template(self) -> None:
        """Leave nothing of it."""

    @property
    def returncode(self) -> int | None:
        """Of the fork."""
        code: int | None = self._guest.returncode
        return code

    @property
    def stdout(self) -> IO[bytes] | None:
        """Of the fork."""
        found: IO[bytes] | None = self._guest.stdout
        return found

    def communicate(self, *, timeout: float | None = None) -> tuple[bytes, bytes]:
        """Of the fork; the template ends, too."""
        try:
            if self._guest is None:
                return b"", b""
            found: tuple[bytes, bytes] = self._guest.communicate(timeout=timeout)
            return found
        finally:
            self.end_template()

    def send_signal(self, sig: int) -> None:
        """To the fork."""
        self._guest.send_signal(sig)

    def kill(self) -> None:
        """Of the fork."""
        if self._guest is not None:
            self._guest.kill()


class ForkedProcess(ForkedGuest):
    """One whose template is a process of its own."""

    def __init__(
        self, directory: Path, python: str, stage: str, container_id: str, start_plainly: Callable[[Path, str], Any]
    ) -> None:
        super().__init__(stage == TEMPLATE_FUNCTION, container_id)
        self._plain = functools.partial(start_plainly, directory, python)
        self._template = TemplateProcess(directory, python, stage)
        if not self.has_function:
            self._guest = self.fork()

    def fork(self) -> Any:
        """See `ForkedGuest`."""
        report = self._template.report()
        self.is_fork = "ready" in report
        self.why_plain = "" if self.is_fork else str(report)
        if self.is_fork:
            return self._template.fork().joined().begin(self._container_id)
        return self._plain()

    def end_template(self) -> None:
        """See `ForkedGuest`."""
        self._template.close()
