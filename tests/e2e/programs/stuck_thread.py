"""A thread that does not stop when its call is cancelled, beside one that has work to do, in a class with hooks."""

import os
import time

import squall

app = squall.App("stuck-thread")


@app.cls(max_containers=1)
@squall.concurrent(max_inputs=2)
class Model:
    @squall.enter()
    def load(self) -> None:
        print("entered", os.environ["SQUALL_CONTAINER_ID"], flush=True)

    @squall.method()
    def nap(self, seconds: float) -> str:
        time.sleep(seconds)
        return os.environ["SQUALL_CONTAINER_ID"]

    @squall.exit()
    def leave(self) -> None:
        print("left", os.environ["SQUALL_CONTAINER_ID"], flush=True)


@app.local_entrypoint()
def main() -> None:
    model = Model()
    first = model.nap.remote(0)
    stuck, other = model.nap.spawn(60), model.nap.spawn(6)
    time.sleep(1)
    stuck.cancel()
    second = other.get()
    print("first:", first)
    print("second:", second)
