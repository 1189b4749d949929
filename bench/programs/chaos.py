"""Kills a server, its agent, their spawner, containers and their templates at random while a program makes calls.

`chaos.py CALLS SEED` prints one JSON object: what `chaos_calls.py` has counted, and what was killed. Server and agent
are two programs here, started again at once as an init system does; what they find is what the killed ones left. The
seed decides what is killed and when, as far as a seed can: the processes have clocks of their own. Calls are made until
the last of the kills, which are one for each hundred calls and of every kind (`chaos_kills.py`).
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import random
import secrets
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from bench.programs.chaos_kills import Kills
from squall.main.ask import ask
from squall.main.data_dir import read_server_file
from squall.main.spawner import instance_name
from squall.protocol.errors import PlatformError
from squall.protocol.server import ServerStatus, ServerStatusRequest

PROGRAMS = Path(__file__).resolve().parent
START_S = 60.0
ANSWER_S = 2.0
CALLS_S = 1_800.0
QUIET_S = (0.2, 1.5)
"""Between two kills."""
STARTING_SHARE = 0.25
"""How often what is on its way up is killed, too: always, and nothing were ever up where starts take long."""
CALLS_EACH = 100
"""So many calls for each kill, at least."""
LOG_CHARS = 4_000
"""Of the end of a log that is shown."""


def logs(data_dir: Path) -> dict[str, Path]:
    """What the programs wrote that a run has killed there."""
    return {
        "server": data_dir / "s" / "log",
        "agent": data_dir / "n" / "log",
        "spawner": data_dir / "n" / "spawner" / "spawner.log",
    }


def tail(log: Path) -> str:
    """The end of one of them."""
    return log.read_text(errors="replace")[-LOG_CHARS:] if log.exists() else "(none)"


class Machine:
    """A server and a node, as processes that may die."""

    def __init__(self, data_dir: Path) -> None:
        self._server_dir, self._node_dir = data_dir / "s", data_dir / "n"
        self._logs = logs(data_dir)
        self._token = secrets.token_hex(16)
        self._programs: dict[str, subprocess.Popen[bytes]] = {}
        self._url = ""
        for directory in (self._server_dir, self._node_dir):
            directory.mkdir(parents=True, exist_ok=True)
        if (data_dir / "layers").is_dir() and not (self._node_dir / "layers").exists():
            # Never changed in place: the base need not be made again.
            subprocess.run(["cp", "-al", str(data_dir / "layers"), str(self._node_dir / "layers")], check=True)

    @property
    def environ(self) -> dict[str, str]:
        """The variables of a client."""
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("SQUALL_", "SUDO_"))}
        kept |= {name: value for name, value in os.environ.items() if name.startswith("SQUALL_TEST")}
        return {**kept, "SQUALL_SERVER_URL": self._url, "SQUALL_TOKEN": self._token}

    def start(self) -> None:
        """Start both, and wait until they know each other."""
        self.start_program("server")
        _wait(lambda: self._nodes() >= 0, "the server answers")
        found = read_server_file(self._server_dir)
        assert found is not None, "the server answers and has no server.json"
        self._url = found.url
        self.start_program("agent")
        _wait(lambda: self._nodes() == 1, "the agent joins")

    def start_program(self, name: str) -> None:
        """Start one of the two, at the address that it has had before."""
        module, directory = ("serverd", self._server_dir) if name == "server" else ("agentd", self._node_dir)
        more = {"SQUALL_DATA_DIR": str(directory), "SQUALL_NETWORK_SLOTS": "4"}
        if name == "server":
            more["SQUALL_HTTP_PORT"] = self._url.rpartition(":")[2] or "0"
        with open(self._logs[name], "ab") as log:
            self._programs[name] = subprocess.Popen(
                [sys.executable, "-m", f"squall.main.{module}"],
                env={**self.environ, **more}, stdin=subprocess.DEVNULL, stdout=log, stderr=log,
            )  # fmt: skip

    def is_up(self, name: str) -> bool:
        """Whether it has come back since it was killed last; of what others start again, always."""
        if name not in self._programs:
            return True
        return self._nodes() >= (0 if name == "server" else 1)

    def kill(self, name: str, rng: random.Random) -> bool:
        """Kill -9 one of them, and start it again where somebody would; whether there was one."""
        if name in self._programs:
            program = self._programs[name]
            program.kill()
            program.wait()
            self.start_program(name)
            return True
        found = self._spawners() if name == "spawner" else self._in_groups("tp-" if name == "template" else "")
        if not found:
            return False
        with contextlib.suppress(ProcessLookupError):
            os.kill(rng.choice(found), signal.SIGKILL)
        return True

    @contextlib.contextmanager
    def stopped(self, name: str) -> Iterator[None]:
        """In the block, it does nothing and is there."""
        program = self._programs[name]
        program.send_signal(signal.SIGSTOP)
        try:
            yield
        finally:
            program.send_signal(signal.SIGCONT)

    def revive(self) -> Iterator[str]:
        """Start again what has ended by itself; gives what that was, and the end of its log. Nothing should."""
        for name, program in list(self._programs.items()):
            if program.poll() is not None:
                said = tail(self._logs[name])
                self.start_program(name)
                yield f"{name}, with status {program.returncode}:\n{said}"

    def stop(self) -> None:
        """End everything, and take away what is left of it."""
        for program in self._programs.values():
            program.terminate()
        for program in self._programs.values():
            with contextlib.suppress(subprocess.TimeoutExpired):
                program.wait(30)
            program.kill()
        for directory in (self._node_dir, self._server_dir):
            argv = [sys.executable, "-m", "squall.main.dev", "stop", "--force", "--data-dir", str(directory)]
            subprocess.run(argv, env=self.environ, timeout=90, check=False, stdout=subprocess.DEVNULL)

    def _nodes(self) -> int:
        """Nodes that the server knows; -1 when it does not answer."""
        socket = self._server_dir / "server.sock"
        asking = ask(socket, "ServerStatus", ServerStatusRequest(), ServerStatus)
        try:
            return asyncio.run(asyncio.wait_for(asking, ANSWER_S)).node_count
        except (TimeoutError, OSError, PlatformError):
            return -1

    def _spawners(self) -> list[int]:
        wanted = os.fsencode(self._node_dir / "spawner")
        return [pid for pid, argv in _processes() if b"spawner" in argv.replace(wanted, b"") and wanted in argv]

    def _in_groups(self, prefix: str) -> list[int]:
        """Processes in containers and templates of the node: their first one, the guest and what it has started, also
        where a clone waits. With a prefix only of groups that are called so."""
        mark = f"/{instance_name(self._node_dir)}/{prefix}"
        found = []
        for pid, _ in _processes():
            with contextlib.suppress(OSError):
                if mark in Path(f"/proc/{pid}/cgroup").read_text():
                    found.append(pid)
        return sorted(found)


def _processes() -> Iterator[tuple[int, bytes]]:
    for pid in filter(str.isdigit, os.listdir("/proc")):
        with contextlib.suppress(OSError):
            yield int(pid), Path(f"/proc/{pid}/cmdline").read_bytes()


@contextlib.contextmanager
def _killed(program: subprocess.Popen[str]) -> Iterator[None]:
    """Whatever happens here, it does not run on."""
    try:
        yield
    except BaseException:
        program.kill()
        raise


def _wait(is_so: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + START_S
    while not is_so():
        if time.monotonic() > deadline:
            raise SystemExit(f"not within {START_S:.0f} s: {what}")
        time.sleep(0.05)


def run(data_dir: Path, calls: int, seed: int) -> dict[str, object]:
    """Make so many calls, or more, and kill meanwhile.

    Raises:
        SystemExit: the calls hang.
    """
    kills = Kills(calls // CALLS_EACH, seed)
    counted = _count(
        data_dir,
        calls,
        seed,
        lambda machine, program: _kill_until_it_ends(machine, kills, program, random.Random(seed)),
    )
    return {**counted, **{f"kills_{kind}": count for kind, count in kills.done.items()}}


def stand_still(data_dir: Path, calls: int, seed: int, still_s: float) -> dict[str, object]:
    """Make calls, and stop the agent meanwhile for so long, as a machine does that is suspended; then it goes on.

    Raises:
        SystemExit: the calls hang.
    """
    return _count(data_dir, calls, seed, lambda machine, program: _stop_once(machine, program, still_s))


def _count(
    data_dir: Path, calls: int, seed: int, disturb: Callable[[Machine, subprocess.Popen[str]], Iterator[str]]
) -> dict[str, object]:
    """What became of calls that somebody disturbs until they are over; who does says what has ended by itself."""
    machine = Machine(data_dir)
    ended: list[str] = []
    try:
        machine.start()
        program_argv = [sys.executable, str(PROGRAMS / "chaos_calls.py")]
        # In peace, for the image: a build that loses its node four times gives up, as it says.
        subprocess.run(
            [*program_argv, "40", str(seed)],
            env=machine.environ, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, check=True,
        )  # fmt: skip
        argv = [*program_argv, str(calls), str(seed)]
        with (
            subprocess.Popen(
                argv, env=machine.environ, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
            ) as program,
            _killed(program),
        ):
            ended += disturb(machine, program)
            said = program.stdout.read() if program.stdout is not None else ""
    finally:
        machine.stop()
    counted: dict[str, object] = json.loads(said.strip().splitlines()[-1]) if said.strip() else {"lost": calls}
    return {**counted, "ended_by_itself": ended, "seed": seed}


def _stop_once(machine: Machine, program: subprocess.Popen[str], still_s: float) -> Iterator[str]:
    assert program.stdin is not None, "a pipe"
    time.sleep(QUIET_S[1])
    with machine.stopped("agent"):
        time.sleep(still_s)
    program.stdin.close()
    try:
        program.wait(CALLS_S)
    except subprocess.TimeoutExpired:
        raise SystemExit("the calls hang after the agent stood still") from None
    yield from machine.revive()


def _kill_until_it_ends(
    machine: Machine, kills: Kills, program: subprocess.Popen[str], rng: random.Random
) -> Iterator[str]:
    """Kill until the program has ended, which it does after the last kill that is due; gives what ended by itself."""
    assert program.stdin is not None, "a pipe"
    deadline = time.monotonic() + CALLS_S
    while program.poll() is None:
        if time.monotonic() > deadline:
            raise SystemExit(f"the calls hang; killed so far: {dict(kills.done)}")
        with contextlib.suppress(subprocess.TimeoutExpired):
            program.wait(rng.uniform(*QUIET_S))
            break
        yield from machine.revive()
        victim = kills.next()
        is_spared = not machine.is_up(victim) and rng.random() >= STARTING_SHARE
        if is_spared or not machine.kill(victim, rng):
            kills.put_off()
            continue
        kills.note(victim)
        if kills.is_over:
            program.stdin.close()


if __name__ == "__main__":
    # Ended from outside, it still stops what it has started.
    signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))
    print(json.dumps(run(Path(os.environ["SQUALL_DATA_DIR"]), int(sys.argv[1]), int(sys.argv[2]))))
