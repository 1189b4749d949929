"""Servers of an app: what makes one, what its record says, and what its handles know."""

from __future__ import annotations

import io
import pickle
from collections.abc import Callable
from dataclasses import fields
from typing import Any, cast

import pytest

import squall
from squall.exception import InvalidError, NotFoundError
from squall.guest.instance import Instance
from squall.guest.loading import LoadFailed
from squall.protocol.app import AppCreate, AppCreated
from squall.protocol.function import (
    BY_FILE,
    INPUTS_AT_ONCE_MAX,
    SERIALIZED,
    SERVER_TIMEOUT_S,
    Definition,
    FunctionCreate,
    FunctionCreated,
    FunctionSpec,
    Scaling,
)
from squall.protocol.guest import Boot
from squall.protocol.ids import new_id
from squall.protocol.web import SERVER, WebAddressList, WebSpec
from squall.sdk import _client, _output
from squall.sdk._pending import run
from squall.sdk._server_options import whole_target
from squall.sdk._web_address import addresses
from squall.types import ServerAutoscalerSettings, ServerInfo, ServerStats
from tests.sdk.double import ServerDouble
from tests.sdk.real_server import RealServer
from tests.server.doubles import make_spec

app = squall.App("shop")


@app.server(port=9_000, unauthenticated=True, target_concurrency=2.5, max_concurrency=8, scaleup_window=20)
class Counter:
    """Counts."""

    @squall.enter()
    def listen(self) -> None:
        self.is_listening = True

    @squall.exit()
    def leave(self) -> None: ...


# To type checkers a class stays one whatever is above it.
counter = cast("squall.Server", Counter)


@app.cls()
class Desk:
    @squall.method()
    def shut(self) -> None: ...


@app.function()
def plain() -> None: ...


@app.function()
@squall.asgi_app()
def page() -> None: ...


def bare() -> Any:
    """A class that may be a server."""

    class Bare:
        @squall.enter()
        def listen(self) -> None: ...

    return Bare


def records(**given: Any) -> dict[str, Any]:
    """What of the record of a server follows from these."""
    made = squall.App("x").server(serialized=True, **given)(bare())
    definition = made.service_function.definition
    assert definition is not None
    return definition.options.records()


# What it is made of


def test_record_has_what_was_asked_and_no_time_limit() -> None:
    definition = counter.service_function.definition
    assert definition is not None
    record = definition.options.records()

    assert record["web"] == WebSpec(SERVER, port=9_000, port_timeout_s=30.0, requests_max=8)
    assert record["scaling"] == Scaling(max_inputs=8, target_inputs=3, scaleup_window_s=20.0)
    assert (record["timeout_s"], record["startup_timeout_s"]) == (SERVER_TIMEOUT_S, 35.0)


def test_record_of_one_of_which_nothing_is_said() -> None:
    record = records()

    assert record["web"] == WebSpec(SERVER, is_proxy_auth_required=True, port=8_000, port_timeout_s=30.0)
    assert record["scaling"] == Scaling(max_inputs=INPUTS_AT_ONCE_MAX)
    assert record["hosting"].routing_region == "us-east"


def test_record_has_where_it_runs_and_how_long_it_starts_and_ends() -> None:
    record = records(compute_region=["eu"], startup_timeout=90, exit_grace_period=60, max_containers=3, cpu=2)

    assert record["hosting"].regions == ("eu",)
    assert (record["startup_timeout_s"], record["web"].port_timeout_s, record["web"].exit_grace_s) == (95.0, 90.0, 60.0)
    assert (record["scaling"].max_containers, record["resources"].cpu_milli) == (3, 2_000)


@pytest.mark.parametrize(
    ("value", "whole"), [(0, 0), (0.001, 1), (0.5, 1), (1, 1), (1.0, 1), (1.001, 1), (1.01, 2), (2.5, 3), (3, 3)]
)
def test_part_of_a_request_counts_as_one(value: float, whole: int) -> None:
    assert whole_target(value) == whole


