"""One data directory with its server, used as a user does: by the command, in processes of their own.

Base layers are kept from one test session to the next in a directory of this machine, which may be deleted at any time:
making one takes half a minute, copying it a second.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import hashlib
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from squall.agent.config import AUTO
from squall.main.ask import ask
from squall.protocol.container import ContainerInfo, ContainerList, ContainerListing
from squall.protocol.errors import ChannelClosed, PlatformError
from squall.runtime.network.names import Names
from tests import leaks
from tests.e2e import paths

PROGRAMS = Path(__file__).parent / "programs"
SQUALL = str(Path(sys.executable).with_name("squall"))
RUN_S = 60.0
# Which run of the tests it is, and how containers start in it (`make test-paths`).
_KEPT = ("SQUALL_TEST_RUN", "SQUALL_START_PATH")
# The name is one that the search for leaks leaves alone.
_CACHE = Path(tempfile.gettempdir()) / "squall-test.layers"


@dataclass(frozen=True, slots=True)
class Ended:
    """A command that has ended."""

    code: int
    out: str
    err: str
    wall_s: float

    def __str__(self) -> str:
        return f"exit code {self.code} after {self.wall_s:.1f} s\n--- stdout\n{self.out}\n--- stderr\n{self.err}"


class Running:
    """A command that runs, in a process group of its own as in a terminal."""

    def __init__(self, argv: Sequence[str], environ: Mapping[str, str], cwd: Path | None) -> None:
        self._started = time.monotonic()
        self._files = contextlib.ExitStack()
        self._out = self._files.enter_context(tempfile.TemporaryFile())  # noqa: SIM115 - closed by `close`
        self._err = self._files.enter_context(tempfile.TemporaryFile())  # noqa: SIM115 - as above
        self.process = subprocess.Popen(
            argv,
            env=dict(environ),
            cwd=cwd,
            stdin=subprocess.DEVNULL,
            stdout=self._out,
            stderr=self._err,
            start_new_session=True,
        )

    @property
    def pid(self) -> int:
        """Of the command itself."""
        return self.process.pid

    def said(self) -> str:
        """What it has printed so far."""
        return self._read(self._out) + self._read(self._err)

    def wait_said(self, text: str, timeout_s: float = 30.0) -> None:
        """Wait until it has printed this."""
        wait_until(lambda: text in self.said() or self.process.poll() is not None, f"{text!r} is printed", timeout_s)
        assert text in self.said(), f"it ended without saying {text!r}:\n{self.said()}"

    def signal(self, number: int) -> None:
        """Signal the whole group, as a terminal does."""
        os.killpg(self.process.pid, number)

    def wait(self, timeout_s: float = RUN_S) -> Ended:
        """Wait for its end; one that hangs is killed and fails the test with what it said."""
        try:
            code = self.process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            said = self.said()
            self.close()
            raise AssertionError(f"it hangs for {timeout_s} s; it said:\n{said}") from None
        ended = Ended(code, self._read(self._out), self._read(self._err), time.monotonic() - self._started)
        self.close()
        return ended

    def close(self) -> None:
        """Kill it if it still runs; may be repeated."""
        if self.process.poll() is None:
            self.signal(signal.SIGKILL)
            self.process.wait(10)
        self._files.close()

    @staticmethod
    def _read(file: Any) -> str:
        # By offset: the position in the file is shared with the command that writes.
        return os.pread(file.fileno(), 64 * 2**20, 0).decode(errors="replace")


class Installation:
    """A data directory. Its server starts with the first command that needs it; `stop` ends it."""

    def __init__(self, data_dir: Path, settings: Mapping[str, str] | None = None) -> None:
        self.data_dir = data_dir
        self._settings = dict(settings or {})
        self._told: set[str] = set()
        # What the kernel's objects of this directory carry in their names.
        self.instance = "i" + hashlib.sha256(str(data_dir).encode()).hexdigest()[:10]
        self._started: list[Running] = []

    def environ(self, **more: str) -> dict[str, str]:
        """The variables its commands run with."""
        inherited = {name: value for name, value in os.environ.items() if not name.startswith("SQUALL_")}
        kept = {name: os.environ[name] for name in _KEPT if name in os.environ}
        return {**inherited, **kept, "SQUALL_DATA_DIR": str(self.data_dir), **self._settings, **more}

    def start(
        self,
        *arguments: str,
        prefix: Sequence[str] = (),
        executable: Sequence[str] = (SQUALL,),
        environ: Mapping[str, str] | None = None,
        cwd: Path | None = None,
    ) -> Running:
        """Start the command with these arguments; `prefix` comes before it, as in `setpriv ... squall`."""
        running = Running([*prefix, *executable, *arguments], self.environ(**(environ or {})), cwd)
        self._started.append(running)
        return running

    def command(self, *arguments: str, timeout_s: float = RUN_S, **how: Any) -> Ended:
        """Run the command to its end."""
        return self.start(*arguments, **how).wait(timeout_s)

    def run(self, program: str, *arguments: str, timeout_s: float = RUN_S, **how: Any) -> Ended:
        """`squall run` a file of `programs/`, given as `file.py::name`."""
        return self.command("run", str(PROGRAMS / program), *arguments, timeout_s=timeout_s, **how)

    def start_run(self, program: str, *arguments: str, **how: Any) -> Running:
        """Begin to `squall run` a file of `programs/`."""
        return self.start("run", str(PROGRAMS / program), *arguments, **how)

    def status(self) -> dict[str, Any]:
        """What the server says of itself."""
        found: dict[str, Any] = json.loads(self.command("server", "status", "--json").out)
        return found

    def server_pid(self) -> int:
        """The server's process, as its file says."""
        return int(json.loads((self.data_dir / "server.json").read_text())["pid"])

    def server_log(self) -> str:
        """The end of what the server wrote."""
        log = self.data_dir / "server.log"
        return log.read_text(errors="replace")[-4_000:] if log.exists() else "(none)"

    def spawner_pid(self) -> int:
        """The process that forks containers."""
        wanted = str(self.data_dir / "spawner")
        for pid in filter(str.isdigit, os.listdir("/proc")):
            argv = _argv(int(pid))
            if any("spawner" in one and one != wanted for one in argv) and wanted in "\0".join(argv):
                return int(pid)
        raise AssertionError(f"no spawner runs for {self.data_dir}")

    def containers(self) -> list[dict[str, Any]]:
        """What `squall container list` shows."""
        ended = self.command("container", "list", "--json")
        assert ended.code == 0, ended
        found: list[dict[str, Any]] = json.loads(ended.out)
        return found

    def started(self) -> tuple[ContainerInfo, ...]:
        """All containers that its server remembers to have started or taken over; none where no server runs.

        Raises:
            PlatformError: it does not answer.
        """
        found: list[ContainerInfo] = []
        wanted: ContainerList | None = ContainerList(include_stopped=True, limit=10_000)
        while wanted is not None:
            try:
                listing = asyncio.run(ask(self.data_dir / "server.sock", "ContainerList", wanted, ContainerListing))
            except (FileNotFoundError, ConnectionRefusedError, ChannelClosed):
                return ()
            found += listing.containers
            wanted = wanted.following(listing)
        return tuple(found)

    def strays(self) -> list[str]:
        """Containers that took another path than the one its server has for all, told once each."""
        path = self.environ().get("SQUALL_START_PATH", AUTO)
        try:
            found = [] if path == AUTO else [one for one in self.started() if one.container_id not in self._told]
        except PlatformError as error:
            return [f"what is not known: its server does not say what it has started: {error}"]
        self._told |= {one.container_id for one in found if one.path}
        return paths.strays(path, found)

    def path_of(self, container_id: str) -> str:
        """How a container's start came about."""
        ended = self.command("container", "show", container_id, "--json")
        assert ended.code == 0, ended
        return str(json.loads(ended.out)["container"].get("path", ""))

    def processes(self) -> set[int]:
        """Those of its containers, by their control groups; templates, and what waits to be a container, are none."""
        found = set()
        for pid in filter(str.isdigit, os.listdir("/proc")):
            try:
                group = re.search(rf"/{self.instance}/([\w-]+)", Path(f"/proc/{pid}/cgroup").read_text())
                state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
            except OSError:
                continue
            if group and state not in "ZX" and self._is_container(group[1]):
                found.add(int(pid))
        return found

    def kill_processes(self) -> None:
        """Kill those of its containers; with one others may end."""
        for pid in self.processes():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

    def _is_container(self, name: str) -> bool:
        """Whether what has this control group is one that the server knows, and not something that was made ahead."""
        if not name.startswith(("tp-", "ce-")):
            return True
        try:
            record = json.loads((self.data_dir / "containers" / name / "agent.json").read_text())
        except (OSError, ValueError):
            return False
        return not name.startswith("tp-") and bool(record["container_id"])

    def group_of(self, container_id: str) -> str:
        """What a container's control group is called: as itself, or of a fork as the cell it lives in."""
        for path in (self.data_dir / "containers").glob("*/agent.json"):
            with contextlib.suppress(OSError, ValueError):
                if json.loads(path.read_text())["container_id"] == container_id:
                    return path.parent.name
        raise AssertionError(f"{container_id} has no directory")

    def wait_no_processes(self, timeout_s: float) -> float:
        """Wait until no container has a process; returns the seconds that took."""
        return wait_until(lambda: not self.processes(), "all processes of containers are gone", timeout_s)

    def close_commands(self) -> None:
        """Kill the commands that a test has left running."""
        for running in self._started:
            running.close()
        self._started.clear()

    def left_behind(self) -> list[str]:
        """What the machine still has of this directory after `stop`, besides the directory itself."""
        marks = (str(self.data_dir), self.instance, Names(self.instance).tag)
        itself = (f"file {self.data_dir} ", f"mount {self.data_dir} ")
        deadline = time.monotonic() + leaks.SETTLE_S
        while True:
            lines = [line for line in leaks.snapshot() if any(mark in line for mark in marks)]
            found = [line for line in lines if not f"{line} ".startswith(itself)]
            if not found or time.monotonic() > deadline:
                return found
            time.sleep(0.2)

    def undeleted(self) -> list[str]:
        """Files that containers and builds had, and that are still in the directory after `stop`."""
        places = ("containers", "removed", "network", "spawner/records", "layers/.scratch")
        paths = (path for place in places for path in (self.data_dir / place).rglob("*"))
        return sorted(str(path) for path in paths if not path.is_dir() or not any(path.iterdir()))

    def stop(self) -> None:
        """End the server and everything it runs.

        Raises:
            AssertionError: a container took another path than the one for all, and nobody has been told.
        """
        self.close_commands()
        strays = self.strays()
        if (self.data_dir / "server.lock").exists():
            ended = self.command("server", "stop", "--force")
            assert ended.code == 0, ended
        assert not strays, paths.told(strays)


