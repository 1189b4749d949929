"""A program whose call is given up by Ctrl-C and whose app goes on, as in a notebook."""

import os
import signal
import sys
import threading
import time
from collections.abc import Callable

import squall

app = squall.App("interrupted")


@app.function()
def sleep(duration_s: float) -> float:
    time.sleep(duration_s)
    return duration_s


CALLS: dict[str, Callable[[], object]] = {
    "remote": lambda: sleep.remote(60.0),
    "map": lambda: list(sleep.map([60.0])),
    "for_each": lambda: sleep.for_each([60.0]),
}

if __name__ == "__main__":
    with app.run():
        sleep.remote(0.0)
        threading.Timer(1, os.kill, (os.getpid(), signal.SIGINT)).start()
        try:
            CALLS[sys.argv[1]]()
        except KeyboardInterrupt:
            print("interrupted", flush=True)
        time.sleep(6)
        print("afterwards:", sleep.remote(0.0))
