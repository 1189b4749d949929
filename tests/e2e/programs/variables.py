"""A class with a variable that nobody is to see, and an object of it with another one."""

from __future__ import annotations

import os

import squall

app = squall.App("variables")


@app.cls(env={"TOKEN": "planted-4711", "PLACE": "planted-4711"}, serialized=True)
class Vault:
    size: int = squall.parameter(default=1)

    @squall.method()
    def open(self) -> None:
        raise ValueError(f"{len(os.environ['TOKEN'])} and {len(os.environ.get('PLACE', ''))} characters")


@app.local_entrypoint()
def main() -> None:
    other = Vault.with_options(env={"TOKEN": "planted-4711!"})  # type: ignore[attr-defined]
    for vault in (Vault(size=2), other(size=3)):  # type: ignore[call-arg]
        try:
            vault.open.remote()
        except ValueError as error:
            print(error)
