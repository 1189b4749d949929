"""A function that takes more than its share is held to it, and the machine goes on."""

from __future__ import annotations

import re
import signal
import threading
from pathlib import Path

from tests.e2e.installation import Installation
from tests.e2e.paths import OF_THE_MACHINES_KERNEL

FORKS_MAX = 400


def limit_files(squall: Installation, name: str) -> list[Path]:
    """The files of this name in the groups of this server's containers."""
    found = set()
    for pid in squall.processes():
        for line in Path(f"/proc/{pid}/cgroup").read_text().splitlines():
            _, controllers, group = line.split(":", 2)
            for root in (f"/sys/fs/cgroup/{controllers}", "/sys/fs/cgroup", "/sys/fs/cgroup/unified"):
                path = Path(f"{root}{group}/{name}")
                if path.exists():
                    found.add(path)
    return sorted(found)


@OF_THE_MACHINES_KERNEL
def test_forks_stop_at_the_limit_and_the_container_can_be_ended(squall: Installation) -> None:
    running = squall.start_run("abusing.py::fork", "--count", str(FORKS_MAX))
    running.wait_said("waiting for the limit")
    limits = limit_files(squall, "pids.max")
    assert limits, "no pids.max of a container is found"
    assert all(0 < int(path.read_text()) <= 32_768 for path in limits), [path.read_text() for path in limits]
    # Lowered, so that a bounded number of forks is enough to meet it.
    for path in limits:
        path.write_text("100")

    begun = squall.command("container", "exec", squall.containers()[0]["container_id"], "touch", "/tmp/go")
    running.wait_said("forked:")
    most = len(squall.processes())
    other = squall.run("square.py")
    running.signal(signal.SIGINT)
    gone_s = squall.wait_no_processes(3)
    ended = running.wait(10)

    assert begun.code == 0, begun
    made = re.search(r"^forked: (\d+) (.*)$", ended.out, re.MULTILINE)
    assert made, ended
    assert 50 < int(made[1]) < 100, ended
    assert made[2] == "Resource temporarily unavailable", ended
    assert most <= 100, f"{most} processes in containers"
    assert other.code == 0, other
    assert gone_s < 3, gone_s


def test_endless_output_is_dropped_aloud_and_costs_the_server_no_memory(squall: Installation) -> None:
    peak = Peak(squall.server_pid())
    with peak:
        ended = squall.run("abusing.py::output", timeout_s=90)

    assert ended.code == 0, ended.err[-2_000:]
    took = re.search(r"^seconds: ([\d.]+)$", ended.err, re.MULTILINE)
    assert took, ended.err[-2_000:]
    assert float(took[1]) < 20, f"printing 100 MiB took {took[1]} s"
    dropped = [int(count) for count in re.findall(r"dropped (\d+) lines", ended.err)]
    shown = ended.out.count("x" * 1023)
    assert dropped, ended.err[-2_000:]
    assert sum(dropped) + shown == 100 * 1024, f"{sum(dropped)} dropped, {shown} shown: some vanished unsaid"
    assert peak.grown_bytes < 120 * 2**20, f"the server grew by {peak.grown_bytes / 2**20:.0f} MiB"


def test_what_a_function_says_after_endless_output_is_shown(squall: Installation) -> None:
    ended = squall.run("abusing.py::flooded", timeout_s=90)

    assert ended.code == 0, ended.err[-2_000:]
    assert re.search(r"dropped \d+ lines of stdout here", ended.err), ended.err[-2_000:]
    shown = ended.out.splitlines()
    assert [line[:16] for line in shown[-2:]] == ["the result is 49", "caught: raised a"], ended.out[-200:]
    last = 60 * 1024 - 1
    assert [int(line.split()[0]) for line in shown[-52:-2]] == list(range(last - 49, last + 1))
    assert "in flood\n" in ended.err
    assert "ValueError: raised after a flood\n" in ended.err


class Peak:
    """How much resident memory a process takes at most, while the block runs."""

    def __init__(self, pid: int) -> None:
        self._pid = pid
        self._is_over = threading.Event()
        self._thread = threading.Thread(target=self._watch)
        self._first = self._most = self._bytes()

    @property
    def grown_bytes(self) -> int:
        """Over what it was at the beginning."""
        return self._most - self._first

    def __enter__(self) -> Peak:
        self._thread.start()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._is_over.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._is_over.wait(0.1):
            self._most = max(self._most, self._bytes())

    def _bytes(self) -> int:
        return int(Path(f"/proc/{self._pid}/statm").read_text().split()[1]) * 4096
