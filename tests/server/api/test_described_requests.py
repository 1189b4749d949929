"""What the server's own description of its API allows, and much that it does not, sent to a real server of its own.

Schemathesis makes the requests. Some of what they name is there: an app with a function and a call, assets with
content, a proxy token. Each is answered as described, by no error of the server's, and the server goes on.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from functools import partial
from random import Random
from typing import Any

import httpx
import pytest
from hypothesis import HealthCheck, Phase, given, settings

from squall.main.codec import MsgspecCodec
from squall.protocol.call import SPAWN, CallOpen, CallSpawn, InputBatch
from squall.protocol.codec import EVENT
from squall.protocol.function import FunctionCreate
from squall.protocol.ids import new_id
from squall.protocol.methods import STREAM
from squall.protocol.records import to_wire
from squall.server.api.http import TWINS
from tests.server.dispatch.deploying import deployable
from tests.server_process import ServerProcess, running_server

pytestmark = pytest.mark.long

EXAMPLES = 4
"""Of each method, once of what is described and once of what is not."""
OPEN_ENDED_S = 0.3
REQUEST_S = 30.0
NOT_ASKED = frozenset({
    "ServerStop",  # it would
})  # fmt: skip
OPEN_ENDED = frozenset({"CallGather", "CallGet", "CallRead", "ImageBuild", "QueueGet", "QueueRead"})
"""They wait for something, as streams do: no answer for a while is one."""
REFUSALS = frozenset({501, 503, 504})
"""Above 499, and no error of the server's: it cannot do this, or has no node to do it."""


class Api:
    """A server, and what is there."""

    def __init__(self, server: ServerProcess) -> None:
        self.server = server
        self.url = str(json.loads((server.data_dir / "server.json").read_text())["url"])
        self.headers = {"Authorization": "Bearer for-tests"}
        self.known: dict[str, list[Any]] = {}
        """By field, what may stand in it that the server knows."""

    def ask(self, method: str, record: dict[str, Any], body: bytes = b"") -> Any:
        record |= {"body": base64.b64encode(body).decode()} if body else {}
        response = httpx.post(f"{self.url}/api/v1/{method}", headers=self.headers, json=record, timeout=30)
        assert response.status_code == 200, f"{method}: {response.text}"
        return response.json()

    def furnish(self) -> None:
        """Make something of each kind."""
        app_id = self.ask("AppPrepare", {"name": "greeter"})["app_id"]
        spec = deployable(app_id)
        functions = MsgspecCodec().encode(EVENT, 0, "FunctionCreate", FunctionCreate((spec,)))
        self.ask("AppPublish", {"app_id": app_id, "name": "greeter", "deploy_id": new_id("rq")}, functions)
        call_id = new_id("fc")
        opened = CallOpen(call_id, spec.function_id, SPAWN)
        self.ask("CallSpawn", to_wire(CallSpawn(opened, InputBatch(call_id, (0,), (1,)))), b"7")
        assets = {}
        for kind, prefix in (("volume", "vo"), ("dict", "di"), ("queue", "qu")):
            assets[kind] = new_id(prefix)
            self.ask("AssetCreate", {"asset_id": assets[kind], "kind": kind, "name": "known"})
        self.ask("DictPut", {
            "dict_id": assets["dict"], "entries": {"key_sizes": [1], "value_sizes": [1]}, "request_id": new_id("rq")
        }, b"kv")  # fmt: skip
        self.ask("SecretCreate", {"asset_id": new_id("st"), "values": {"A": "1"}, "name": "known"})
        token_id = new_id("wk")
        self.ask("ProxyTokenCreate", {"token_id": token_id, "secret_sha256": "ab" * 32})
        self.known = {
            "app": [app_id, "greeter"], "app_id": [app_id], "function": ["square"], "function_id": [spec.function_id],
            "call_id": [call_id], "call_ids": [[call_id]], "queue_id": [assets["queue"]], "token_id": [token_id],
            "queue_ids": [[assets["queue"]]], "dict_id": [assets["dict"]], "volume_id": [assets["volume"]],
            "secret": ["known"], "kind": ["volume", "dict", "queue", "secret"], "asset": ["known"],
            "environment": ["", "main"], "name": ["known", "greeter", "square"], "request_id": [new_id("rq")],
            "path": ["", "a"], "body": ["", "AA==", "e30="], "sha256": ["ab" * 32],
        }  # fmt: skip

    def placed(self, value: Any, random: Random) -> Any:
        """The same request; some of its fields name what is there."""
        if isinstance(value, list):
            return [self.placed(one, random) for one in value]
        if not isinstance(value, dict):
            return value
        return {
            name: random.choice(self.known[name])
            if name in self.known and random.random() < 0.8
            else self.placed(one, random)
            for name, one in value.items()
        }


@pytest.fixture(scope="module")
def api() -> Iterator[Api]:
    with running_server() as server:
        made = Api(server)
        made.furnish()
        yield made


@pytest.fixture(scope="module")
def operations(api: Api) -> dict[str, Any]:
    """By method, as Schemathesis reads the description."""
    import schemathesis  # two seconds, and for this file only

    document = httpx.get(f"{api.url}/api/v1/openapi.json", headers=api.headers).json()
    found: Any = schemathesis.openapi.from_dict(document).get_all_operations()
    return {one.path.rpartition("/")[2]: one for one in (each.ok() for each in found)}


def may_wait(method: str) -> bool:
    return method in OPEN_ENDED or TWINS[method].shape == STREAM


def ask(api: Api, client: httpx.Client, random: Random, method: str, case: Any) -> None:
    """One request, and what must be so of its answer."""
    from schemathesis.checks import CHECKS  # as above

    if api.known and random.random() < 0.7:
        case.body = api.placed(case.body, random)
    sent = case.as_transport_kwargs(base_url=api.url)
    content = json.dumps(sent["json"]) if "json" in sent else sent.get("data", b"")
    headers = {"Content-Type": "application/json", **api.headers}
    try:
        response = client.post(sent["url"], headers=headers, content=content)
    except httpx.ReadTimeout:
        assert may_wait(method), f"no answer to {case.body}"
        return
    why = f"{response.text} to {case.body}\n{api.server.log()[-3000:]}"
    assert response.status_code < 500 or response.status_code in REFUSALS, why
    if response.status_code != 200:
        error = response.json()["error"]
        assert error.keys() == {"code", "message"}
        assert error["code"] != "internal"
    elif TWINS[method].shape == STREAM:
        assert all(isinstance(json.loads(line), dict) for line in response.text.splitlines())
    else:
        checks = [CHECKS.get_one(name) for name in ("response_schema_conformance", "content_type_conformance")]
        case.validate_response(response, checks=checks)


@pytest.mark.parametrize("method", sorted(TWINS.keys() - NOT_ASKED))
def test_requests_are_answered_as_described(method: str, api: Api, operations: dict[str, Any]) -> None:
    from schemathesis import GenerationMode  # as above

    limits = settings(
        max_examples=EXAMPLES, deadline=None, derandomize=True, database=None, phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )  # fmt: skip
    logged = len(api.server.log())
    with httpx.Client(timeout=httpx.Timeout(10, read=OPEN_ENDED_S if may_wait(method) else REQUEST_S)) as client:
        asking = partial(ask, api, client, Random(method), method)
        for mode in (GenerationMode.POSITIVE, GenerationMode.NEGATIVE):
            strategy = operations[method].as_strategy(generation_mode=mode)
            limits(given(case=strategy)(lambda case: asking(case)))()

    assert "Traceback" not in api.server.log()[logged:], api.server.log()[logged:]
