"""What an executor reads off the kernel."""

from __future__ import annotations

import subprocess
import sys

import pytest

from squall.runtime.executor import takes_signals

# Forks a child like tini does: the child makes its own process group, or has not got to it yet.
PARENT = """
import os, signal, sys, time
has_group = sys.argv[1] == "True"
ready, said = os.pipe()
child = os.fork()
if child == 0:
    if has_group:
        os.setpgid(0, 0)
    os.write(said, b"x")
    time.sleep(60)
    os._exit(0)
os.read(ready, 1)
print("ready", flush=True)
sys.stdin.read()
os.kill(child, signal.SIGKILL)
os.wait()
"""


@pytest.mark.parametrize("has_group", [True, False])
def test_init_takes_signals_once_its_child_has_a_group_of_its_own(has_group: bool) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", PARENT, str(has_group)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as parent:
        assert parent.stdout is not None
        assert parent.stdout.readline() == b"ready\n"

        assert takes_signals(parent.pid) is has_group
    assert takes_signals(parent.pid), "one that is gone is waited for no longer"
