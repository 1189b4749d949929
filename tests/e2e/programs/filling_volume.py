"""A volume on a disk that gets full: put from outside, committed in a container, and mounted in another one."""

import hashlib
import io
import os
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import squall

app = squall.App("filling-volume")
filled = squall.Volume.from_name("filled", create_if_missing=True)
MIB = 2**20


@app.function(volumes={"/filled": filled}, max_containers=1, scaledown_window=300)
def write(name: str, size: int, commits: bool) -> str:
    data = os.urandom(size)
    with open(f"/filled/{name}", "wb") as file:
        file.write(data)
    if commits:
        filled.commit()
    return hashlib.sha256(data).hexdigest()


@app.function(volumes={"/filled": filled})
def names() -> list[str]:
    return sorted(os.listdir("/filled"))


def put(name: str) -> str:
    with filled.batch_upload(force=True) as batch:
        batch.put_file(io.BytesIO(os.urandom(4 * MIB)), name)
    return name


def attempt(what: str, run: Callable[[], Any]) -> Any:
    try:
        result = run()
    except (squall.Error, OSError) as error:
        print(f"{what}: {type(error).__name__}: {error}", flush=True)
        return None
    print(f"{what}: worked", flush=True)
    return result


def wait_for(path: str) -> None:
    while not os.path.exists(path):
        time.sleep(0.05)


def attempt_all(when: str) -> None:
    attempt(f"put {when}", lambda: put(f"put-{when}"))
    attempt(f"write {when}", lambda: write.remote(f"written-{when}", 4 * MIB, True))


@app.local_entrypoint()
def main(folder: str) -> None:
    put("put-before")
    sums = {name: write.remote(name, MIB, commits) for name, commits in (("committed", True), ("uncommitted", False))}
    print("ready", flush=True)
    wait_for(f"{folder}/full")
    attempt_all("full")
    # No call can be kept on such a disk; one that its caller waits for can be made.
    starting = ThreadPoolExecutor(1).submit(names.remote)
    print("tried", flush=True)
    wait_for(f"{folder}/room")
    attempt("start", starting.result)
    attempt_all("room")
    attempt("last", lambda: write.remote("last", 1, True))
    for name, told in sums.items():
        data = b"".join(filled.read_file(name))
        print(f"{name} whole: {hashlib.sha256(data).hexdigest() == told}", flush=True)
    in_it = sorted(one.path for one in filled.listdir("/"))
    print(f"names: {in_it}", flush=True)
