"""The SDK inside a container: who it is, how it reaches its agent, calls that functions make."""

from __future__ import annotations

import ast
import asyncio
import os
import threading
from collections.abc import Callable, Iterator

import pytest

import squall
from squall.exception import InvalidError
from squall.protocol.function import Definition, FunctionSpec
from squall.protocol.guest import Boot
from squall.protocol.ids import input_id, new_id
from squall.sdk import _client, _container, _local_server
from tests.sdk.double import ServerDouble

app = squall.App("inside", include_source=False)


@app.function()
def square(x: int) -> int:
    return x * x


@app.function()
def count(limit: int) -> Iterator[int]:
    yield from range(limit)


@pytest.fixture
def container(server: ServerDouble) -> Iterator[_container.ContainerState]:
    """This process as a container whose agent is the double."""
    function_id = new_id("fu")
    definition = Definition("package", __name__, "square")
    server.functions[function_id] = FunctionSpec(function_id, "ap-1", "square", definition, "im-1")
    boot = Boot(
        "ct-7",
        "ap-1",
        "inside",
        function_id,
        "square",
        definition,
        functions={"square": function_id, "count": "fu-count"},
    )
    state = _container.enter(boot, server.socket_path, "token-7")
    state.is_importing = False
    yield state
    _client.close()
    _container.leave()


def test_elsewhere_nothing_is_known_of_inputs() -> None:
    assert squall.is_local()
    assert squall.current_input_id() is None
    assert squall.current_function_call_id() is None
    with pytest.raises(InvalidError, match="outside a container"):
        squall.interact()


def test_the_client_introduces_itself_to_the_agent(container: _container.ContainerState, server: ServerDouble) -> None:
    assert square.remote(3) == 9

    (hello,) = server.guest_hellos
    assert (hello.token, hello.role, hello.container_id) == ("token-7", "client", "ct-7")
    assert hello.client_id == server.hellos[0].client_id


def test_calls_name_the_input_they_are_made_from(container: _container.ContainerState, server: ServerDouble) -> None:
    call_id = new_id("fc")
    token = _container.begin_input(input_id(call_id, 4), call_id)
    try:
        assert not squall.is_local()
        assert squall.current_input_id() == input_id(call_id, 4)
        assert squall.current_function_call_id() == call_id
        assert square.remote(3) == 9
        assert list(square.map([1, 2])) == [1, 4]
        square.spawn(5)
    finally:
        _container.end_input(token)

    assert squall.current_input_id() is None
    # A call that is made while the connection is may be opened twice.
    assert len({opened.call_id for opened in server.opened}) == 3
    assert {opened.parent_input_id for opened in server.opened} == {input_id(call_id, 4)}


def test_a_thread_of_the_only_input_knows_it(container: _container.ContainerState) -> None:
    found: list[str | None] = []
    token = _container.begin_input("in-abc:0", "fc-abc")

    thread = threading.Thread(target=lambda: found.append(squall.current_input_id()))
    thread.start()
    thread.join()

    _container.end_input(token)
    assert found == ["in-abc:0"]


def test_inputs_of_one_loop_are_told_apart(container: _container.ContainerState) -> None:
    async def one(number: int) -> str | None:
        token = _container.begin_input(f"in-abc:{number}", "fc-abc")
        await asyncio.sleep(0.01)
        found = squall.current_input_id()
        _container.end_input(token)
        return found

    async def main() -> list[str | None]:
        return list(await asyncio.gather(*[one(number) for number in range(5)]))

    assert asyncio.run(main()) == [f"in-abc:{number}" for number in range(5)]


def test_calls_work_from_threads_and_loops(container: _container.ContainerState) -> None:
    async def main() -> list[int]:
        return list(await asyncio.gather(*[square.remote.aio(x) for x in range(20)]))

    found: list[int] = []
    threads = [threading.Thread(target=lambda: found.append(square.remote(2))) for _ in range(5)]
    for thread in threads:
        thread.start()

    assert asyncio.run(main()) == [x * x for x in range(20)]
    for thread in threads:
        thread.join()
    assert found == [4] * 5


