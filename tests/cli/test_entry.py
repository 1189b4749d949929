"""The command is interrupted while it is loaded."""

from __future__ import annotations

import signal
import subprocess
import sys

# A finder that is asked for click is Ctrl-C at that moment.
INTERRUPTED = """
import os, signal, sys
class Interrupting:
    def find_spec(self, name, path=None, target=None):
        if name == "click":
            os.kill(os.getpid(), signal.SIGINT)
sys.meta_path.insert(0, Interrupting())
if sys.argv[1] == "ignored":
    signal.signal(signal.SIGINT, signal.SIG_IGN)
sys.argv[1:] = ["--version"]
from squall.cli.entry import main
main()
"""


def run(how: str) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run([sys.executable, "-c", INTERRUPTED, how], capture_output=True, timeout=30, check=False)


def test_ctrl_c_while_the_command_is_loaded_ends_it_without_a_word() -> None:
    ended = run("heard")

    assert (ended.returncode, ended.stdout, ended.stderr) == (-signal.SIGINT, b"", b"")


def test_ctrl_c_that_is_to_be_ignored_is_ignored_while_the_command_is_loaded() -> None:
    ended = run("ignored")

    assert (ended.returncode, ended.stderr) == (0, b"")
    assert ended.stdout.startswith(b"squall ")
