"""Variables, a directory to start in, another shell for the steps, and a program that starts the container's."""

import os

import squall

app = squall.App("environment")

ENTRY = """#!/bin/sh
# What it is given is what the container is to run: it must end in executing that.
export STARTED_BY="$0"
exec "$@"
"""

image = (
    squall.Image.debian_slim()
    .env({"GREETING": "hello", "PYTHONUTF8": "1"})
    .workdir("/srv/app")
    .shell(["/bin/bash", "-euo", "pipefail", "-c"])
    # Arrays are of bash alone.
    .run_commands('words=("$GREETING" from "$PWD"); echo "${words[*]}" > written')
    .run_commands(f"cat > /usr/local/bin/enter <<'END'\n{ENTRY}END", "chmod +x /usr/local/bin/enter")
    .entrypoint(["/usr/local/bin/enter"])
)


@app.function(image=image)
def look() -> tuple[str, str, str, str]:
    with open("written") as file:
        return file.read().strip(), os.getcwd(), os.environ["GREETING"], os.environ["STARTED_BY"]


@app.local_entrypoint()
def main() -> None:
    print(*look.remote(), sep=" | ")
