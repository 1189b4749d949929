"""Many inputs, each of which must have one result."""

import asyncio
import itertools
import secrets
import time
from collections.abc import Iterator

import squall

app = squall.App("counting")


@app.function(max_containers=2)
def identity(x: int) -> int:
    return x


@app.function(max_containers=2)
def marked(x: int) -> tuple[int, str]:
    """Another mark each time that it is run."""
    return x, secrets.token_hex(8)


@app.local_entrypoint()
def mapped(count: int, ordered: bool = True) -> None:
    seen = bytearray(count)
    values: list[int] = []
    for number, value in enumerate(identity.map(range(count), order_outputs=ordered), 1):
        seen[value] += 1
        values.append(value)
        if number % 1_000 == 0:
            print(f"at {number}", flush=True)
    print(f"once: {seen.count(1)}", flush=True)
    print(f"in order: {values == list(range(count))}", flush=True)


@app.local_entrypoint()
def spawned(count: int) -> None:
    """Half of them one by one, half as one call; what each says it is, asked twice."""

    async def spawn_all() -> list[squall.FunctionCall[tuple[int, str]]]:
        async def one(number: int) -> squall.FunctionCall[tuple[int, str]]:
            await asyncio.sleep(number * 0.002)
            call = await marked.spawn.aio(number)
            if number % 100 == 0:
                print(f"acknowledged {number}", flush=True)
            return call

        return list(await asyncio.gather(*(one(number) for number in range(count // 2))))

    calls = asyncio.run(spawn_all())
    many = marked.experimental_spawn_map(slowly(range(count // 2, count)))
    print(f"acknowledged {count}", flush=True)
    first = [call.get() for call in calls] + list(many.iter())
    again = squall.FunctionCall.gather(*calls) + [many.get(index=index) for index in range(many.num_inputs())]
    print(f"all: {[x for x, _ in first] == list(range(count))}", flush=True)
    print(f"same: {first == again}", flush=True)


def slowly(numbers: range) -> Iterator[int]:
    for number in numbers:
        if number % 100 == 0:
            time.sleep(0.1)
        yield number


@app.local_entrypoint()
def feed() -> None:
    """Without end."""

    def numbers() -> Iterator[int]:
        for number in itertools.count():
            if number % 512 == 0:
                time.sleep(0.2)
                print(f"fed {number}", flush=True)
            yield number

    identity.spawn_map(numbers())


@app.function(memory=(128, 256))
def build(mebibytes: int) -> bytes:
    return b"".join(secrets.token_bytes(2**20) for _ in range(mebibytes))


@app.local_entrypoint()
def large() -> None:
    try:
        build.remote(400)
    except squall.exception.Error as error:
        print(f"caught: {error}", flush=True)
    print(f"afterwards: {len(build.remote(20))}", flush=True)
