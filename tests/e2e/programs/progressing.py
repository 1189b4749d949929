"""A function that shows how far it is before its line ends."""

import os
import subprocess
import time

import squall

app = squall.App("progressing")


@app.function()
def steps() -> None:
    print("waiting", end="", flush=True)
    time.sleep(1.0)
    print(" and done")
    for percent in range(0, 100, 5):
        print(f"\r{percent}%", end="")
        time.sleep(0.02)
    print("\r100%")
    subprocess.run(["printf", "child 1%%\\rchild 2%%\\n"], check=True)


@app.function()
def crash() -> None:
    print("about to crash", end="", flush=True)
    os._exit(3)


@app.function()
@squall.concurrent(max_inputs=4)
def several(x: int) -> None:
    for _ in range(4):
        print(x, end="", flush=True)
        time.sleep(0.05)
    print()


@app.local_entrypoint()
def mixed() -> None:
    list(several.map(range(4)))
