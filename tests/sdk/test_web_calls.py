"""Web functions of an app that runs: where they are found, and that they are not called."""

from __future__ import annotations

import io
import pickle
from collections.abc import Callable
from typing import Any

import pytest

import squall
from squall.exception import ExecutionError, InvalidError, NotFoundError
from squall.protocol.app import AppCreate, AppCreated
from squall.protocol.function import FunctionCreate, FunctionCreated
from squall.protocol.ids import new_id
from squall.protocol.web import ASGI, WebSpec
from squall.sdk import _client, _deploy, _output
from squall.sdk._pending import run
from tests.sdk.double import ServerDouble
from tests.sdk.real_server import RealServer
from tests.server.doubles import make_spec

app = squall.App("shop")


@app.function()
@squall.asgi_app()
def site() -> object:
    """An application."""
    return "an application"


@app.function()
@squall.fastapi_endpoint(label="search")
async def find(word: str) -> str:
    return word


@app.function()
def plain(x: int) -> int:
    return 2 * x


@app.cls()
class Desk:
    name: str = squall.parameter(default="front")

    @squall.enter()
    def open(self) -> None:
        self.is_open = True

    @squall.wsgi_app()
    def page(self) -> object:
        return self.name, self.is_open

    @squall.method()
    def shut(self) -> str:
        return self.name


def of(cls: Any) -> Any:
    """Without the types of the user's class."""
    return cls


CALLS: list[tuple[str, Callable[[Any], object]]] = [
    ("remote", lambda function: function.remote()),
    ("remote_gen", lambda function: list(function.remote_gen())),
    ("map", lambda function: list(function.map([1]))),
    ("starmap", lambda function: list(function.starmap([(1,)]))),
    ("for_each", lambda function: function.for_each([1])),
    ("spawn", lambda function: function.spawn()),
    ("spawn_map", lambda function: function.spawn_map([1])),
    ("experimental_spawn_map", lambda function: function.experimental_spawn_map([1])),
]


@pytest.mark.parametrize(("name", "call"), CALLS, ids=[name for name, _ in CALLS])
def test_no_way_of_calling_takes_a_web_function(server: ServerDouble, name: str, call: Callable[[Any], object]) -> None:
    with app.run():
        named = squall.Function.from_name("shop", "site")
        for function in (site, named, pickle.loads(pickle.dumps(site))):
            with pytest.raises(InvalidError) as refused:
                call(function)
            where = "send requests to http://127.0.0.1:1/w/shop-site-dev"
            assert str(refused.value) == (
                f"function site answers requests (@squall.asgi_app()): .{name}() cannot run it; {where}"
            )
    assert not server.opened
    assert not server.spawned


def test_methods_that_answer_requests_are_not_called_and_others_are(server: ServerDouble) -> None:
    with app.run():
        named = of(squall.Cls.from_name("shop", "Desk"))
        for page in (of(Desk)().page, named().page, pickle.loads(pickle.dumps(of(Desk)().page))):
            with pytest.raises(
                InvalidError, match=r"Desk.page answers requests .* http://127.0.0.1:1/w/shop-desk-page-dev"
            ):
                page.remote()
        assert of(Desk)(name="back").shut.remote() == "back"
        assert named().shut.remote() == "front"


def test_web_function_of_an_app_that_does_not_run_says_what_gives_it_an_address() -> None:
    with pytest.raises(
        InvalidError, match=r"\.remote\(\) cannot run it; its app gives it an address, by `squall serve`"
    ):
        of(site).remote()
    with pytest.raises(ExecutionError, match="its app does not run"):
        site.get_web_url()


def test_code_of_web_functions_runs_here() -> None:
    assert site.local() == "an application"
    assert of(Desk)(name="back").page.local() == ("back", True)


def test_programs_are_told_an_address_that_they_can_resolve(server: ServerDouble) -> None:
    with app.run():
        assert site.get_web_url() == "http://127.0.0.1:1/w/shop-site-dev"
        assert squall.Function.from_name("shop", "find").get_web_url() == "http://127.0.0.1:1/w/search-dev"
        assert squall.Function.from_id(site.object_id).get_web_url() == "http://127.0.0.1:1/w/shop-site-dev"
        assert squall.Function.from_id(of(Desk).object_id).get_web_url() == "http://127.0.0.1:1/w/shop-desk-page-dev"

        server.web_domain = "apps.example.com"
        assert site.get_web_url() == "http://shop-site-dev.apps.example.com:1"


async def test_address_can_be_awaited(server: ServerDouble) -> None:
    async with app.run():
        assert await site.get_web_url.aio() == "http://127.0.0.1:1/w/shop-site-dev"


def test_what_answers_no_requests_has_no_address(server: ServerDouble) -> None:
    with app.run():
        assert plain.get_web_url() is None
        assert of(Desk)().shut.get_web_url() is None
        with pytest.raises(NotFoundError):
            squall.Function.from_name("shop", "nothing").get_web_url()


def test_method_that_there_is_not_has_no_address(server: ServerDouble) -> None:
    with app.run(), pytest.raises(NotFoundError, match="class Desk has no method 'back'; it has: page, shut"):
        of(squall.Cls.from_name("shop", "Desk"))().back.get_web_url()


def test_objects_share_the_address_of_the_one_without_parameters(server: ServerDouble) -> None:
    with app.run():
        assert of(Desk)().page.get_web_url() == "http://127.0.0.1:1/w/shop-desk-page-dev"
        with pytest.raises(InvalidError, match=r"requests reach the one without, Desk\(\)\.page"):
            of(Desk)(name="back").page.get_web_url()


