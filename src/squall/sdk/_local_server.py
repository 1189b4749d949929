"""Where the server is, and how the local one is started when nobody answers."""

from __future__ import annotations

import os
import sys

from squall.exception import ConnectionError, InvalidError  # noqa: A004 - ours, not the builtin
from squall.protocol.records import record

DEFAULT_DATA_DIR = "/var/lib/squall"
START_S = 60.0


@record
class Endpoint:
    """One of three ways to a server; exactly one of the first two is set."""

    socket_path: str = ""
    url: str = ""
    """Of a server elsewhere, reached by WebSocket."""
    token: str = ""
    """Opens that server."""
    data_dir: str = ""
    """Of the local server; empty when the client has no business starting one."""
    container_token: str = ""
    """In a container: introduces us to the agent behind the socket."""
    container_id: str = ""


def find_endpoint() -> Endpoint:
    """Container, `SQUALL_SERVER_URL` with `SQUALL_TOKEN`, or the local server.

    Raises:
        InvalidError: this is a step of an image build.
    """
    from squall.sdk import _container  # cold start: tiny, and loaded anyway in a container

    state = _container.current()
    if state is not None and not state.socket_path:
        raise InvalidError(
            "a step of an image build reaches no server: nothing can be built, looked up or called in it; what does so "
            "at the top level of the module goes below `if __name__ == '__main__':` or into a local entrypoint"
        )
    if state is not None:
        return Endpoint(
            socket_path=state.socket_path, container_token=state.token, container_id=state.boot.container_id
        )
    url = os.environ.get("SQUALL_SERVER_URL", "")
    if url:
        return Endpoint(url=url, token=os.environ.get("SQUALL_TOKEN", ""))
    data_dir = os.environ.get("SQUALL_DATA_DIR", "") or DEFAULT_DATA_DIR
    return Endpoint(socket_path=os.path.join(data_dir, "server.sock"), data_dir=data_dir)


def start(data_dir: str) -> None:
    """Start the local server and return when it answers.

    Raises:
        ConnectionError: it does not start; the message has its last words, and what to do.
    """
    import subprocess  # cold start: only when no server answers

    if os.geteuid() != 0:
        raise ConnectionError(
            f"no Squall server answers at {data_dir}/server.sock, and starting one needs root: run "
            f"`sudo {_command()}`, start it once by `sudo {_program()} server start`, or set SQUALL_SERVER_URL to a "
            "server elsewhere"
        )
    argv = [sys.executable, "-m", "squall.main.dev", "start", "--data-dir", data_dir]
    try:
        done = subprocess.run(
            argv, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=START_S, check=False, env=_env()
        )
    except subprocess.TimeoutExpired:
        raise ConnectionError(
            f"the Squall server did not start within {START_S:.0f} s; see {data_dir}/server.log"
        ) from None
    if done.returncode != 0:
        last = (done.stderr.strip() or done.stdout.strip() or f"exit status {done.returncode}").splitlines()[-5:]
        raise ConnectionError(
            f"cannot start the Squall server: {' / '.join(last)}; see {data_dir}/server.log, or run `squall doctor`"
        )


def _env() -> dict[str, str]:
    # The server must find this very package, also when it is used from a source checkout.
    package_dir = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
    paths = [package_dir, os.environ.get("PYTHONPATH", "")]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in paths if path)}


def _command() -> str:
    """What was typed, so that `sudo` finds it: that looks for programs in places of its own."""
    name, *words = sys.argv
    typed = [_program()] if os.path.basename(name) == "squall" else [sys.executable, name]
    return " ".join([*typed, *words])[:200]


def _program() -> str:
    """Where the `squall` of this Python is, if it is there."""
    path = os.path.join(os.path.dirname(sys.executable), "squall")
    return path if os.path.exists(path) else "squall"