def test_target_of_zero_is_a_single_container() -> None:
    scaling = records(target_concurrency=0, max_concurrency=0, min_containers=1)["scaling"]

    assert scaling == Scaling(min_containers=1, max_containers=1, max_inputs=INPUTS_AT_ONCE_MAX)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"target_concurrency": 0, "max_containers": 2}, "a single container; leave max_containers=2 out"),
        ({"target_concurrency": 0, "min_containers": 2}, "a single container; leave min_containers=2 out"),
        ({"target_concurrency": 0, "buffer_containers": 1}, "a single container; leave buffer_containers=1 out"),
        ({"target_concurrency": 9, "max_concurrency": 8}, "must be a number from 0 to max_concurrency=8"),
        ({"h2_enabled": True}, "h2_enabled= is not in this version of Squall yet; leave it out for HTTP/1.1"),
        ({"scaleup_window": 0}, "scaleup_window=0 must be above 0 seconds"),
        ({"max_containers": 1, "min_containers": 2}, "server Bare: max_containers=1 is less than min_containers=2"),
        ({"compute_region": 5}, "server Bare: compute_region=5 must be the name of a region"),
        ({"gpu": "A100"}, "server Bare: gpu= is not in this version of Squall yet"),
        ({"name": "a b"}, "server name 'a b'"),
    ],
)
def test_what_cannot_be_is_refused(given: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidError) as refused:
        records(**given)
    assert message in str(refused.value)


class WithMethod:
    @squall.enter()
    def listen(self) -> None: ...

    @squall.method()
    def count(self) -> None: ...


class WithBatches:
    @squall.enter()
    def listen(self) -> None: ...

    @squall.batched(max_batch_size=2, wait_ms=1)
    def count(self, values: list[int]) -> list[int]:
        return values


class WithPage:
    @squall.enter()
    def listen(self) -> None: ...

    @squall.asgi_app()
    def page(self) -> None: ...


class WithParameter:
    size: int = squall.parameter(default=1)

    @squall.enter()
    def listen(self) -> None: ...


class WithNothing:
    @squall.exit()
    def leave(self) -> None: ...


class WithInit:
    def __init__(self) -> None: ...

    @squall.enter()
    def listen(self) -> None: ...


class WithSnap:
    @squall.enter(snap=True)
    def listen(self) -> None: ...


@pytest.mark.parametrize(
    ("target", "message"),
    [
        (WithMethod, "server WithMethod: count has @squall.method(), and a server is reached by requests to its port"),
        (WithBatches, "count has @squall.batched()"),
        (WithPage, "page has @squall.asgi_app()"),
        (WithParameter, "squall.parameter() size, and nobody who could give it: write env= or secrets="),
        (
            WithNothing,
            "server WithNothing starts nothing: put @squall.enter() on a function that lets something listen",
        ),
        (WithInit, "class WithInit has an __init__"),
        (WithSnap, "needs a memory snapshot"),
        (squall.concurrent(max_inputs=2)(bare()), "write target_concurrency= and max_concurrency= of @app.server()"),
        (plain, "it is decorated by an app already"),
        (Desk, "it is decorated by an app already"),
        (Counter, "it is decorated by an app already"),
        (lambda: None, "it takes a class"),
    ],
)
def test_what_a_server_cannot_be_made_of_is_refused(target: Any, message: str) -> None:
    with pytest.raises(InvalidError) as refused:
        squall.App("x").server(serialized=True)(target)
    assert message in str(refused.value)


def test_server_has_a_name_and_parentheses() -> None:
    other = squall.App("x")
    made = other.server(serialized=True, name="web")(bare())

    assert list(other.registered_servers) == ["web"]
    assert repr(made) == "<Server web>"
    with pytest.raises(InvalidError, match=r"write @app\.server\(\) with parentheses"):
        other.server(bare())
    with pytest.raises(InvalidError, match="it is defined inside a function"):
        other.server()(bare())


def test_app_tells_its_servers_from_functions_and_classes() -> None:
    assert list(app.registered_functions) == ["plain", "page"]
    assert list(app.registered_classes) == ["Desk"]
    assert app.registered_servers == {"Counter": counter}
    assert list(app.served_functions) == ["Counter", "Desk", "plain", "page"]
    assert squall.App("other").include(app).registered_servers == {"Counter": counter}


def test_names_of_what_answers_requests_are_known() -> None:
    other = squall.App("x")

    class Pages:
        @squall.asgi_app()
        def front(self) -> None: ...

        @squall.method()
        def back(self) -> None: ...

    other.cls(serialized=True)(Pages)
    other.function(serialized=True, name="site")(squall.asgi_app()(lambda: None))
    other.server(serialized=True)(bare())

    assert [name.rpartition(">.")[2] for name in other.registered_web_endpoints] == ["site", "Pages.front"]


