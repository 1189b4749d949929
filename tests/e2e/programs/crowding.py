"""Functions that write and read one volume at once; each file says itself whether it is whole."""

import contextlib
import hashlib
import os
import random
import sys
import time
from collections.abc import Callable, Iterable

import squall

app = squall.App("crowding")
crowded = squall.Volume.from_name("crowded", create_if_missing=True)
TOP = "/crowded"
SIZES = (0, 10, 5_000, 300_000, 9_000_000)
"""Such that share a block with others, have one of their own, and have two."""


def is_whole(data: bytes) -> bool:
    return data[:64] == hashlib.sha256(data[64:]).hexdigest().encode()


def some(chance: random.Random) -> bytes:
    payload = chance.randbytes(chance.choice(SIZES))
    return hashlib.sha256(payload).hexdigest().encode() + payload


def put(path: str, data: bytes, chance: random.Random, is_renamed: bool) -> None:
    os.makedirs(os.path.dirname(path), exist_ok=True)
    place = f"{path}.new-{os.environ['SQUALL_CONTAINER_ID']}" if is_renamed else path
    with open(place, "wb") as file:
        # In pieces: who looks in between finds a half.
        for at in range(0, len(data), 1_000_000):
            file.write(data[at : at + 1_000_000])
            file.flush()
            time.sleep(chance.random() / (100 if is_renamed else 10))
    if is_renamed:
        os.rename(place, path)


def write(seed: int, seconds: float, is_renamed: bool) -> int:
    chance, until, count = random.Random(seed), time.monotonic() + seconds, 0
    print(f"writes {os.environ['SQUALL_CONTAINER_ID']}", flush=True)
    while time.monotonic() < until:
        path = f"{TOP}/{chance.choice('abc')}/{chance.randrange(4)}"
        kind = chance.choices(("put", "remove", "tidy", "commit", "reload"), (12, 2, 1, 3, 1))[0]
        with contextlib.suppress(squall.exception.Error, FileNotFoundError):
            if kind == "put":
                put(path, some(chance), chance, is_renamed)
                count += 1
            elif kind == "remove":
                os.unlink(path)
            elif kind == "tidy":
                with contextlib.suppress(OSError):
                    os.rename(os.path.dirname(path), f"{TOP}/{chance.choice('abc')}")
            elif kind == "commit":
                crowded.commit()
            else:
                crowded.reload()
    return count


@app.function(volumes={TOP: crowded}, timeout=300, retries=100)
def write_renaming(seed: int, seconds: float) -> int:
    """May be killed at any moment: nothing has its name before it is whole."""
    return write(seed, seconds, True)


@app.function(volumes={TOP: crowded}, timeout=300)
def write_in_place(seed: int, seconds: float) -> int:
    """Files are open for as long as they are a half."""
    return write(seed, seconds, False)


def look(read: Callable[[str], bytes], paths: Iterable[str]) -> list[str]:
    torn = []
    for path in paths:
        if ".new-" not in path and not is_whole(read(path)):
            torn.append(path)
    return torn


def read_file(path: str) -> bytes:
    with open(path, "rb") as file:
        return file.read()


@app.function(volumes={TOP: crowded.with_mount_options(read_only=True)}, timeout=300)
def read(seconds: float) -> tuple[int, list[str]]:
    until, count, torn = time.monotonic() + seconds, 0, []
    while time.monotonic() < until:
        with contextlib.suppress(squall.exception.Error):
            crowded.reload()
        paths = [f"{here}/{name}" for here, _, names in os.walk(TOP) for name in names]
        torn += look(read_file, paths)
        count += len(paths)
    return count, torn


def look_at_version(number: int) -> list[str]:
    """What is torn in it."""
    version = squall.Volume.from_name("crowded", version=number)
    paths = [one.path for one in version.listdir("/", recursive=True) if one.type.name == "FILE"]
    return look(lambda path: b"".join(version.read_file(path)), paths)


def crowd(seed: int, seconds: float) -> None:
    with app.run():
        calls = [write_renaming.spawn(seed + number, seconds) for number in range(2)]
        calls += [write_in_place.spawn(seed + 10 + number, seconds) for number in range(2)]
        reading = [read.spawn(seconds) for _ in range(2)]
        for call in calls:
            print(f"wrote {call.get()}", flush=True)
        for looks in reading:
            count, torn = looks.get()
            print(f"read {count}, torn {torn}", flush=True)


if __name__ == "__main__":
    if sys.argv[1] == "crowd":
        crowd(int(sys.argv[2]), float(sys.argv[3]))
    else:
        for number in map(int, sys.argv[2:]):
            print(f"version {number}, torn {look_at_version(number)}", flush=True)
