"""Debian's Chromium, without a screen, told what to do over its own protocol (CDP)."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import tempfile
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import pytest
from websockets.sync.client import ClientConnection, connect

from squall.runtime.removal import remove_tree
from tests.e2e.installation import wait_until

WAIT_S = 60.0


class Browser:
    """One page of a browser of its own, with a profile that is gone afterwards."""

    def __init__(self) -> None:
        self._program = _program()
        self._folder = Path(tempfile.mkdtemp(prefix="squall-browser-"))
        self._asked = 0
        self._session = ""
        self._open = contextlib.ExitStack()

    def __enter__(self) -> Self:
        argv = [
            self._program,
            "--headless",
            # It shall find the server, and nothing beyond this machine.
            "--no-proxy-server",
            "--disable-background-networking",
            "--disable-component-update",
            "--disable-breakpad",
            "--disable-gpu",
            # As root it has no sandbox of its own, and the memory of a small machine is not in /dev/shm.
            "--no-sandbox",
            "--disable-dev-shm-usage",
            "--remote-debugging-port=0",
            f"--user-data-dir={self._folder / 'profile'}",
            "about:blank",
        ]
        environ = {**os.environ, "HOME": str(self._folder), "TMPDIR": str(self._folder)}
        with (self._folder / "log").open("wb") as log:
            self._process = subprocess.Popen(
                argv, env=environ, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
            )
        try:
            self._socket = self._open.enter_context(self._connect())
            target = self._ask("Target.createTarget", url="about:blank")["targetId"]
            self._session = self._ask("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
            self._ask("Page.enable")
        except BaseException:
            self._kill()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self._open:
            self._kill()

    def open(self, url: str) -> None:
        """Load a page, and wait until it is there.

        Raises:
            AssertionError: it cannot be loaded.
        """
        found = self._ask("Page.navigate", url=url)
        assert "errorText" not in found, f"{url}: {found['errorText']}"
        while self._heard().get("method") != "Page.loadEventFired":
            pass

    def run(self, script: str) -> Any:
        """What the promise that is the value of this script becomes, in the page.

        Raises:
            AssertionError: it is rejected.
        """
        found = self._ask("Runtime.evaluate", expression=script, awaitPromise=True, returnByValue=True)
        assert "exceptionDetails" not in found, found["exceptionDetails"]
        return found["result"].get("value")

    def _connect(self) -> ClientConnection:
        said = self._folder / "profile" / "DevToolsActivePort"
        wait_until(
            lambda: self._process.poll() is not None or (said.exists() and said.read_text().count("\n") > 0),
            "the browser listens",
            WAIT_S,
        )
        assert self._process.poll() is None, (self._folder / "log").read_text(errors="replace")[-2_000:]
        port, path = said.read_text().split()
        return connect(f"ws://127.0.0.1:{port}{path}", max_size=None, proxy=None)

    def _ask(self, method: str, **parameters: Any) -> dict[str, Any]:
        self._asked += 1
        session = {"sessionId": self._session} if self._session else {}
        self._socket.send(json.dumps({"id": self._asked, "method": method, "params": parameters, **session}))
        while (heard := self._heard()).get("id") != self._asked:
            pass
        assert "error" not in heard, f"{method}: {heard['error']}"
        found: dict[str, Any] = heard["result"]
        return found

    def _heard(self) -> dict[str, Any]:
        heard: dict[str, Any] = json.loads(self._socket.recv(timeout=WAIT_S))
        return heard

    def _kill(self) -> None:
        os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait(10)
        remove_tree(str(self._folder))


def _program() -> str:
    found = shutil.which("chromium", path="/usr/bin:/usr/local/bin")
    if found is None:
        pytest.skip("needs a browser, the Debian package chromium (scripts/install-chromium)")
    return found