def wait_until(is_so: Callable[[], bool], what: str, timeout_s: float) -> float:
    """Wait for something; fails with `what` after `timeout_s`, else returns the seconds waited."""
    started = time.monotonic()
    while not is_so():
        assert time.monotonic() - started < timeout_s, f"not within {timeout_s} s: {what}"
        time.sleep(0.02)
    return time.monotonic() - started


def _argv(pid: int) -> list[str]:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().decode(errors="replace").split("\0")
    except OSError:
        return []


# Layers


def link_layers(source: Path, target: Path) -> None:
    """Give a second data directory the layers of another one, which are never changed in place."""
    subprocess.run(["cp", "-al", str(source / "layers"), str(target / "layers")], check=True, timeout=60)


def take_layers_from_cache(data_dir: Path) -> None:
    """Copy what earlier sessions left, if it is root's and nobody else can write there."""
    with _cache_locked():
        if _is_safe(_CACHE):
            subprocess.run(
                ["cp", "-a", "--reflink=auto", str(_CACHE), str(data_dir / "layers")], check=True, timeout=120
            )


def find_in_cache(key: str) -> Path | None:
    """The layer of this key that earlier sessions left, in its place: to be read only."""
    pointer = _CACHE / ".keys" / key
    if not _is_safe(_CACHE) or not pointer.exists():
        return None
    layer = _CACHE / pointer.read_text().strip()
    return layer if layer.is_dir() else None


