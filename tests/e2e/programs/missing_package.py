"""Imports a package that the caller has and the image lacks."""

import click

import squall

app = squall.App("missing-package")


@app.function()
def use() -> str:
    return click.__name__


@app.local_entrypoint()
def main() -> None:
    print(use.remote())