def test_server_is_neither_called_nor_has_it_objects() -> None:
    loose: Any = counter

    with pytest.raises(TypeError, match=r"send requests to what Counter\.get_url\(\) says"):
        loose()
    with pytest.raises(AttributeError, match=r"a server has no \.remote\(\)"):
        _ = loose.remote
    with pytest.raises(AttributeError, match=r"Server\.sessions is not in this version of Squall yet"):
        _ = loose.sessions
    with pytest.raises(InvalidError, match="cannot be made directly"):
        squall.Server()
    assert counter.__doc__ == "Counts."


# An app that runs


def test_run_makes_one_and_tells_where_it_is(server: ServerDouble) -> None:
    said = io.StringIO()
    with _output.use(_output.PlainOutput(io.StringIO(), said)), app.run():
        spec = server.functions[counter.object_id]
        assert counter.get_url() == "http://127.0.0.1:1/w/shop-counter-dev"

    assert (spec.definition.is_class, spec.definition.methods, spec.definition.has_exit_hooks) == (True, (), True)
    assert spec.web is not None
    assert "Server Counter: http://shop-counter-dev.localhost:1" in said.getvalue()


async def test_url_can_be_awaited(server: ServerDouble) -> None:
    async with app.run():
        assert await counter.get_url.aio() == "http://127.0.0.1:1/w/shop-counter-dev"


def test_handles_find_it(server: ServerDouble) -> None:
    with app.run():
        named = squall.Server.from_name("shop", "Counter")
        for handle in (named, squall.Server.from_id(counter.object_id), pickle.loads(pickle.dumps(counter))):
            assert handle.get_url() == "http://127.0.0.1:1/w/shop-counter-dev"
        assert named.hydrate() is named
        assert named.object_id == counter.object_id


def test_what_is_no_server_or_no_class_is_told_by_its_kind(server: ServerDouble) -> None:
    def found(handle: Any) -> Callable[[], object]:
        return lambda: handle.hydrate()

    with app.run():
        for look, message in (
            (
                found(squall.Server.from_name("shop", "Desk")),
                r"Desk of app 'shop' is a class: use Cls.from_name\('shop', 'Desk'\)",
            ),
            (found(squall.Server.from_name("shop", "plain")), r"is a function: use Function.from_name"),
            (found(squall.Cls.from_name("shop", "Counter")), r"is a server: use Server.from_name\('shop', 'Counter'\)"),
            (found(squall.Function.from_name("shop", "Counter")), r"is a server: use Server.from_name"),
            (found(squall.Server.from_id(plain.object_id)), "is no server, but plain: use Function.from_id"),
        ):
            with pytest.raises(NotFoundError, match=message):
                look()
    with pytest.raises(InvalidError, match="ids of servers begin with 'fu-'"):
        squall.Server.from_id("ap-1")
    with pytest.raises(AttributeError, match="server Counter has no id yet: its app does not run"):
        _ = counter.object_id


def test_function_of_a_server_is_not_called(server: ServerDouble) -> None:
    with app.run(), pytest.raises(InvalidError, match=r"Counter answers requests \(@app\.server\(\)\): \.remote\(\)"):
        squall.Function.from_id(counter.object_id).remote()


# A real server


def deploy(name: str = "shop") -> FunctionSpec:
    """A server of an app on the real one, which has no nodes and so no images."""
    app_id = new_id("ap")
    spec = make_spec(
        app_id,
        "Counter",
        definition=Definition(BY_FILE, "shop", "Counter", is_class=True),
        web=WebSpec(SERVER, port=9_000, port_timeout_s=40.0, requests_max=8, exit_grace_s=5.0),
        max_inputs=8,
        target_inputs=3,
    )
    client = _client.current()
    run(client.request("AppCreate", AppCreate(app_id, name), AppCreated))
    functions = FunctionCreate((spec, make_spec(app_id, "plain"), make_spec(app_id, "site", web=WebSpec("asgi_app"))))
    run(client.request("FunctionCreate", functions, FunctionCreated))
    return spec


def test_info_says_what_it_runs_with(real_server: RealServer) -> None:
    spec = deploy()
    found = squall.Server.from_name("shop", "Counter").info()

    assert found.server_url.endswith("/w/shop-counter-dev")
    assert (found.port, found.unauthenticated, found.exit_grace_period, found.startup_timeout) == (9_000, True, 5, 40)
    assert found.image_info == ServerInfo.ImageInfo(None, spec.image_id)
    with pytest.raises(NotFoundError, match="is no server"):
        squall.Server.from_id(squall.Function.from_name("shop", "plain").hydrate().object_id).info()


