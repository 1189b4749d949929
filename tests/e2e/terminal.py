"""The command as a person uses it: on a terminal."""

from __future__ import annotations

import os
import pty
import signal
import subprocess
import time

from tests.e2e import flows
from tests.e2e.installation import SQUALL, Installation


class Terminal:
    """The command on a pseudo-terminal of 40 rows and 120 columns."""

    def __init__(self, installation: Installation, *arguments: str) -> None:
        self.said = ""
        self._is_over = False
        self._pid, self._descriptor = pty.fork()
        if self._pid == 0:
            subprocess.run(["stty", "rows", "40", "columns", "120"], check=False)
            os.chdir(flows.FLOWS)
            os.execve(SQUALL, [SQUALL, *arguments], installation.environ(TERM="xterm"))
        os.set_blocking(self._descriptor, False)

    def __enter__(self) -> Terminal:
        return self

    def __exit__(self, *exc_info: object) -> None:
        """Kill the command if it still runs."""
        if not self._is_over:
            os.kill(self._pid, signal.SIGKILL)
            os.waitpid(self._pid, 0)
            os.close(self._descriptor)

    def type(self, text: str) -> None:
        """Press these keys."""
        os.write(self._descriptor, text.encode())

    def wait_said(self, text: str, timeout_s: float = 30.0, *, after: str = "") -> None:
        """Wait until this has been shown, once that has."""
        deadline = time.monotonic() + timeout_s
        while text not in self.said[max(0, self.said.find(after)) :] or after not in self.said:
            assert time.monotonic() < deadline, f"{text!r} was not shown; this was:\n{self.said}"
            self._read()

    def wait(self, timeout_s: float = 30.0) -> int:
        """The command's exit code."""
        deadline = time.monotonic() + timeout_s
        while True:
            self._read()
            pid, status = os.waitpid(self._pid, os.WNOHANG)
            if pid:
                # What it said last may have come after the look above.
                while self._read():
                    pass
                os.close(self._descriptor)
                self._is_over = True
                return os.waitstatus_to_exitcode(status)
            if time.monotonic() > deadline:
                raise AssertionError(f"it hangs; it showed:\n{self.said}")

    def _read(self) -> bool:
        """Take what has been shown; whether there was something."""
        try:
            data = os.read(self._descriptor, 65_536)
        except OSError:  # nothing there, or its other end is closed
            data = b""
        self.said += data.decode(errors="replace")
        if not data:
            time.sleep(0.02)
        return bool(data)