def test_web_function_has_no_options_of_its_own(server: ServerDouble) -> None:
    with pytest.raises(InvalidError, match="function site answers requests, all at one address"):
        site.with_options(cpu=2)
    with pytest.raises(InvalidError, match="function site answers requests, all at one address"):
        site.with_concurrency(max_inputs=2)


def test_run_tells_where_its_web_functions_are(server: ServerDouble) -> None:
    said = io.StringIO()
    with _output.use(_output.PlainOutput(io.StringIO(), said)), app.run():
        pass

    assert [line for line in said.getvalue().splitlines() if line.startswith("Web")] == [
        "Web function find: http://search-dev.localhost:1",
        "Web function Desk.page: http://shop-desk-page-dev.localhost:1",
        "Web function site: http://shop-site-dev.localhost:1",
    ]


def test_run_tells_of_some_where_there_are_many(server: ServerDouble) -> None:
    server.addresses_max = 2
    said = io.StringIO()
    with _output.use(_output.PlainOutput(io.StringIO(), said)), app.run():
        app_id = app.app_id
        assert site.get_web_url() == "http://127.0.0.1:1/w/shop-site-dev"

    lines = [line for line in said.getvalue().splitlines() if "eb function" in line]
    assert lines[1:] == [
        "Web function Desk.page: http://shop-desk-page-dev.localhost:1",
        f"There are more web functions: squall app info {app_id}",
    ]


def told(publish: Callable[[], object]) -> list[str]:
    """What is said of addresses meanwhile."""
    said = io.StringIO()
    with _output.use(_output.PlainOutput(io.StringIO(), said)):
        publish()
    return [line for line in said.getvalue().splitlines() if line.startswith("Web")]


def test_deploy_tells_where_they_stay_also_when_nothing_has_changed(server: ServerDouble) -> None:
    deployed = squall.App("stays").include(app)
    addresses = [
        "Web function find: http://search.localhost:1",
        "Web function Desk.page: http://stays-desk-page.localhost:1",
        "Web function site: http://stays-site.localhost:1",
    ]

    assert told(deployed.deploy) == addresses
    assert told(deployed.deploy) == addresses
    assert squall.Function.from_name("stays", "site").get_web_url() == "http://127.0.0.1:1/w/stays-site"


def test_serving_tells_where_they_are_once(server: ServerDouble) -> None:
    held = squall.App("shop")
    with held.run():
        assert held.app_id is not None
        app_id = held.app_id

        def serve() -> None:
            run(_deploy.serve(app, app_id, "shop"))

        assert "Web function site: http://shop-site-dev.localhost:1" in told(serve)
        assert told(serve) == []


@pytest.mark.parametrize("variable", ["SQUALL_DEV_SUFFIX", "MODAL_DEV_SUFFIX"])
def test_who_shares_a_server_has_a_suffix_of_their_own(
    server: ServerDouble, monkeypatch: pytest.MonkeyPatch, variable: str
) -> None:
    monkeypatch.setenv(variable, "Ann2")
    with app.run():
        assert site.get_web_url() == "http://127.0.0.1:1/w/shop-site-ann2"


@pytest.mark.parametrize("suffix", ["a-b", "a" * 17, "ä", "a b", "."])
def test_what_is_no_suffix_is_told_before_anything_is_made(
    server: ServerDouble, monkeypatch: pytest.MonkeyPatch, suffix: str
) -> None:
    monkeypatch.setenv("SQUALL_DEV_SUFFIX", suffix)
    with pytest.raises(InvalidError, match=r"SQUALL_DEV_SUFFIX=.* use 1 to 16 ASCII letters and digits"), app.run():
        pass
    assert not server.apps


def test_real_server_says_where_they_are(real_server: RealServer) -> None:
    app_id = new_id("ap")
    # Without a node there are no images, and so no app of the SDK's own.
    specs = make_spec(app_id, "site", web=WebSpec(ASGI)), make_spec(app_id, "plain")
    client = _client.current()
    run(client.request("AppCreate", AppCreate(app_id, "shop", web_suffix="ann"), AppCreated))
    run(client.request("FunctionCreate", FunctionCreate(specs), FunctionCreated))

    site, plain = (squall.Function.from_name("shop", name) for name in ("site", "plain"))
    assert str(site.get_web_url()).endswith("/w/shop-site-ann")
    assert plain.get_web_url() is None
    with pytest.raises(InvalidError, match=r"send requests to .*/w/shop-site-ann"):
        site.remote()
    assert squall.Function.from_id(site.object_id).get_web_url() == site.get_web_url()


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            lambda: squall.App("x").cls(retries=1, serialized=True)(Desk_raw()),
            "retries= cannot be used with what answers requests: page",
        ),
        (
            lambda: squall.App("x").cls(serialized=True)(Desk_raw(is_required=True)),
            "each parameter needs a default, and size has none",
        ),
    ],
)
def test_class_whose_requests_could_not_be_answered_is_refused(make: Any, message: str) -> None:
    with pytest.raises(InvalidError) as refused:
        make()
    assert message in str(refused.value)


def Desk_raw(*, is_required: bool = False) -> Any:  # noqa: N802 - makes a class
    """One with a page."""

    class Raw:
        if is_required:
            size: int = squall.parameter()

        @squall.asgi_app()
        def page(self) -> None: ...

    return Raw


def test_class_of_nothing_but_pages_has_no_options_of_its_own() -> None:
    made: Any = squall.App("x").cls(serialized=True)(Desk_raw())
    with pytest.raises(InvalidError, match=r"class .*Raw answers requests, all at one address"):
        made.with_options(cpu=2)
