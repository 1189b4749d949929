"""Secrets in images that are built, in variants, and in apps that are made in containers."""

from __future__ import annotations

import json
import os

import squall

NAMED = squall.Secret.from_name("e2e-passed")
IMAGE = squall.Image.debian_slim().run_commands(
    'test -n "$PASSED" && echo "of the step: $PASSED" && printf %s "$PASSED" | wc -c > /srv/length', secrets=[NAMED]
)

app = squall.App("passing-secrets")
child = squall.App("child-of-passing")


def _length(name: str) -> int:
    return len(os.environ.get(name, ""))


@app.function(image=IMAGE)
def of_step() -> list[int]:
    with open("/srv/length") as file:
        return [int(file.read()), _length("PASSED")]


@app.function(secrets=[NAMED])
def of_variant() -> list[int]:
    return [_length("PASSED"), _length("OTHER")]


@app.cls(secrets=[NAMED])
class Vault:
    name: str = squall.parameter()

    @squall.enter()
    def look(self) -> None:
        self.seen = [_length("PASSED"), _length("OTHER")]

    @squall.method()
    def tell(self) -> list[int]:
        return self.seen


@child.function(secrets=[NAMED, squall.Secret.from_dict({"MADE_INSIDE": "12345"})], serialized=True)
def below() -> list[int]:
    import os

    return [len(os.environ.get(name, "")) for name in ("PASSED", "MADE_INSIDE")]


@app.function()
def above() -> list[object]:
    refused = ""
    try:
        squall.Secret.objects.create("e2e-inside", {"A": "1"})
    except squall.exception.PermissionDeniedError as error:
        refused = str(error)
    with child.run():
        return [below.remote(), NAMED.hydrate().name, _length("PASSED"), refused]


@app.local_entrypoint()
def main() -> None:
    other = of_variant.with_options(secrets=[squall.Secret.from_dict({"OTHER": "1234"})])
    vault = Vault(name="a").tell.remote()  # type: ignore[call-arg]
    another = Vault.with_options(secrets=[squall.Secret.from_dict({"OTHER": "12"})])  # type: ignore[attr-defined]
    vaults = [vault, another(name="a").tell.remote(), another(name="b").tell.remote()]
    print(json.dumps([of_step.remote(), of_variant.remote(), other.remote(), other.remote(), above.remote(), vaults]))
