"""An image as a Dockerfile describes it: two stages, files of a context, a user without rights, an entrypoint.

    SQUALL_EXAMPLE_IMAGE=registry.example/python:3.12-slim squall run dockerfile.py

`dockerfile/Dockerfile.dockerignore` says which files do not travel. The base must have a Python; `add_python=` would
put one in.
"""

import os
from pathlib import Path

import squall

HERE = Path(__file__).parent
BASE = os.environ.get("SQUALL_EXAMPLE_IMAGE")

app = squall.App("dockerfile")

image = squall.Image.from_dockerfile(
    HERE / "dockerfile" / "Dockerfile",
    context_dir=HERE / "local_files",
    build_args={"BASE": BASE} if BASE else {},
).dockerfile_commands("RUN wc -l < all.txt > ~/count.txt")


@app.function(image=image)
def look() -> tuple[str, str, str]:
    import getpass

    count = Path("~/count.txt").expanduser().read_text().strip()
    return getpass.getuser(), count, os.environ.get("ENTERED", "no")


@app.local_entrypoint()
def main() -> None:
    user, count, entered = look.remote()
    print(user, "has", count, "words; by the entrypoint:", entered)
