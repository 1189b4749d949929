"""AWS keys are exchanged for a password with what speaks for AWS, and each way in which none comes is told."""

from __future__ import annotations

import base64
import http.server
import json
import sys
import threading
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import pytest

from squall.agent.image.machine.settings import MachineSettings
from squall.agent.image.machine.tool import Output, run_tool
from squall.agent.image.oci import refusal
from squall.agent.image.oci.aws_login import exchange
from squall.agent.image.oci.credentials import AwsKeys
from squall.agent.image.oci.refusal import RegistryFailure
from tests.agent.image.block.stores import S3Server
from tests.ports import hold_port, port_of

pytestmark = pytest.mark.long

NAME = "r.test/one:1"


@pytest.fixture(scope="module")
def server() -> Iterator[S3Server]:
    """moto's server speaks for all of AWS."""
    with S3Server() as running:
        yield running


def keys_for(endpoint: str) -> AwsKeys:
    return AwsKeys("AKIAEXAMPLE", "s3cret-key", "eu-west-1", "s3cret-token", endpoint)


def endpoint_of(server: S3Server) -> str:
    return server.environ["AWS_ENDPOINT_URL"]


def failed(keys: AwsKeys, settings: MachineSettings | None = None) -> RegistryFailure:
    lines: list[str] = []
    with pytest.raises(RegistryFailure) as caught:
        exchange(keys, NAME, settings or MachineSettings(), Output(lines.append))
    said = str(caught.value)
    assert said.startswith(f"{NAME}: cannot exchange the AWS keys for a password: ")
    assert "s3cret" not in said
    assert lines == [], "what it says is in the error, and nowhere else"
    return caught.value


def test_keys_are_exchanged_for_a_password(server: S3Server, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[object] = []

    def run_seen(argv: Sequence[str], environ: Mapping[str, str], *more: Any) -> None:
        seen.append((argv, environ))
        run_tool(argv, environ, *more)

    monkeypatch.setattr("squall.agent.image.oci.aws_login.run_tool", run_seen)

    of_keys = exchange(keys_for(endpoint_of(server)), NAME, MachineSettings(), Output())
    settings = MachineSettings(registry_env={"AWS_ENDPOINT_URL_ECR": endpoint_of(server)})
    of_machine = exchange(keys_for(""), NAME, settings, Output())

    assert (of_keys.username, of_keys.password) == ("AWS", "123456789012-auth-token")
    assert of_machine == of_keys
    assert of_keys.password not in repr(of_keys)
    assert len(seen) == 2
    assert not [one for one in ("AKIAEXAMPLE", "s3cret", of_keys.password) if one in str(seen)]


def test_keys_that_aws_does_not_know_are_told(server: S3Server) -> None:
    def count_those_let_in(number: bytes) -> None:
        kind = {"Content-Type": "text/plain"}
        request = urllib.request.Request(f"{endpoint_of(server)}/moto-api/reset-auth", number, kind)
        urllib.request.urlopen(request, timeout=10).close()

    count_those_let_in(b"0")
    try:
        error = failed(keys_for(endpoint_of(server)))
    finally:
        count_those_let_in(b"inf")

    assert error.kind == refusal.UNAUTHORIZED
    assert "check the keys, and that they allow ecr:GetAuthorizationToken" in str(error)


def test_place_that_nobody_answers_at_is_told() -> None:
    with hold_port() as held:
        error = failed(keys_for(f"http://127.0.0.1:{port_of(held)}"))

    assert error.kind == refusal.UNREACHABLE
    assert "no network: " in str(error)
    assert "check AWS_REGION (eu-west-1)" in str(error)


def test_region_that_cannot_be_is_told() -> None:
    error = failed(replace(keys_for(""), region="no region"))

    assert "check AWS_REGION (no region)" in str(error)


def test_node_without_botocore_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "botocore", None)

    with pytest.raises(RegistryFailure, match=r"pip install 'squall\[aws\]' there, or give what `aws ecr get-login-"):
        exchange(keys_for("http://127.0.0.1:1"), NAME, MachineSettings(), Output())


def test_agent_itself_does_not_import_botocore(server: S3Server) -> None:
    exchange(keys_for(endpoint_of(server)), NAME, MachineSettings(), Output())

    assert "botocore" not in sys.modules


@pytest.fixture
def refusing() -> Iterator[http.server.ThreadingHTTPServer]:
    """Answers everything as AWS does, with the `answer` it is given; `status` is 400 without another."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            said = json.dumps(vars(self.server)["answer"]).encode()
            self.send_response(vars(self.server).get("status", 400))
            self.send_header("Content-Length", str(len(said)))
            self.end_headers()
            self.wfile.write(said)

        def log_message(self, *args: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as running:
        thread = threading.Thread(target=running.serve_forever)
        thread.start()
        yield running
        running.shutdown()
        thread.join()


def test_what_aws_repeats_of_the_keys_is_hidden(refusing: http.server.ThreadingHTTPServer) -> None:
    signed = "the canonical string should have been x-amz-security-token:s3cret-token"
    vars(refusing)["answer"] = {"__type": "InvalidSignatureException", "message": signed}

    error = failed(keys_for(f"http://127.0.0.1:{refusing.server_port}"))

    assert "x-amz-security-token:" in str(error)
    assert error.kind == refusal.UNAUTHORIZED


def test_one_that_asks_too_often_is_not_told_to_check_its_keys(refusing: http.server.ThreadingHTTPServer) -> None:
    vars(refusing)["answer"] = {"__type": "ThrottlingException", "message": "Rate exceeded"}

    error = failed(keys_for(f"http://127.0.0.1:{refusing.server_port}"))

    assert "Rate exceeded; build again in a moment" in str(error)
    assert error.kind == refusal.UNKNOWN


def test_answer_with_an_empty_password_is_told(refusing: http.server.ThreadingHTTPServer) -> None:
    token = base64.b64encode(b"AWS:").decode()
    vars(refusing).update(status=200, answer={"authorizationData": [{"authorizationToken": token}]})

    error = failed(keys_for(f"http://127.0.0.1:{refusing.server_port}"))

    assert str(error).endswith("the answer has none")