def keep_layers_in_cache(data_dir: Path) -> None:
    """Copy base layers that are new; the server must have stopped."""
    with _cache_locked():
        _keep_layers(data_dir)


@contextlib.contextmanager
def _cache_locked() -> Iterator[None]:
    """Several processes share the suite."""
    with open(_CACHE.with_suffix(".lock"), "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _keep_layers(data_dir: Path) -> None:
    try:
        _CACHE.mkdir(mode=0o700)
        (_CACHE / ".keys").mkdir()
    except FileExistsError:
        if not _is_safe(_CACHE):
            return
    for key in (data_dir / "layers" / ".keys").iterdir():
        layer = data_dir / "layers" / key.read_text().strip()
        is_base = "python_version" in json.loads((layer / "manifest.json").read_text())["facts"]
        if is_base and not (_CACHE / ".keys" / key.name).exists():
            subprocess.run(["cp", "-a", str(layer), str(_CACHE / f"{layer.name}.new")], check=True, timeout=120)
            os.rename(_CACHE / f"{layer.name}.new", _CACHE / layer.name)
            (_CACHE / ".keys" / key.name).write_text(key.read_text())


def _is_safe(path: Path) -> bool:
    try:
        found = path.lstat()
    except FileNotFoundError:
        return False
    return found.st_uid == os.geteuid() and found.st_mode & 0o077 == 0 and (path / ".keys").is_dir()
