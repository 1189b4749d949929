"""An image of a registry, and a Python put into it that needs nothing of the image but its C library.

    SQUALL_EXAMPLE_IMAGE=registry.example/team/tool:1 REGISTRY_USERNAME=… REGISTRY_PASSWORD=… squall run registry.py

A private registry's user and password are read here when the image is used, and are kept nowhere. For an image that has
its own Python leave `add_python` out: SQUALL_EXAMPLE_PYTHON="" does that here.
"""

import os
import sys
from pathlib import Path

import squall

app = squall.App("registry")

NAME = os.environ.get("SQUALL_EXAMPLE_IMAGE", "ubuntu:24.04")
PYTHON = os.environ.get("SQUALL_EXAMPLE_PYTHON", f"{sys.version_info[0]}.{sys.version_info[1]}")
LOGIN = ["REGISTRY_USERNAME", "REGISTRY_PASSWORD"]

secret = squall.Secret.from_local_environ(LOGIN) if all(name in os.environ for name in LOGIN) else None
image = squall.Image.from_registry(NAME, secret=secret, add_python=PYTHON or None)


@app.function(image=image)
def look() -> tuple[str, bool]:
    system = dict(line.split("=", 1) for line in Path("/etc/os-release").read_text().splitlines() if "=" in line)
    return system["ID"].strip('"'), any(name in os.environ for name in LOGIN)


@app.local_entrypoint()
def main() -> None:
    system, knows_login = look.remote()
    print("runs in", system, "and", "knows" if knows_login else "does not know", "the password")