def test_running_an_app_while_its_module_is_imported_is_refused(container: _container.ContainerState) -> None:
    container.is_importing = True

    with pytest.raises(InvalidError, match="__main__"), app.run():
        pytest.fail("it must not start")


@pytest.mark.parametrize(
    "call",
    [
        lambda: square.remote(3),
        lambda: asyncio.run(square.remote.aio(3)),
        lambda: list(square.map([3])),
        lambda: list(square.starmap([(3,)])),
        lambda: square.for_each([3]),
        lambda: square.spawn(3),
        lambda: square.spawn_map([3]),
        lambda: list(count.remote_gen(3)),
    ],
    ids=["remote", "remote.aio", "map", "starmap", "for_each", "spawn", "spawn_map", "remote_gen"],
)
def test_calls_while_a_container_imports_its_module_are_refused(
    container: _container.ContainerState, server: ServerDouble, call: Callable[[], object]
) -> None:
    container.is_importing = True

    with pytest.raises(InvalidError, match="__main__"):
        call()

    assert (server.opened, server.attempts) == ([], [])


def test_a_function_may_run_an_app_of_its_own(container: _container.ContainerState, server: ServerDouble) -> None:
    inner = squall.App("inner")
    function = inner.function(serialized=True, name="nested")(lambda x: x + 1)
    token = _container.begin_input("in-abc:0", "fc-abc")

    with inner.run():
        assert function.remote(1) == 2

    _container.end_input(token)
    assert len(server.apps) == 1


def test_a_function_of_another_app_is_not_taken_for_one_of_that_name(container: _container.ContainerState) -> None:
    other = squall.App("other", include_source=False)
    namesake = other.function(name="square", serialized=True)(lambda x: -x)

    with pytest.raises(squall.exception.ExecutionError, match="its app does not run"):
        namesake.remote(3)
    assert square.remote(3) == 9


def test_a_function_of_an_including_app_is_found(container: _container.ContainerState) -> None:
    part, whole = squall.App("part", include_source=False), squall.App("whole", include_source=False)
    cube = part.function(name="cube", serialized=True)(lambda x: x**3)
    container.boot.functions["cube"] = "fu-cube"
    square.held_by(whole.include(part))

    assert cube.object_id == "fu-cube"


def test_blobs_go_through_the_client(container: _container.ContainerState) -> None:
    sha256 = _container.put_blob(b"x" * 5_000_000)

    assert b"".join(_container.get_blob(sha256)) == b"x" * 5_000_000


def test_step_of_an_image_build_reaches_no_server() -> None:
    _container.enter(Boot("", "", "", "", "step", Definition("package", __name__, "square")), "", "")
    try:
        with pytest.raises(InvalidError, match=r"a step of an image build reaches no server.*__main__"):
            _local_server.find_endpoint()
    finally:
        _container.leave()


def test_children_that_are_forked_run_no_input_and_call_for_theirs(container: _container.ContainerState) -> None:
    call_id = new_id("fc")
    token = _container.begin_input(input_id(call_id, 0), call_id)
    reader, writer = os.pipe()
    try:
        child = os.fork()
        if child == 0:
            asked = (squall.is_local(), squall.current_input_id(), squall.current_function_call_id())
            os.write(writer, repr((asked, _container.calling_input_id(), _container.container_id())).encode())
            os._exit(0)
        os.waitpid(child, 0)
        found = ast.literal_eval(os.read(reader, 1_000).decode())
        here = (squall.is_local(), squall.current_input_id())
    finally:
        _container.end_input(token)
        os.close(reader)
        os.close(writer)

    assert found == ((True, None, None), input_id(call_id, 0), "ct-7")
    assert here == (False, input_id(call_id, 0))
