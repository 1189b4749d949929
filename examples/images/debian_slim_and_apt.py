"""A minimal Debian with packages of its own: the usual beginning of an image."""

import subprocess

import squall

app = squall.App("debian-slim-and-apt")

image = squall.Image.debian_slim().apt_install("jq").run_commands("jq --version > /srv/version")


@app.function(image=image)
def select(text: str) -> str:
    return subprocess.run(["jq", "-c", ".wanted"], input=text, capture_output=True, text=True, check=True).stdout


@app.local_entrypoint()
def main() -> None:
    print("jq found", select.remote('{"wanted": [1, 2, 3], "other": 4}').strip())
