"""Calls that fail and are tried again, calls that take too long, and calls that are cancelled.

Each container counts what it has begun, and there is one container of each function here.
"""

import time

import squall

app = squall.App("retries")

tries: dict[str, int] = {}


@app.function(retries=squall.Retries(max_retries=3, initial_delay=0.0, backoff_coefficient=1.0), max_containers=1)
def flaky(name: str, failures: int) -> str:
    """Fails so many times, and works then."""
    tries[name] = tries.get(name, 0) + 1
    if tries[name] <= failures:
        raise ConnectionError(f"{name} is away")
    return f"{name} after {tries[name]} tries"


@app.function(timeout=1, max_containers=1)
def slow(seconds: float) -> str:
    """Has a second for each attempt, and cleans up when it is over."""
    try:
        time.sleep(seconds)
    except squall.exception.InputCancellation:
        print("cleaning up")
        raise
    return "in time"


@app.local_entrypoint()
def main() -> None:
    """Everything that can become of a call."""
    # The caller sees the result of the attempt that worked, or what the last one raised.
    print(flaky.remote("one", 2))
    for result in flaky.starmap([("two", 0), ("three", 9)], return_exceptions=True):
        print(repr(result))
    # Spawned calls are retried by the server, whether anybody waits or not.
    print(flaky.spawn("four", 1).get())

    try:
        slow.remote(60)
    except squall.exception.FunctionTimeoutError as error:
        print("too slow:", "timeout of 1 s" in str(error))

    call = slow.spawn(0.9)
    call.cancel()
    try:
        call.get()
    except squall.exception.RemoteError:
        print("cancelled")
