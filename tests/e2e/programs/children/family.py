"""Functions that run apps of their own: of this module, of a package, built on the spot, and each other."""

from __future__ import annotations

import importlib
import os
import sys
import threading
import time
from typing import Any

import squall
from squall import FunctionCall

image = squall.Image.debian_slim().add_local_python_source("toolbox")
app = squall.App("family", image=image)
child = squall.App("child", image=image)
grandchild = squall.App("grandchild")


@grandchild.function()
def leaf(x: int) -> int:
    print(f"leaf of {x}")
    return x + 1


@child.function()
def middle(x: int) -> int:
    with grandchild.run():
        return 10 * leaf.remote(x)


@child.function()
def use_package(text: str) -> str:
    words: Any = importlib.import_module("toolbox.words")
    return str(words.shout(text))


@child.function()
def plain(x: int) -> int:
    print(f"plain of {x}")
    return x + 100


@child.function()
def wait(marker: str) -> None:
    print(f"waiting {marker}", flush=True)
    time.sleep(600)


@app.function()
def one_level(x: int) -> dict[str, Any]:
    with squall.enable_output(), child.run():
        call = plain.spawn(x)
        found = {
            "remote": plain.remote(x),
            "map": list(plain.map([1, 2, 3])),
            "spawn": FunctionCall.from_id(call.object_id).get(timeout=30),
            "package": use_package.remote("hello"),
            "app_id": child.app_id,
            "call_id": call.object_id,
        }
    found["after"] = FunctionCall.from_id(call.object_id).get(timeout=30)
    return found


@app.function()
def three_levels(x: int) -> int:
    with child.run():
        return middle.remote(x)


@app.function()
def run_again(depth: int) -> int:
    """Runs its own app: every level is an app of its own."""
    if depth == 0:
        return 0
    with app.run():
        return 1 + run_again.remote(depth - 1)


@app.function()
def touch(facts: dict[str, Any]) -> dict[str, str]:
    """Tries what it must not do to somebody else's app; says what became of each."""
    from squall.protocol import app as apps  # as code that knows the wire would
    from squall.protocol import call, function, log
    from squall.protocol.empty import Empty
    from squall.sdk import _client
    from squall.sdk._pending import run

    client = _client.current()
    foreign = facts["app_id"]
    spec = function.FunctionSpec("fu-" + "0" * 22, foreign, "late", function.Definition("file", "a", "b"), "im-1")
    asked: dict[str, tuple[Any, Any]] = {
        "AppCreate": (apps.AppCreate(foreign), apps.AppCreated),
        "AppGet": (apps.AppGet(foreign), apps.AppInfo),
        "AppList": (apps.AppList(), apps.AppListing),
        "AppStop": (apps.AppStop(foreign), Empty),
        "FunctionCreate": (function.FunctionCreate((spec,)), function.FunctionCreated),
        "CallGet": (call.CallGet(facts["call_id"]), call.OutputBatch),
    }
    found: dict[str, str] = {}

    def attempt(name: str, act: Any) -> None:
        try:
            act()
            found[name] = "worked"
        except squall.exception.Error as error:
            found[name] = type(error).__name__

    async def read_log() -> None:
        request = log.LogRead(app=foreign)
        async for _ in client.stream("LogRead", request).items(log.LogBatch):
            pass

    with child.run():
        for name, (record, reply) in asked.items():
            attempt(name, lambda name=name, record=record, reply=reply: run(client.request(name, record, reply)))
        attempt("LogRead", lambda: run(read_log()))
        attempt("remote", lambda: facts["function"].remote(1))
        attempt("get", lambda: FunctionCall.from_id(facts["call_id"]).get(timeout=5))
        attempt("own child", lambda: plain.remote(1))
    return found


@app.function()
def ship_what_is_not_here() -> str:
    lost = squall.App("lost", image=squall.Image.debian_slim().add_local_file("/nowhere/config.json", "/config.json"))
    lost.function(serialized=True, name="nothing")(lambda: None)
    try:
        with lost.run():
            return "it ran"
    except squall.exception.InvalidError as error:
        return str(error)


@app.function()
def detach() -> str:
    try:
        with child.run(detach=True):
            return "it ran"
    except squall.exception.InvalidError as error:
        return str(error)


@app.function()
def stop_early() -> str:
    with child.run():
        waiting = wait.spawn("to be stopped")
        child.stop()
        try:
            waiting.get(timeout=20)
        except squall.exception.Error as error:
            return f"{type(error).__name__}: {error}"
    return "it ended by itself"


@app.function(serialized=True)
def built_on_the_spot(x: int) -> dict[str, Any]:
    import squall as inside

    inner = inside.App("inner", image=inside.Image.debian_slim().pip_install("iniconfig"))

    @inner.function(serialized=True)
    def triple(y: int) -> tuple[int, bool]:
        import importlib.util

        return 3 * y, importlib.util.find_spec("iniconfig") is not None

    with inner.run():
        tripled, has_package = triple.remote(x)
    return {"tripled": tripled, "package": has_package}


@app.function()
async def in_a_loop(x: int) -> int:
    async with child.run.aio():
        return await plain.remote.aio(x)


@app.function(cpu=1)
def full(x: int) -> int:
    """Holds a processor, and waits in every way there is for containers that want one."""
    crowd = squall.App("crowd")

    @crowd.function(cpu=1, serialized=True)
    def work(y: int) -> int:
        return y + 1

    with crowd.run():
        return work.remote(x) + work.spawn(x).get(timeout=60) + sum(work.map([x, x]))


@app.function()
def hold(marker: str) -> None:
    """Waits for a child that waits."""
    with squall.enable_output(), child.run():
        wait.remote(marker)


@app.function(retries=0)
def die(marker: str) -> None:
    """As `hold`, and its process dies when the child is at work."""
    with child.run():
        waiting = wait.spawn(marker)
        threading.Timer(4.0, os._exit, [3]).start()
        waiting.get()


@app.function()
def slowly(n: int) -> list[int]:
    """A map in a child that takes a while; the server may die meanwhile."""
    with child.run():
        return list(slow.map(range(n)))


@child.function(max_containers=2)
def slow(x: int) -> int:
    print(f"slow {x}", flush=True)
    time.sleep(0.4)
    return x * x


@app.local_entrypoint()
def holding() -> None:
    hold.remote("on")


@app.local_entrypoint()
def dying() -> None:
    try:
        die.remote("on")
    except squall.exception.Error as error:
        print(f"died: {type(error).__name__}")
    sys.stdout.flush()
    time.sleep(30)


@app.local_entrypoint()
def long_map() -> None:
    print("SUM", sum(slowly.remote(20)))
