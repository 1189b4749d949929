"""Durable calls: on disk when `spawn` returns, their results kept for 7 days and found again by an id."""

import time

import squall

app = squall.App("spawn")


@app.function()
def square(x: int) -> int:
    return x * x


@app.function(max_containers=2)
def nap(duration_s: float) -> None:
    time.sleep(duration_s)


@app.local_entrypoint()
def main() -> None:
    call = square.spawn(7)
    print("of one call:", call.get(timeout=60))

    # Any program that knows the id, today or in a week.
    again = squall.FunctionCall.from_id(call.object_id)
    print("found again:", again.get())

    calls = [square.spawn(x) for x in range(5)]
    print("of several:", squall.FunctionCall.gather(*calls))

    # One call of many inputs. They are sent while they are pulled; a million may wait.
    many = square.experimental_spawn_map(range(10_000))
    total = sum(many.iter())
    print("of", many.num_inputs(), "inputs:", total, "the last is", many.get(index=9_999))

    naps = nap.experimental_spawn_map([60.0] * 1_000)
    naps.cancel()
    try:
        naps.get(index=999)
    except squall.exception.RemoteError:
        print("cancelled")
