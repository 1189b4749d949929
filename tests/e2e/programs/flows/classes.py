"""Classes as a caller from outside uses them: hooks that leave traces, objects that tell where they are."""

# mypy: disable-error-code="call-arg, no-untyped-def, type-arg"
# To mypy, which does not see through `app.cls`, a decorated class is the one below.

import os
import sys
import time

import squall

app = squall.App("classes")


@app.cls(scaledown_window=2)
class Model:
    size: int = squall.parameter()

    @squall.enter()
    def load(self):
        print(f"enter {self.size}", flush=True)
        self.served = 0

    @squall.method()
    def times(self, x: int) -> tuple[int, str]:
        self.served += 1
        return x * self.size, os.environ["SQUALL_CONTAINER_ID"]

    @squall.method()
    def slow(self, seconds: float) -> tuple[int, str]:
        print("begun", flush=True)
        time.sleep(seconds)
        return self.size, os.environ["SQUALL_CONTAINER_ID"]

    @squall.method()
    def other(self, x: int) -> int:
        """A variant made in a container."""
        return Model(size=self.size + 1).times.remote(x)[0]

    @squall.exit()
    def leave(self):
        time.sleep(1.5)
        print(f"exit {self.size} after {self.served}", flush=True)


@app.cls()
class Broken:
    @squall.enter()
    def load(self):
        raise LookupError("no such model")

    @squall.method()
    def run(self) -> None:
        """Never."""


@app.cls()
class Echo:
    pitch: int = squall.parameter(default=0)

    @squall.method()
    def say(self, text: str) -> str:
        print(text)
        return os.environ["SQUALL_CONTAINER_ID"]


@app.function()
def through(model, times) -> tuple[int, int]:
    return model.times.remote(2)[0], times.remote(3)[0]


@app.local_entrypoint()
def spawned(count: int = 3):
    calls = [Model(size=number).slow.spawn(4.0) for number in range(count)]
    print("spawned", flush=True)
    for call in calls:
        print("result:", *call.get(), flush=True)


@app.local_entrypoint()
def ends(how: str):
    print(Model(size=5).slow.remote(0.0)[0], flush=True)
    if how == "interrupt":
        print("waiting", flush=True)
        time.sleep(60)
    if how == "scaledown":
        time.sleep(6)
    sys.stdout.flush()