def test_stats_count_requests(real_server: RealServer) -> None:
    deploy()
    found = squall.Server.from_name("shop", "Counter").stats()

    assert (found.request_count, found.request_rate_per_second, found.request_count_by_status_code) == (0, 0.0, {})
    with pytest.raises(InvalidError, match=r"Counter\.stats\(\): since must be a datetime"):
        squall.Server.from_name("shop", "Counter").stats(since="2h")  # type: ignore[arg-type]


def test_autoscaler_is_changed_and_tells(real_server: RealServer) -> None:
    deploy()
    scaler = squall.Server.from_name("shop", "Counter").autoscaler

    assert scaler.settings() == ServerAutoscalerSettings(3, 0, None, 0, None, 60)
    assert scaler.update(target_concurrency=1.5, scaleup_window=30, max_containers=4, scaledown_window=120) == (
        ServerAutoscalerSettings(2, 0, 4, 0, 30, 120)
    )
    assert scaler.update(target_concurrency=None, max_containers=None).target_concurrency is None
    with pytest.raises(InvalidError, match="target_concurrency=9 must be from 1 to 8"):
        scaler.update(target_concurrency=9)


def test_app_tells_servers_apart(real_server: RealServer) -> None:
    spec = deploy()
    found = squall.App.lookup(spec.app_id)
    info, stats = found.info(), found.stats()

    assert info.servers == {"Counter": spec.function_id}
    assert sorted(info.functions) == ["plain", "site"]
    assert list(stats.servers.by_name) == ["Counter"]
    assert sorted(stats.functions.by_name) == ["plain", "site"]


def test_servers_are_found_behind_the_first_page(server: ServerDouble) -> None:
    server.addresses_max = 1
    with app.run():
        found = run(addresses(_client.current(), WebAddressList(app.app_id or "")))

    assert [one.label for one in found] == ["shop-counter-dev", "shop-page-dev"]


def test_info_of_a_function_has_its_address(real_server: RealServer) -> None:
    deploy()
    info = squall.Function.from_name("shop", "site").info()

    assert info.web_info is not None
    assert info.web_info.web_url.endswith("/w/shop-site-dev")
    assert (info.web_info.method, info.web_info.unauthenticated, info.method_details) == ("", True, None)
    assert squall.Function.from_name("shop", "plain").info().web_info is None


@pytest.mark.parametrize(
    ("kind", "names"),
    [
        (ServerAutoscalerSettings, "target_concurrency min_containers max_containers buffer_containers scaleup_window"
         " scaledown_window"),
        (ServerInfo, "server_url port unauthenticated h2_enabled routing_region sessioned startup_timeout"
         " exit_grace_period image_info cpu memory_mib gpus ephemeral_disk_mib nonpreemptible compute_regions cloud"
         " cluster_info volumes cloud_bucket_mounts secrets"),
        (ServerStats, "since until request_count request_count_by_status_code request_rate_per_second"
         " request_percentile_stats container_started_count container_error_count container_creating_at_end_count"
         " container_total_count container_percentile_stats inference"),
    ],
)  # fmt: skip
def test_returned_values_have_the_decided_fields(kind: Any, names: str) -> None:
    assert [one.name for one in fields(kind)] == names.split()


# In a container


def boot(definition: Definition) -> Boot:
    return Boot("ct-1", "ap-1", "shop", "fu-1", "Counter", definition, web=WebSpec(SERVER, port=9_000))


def test_container_has_an_instance_without_methods() -> None:
    instance = Instance(boot(Definition(BY_FILE, "shop", "Counter", is_class=True)), counter)
    instance.enter()

    assert instance.methods == {}
    assert instance._made.is_listening


def test_container_of_a_pickled_server_has_the_class_itself() -> None:
    assert Instance(boot(Definition(SERIALIZED, is_class=True)), bare()).methods == {}


def test_container_that_finds_no_server_says_so() -> None:
    with pytest.raises(LoadFailed, match=r"shop\.Counter is no class with @app\.server\(\)"):
        Instance(boot(Definition(BY_FILE, "shop", "Counter", is_class=True)), bare())
