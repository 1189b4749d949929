"""The smallest app."""

import squall

app = squall.App("square")


@app.function()
def square(x: int) -> int:
    return x * x


@app.local_entrypoint()
def main(x: int = 7) -> None:
    print(square.remote(x))
