"""What a registry says comes out of skopeo without the password that the registry was told."""

from __future__ import annotations

import base64
import json
import shutil
import threading
from collections.abc import Callable, Iterator
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from squall.agent.image.layer.store import LayerStore
from squall.agent.image.machine.settings import MachineSettings
from squall.agent.image.machine.tool import Output
from squall.agent.image.oci.credentials import Credentials
from squall.agent.image.oci.deliver import push_image, write_layout
from squall.agent.image.oci.pull import pull_image
from squall.agent.image.oci.refusal import RegistryFailure
from squall.protocol.image import ImageConfig

pytestmark = pytest.mark.long

PASSWORD = "s3cret-password"


class Telltale(BaseHTTPRequestHandler):
    """A registry that lets in nobody, and says aloud by which password it knows them."""

    def do_GET(self) -> None:  # the name is http.server's
        """Ask for a password, or repeat the one it was told."""
        self.rfile.read(int(self.headers.get("Content-Length") or 0))
        told = self.headers.get("Authorization", "")
        said = f"nobody has {told}, which is {base64.b64decode(told.rpartition(' ')[2]).decode()}"
        body = json.dumps({"errors": [{"code": "DENIED", "message": said}]}).encode()
        # Answers to HEAD have no words: there, nothing is missed but what it was asked for.
        refused = 404 if self.command == "HEAD" else 403
        self.send_response(refused if told else 401)
        self.send_header("WWW-Authenticate", 'Basic realm="here"')
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body if self.command != "HEAD" else b"")

    do_HEAD = do_POST = do_PUT = do_PATCH = do_GET  # noqa: N815  the names are http.server's

    def log_request(self, code: int | str = "-", size: int | str = "-") -> None:
        """Nothing: tests say what went wrong."""


@pytest.fixture
def settings(tmp_path: Path) -> MachineSettings:
    """Of a machine that asks such registries without TLS."""
    if not shutil.which("skopeo"):
        pytest.skip("missing program: skopeo")
    path = tmp_path / ".config/containers/registries.conf"
    path.parent.mkdir(parents=True)
    path.write_text('[[registry]]\nlocation = "127.0.0.1"\ninsecure = true\n')
    return MachineSettings(registry_env={"HOME": str(tmp_path)})


@pytest.fixture
def name() -> Iterator[str]:
    """An image of that registry."""
    with ThreadingHTTPServer(("127.0.0.1", 0), Telltale) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"127.0.0.1:{server.server_port}/one:1"
        server.shutdown()
        thread.join(20)


@pytest.mark.parametrize("is_push", [True, False])
def test_password_is_hidden_in_what_a_registry_repeats(
    name: str, settings: MachineSettings, tmp_path: Path, is_push: bool
) -> None:
    credentials = Credentials("reader", PASSWORD)
    (tmp_path / "layer").mkdir()
    lines: list[str] = []
    output = Output(lines.append)

    with LayerStore(tmp_path).scratch() as scratch:
        layout = write_layout([str(tmp_path / "layer")], [], ImageConfig(), scratch, output)
        work: Callable[..., object] = (
            partial(push_image, layout, name, settings, output)
            if is_push
            else partial(pull_image, name, settings, scratch, scratch.path / "root", output)
        )
        with pytest.raises(RegistryFailure) as caught:
            work(credentials=credentials)

    said = f"{caught.value} {lines}"
    assert "nobody has Basic ***, which is reader:***" in said
    assert PASSWORD not in said
    assert credentials.pair not in said
