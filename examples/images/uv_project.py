"""The packages of a uv project, with the extras and groups that are asked for.

A project of your own has its `uv.lock`, made by `uv lock`: leave `frozen=False` out then, and the image has exactly its
versions. Here there is none, because a lock file names the package index it was made with.
"""

from pathlib import Path

import squall

HERE = Path(__file__).parent

app = squall.App("uv-project")

image = squall.Image.debian_slim().uv_sync(str(HERE / "uv_project"), extras=["old"], frozen=False)


@app.function(image=image)
def packages() -> list[str]:
    import sys
    from importlib.metadata import distributions

    assert sys.prefix == "/.venv", "functions run in the environment that uv made"
    return sorted(
        found.metadata["Name"]
        for found in distributions(path=[f"/.venv/lib/python3.{sys.version_info[1]}/site-packages"])
    )


@app.local_entrypoint()
def main() -> None:
    print("the project's packages are", *packages.remote())
