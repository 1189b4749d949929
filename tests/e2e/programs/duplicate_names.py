"""Two functions of one name."""

import squall

app = squall.App("duplicate-names")


@app.function()
def which() -> str:
    return "first"


@app.function(name="which")
def which_too() -> str:
    return "second"


@app.local_entrypoint()
def main() -> None:
    print("answer:", which_too.remote())


@app.local_entrypoint()
def first() -> None:
    print("answer:", which.remote())
